"""Seconds of a phase on a GPU: the time at the datasheet's peaks, divided by the share of each peak that training
reaches.

A product takes the time of its arithmetic and of its operands, attention the time of its arithmetic, everything else
the time of its bytes; the host launches the kernels meanwhile, and the slower of the two sets the pace (Williams et
al. 2009, with efficiencies in the place of 1). The efficiencies are fitted on published throughput by
`python -m benchmarks.time.bench --write-efficiencies` and live in efficiencies.toml.
"""

from dataclasses import dataclass

from rankwise.estimate.efficiency import Efficiency
from rankwise.methods import tuner
from rankwise.records import DeviceFacts, PhaseWork, Setup

BYTES = {"bf16": 2, "fp16": 2, "fp32": 4, "int8": 1}
# How sharply the slower of GPU and host wins: their p-norm, so that near the crossing both count.
CROSSING = 4.0


@dataclass(frozen=True)
class Ideal:
    """Seconds at the peaks, and the number of kernels.

    Attributes:
        products: of each shape in 16 bit, (its arithmetic, its operands); wide_products: the same in fp32.
    """

    products: tuple[tuple[float, float], ...]
    wide_products: tuple[tuple[float, float], ...]
    attention: float
    traffic: float
    unpacking: float
    gptq_unpacking: float
    kernels: float


@dataclass(frozen=True)
class Rates:
    """Peaks of a device: FLOP/s in 16 bit and in fp32, bytes per second of its memory."""

    narrow: float
    wide: float
    bandwidth: float


def rates_of(device: DeviceFacts, setup: Setup) -> Rates | None:
    """None where one that the step needs is not known. Tensor cores run fp16 as fast as bf16."""
    known = device.matmul_flops
    arithmetic = setup.autocast or setup.dtype
    wide = known.get("fp32")
    narrow = (
        wide if arithmetic == "fp32" else known.get(arithmetic) or (known.get("bf16") if arithmetic == "fp16" else None)
    )
    if narrow is None or wide is None or device.bandwidth is None:
        return None
    return Rates(narrow, wide, device.bandwidth)


def ideal(work: PhaseWork, setup: Setup, peaks: Rates, mean_length: float) -> Ideal:
    """The phase at the peaks, for rows of `mean_length` tokens instead of the traced `setup.max_length`.

    What belongs to tokens shrinks in proportion, attention with the square; weights that are rebuilt and kernels that
    are launched stay.
    """
    share = mean_length / setup.max_length
    tokens = setup.per_device_train_batch_size * setup.max_length
    narrow, wide = [], []
    gptq = tuner(setup.method).base == "gptq"
    for product in work.products:
        m, n, k = _at_length(product.m, product.n, product.k, product.batch, tokens, setup.max_length, share)
        flops = 2.0 * product.count * product.batch * m * n * k
        operands = product.count * product.batch * (m * k + k * n + m * n) * BYTES[product.dtype] / peaks.bandwidth
        if product.dtype == "fp32":
            wide.append((flops / peaks.wide, operands))
        else:
            narrow.append((flops / peaks.narrow, operands))
    return Ideal(
        products=tuple(narrow),
        wide_products=tuple(wide),
        attention=work.attention_flops * share * share / peaks.narrow,
        traffic=work.moved_bytes * share / peaks.bandwidth,
        unpacking=0.0 if gptq else work.unpacked_bytes / peaks.bandwidth,
        gptq_unpacking=work.unpacked_bytes / peaks.bandwidth if gptq else 0.0,
        kernels=work.kernels,
    )


def _at_length(
    m: int, n: int, k: int, batch: int, tokens: int, length: int, share: float
) -> tuple[float, float, float]:
    """The product for shorter rows. Of a plain product one side is the tokens: the inner one of a weight's gradient,
    else the outer one; products in a batch are eager attention's, whose sides are lengths.
    """
    if batch > 1:
        scaled = [d * share if d == length else float(d) for d in (m, n, k)]
        return scaled[0], scaled[1], scaled[2]
    if k == tokens and m != tokens:
        return m, n, k * share
    return m * share, n, k


def seconds(at_peak: Ideal, reached: Efficiency) -> float:
    """The phase as it runs."""
    device = (
        _slower(at_peak.products, reached.products, reached.traffic)
        + _slower(at_peak.wide_products, reached.wide_products, reached.traffic)
        + at_peak.attention / reached.attention
        + at_peak.traffic / reached.traffic
        + at_peak.unpacking / reached.unpacking
        + at_peak.gptq_unpacking / reached.gptq_unpacking
    )
    host = at_peak.kernels * reached.launch
    return float((device**CROSSING + host**CROSSING) ** (1 / CROSSING))


def _slower(products: tuple[tuple[float, float], ...], arithmetic: float, traffic: float) -> float:
    """Of each product its arithmetic or its operands, whichever takes longer."""
    return sum(max(a / arithmetic, o / traffic) for a, o in products)
