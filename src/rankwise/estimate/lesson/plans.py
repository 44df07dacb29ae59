"""What the lesson's decision function answered, asked of `rankwise plan`."""

from collections.abc import Callable
from typing import Any

from rankwise.errors import UsageError
from rankwise.estimate.lesson.desk import LARGE, Desk
from rankwise.records import Plan
from rankwise.records.tables import Figure

# Checkpointing is on, as the lesson says and its memory allows for.
USUAL: dict[str, Any] = {
    "hardware__gpu": LARGE,
    "hardware__count": 1,
    "data__examples": 50_000,
    "data__tokens_per_example": 512,
    "train__gradient_checkpointing": True,
}
SMALL_MODEL = "llama-3.2-1b"
MANY, FEW = 20_000_000, 5_000


def words(name: str, value: str | int | None) -> Figure:
    return Figure(name=name, value=value, unit="")


def large_for_ten(desk: Desk) -> Plan:
    return desk.plan(**{**USUAL, "model": "llama-3-70b", "goal": "instruction", "variants": 10})


def knowledge_13b(desk: Desk) -> Plan:
    return desk.plan(**{**USUAL, "model": "llama-2-13b", "goal": "knowledge", "hardware__count": 2})


def small(desk: Desk, goal: str, examples: int, variants: int = 1) -> Plan:
    asked = {**USUAL, "model": SMALL_MODEL, "goal": goal, "data__examples": examples, "variants": variants}
    return desk.plan(**asked)


def variants_against_hardware(desk: Desk) -> list[Figure]:
    decided = large_for_ten(desk)
    chosen = decided.chosen()
    fits = None if chosen is None else "yes" if chosen.memory.fits else "no"
    return [words("answer", decided.verdict.method), words("the answer fits", fits)]


def lora_is_tested(desk: Desk) -> list[Figure]:
    decided = large_for_ten(desk)
    lora = [e for e in decided.candidates if e.method == "lora"]
    fits = "yes" if any(e.memory.fits for e in lora) else "no"
    return [words("answer", decided.verdict.method), words(f"LoRA fits one {LARGE}", fits)]


def nothing_runs(desk: Desk) -> list[Figure]:
    decided = desk.plan(**{**USUAL, "model": "llama-3.1-405b", "goal": "instruction"})
    return [words("answer", decided.verdict.method), words("rejected for memory", _rejected_by(decided, "memory_fits"))]


def lora_before_qlora(desk: Desk) -> list[Figure]:
    return [words("answer", knowledge_13b(desk).verdict.method)]


def objective_against_variants(desk: Desk) -> list[Figure]:
    return [words("answer", small(desk, "knowledge", MANY, variants=4).verdict.method)]


def narrow_task(desk: Desk) -> list[Figure]:
    return [words("answer", small(desk, "task", MANY).verdict.method)]


def typo(desk: Desk) -> list[Figure]:
    try:
        answer = desk.plan(**{**USUAL, "model": SMALL_MODEL, "goal": "domain-knowledge"}).verdict.method
    except UsageError as error:
        answer = f"refused: {error.fix}"
    return [words("answer", answer)]


def budget(desk: Desk) -> list[Figure]:
    """The lesson's example with a budget that pays for nothing."""
    asked = {**USUAL, "model": "llama-2-13b", "goal": "instruction", "hardware__count": 2, "variants": 5}
    decided = desk.plan(**{**asked, "data__examples": 200_000, "budget__usd": 1.0})
    over = _rejected_by(decided, "within_usd")
    warned = next((w for w in decided.warnings if "budget.usd" in w), None)
    return [
        words("with a budget of 1 USD", decided.verdict.method),
        words("what is said of the budget", f"rejected over it: {over}" if over else warned),
    ]


def data_decides(desk: Desk) -> list[Figure]:
    return [words(f"{count:,} examples", small(desk, "task", count).verdict.method) for count in (FEW, MANY)]


def losers_are_named(desk: Desk) -> list[Figure]:
    decided = knowledge_13b(desk)
    named = sum(1 for r in decided.rejected if r.rule and (r.number or r.text))
    return [Figure(name="rejected options with their rule", value=named, unit="options")]


def why_not_full(desk: Desk) -> list[Figure]:
    decided = knowledge_13b(desk)
    full = next((r for r in decided.rejected if r.method.startswith("full")), None)
    return [words("why full fine-tuning is out", f"{full.rule}: {full.number}" if full else None)]


def before_training(desk: Desk) -> list[Figure]:
    return [
        Figure(
            name="cheaper rungs named before training", value=len(knowledge_13b(desk).verdict.first_try), unit="rungs"
        )
    ]


def _rejected_by(decided: Plan, rule: str) -> str | None:
    return ", ".join(r.method for r in decided.rejected if r.rule == rule) or None


CHECKS: dict[str, Callable[[Desk], list[Figure]]] = {
    "F1": variants_against_hardware,
    "F2": lora_is_tested,
    "F3": nothing_runs,
    "F4": lora_before_qlora,
    "F5": objective_against_variants,
    "F6": narrow_task,
    "F7": typo,
    "F8": budget,
    "F10": data_decides,
    "F15": losers_are_named,
    "F16": why_not_full,
    "F18": before_training,
}
