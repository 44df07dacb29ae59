"""Findings: each a pure function of plan and events -> Finding or None."""

from collections.abc import Callable, Sequence
from statistics import fmean

from rankwise.records import Event, Finding, Finished, Plan, Step, Validation
from rankwise.watch.spectral_findings import SPECTRAL_FINDINGS


def find(plan: Plan | None, events: Sequence[Event]) -> list[Finding]:
    """All findings that hold, in the order of FINDINGS; those that need a plan hold of no run without one."""
    found = (finding(plan, events) for finding in FINDINGS)
    return [f for f in found if f is not None]


def learned(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """Did held-out loss fall below the untouched base?"""
    losses = {e.step: e.loss for e in events if isinstance(e, Validation)}
    trained = {step: loss for step, loss in losses.items() if step > 0}
    if 0 not in losses or not trained:
        return None
    best = min(trained.values())
    fell = losses[0] - best
    if fell > 0:
        return Finding(
            name="learned",
            level="good",
            text="Held-out loss fell below that of the untouched base.",
            number=f"{losses[0]:.3f} -> {best:.3f} nats per token",
            advice=None,
        )
    return Finding(
        name="learned",
        level="fault",
        text="Held-out loss never fell below that of the untouched base: the run taught nothing that carries over.",
        number=f"{losses[0]:.3f} -> {best:.3f} nats per token",
        advice="try another learning rate (a third, or three times as much), and read the answers in the report",
    )


def overfitting(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """Held-out loss rose by more than 5 % from its best while training went on."""
    validations = [e for e in events if isinstance(e, Validation) and e.step > 0]
    if len(validations) < 3:
        return None
    best = min(validations, key=lambda v: v.loss)
    last = validations[-1]
    if last.loss <= 1.05 * best.loss or last.step == best.step:
        return None
    return Finding(
        name="overfitting",
        level="warning",
        text=f"Held-out loss was lowest at step {best.step} and rose until step {last.step}; the best one was kept.",
        number=f"{best.loss:.3f} -> {last.loss:.3f} nats per token",
        advice="train fewer epochs",
    )


def gradient_spikes(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """A gradient norm ten times the median of the run, after the first five steps."""
    norms = [e.grad_norm for e in events if isinstance(e, Step)]
    if len(norms) < 10:
        return None
    median = sorted(norms)[len(norms) // 2]
    worst = max(norms[5:])
    if worst < 10 * median or worst == 0:
        return None
    return Finding(
        name="gradient_spikes",
        level="warning",
        text="The gradient norm jumped to ten times its median or more; clipping limited the damage.",
        number=f"worst {worst:.2f}, median {median:.2f}",
        advice="lower the learning rate, or look for broken rows",
    )


def slower_than_planned(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """Training took longer than the upper end of the plan's interval."""
    estimate = plan.chosen() if plan else None
    steps = [e.seconds for e in events if isinstance(e, Step)]
    if estimate is None or estimate.time.interval is None or estimate.time.train_seconds is None or not steps:
        return None
    config = plan.verdict.config if plan else None
    projected = fmean(steps) * (config.max_steps if config else len(steps))
    if projected <= estimate.time.interval[1]:
        return None
    return Finding(
        name="slower_than_planned",
        level="warning",
        text="Steps took longer than the plan's interval allows.",
        number=f"{projected:,.0f} s for the whole run, planned {estimate.time.train_seconds:,.0f} s"
        f" ({estimate.time.interval[0]:,.0f} to {estimate.time.interval[1]:,.0f} s)",
        advice="is something else using this machine?",
    )


def more_memory_than_planned(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """The process needed more memory than the upper end of the plan's interval."""
    estimate = plan.chosen() if plan else None
    finished = next((e for e in reversed(events) if isinstance(e, Finished)), None)
    if estimate is None or finished is None or finished.peak_memory_bytes is None:
        return None
    if finished.peak_memory_bytes <= estimate.memory.interval[1]:
        return None
    return Finding(
        name="more_memory_than_planned",
        level="warning",
        text="The run needed more memory than the plan's interval allows.",
        number=f"{finished.peak_memory_bytes / 1e9:.2f} GB, planned at most {estimate.memory.interval[1] / 1e9:.2f} GB",
        advice="keep this margin in mind for a longer max_length",
    )


FINDINGS: tuple[Callable[[Plan | None, Sequence[Event]], Finding | None], ...] = (
    learned,
    overfitting,
    gradient_spikes,
    slower_than_planned,
    more_memory_than_planned,
    *SPECTRAL_FINDINGS,
)
