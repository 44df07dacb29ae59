"""How much of a GPU's peaks training reaches, and how far such predictions lie from measured throughput.

efficiencies.toml is fitted on published throughput and written by `python -m benchmarks.time.bench
--write-efficiencies`; its intervals are those of predictions for sources that took no part in the fit.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from rankwise.estimate.memory import family
from rankwise.records import DeviceFacts, Setup

GENERATIONS = (
    (10.0, "blackwell"),
    (9.0, "hopper"),
    (8.9, "ada"),
    (8.6, "ampere-graphics"),
    (8.0, "ampere"),
    (0.0, "turing"),
)
# On a CPU before it was calibrated: the fit is from one machine (docs/log.md).
ON_CPU = (0.5, 2.0)


@dataclass(frozen=True)
class Efficiency:
    """Shares of the peaks (0 to 1) and the host's seconds a kernel.

    Attributes:
        products: of the 16-bit matmul peak. wide_products: of the fp32 peak.
        attention: of the 16-bit matmul peak, by fused kernels.
        traffic: of the memory bandwidth, by elementwise kernels and the operands of products.
        unpacking: of the memory bandwidth, by bitsandbytes' kernels that rebuild weights; gptq_unpacking: by GPTQ's.
        launch: seconds of the host for one kernel.
        step: seconds of the host around a forward and backward pass (batch, logging, synchronisation).
        link: of the link between devices. overlap: share of the shorter of arithmetic and communication that hides.
    """

    products: float
    wide_products: float
    attention: float
    traffic: float
    unpacking: float
    gptq_unpacking: float
    launch: float
    step: float
    link: float
    overlap: float


def generation(device: DeviceFacts) -> str:
    """The architecture that shares efficiencies: by compute capability; `other` where there is none (AMD)."""
    if device.compute_capability is None:
        return "other"
    return next(name for least, name in GENERATIONS if device.compute_capability >= least)


def efficiency_of(device: DeviceFacts) -> Efficiency:
    """The fitted shares of a device's generation."""
    table = _table()
    return Efficiency(**{**table["every"], **table["generation"].get(generation(device), {})})


def efficiency_source() -> str:
    return str(_table()["source"])


def relative_error(device: DeviceFacts, setup: Setup) -> tuple[float, float]:
    """Low and high factor on a predicted duration, 90 % of the published runs; wider for unseen architectures."""
    if device.kind == "cpu":
        return ON_CPU
    table = _table()
    seen = "seen" if generation(device) in table["generation"] else "unseen"
    low, high = table["interval"][seen].get(family(setup.method), table["interval"][seen]["any"])
    return float(low), float(high)


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(files("rankwise.estimate").joinpath("efficiencies.toml").read_text(encoding="utf-8"))
