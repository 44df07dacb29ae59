"""Named exclusions. Each is a function (job, facts, candidate, estimate) -> Rejection with the number that broke it,
or None.

A `hard` rule says that a candidate cannot run here; a `soft` one that another is the better call. A forced method
overrides soft rules (they become warnings) and never hard ones."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from rankwise.decide.capacity import ASSUMED_NATS_PER_TOKEN, LEAST_HEADROOM, bits_per_parameter, need_bits
from rankwise.methods import METHODS
from rankwise.records import Candidate, Estimate, Facts, Job, Rejection


@dataclass(frozen=True)
class Priced:
    """A candidate with its estimate."""

    candidate: Candidate
    estimate: Estimate


Rule = Callable[[Job, Facts, Priced, list[Priced]], Rejection | None]


@cache
def evidence() -> dict[str, dict[str, str]]:
    """Id -> source, text, confidence and, where sources disagree, other_side."""
    return tomllib.loads(files("rankwise.decide").joinpath("evidence.toml").read_text(encoding="utf-8"))


def cite(*ids: str) -> tuple[str, ...]:
    """Evidence spelled out for the reader: id, source, what it found, and the other side."""
    entries = [(i, evidence()[i]) for i in ids]
    return tuple(
        f"{i}: {e['source']}. {e['text']}" + (f" The other side: {e['other_side']}" if "other_side" in e else "")
        for i, e in entries
    )


def capacity_bits(job: Job, priced: Priced) -> float:
    """Bits that a candidate's trained parameters can hold."""
    return bits_per_parameter(job) * priced.estimate.trainable_params


def memory_fits(job: Job, facts: Facts, priced: Priced, others: list[Priced]) -> Rejection | None:
    memory = priced.estimate.memory
    if memory.fits:
        return None
    return Rejection(
        method=priced.candidate.id,
        rule="memory_fits",
        number=f"{memory.interval[1] / 1e9:.2f} GB needed at the upper end, {memory.room / 1e9:.2f} GB there",
        text=f"{priced.candidate.id} does not fit into the memory of {facts.device.name}.",
        would_flip_if=f"the device had {memory.interval[1] / 1e9:.1f} GB",
    )


def within_hours(job: Job, facts: Facts, priced: Priced, others: list[Priced]) -> Rejection | None:
    seconds, hours = priced.estimate.time.train_seconds, job.budget.hours
    if hours is None or seconds is None or seconds <= hours * 3600:
        return None
    return Rejection(
        method=priced.candidate.id,
        rule="within_hours",
        number=f"{seconds / 3600:.2f} h predicted, budget {hours:g} h",
        text=f"{priced.candidate.id} takes longer than the budget allows.",
        would_flip_if=f"the budget were {seconds / 3600:.2f} h",
    )


def within_usd(job: Job, facts: Facts, priced: Priced, others: list[Priced]) -> Rejection | None:
    usd = priced.estimate.money.train_usd
    if job.budget.usd is None or usd is None or usd <= job.budget.usd:
        return None
    return Rejection(
        method=priced.candidate.id,
        rule="within_usd",
        number=f"{usd:,.2f} USD predicted, budget {job.budget.usd:,.2f} USD",
        text=f"{priced.candidate.id} costs more than the budget allows.",
        would_flip_if=f"the budget were {usd:,.2f} USD",
    )


def disk_fits(job: Job, facts: Facts, priced: Priced, others: list[Priced]) -> Rejection | None:
    needed, free = priced.estimate.storage.run_bytes, facts.device.disk_free_bytes
    if free is None or needed <= free:
        return None
    return Rejection(
        method=priced.candidate.id,
        rule="disk_fits",
        number=f"{needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free",
        text=f"The run folder of {priced.candidate.id} does not fit on this disk.",
        would_flip_if=f"{needed / 1e9:.1f} GB were free, or train.save_total_limit were lower",
    )


def engine_serves(job: Job, facts: Facts, priced: Priced, others: list[Priced]) -> Rejection | None:
    """What the serving engine cannot load without merging need not be trained for several tenants."""
    if job.serving.engine != "vllm" or METHODS[priced.candidate.method].vllm:
        return None
    return Rejection(
        method=priced.candidate.id,
        rule="engine_serves",
        number=None,
        text=f"vLLM does not serve adapters of {priced.candidate.method}.",
        would_flip_if="serving.engine were embedded",
    )


