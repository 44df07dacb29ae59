"""Events -> Evidence. Pure: a live run and a replayed file give the same answer."""

from collections.abc import Sequence

from rankwise.records import (
    Actual,
    Estimate,
    Event,
    Evidence,
    Finished,
    Plan,
    Saved,
    Started,
    Step,
    Validation,
)
from rankwise.watch.findings import find


def summarise(plan: Plan, events: Sequence[Event]) -> Evidence:
    """What the events of one run show, with the plan's predictions beside it."""
    steps = [e for e in events if isinstance(e, Step)]
    validations = [e for e in events if isinstance(e, Validation)]
    base = next((v.loss for v in validations if v.step == 0), None)
    trained = [v for v in validations if v.step > 0]
    best = min(trained, key=lambda v: (v.loss, -v.step), default=None)
    estimate = plan.chosen()
    return Evidence(
        plan_hash=plan.content_hash(),
        steps=steps[-1].step if steps else 0,
        max_steps=plan.verdict.config.max_steps if plan.verdict.config else 0,
        first_loss=steps[0].loss if steps else None,
        final_loss=steps[-1].loss if steps else None,
        base_validation_loss=base,
        best_validation_loss=best.loss if best else None,
        best_validation_step=best.step if best else None,
        final_validation_loss=trained[-1].loss if trained else None,
        tokens=sum(s.tokens for s in steps),
        train_seconds=sum(s.seconds for s in steps) if steps else None,
        actuals=tuple(_actuals(estimate, events)) if estimate else (),
        findings=tuple(find(plan, events)),
        evaluation=None,
    )


def _actuals(estimate: Estimate, events: Sequence[Event]) -> list[Actual]:
    finished = next((e for e in reversed(events) if isinstance(e, Finished)), None)
    saved = [e for e in events if isinstance(e, Saved)]
    started = next((e for e in events if isinstance(e, Started)), None)
    seconds = sum(e.seconds for e in events if isinstance(e, Step)) if finished else None
    tokens = sum(e.tokens for e in events if isinstance(e, Step))
    memory, clock = estimate.memory, estimate.time
    peak = finished.peak_memory_bytes if finished else None
    return [
        _actual("train_seconds", "s", clock.train_seconds, clock.interval, seconds, "sum of step times"),
        _actual(
            "tokens_per_second",
            "tokens/s",
            clock.tokens_per_second,
            None,
            seconds and tokens / seconds,
            "tokens / seconds",
        ),
        _actual("peak_memory", "bytes", memory.peak_device, memory.interval, peak, "peak resident set of the process"),
        _actual(
            "trainable_params",
            "parameters",
            estimate.trainable_params,
            None,
            started.trainable_params if started else None,
            "counted on the model that trained",
        ),
        _actual(
            "checkpoint",
            "bytes",
            estimate.storage.checkpoint_bytes,
            None,
            saved[-1].bytes if saved else None,
            "bytes of the last checkpoint",
        ),
    ]


def _actual(
    quantity: str,
    unit: str,
    predicted: float | None,
    interval: tuple[float, float] | None,
    actual: float | None,
    source: str,
) -> Actual:
    return Actual(quantity=quantity, unit=unit, predicted=predicted, interval=interval, actual=actual, source=source)
