"""Sentences about a plan: the call, its reasons, what it rejected and what would change it."""

from dataclasses import dataclass

from rankwise.records import DeviceFacts, Estimate, Plan, Reason, Rejection, TrainConfig
from rankwise.report.glossary import method_name
from rankwise.report.quantities import duration, duration_range, size, usd


@dataclass(frozen=True)
class Passage:
    """A title and the sentences under it."""

    title: str
    lines: tuple[str, ...]


def verdict_sentence(plan: Plan) -> str:
    """The call in one sentence; for `none`, what is missing."""
    verdict = plan.verdict
    if verdict.method == "none":
        return _nothing_sentence(plan)
    price = _price(plan.chosen())
    where = place(plan.facts.device)
    if verdict.parallel == "ddp":
        where += " (data-parallel)"
    return f"Train {method_phrase(verdict.method, verdict.config)} on {where}: {price}."


def method_phrase(method: str, config: TrainConfig | None) -> str:
    """LoRA (r = 8, all linear layers) · all weights (full fine-tuning)."""
    if method == "full":
        return "all weights (full fine-tuning)"
    if config is None or config.r is None:
        return method_name(method)
    targets = config.target_modules
    if targets in (None, "all-linear"):
        where = "all linear layers"
    else:
        where = targets if isinstance(targets, str) else ", ".join(targets or ())
    return f"{method_name(method)} (r = {config.r}, {where})"


def place(device: DeviceFacts) -> str:
    """Where it would run: this machine, or the devices by name."""
    if device.available_bytes is not None:
        return "this machine"
    return f"{device.count} x {device.name}" if device.count > 1 else f"one {device.name}"


def _price(estimate: Estimate | None) -> str:
    if estimate is None:
        return "time, memory and storage unknown"
    time, memory = estimate.time, estimate.memory
    if time.train_seconds is None:
        parts = ["time unknown"]
    else:
        span = f" ({duration_range(time.interval)})" if time.interval else ""
        parts = [f"about {duration(time.train_seconds)}{span}"]
    parts.append(f"{size(memory.peak_device)} of memory")
    if estimate.money.train_usd is not None:
        parts.append(usd(estimate.money.train_usd))
    parts.append(f"{size(stored_bytes(estimate))} to store")
    return ", ".join(parts)


def stored_bytes(estimate: Estimate) -> int:
    """What one result occupies on disk: the adapter, or the whole model."""
    adapter = estimate.storage.adapter_bytes
    return estimate.serving.per_variant_bytes if adapter is None else adapter


def _nothing_sentence(plan: Plan) -> str:
    where = place(plan.facts.device)
    smallest = min(plan.candidates, key=lambda e: e.memory.interval[1], default=None)
    if smallest is not None and not smallest.memory.fits:
        memory = smallest.memory
        return (
            f"Nothing fits {where}: the smallest option, {method_name(smallest.method)}, needs up to "
            f"{size(memory.interval[1])} of memory and there are {size(memory.room)}."
        )
    if plan.rejected:
        return f"Nothing can run on {where}. {rejection_line(plan.rejected[0])}"
    return f"Nothing can run on {where}, and the plan does not say why."


def plan_lines(plan: Plan) -> list[Passage]:
    """The reasons, the losers and what would change the call; passages without a line are left out."""
    passages = (
        Passage("Try first", plan.verdict.first_try),
        Passage("Why", tuple(map(reason_line, plan.reasons))),
        Passage("Rejected", tuple(map(rejection_line, plan.rejected))),
        Passage("What would change the call", tuple(f"If {f.if_}: {f.then}" for f in plan.flips)),
        Passage("Warnings", plan.warnings),
        Passage("Questions", plan.questions),
    )
    return [p for p in passages if p.lines]


def reason_line(reason: Reason) -> str:
    """The reason, the number that decided it and the ids of the evidence, which the page and plan.json spell out."""
    ids = ", ".join(e.partition(":")[0] for e in reason.evidence)
    return sentence(reason.text, reason.number) + (f" Evidence: {ids}." if ids else "")


def rejection_line(rejection: Rejection) -> str:
    """What was rejected, why, and what would bring it back."""
    flip = f" It would be chosen if {rejection.would_flip_if.rstrip('.')}." if rejection.would_flip_if else ""
    name = "" if rejection.text.startswith(rejection.method) else f"{method_name(rejection.method)}: "
    return f"{name}{sentence(rejection.text, rejection.number)}{flip}"


def sentence(text: str, number: str | None) -> str:
    """A sentence that ends in a full stop and names its number."""
    sentence = text.strip().removesuffix(".")
    if number and number not in text:
        sentence += f" ({number})"
    return sentence if sentence.endswith(("!", "?")) else sentence + "."
