"""Sentences and rows about one estimate."""

from dataclasses import dataclass

from rankwise.records import Configuration, Estimate
from rankwise.report.glossary import method_name
from rankwise.report.quantities import (
    count,
    share,
    size,
    size_range,
    size_scale,
)

PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "workspace")
BAR = 40  # characters for the whole peak


@dataclass(frozen=True)
class Row:
    """One line of the memory table: a name, its bytes in words, and what is beside it (a bar, or a sentence)."""

    name: str
    bytes: str
    beside: str
    is_part: bool


def title(asked: Configuration, estimate: Estimate) -> str:
    """llama-3-8b: QLoRA (r = 16, all linear layers), batch 1 x 2,048 tokens, bf16, on one A100-80GB."""
    return (
        f"{estimate.model}: {_method(asked)}, batch {asked.batch} x {asked.seq_len:,} tokens, {_precision(asked)}"
        f"{', gradient checkpointing' if asked.gradient_checkpointing else ''}, on {_where(asked)}"
    )


def _method(asked: Configuration) -> str:
    name = "full fine-tuning" if asked.method == "full" else method_name(asked.method)
    said = [f"r = {asked.rank}"] if asked.rank else []
    if asked.targets:
        named = asked.targets if isinstance(asked.targets, str) else ", ".join(asked.targets)
        said.append("all linear layers" if named == "all-linear" else named)
    return f"{name} ({', '.join(said)})" if said else name


def _precision(asked: Configuration) -> str:
    if asked.amp:
        return f"fp32 weights under {asked.dtype} autocast"
    return asked.dtype if asked.autocast == "none" else f"{asked.dtype} under {asked.autocast} autocast"


def _where(asked: Configuration) -> str:
    name = asked.gpu or "this machine"
    if asked.devices == 1:
        return name
    return f"{asked.devices} x {name} ({asked.parallel})"


def memory_rows(estimate: Estimate) -> list[Row]:
    """The parts of the peak as bars, then the three ways to count it, each apart from the others."""
    memory = estimate.memory
    scale = size_scale(memory.peak_device)
    rows = []
    for name in PARTS:
        number = getattr(memory, name)
        bar = "█" * round(BAR * number / max(memory.peak_allocated, 1)) or ("▏" if number else "")
        rows.append(Row(name, size(number, scale), bar, True))
    rows.append(
        Row("allocated", size(memory.peak_allocated, scale), f"in the {memory.peak_phase}, at {memory.peak_op}", False)
    )
    if memory.peak_reserved is not None:
        rows.append(Row("reserved", size(memory.peak_reserved, scale), "by PyTorch's caching allocator", False))
    fits = "fits" if memory.fits else "does not fit"
    there = "of unknown: nobody knows if it fits" if memory.capacity is None else f"of {size(memory.capacity)}: {fits}"
    rows.append(
        Row(
            "device",
            size(memory.peak_device, scale),
            f"{size_range(memory.interval)} {there}",
            False,
        )
    )
    return rows


def estimate_lines(estimate: Estimate) -> list[str]:
    """Other peaks, and what is trained."""
    memory = estimate.memory
    others = {"evaluation": memory.eval_peak, "saving": memory.save_peak, "merging, on the host": memory.merge_peak}
    said = [f"{name} {size(number)}" for name, number in others.items() if number is not None]
    return [
        f"Other peaks (allocated): {', '.join(said)}",
        f"Trained: {count(estimate.trainable_params)} of {count(estimate.total_params)} parameters "
        f"({share(estimate.trainable_params / estimate.total_params)})",
    ]


def change_row(words: str, estimate: Estimate, before: Estimate) -> tuple[str, str, str, str]:
    """(the change, its peak on the device, how much more or less, does it fit)."""
    memory, was = estimate.memory, before.memory.peak_device
    percent = round(100 * (memory.peak_device / was - 1))
    return (
        words,
        f"{size(memory.peak_device)} ({size_range(memory.interval)})",
        f"{percent:+d} %" if percent else "the same",
        "fits" if memory.fits else "does not fit",
    )
