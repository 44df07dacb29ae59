"""Sentences about another tool's configuration."""

from typing import Any

from rankwise.records import Estimate
from rankwise.records.recipe import Brought, Change, Recipe, Risk
from rankwise.report.glossary import method_name
from rankwise.report.quantities import duration, duration_range, size, size_range, usd, usd_range

TOOLS = {"axolotl": "Axolotl", "llama-factory": "LLaMA-Factory", "trl": "TRL", "args": "a script around the Trainer"}


def recipe_title(recipe: Recipe) -> str:
    """qlora.yml (Axolotl 0.18.0): QLoRA of NousResearch/Meta-Llama-3-8B, r = 32, batch 2 x 4 rows of 4,096 tokens."""
    options = recipe.options
    said = [f"r = {options['rank']}"] if options.get("rank") else []
    length = f" of {options['seq_len']:,} tokens" if options.get("seq_len") else ""
    said.append(f"batch {options.get('batch', 1)} x {options.get('grad_accum', 1)} rows{length}")
    if options.get("parallel"):
        said.append(str(options["parallel"]))
    name = recipe.file or "The arguments"
    method = "full fine-tuning" if recipe.method == "full" else method_name(recipe.method)
    return f"{name} ({TOOLS[recipe.tool]} {recipe.tool_version}): {method} of {recipe.model}, {', '.join(said)}."


def given_lines(brought: Brought) -> list[str]:
    """Does it fit, and what will it cost? Unknown is said to be unknown."""
    found = brought.given
    if found is None:
        return [f"Not priced: {brought.not_priced}."]
    told = [note for note in found.notes if note not in brought.recipe.assumptions]
    return [_fit(found), _time(found), _storage(found), *(f"Note: {note}." for note in told)]


def _fit(found: Estimate) -> str:
    memory = found.memory
    needed = f"{size(memory.peak_device)} a device ({size_range(memory.interval)})"
    if memory.capacity is None:
        return f"Memory: {needed}; whether that fits is unknown without a GPU."
    word = "fits" if memory.fits else "does not fit"
    return f"Memory: {needed} of {size(memory.capacity)}: it {word}."


def _time(found: Estimate) -> str:
    time, money = found.time, found.money
    if time.train_seconds is None:
        step = "" if time.step_seconds is None else f"; a step takes {duration(time.step_seconds)}"
        return f"Time and money of the run: unknown{step}."
    span = f" ({duration_range(time.interval)})" if time.interval else ""
    said = f"Time: {duration(time.train_seconds)}{span}"
    if money.train_usd is None:
        return f"{said}; what it costs is unknown."
    around = f" ({usd_range(money.interval)})" if money.interval else ""
    return f"{said}; {usd(money.train_usd)}{around}."


def _storage(found: Estimate) -> str:
    return f"Storage: {size(found.storage.checkpoint_bytes)} a checkpoint that can be resumed."


def risk_line(risk: Risk) -> str:
    """fault · line 12 · lora_target_modules: what it does (number). Fix: …. Evidence: E4."""
    where = f"line {risk.line}, " if risk.line is not None else ""
    about = f"{where}{risk.key}: " if risk.key else where
    number = f" ({risk.number})" if risk.number else ""
    text = risk.text.removesuffix(".")
    cited = f" Evidence: {', '.join(risk.evidence)}." if risk.evidence else ""
    fix = risk.fix if risk.fix.endswith(("?", ".")) else f"{risk.fix}."
    return f"{risk.level.capitalize()}: {about}{text}{number}. Fix: {fix}{cited}"


def change_line(change: Change) -> str:
    """learning_rate: 2e-05 -> 0.0002: why."""
    return f"{change.key}: {_shown(change.theirs)} -> {_shown(change.ours)} ({change.why.removesuffix('.')})"


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
