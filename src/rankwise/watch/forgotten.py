"""Looks at general ability -> what the run has cost, the frontier of its states, and findings. Pure."""

from collections.abc import Sequence

from rankwise.records import (
    Acted,
    Event,
    Finding,
    Finished,
    Forgotten,
    FrontierPoint,
    Plan,
    Saved,
    Slice,
    Threshold,
    Validation,
    Watched,
)
from rankwise.watch.levels import ORDER, limits_of
from rankwise.watch.raised import raised

# C11: what the model believes on prompts moves on, and the task gains nothing by it. Relative, between two looks.
KL_RISES = 0.2
LOSS_FALLS = 0.005


def forgotten(plan: Plan | None, events: Sequence[Event]) -> Forgotten | None:
    """What the looks of a run show; None where there was none. Without a plan no limits are known beside the levels."""
    looks = [e for e in events if isinstance(e, Watched)]
    if not looks:
        return None
    at = published_step(events)
    shown = next((w for w in reversed(looks) if w.step == at), looks[-1])
    gravest = max(looks, key=lambda w: ORDER.index(w.level))
    return Forgotten(
        level=shown.level,
        step=shown.step,
        worst=gravest.level,
        worst_step=gravest.step,
        slices=shown.slices,
        thresholds=tuple(_threshold(plan, s) for s in shown.slices) if plan else (),
        frontier=frontier(events),
        looks=len(looks),
        seconds=sum(w.seconds for w in looks),
    )


def frontier(events: Sequence[Event]) -> tuple[FrontierPoint, ...]:
    """States of a run with both a validation and a look: what was learned against what was forgotten."""
    losses = {e.step: e.loss for e in events if isinstance(e, Validation)}
    return tuple(
        FrontierPoint(
            step=look.step,
            task_loss=losses[look.step],
            differences={s.name: s.difference for s in look.slices},
            kl=look.kl,
            level=look.level,
        )
        for look in events
        if isinstance(look, Watched) and look.step in losses
    )


def published_step(events: Sequence[Event]) -> int | None:
    """The step whose weights were published: those that were rolled back to, else those of the lowest held-out loss
    with a checkpoint, as the worker picks them.
    """
    if not any(isinstance(e, Finished) for e in events):
        return None
    back = next((e.back_to for e in reversed(events) if isinstance(e, Acted) and e.action == "rollback"), None)
    if back is not None:
        return back
    saved = {e.step for e in events if isinstance(e, Saved)}
    losses = {e.step: e.loss for e in events if isinstance(e, Validation) and e.step in saved}
    return min(losses, key=lambda step: (losses[step], -step), default=None)


def _threshold(plan: Plan, part: Slice) -> Threshold:
    chance = next((s.chance for s in plan.facts.data.watched if s.name == part.name), None)
    limits = limits_of(part.metric, plan.job.forgetting.budget_nats, part.baseline, chance, part.items)
    sign = 1 if part.metric == "general_loss" else -1
    source = (
        f"forgetting.budget_nats {plan.job.forgetting.budget_nats:g}; red as science has it for any base (C10, E12)"
        if part.metric == "general_loss"
        else f"a third of what {plan.job.model} has above guessing ({part.baseline:.0%} against {chance or 0:.0%})"
    )
    return Threshold(
        slice=part.name,
        unit=part.unit,
        baseline=part.baseline,
        amber=None if limits.amber is None else sign * limits.amber,
        red=None if limits.red is None else sign * limits.red,
        source=source,
    )


def forgot(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """Is what the run leaves amber or red; or was it red on the way, and something was done?"""
    found = forgotten(plan, events)
    if found is None or (ORDER.index(found.level) < ORDER.index("amber") and found.worst != "red"):
        return None
    acted = [e for e in events if isinstance(e, Acted)]
    beyond = [s for s in found.slices if s.level in ("amber", "red")]
    if found.level not in ("amber", "red"):
        done = f" ({acted[-1].action})" if acted else ""
        return raised(
            "forgot",
            "warning",
            f"General ability was red at step {found.worst_step}{done}; the weights of step {found.step} are not.",
            None,
            _advice(plan, found),
        )
    return raised(
        "forgot",
        "fault" if found.level == "red" else "warning",
        f"It forgot: at step {found.step}, beyond the limit: {', '.join(s.name for s in beyond)}.",
        "; ".join(_number(s) for s in beyond),
        _advice(plan, found),
    )


def _number(part: Slice) -> str:
    low, high = part.interval
    return f"{part.name} {part.difference:+z.3f} {part.unit} (95 %: {low:+z.3f} to {high:+z.3f})"


def _advice(plan: Plan | None, found: Forgotten) -> str:
    """C10b, in its order."""
    config = plan.verdict.config if plan else None
    if config is None:
        return "first cut the learning rate by 3, then replay general rows, then raise the rank"
    said = [f"first cut the rate by 3 (train.learning_rate: {config.learning_rate / 3:.1e})"]
    if not config.replay_share:
        said.append("then replay general rows (data.general: {self_generated: 200, share: 0.2})")
    else:
        said.append(f"then raise data.general.share above {config.replay_share:g}")
    if config.r is not None:
        said.append(f"then raise the rank above {config.r}: a low rank at a high rate forgets most")
    kept = [p for p in found.frontier if p.level == "green" and p.step > 0]
    if kept:
        best = min(kept, key=lambda p: p.task_loss)
        said.append(f"step {best.step} was still green, at a held-out loss of {best.task_loss:.3f} nats")
    return "; ".join(said)


def drifting(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """C11: between the last two states KL(base || tuned) on prompts of the task rose and held-out loss did not fall."""
    known = [p for p in frontier(events) if p.kl is not None]
    if len(known) < 3:
        return None
    before, after = known[-2:]
    assert before.kl is not None and after.kl is not None
    rose = after.kl > (1 + KL_RISES) * before.kl > 0
    if not rose or after.task_loss < (1 - LOSS_FALLS) * before.task_loss:
        return None
    return raised(
        "drifting",
        "warning",
        f"From step {before.step} to {after.step} the model moved away from its base on prompts of the task, and "
        "held-out loss gained nothing by it: an early sign of forgetting.",
        f"KL {before.kl:.3f} -> {after.kl:.3f} nats, held-out loss {before.task_loss:.3f} -> "
        f"{after.task_loss:.3f} nats",
        "stop earlier, or lower the learning rate",
    )