def capacity_suffices(job: Job, facts: Facts, priced: Priced, others: list[Priced]) -> Rejection | None:
    """An adapter that can hold less than half of what is to be learned is the wrong tool."""
    if priced.candidate.method == "full":
        return None
    need, capacity = need_bits(job, facts), capacity_bits(job, priced)
    if capacity >= LEAST_HEADROOM * need:
        return None
    return Rejection(
        method=priced.candidate.id,
        rule="capacity_suffices",
        number=f"{capacity / 1e6:.1f} Mbit held, {need / 1e6:.1f} Mbit to learn (assuming "
        f"{ASSUMED_NATS_PER_TOKEN:g} nats per supervised token)",
        text=f"{priced.candidate.id} cannot hold what this data teaches.",
        would_flip_if=f"the rank were {LEAST_HEADROOM * need / capacity:.1f} times higher",
    )


def adapter_suffices(job: Job, facts: Facts, priced: Priced, others: list[Priced]) -> Rejection | None:
    """Full fine-tuning where an adapter can learn the same for less."""
    lora = _usable(job, facts, others, "lora") or _usable(job, facts, others, "qlora")
    if priced.candidate.method != "full" or lora is None:
        return None
    return Rejection(
        method=priced.candidate.id,
        rule="adapter_suffices",
        number=f"checkpoint {priced.estimate.storage.checkpoint_bytes / 1e6:,.0f} MB against "
        f"{lora.estimate.storage.checkpoint_bytes / 1e6:,.0f} MB" + _serving(job, priced, lora),
        text=f"An adapter holds {capacity_bits(job, lora) / max(1, need_bits(job, facts)):.0f} times what this data "
        "teaches, so training every weight buys nothing that this goal needs.",
        would_flip_if="the data taught more than the adapter can hold",
    )


def _serving(job: Job, full: Priced, adapter: Priced) -> str:
    """What several variants need in a server's memory, as copies and as adapters; nothing to say for one."""
    if job.variants == 1:
        return ""
    copies, shared = (p.estimate.serving.all_variants_bytes / 1e6 for p in (full, adapter))
    return (
        f"; {job.variants} variants take {copies:,.0f} MB of memory as copies, {shared:,.0f} MB as adapters on one base"
    )


def quantisation_needed(job: Job, facts: Facts, priced: Priced, others: list[Priced]) -> Rejection | None:
    """QLoRA where plain LoRA fits: slower on the same device, and it trains against a rounded base."""
    lora = _usable(job, facts, others, "lora")
    if priced.candidate.method != "qlora" or lora is None:
        return None
    return Rejection(
        method=priced.candidate.id,
        rule="quantisation_needed",
        number=f"LoRA needs {lora.estimate.memory.interval[1] / 1e9:.2f} GB at the upper end of "
        f"{lora.estimate.memory.room / 1e9:.2f} GB",
        text="Plain LoRA fits, and 4-bit weights cost time in every pass and quality that nobody has to pay here.",
        would_flip_if=f"the device had less than {lora.estimate.memory.interval[1] / 1e9:.1f} GB",
    )


def recomputation_needed(job: Job, facts: Facts, priced: Priced, others: list[Priced]) -> Rejection | None:
    """Gradient checkpointing where the same method fits without: a third more FLOPs for memory that is not short."""
    if not priced.candidate.config.gradient_checkpointing:
        return None
    plain = [p for p in others if p.candidate.method == priced.candidate.method and p is not priced]
    plain = [p for p in plain if not p.candidate.config.gradient_checkpointing and p.estimate.memory.fits]
    if not plain:
        return None
    return Rejection(
        method=priced.candidate.id,
        rule="recomputation_needed",
        number=f"{plain[0].estimate.memory.interval[1] / 1e9:.2f} GB needed without, "
        f"{plain[0].estimate.memory.room / 1e9:.2f} GB there",
        text="Activations fit, so computing them twice only costs time.",
        would_flip_if=f"the device had less than {plain[0].estimate.memory.interval[1] / 1e9:.1f} GB",
    )


HARD: tuple[Rule, ...] = (memory_fits, within_hours, within_usd, disk_fits, engine_serves)
SOFT: tuple[Rule, ...] = (capacity_suffices, recomputation_needed, quantisation_needed, adapter_suffices)
RULE_EVIDENCE: dict[str, tuple[str, ...]] = {
    "capacity_suffices": ("E6", "E14", "X2"),
    "adapter_suffices": ("E4", "E6", "E12"),
    "quantisation_needed": ("E13", "E2"),
    "many_variants": ("E25",),
    "trained_in_fp32": ("E30",),
    "facts_by_retrieval": ("E23", "E14"),
}


def first_broken(
    rules: tuple[Rule, ...], job: Job, facts: Facts, priced: Priced, others: list[Priced]
) -> Rejection | None:
    return next((broken for rule in rules if (broken := rule(job, facts, priced, others))), None)


def _usable(job: Job, facts: Facts, others: list[Priced], method: str) -> Priced | None:
    """The first candidate of a method that can run here and can hold what is to be learned."""
    for priced in others:
        if priced.candidate.method == method and not first_broken(
            (*HARD, capacity_suffices), job, facts, priced, others
        ):
            return priced
    return None
