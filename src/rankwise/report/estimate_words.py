"""Sentences and rows about one estimate."""

from dataclasses import dataclass

from rankwise.records import Configuration, Estimate
from rankwise.report.glossary import method_name
from rankwise.report.quantities import (
    count,
    duration,
    duration_range,
    rate,
    share,
    size,
    size_range,
    size_scale,
    usd,
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
    rows.append(
        Row(
            "device",
            size(memory.peak_device, scale),
            f"{size_range(memory.interval)} of {size(memory.capacity)}: {fits}",
            False,
        )
    )
    return rows


def estimate_lines(estimate: Estimate) -> list[str]:
    """Everything but the peak: other peaks, parameters, time, storage, serving."""
    memory, time, storage, serving = estimate.memory, estimate.time, estimate.storage, estimate.serving
    others = {"evaluation": memory.eval_peak, "saving": memory.save_peak, "merging": memory.merge_peak}
    said = [f"{name} {size(number)}" for name, number in others.items() if number is not None]
    lines = [
        f"Other peaks (allocated): {', '.join(said)}",
        f"Trained: {count(estimate.trainable_params)} of {count(estimate.total_params)} parameters "
        f"({share(estimate.trainable_params / estimate.total_params)})",
        f"Time: {duration(time.step_seconds)} a step, {rate(time.tokens_per_second)}"
        if time.step_seconds is not None
        else "Time: unknown",
    ]
    if time.train_seconds is not None:
        lines.append(f"Whole run: {duration(time.train_seconds)} ({duration_range(time.interval)})")
    if estimate.money.train_usd is not None:
        lines.append(f"Price: {usd(estimate.money.train_usd)}")
    adapter = "" if storage.adapter_bytes is None else f"adapter {size(storage.adapter_bytes)}, "
    lines.append(
        f"Storage: {adapter}checkpoint {size(storage.checkpoint_bytes)}, run {size(storage.run_bytes)} at most"
    )
    lines.append(f"Serving: base {size(serving.base_bytes)}, {size(serving.per_variant_bytes)} for each variant")
    return lines


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
