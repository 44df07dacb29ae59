"""What one change of a configuration would do to its peak: each answer is the changed step, traced."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rankwise.errors import RankwiseError
from rankwise.estimate.memory import device_name
from rankwise.estimate.options import OPTIONS
from rankwise.estimate.price import price_configuration
from rankwise.methods import tuner
from rankwise.records import Configuration, DeviceFacts, Estimate, Tariff
from rankwise.trace.stack import usual_stack

# Worth telling: a change that makes it fit, or takes more than this share off the peak.
WORTH = 0.03
SHARDED_OVER = (2, 4, 8)
LEAN_OPTIMIZERS = ("adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit")


@dataclass(frozen=True)
class Change:
    """One change, in words, and what the changed configuration would cost."""

    words: str
    estimate: Estimate


def single_changes(
    asked: Configuration,
    before: Estimate,
    device: DeviceFacts,
    larger: Sequence[DeviceFacts],
    tariff: Tariff,
    progress: Callable[[str, int, int], None],
) -> list[Change]:
    """The changes worth telling, those that fit first, then the smallest peak first.

    Args:
        larger: devices to try instead, in the order of their memory; the first that fits is told.
    """
    tried = [*_changed(asked, device)]
    found = []
    for done, (words, changed) in enumerate(tried, 1):
        if (estimate := _priced(changed, device, tariff)) is not None:
            found.append(Change(words, estimate))
        progress("single changes", done, len(tried))
    found += _larger_device(asked, larger, tariff)
    limit = (1 - WORTH) * before.memory.peak_device
    worth = [c for c in found if c.estimate.memory.fits or c.estimate.memory.peak_device < limit]
    return sorted(worth, key=lambda c: (not c.estimate.memory.fits, c.estimate.memory.peak_device))


def _priced(changed: Configuration, device: DeviceFacts, tariff: Tariff) -> Estimate | None:
    """None where the change cannot be made for this model or method."""
    several = device.model_copy(update={"count": changed.devices})
    try:
        return price_configuration(changed, several, tariff)
    except RankwiseError:
        return None


def _larger_device(asked: Configuration, larger: Sequence[DeviceFacts], tariff: Tariff) -> list[Change]:
    for device in larger:
        estimate = _priced(asked.model_copy(update={"gpu": device.name}), device, tariff)
        if estimate is not None and estimate.memory.fits:
            return [Change(f"--gpu {device.name}", estimate)]
    return []


def _changed(asked: Configuration, device: DeviceFacts) -> Iterator[tuple[str, Configuration]]:
    def change(words: str, **update: object) -> tuple[str, Configuration]:
        return words, asked.model_copy(update=update)

    if not asked.gradient_checkpointing:
        yield change("--gradient-checkpointing", gradient_checkpointing=True)
    for batch in sorted({1, asked.batch // 2} - {0, asked.batch}):
        accumulated = -(-asked.batch * asked.grad_accum // batch)
        yield change(f"--batch {batch} --grad-accum {accumulated}", batch=batch, grad_accum=accumulated)
    if asked.seq_len >= 2:
        half = asked.seq_len // 2
        real = None if asked.tokens_per_example is None else min(half, asked.tokens_per_example)
        yield change(f"--seq-len {half}", seq_len=half, tokens_per_example=real)
    if asked.attn != "flash" and device.kind == "gpu" and (device.compute_capability or 0) >= 8.0:
        yield change("--attn flash", attn="flash")
    if asked.loss not in ("fused-linear", "labelled"):
        stack = asked.stack or usual_stack(asked.setup(device_name(device)))  # the loss alone changes
        yield change("--loss fused-linear", loss="fused-linear", stack=stack)
    if asked.optimizer == "adamw_torch":
        for optimizer in LEAN_OPTIMIZERS:
            yield change(f"--optimizer {optimizer}", optimizer=optimizer)
    if asked.dropout:
        yield change("--dropout 0", dropout=0.0)
    if tuner(asked.method).base == "as-loaded":
        yield "--method qlora", _as_qlora(asked)
    if asked.parallel in ("none", "ddp"):
        for gpus in (n for n in SHARDED_OVER if n >= asked.devices):
            yield change(f"--parallel fsdp --gpus {gpus}", parallel="fsdp", gpus=gpus, nodes=1)


def _as_qlora(asked: Configuration) -> Configuration:
    rank = asked.rank or OPTIONS["rank"].default
    return asked.model_copy(
        update={
            "method": "qlora",
            "rank": rank,
            "alpha": 2.0 * rank,
            "targets": asked.targets or OPTIONS["targets"].default,
            "amp": False,
            "kbit_upcast": True,
            "double_quant": True,
            "prompt_length": None,
            "bottleneck": None,
            "notes": (),
        }
    )
