"""One line for each thing a run says while it happens."""

from collections.abc import Iterator

from rankwise.records import (
    Acted,
    Comparison,
    Event,
    Failed,
    Finished,
    Note,
    Rehearsed,
    Saved,
    Slice,
    SpectrumSeen,
    Started,
    Step,
    Stopped,
    Validation,
    Watched,
)
from rankwise.report.glossary import metric_name
from rankwise.report.quantities import bounds, count, difference, duration, measured, rate, share, size


def event_line(event: Event, max_steps: int) -> str:
    """What a person reads in the terminal; empty for what need not be said."""
    if isinstance(event, Step):
        speed = rate(event.tokens / event.seconds) if event.seconds else ""
        return f"step {event.step}/{max_steps}  loss {event.loss:.4f} nats  rate {event.learning_rate:.1e}  {speed}"
    if isinstance(event, Validation):
        return _validation_line(event)
    if isinstance(event, Watched):
        return f"general ability at step {event.step}: {event.level}; {'; '.join(map(_slice, event.slices))}"
    if isinstance(event, Acted):
        return f"forgetting watch, step {event.step}: {_action(event)}: {event.reason}"
    if isinstance(event, SpectrumSeen):
        return f"spectra of {count(len(event.modules))} matrices at step {event.step} ({duration(event.seconds)})"
    return _other_line(event, max_steps)


def _validation_line(event: Validation) -> str:
    where = "untouched base" if event.step == 0 else f"step {event.step}"
    line = f"validation, {where}: {event.loss:.4f} nats per token ({count(event.supervised_tokens)} tokens)"
    if event.fact_accuracy is None:
        return line
    facts, others = share(event.fact_accuracy), share(event.other_accuracy)
    return f"{line}; right tokens: {facts} of names and numbers, {others} of the rest"


def _slice(part: Slice) -> str:
    span = bounds(part.interval, part.unit, signed=True)
    return f"{part.name} {difference(part.difference, part.unit)} (95 %: {span})"


def _action(event: Acted) -> str:
    if event.action == "lower_lr":
        return f"learning rate times {event.learning_rate_factor:g}"
    if event.action == "rollback":
        return f"back to the weights of step {event.back_to}"
    return {"warn": "a warning", "stop": "stopped"}[event.action]


def _where(event: Started) -> str:
    """The device; of several processes their number, what wraps the model, and what each holds of it."""
    if event.world_size == 1:
        return event.device
    each = f", each holds {count(event.local_params)} parameters" if event.local_params is not None else ""
    return f"{event.world_size} processes, the first on {event.device} ({event.engine}{each}),"


def _other_line(event: Event, max_steps: int) -> str:
    if isinstance(event, Started):
        trained = share(event.trainable_params / event.total_params)
        resumed = f", resumed at step {event.step}" if event.step else ""
        return (
            f"training {count(event.trainable_params)} of {count(event.total_params)} parameters ({trained}) "
            f"on {_where(event)} with {event.threads} threads, {count(max_steps)} steps{resumed}"
        )
    if isinstance(event, Rehearsed):
        return f"tried early: {'; '.join(_rehearsed(event))} ({duration(event.seconds)})"
    if isinstance(event, Saved):
        removed = f", removed {', '.join(event.removed)}" if event.removed else ""
        return f"saved {event.checkpoint} ({size(event.bytes)}, {duration(event.seconds)}){removed}"
    if isinstance(event, Finished):
        return f"finished at step {event.step}, peak memory {size(event.peak_memory_bytes)}"
    if isinstance(event, Stopped):
        return f"stopped at step {event.step}: {event.reason}"
    return event.text if isinstance(event, Note) else event.what if isinstance(event, Failed) else ""


def _rehearsed(event: Rehearsed) -> Iterator[str]:
    rows, length = event.longest
    batch = f"the largest batch ({count(rows)} x {count(length)} tokens)"
    yield f"{batch}, a validation, a checkpoint ({size(event.checkpoint_bytes)})"
    if event.accumulation_gap is not None:
        yield f"rows one by one and at once give the same gradient within {share(event.accumulation_gap)}"
    yield f"peak memory until here {size(event.peak_memory_bytes)}"


def comparison_line(comparison: Comparison) -> str:
    """Format: 0 % -> 98 %, +98 points (95 %: +90 to +100), 48 items: better."""
    unit = comparison.unit
    span = bounds(comparison.difference_interval, unit, signed=True)
    return (
        f"{metric_name(comparison.metric)}: {measured(comparison.base, unit)} -> {measured(comparison.tuned, unit)}, "
        f"{difference(comparison.difference, unit)} (95 %: {span}), {count(comparison.items)} items: "
        f"{comparison.answer}"
    )
