"""Events -> Evidence. Pure: a live run and a replayed file give the same answer."""

from collections.abc import Sequence

from rankwise.records import (
    Acted,
    Actual,
    Estimate,
    Event,
    Evidence,
    Finished,
    Plan,
    Saved,
    Started,
    Step,
    TimeEstimate,
    Validation,
    Watched,
)
from rankwise.watch.findings import find
from rankwise.watch.forgotten import forgotten
from rankwise.watch.spectra import sum_up


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
        padding_share=_padding_share(steps),
        overhead_share=_overhead_share(steps),
        forgetting=forgotten(plan, events),
        actuals=tuple(_actuals(estimate, events)) if estimate else (),
        findings=tuple(find(plan, events)),
        evaluation=None,
        spectrum=sum_up(events),
    )


def _padding_share(steps: Sequence[Step]) -> float | None:
    known = [(s.padding_tokens, s.tokens) for s in steps if s.padding_tokens is not None]
    padding = sum(padded for padded, _ in known)
    return padding / (padding + sum(tokens for _, tokens in known)) if known else None


def _overhead_share(steps: Sequence[Step]) -> float | None:
    known = [(s.model_seconds, s.seconds) for s in steps if s.model_seconds is not None]
    return 1 - sum(inside for inside, _ in known) / sum(whole for _, whole in known) if known else None


def _actuals(estimate: Estimate, events: Sequence[Event]) -> list[Actual]:
    finished = next((e for e in reversed(events) if isinstance(e, Finished)), None)
    saved = [e for e in events if isinstance(e, Saved)]
    started = next((e for e in events if isinstance(e, Started)), None)
    steps = [e for e in events if isinstance(e, Step)]
    seconds = sum(e.seconds for e in steps) if finished else None
    cut = any(isinstance(e, Acted) and e.action == "rollback" for e in events)  # before the steps that were planned
    tokens = sum(e.tokens for e in steps)
    memory, clock = estimate.memory, estimate.time
    peak = finished.peak_memory_bytes if finished else None
    return [
        *_durations(clock, events, seconds, cut=cut),
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


def _durations(clock: TimeEstimate, events: Sequence[Event], stepping: float | None, *, cut: bool) -> list[Actual]:
    """The run and its parts. Only parts that were predicted count in the whole: like is compared with like. Of a run
    that was cut short the step alone can be.
    """
    steps = sum(isinstance(e, Step) for e in events)
    started = next((e for e in events if isinstance(e, Started)), None)
    validating, saving, watching = (
        None if stepping is None or cut else sum(e.seconds for e in events if isinstance(e, kind))
        for kind in (Validation, Saved, Watched)
    )
    beside = {
        "load": (clock.load_seconds, started.load_seconds if started else None),
        "validations": (clock.evaluation_seconds, validating),
        "checkpoints": (clock.save_seconds, saving),
        "watches": (clock.watch.seconds if clock.watch else None, watching),
    }
    counted = {name: took for name, (predicted, took) in beside.items() if predicted is not None and took is not None}
    whole = None if stepping is None or cut else stepping + sum(counted.values())

    def part(quantity: str, predicted: float | None, took: float | None, source: str) -> Actual:
        around = clock.relative
        interval = (predicted * around[0], predicted * around[1]) if predicted is not None and around else None
        return _actual(quantity, "s", predicted, interval, took, source)

    return [
        part("step_seconds", clock.step_seconds, stepping / steps if stepping and steps else None, "mean of all steps"),
        part("validation_seconds", clock.evaluation_seconds, validating, "sum over validations"),
        part("save_seconds", clock.save_seconds, saving, "sum over checkpoints"),
        *(
            [part("watch_seconds", clock.watch.seconds, watching, "sum over looks at general ability")]
            if clock.watch
            else []
        ),
        _actual("train_seconds", "s", clock.train_seconds, clock.interval, whole, " + ".join(["steps", *counted])),
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
