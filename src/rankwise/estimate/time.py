"""Seconds of a step and of a whole run: on a GPU by a fitted roofline (roofline.py, communication.py), on a CPU by the
measured matmul rate (processor.py). A multiply-add counts as two operations.
"""

import math
from dataclasses import dataclass

from rankwise.estimate.communication import HOST_MEMORY, exposed, host_rate, link_rate, moves
from rankwise.estimate.course import times
from rankwise.estimate.efficiency import Efficiency, efficiency_of, relative_error
from rankwise.estimate.processor import phase_seconds, update_seconds
from rankwise.estimate.roofline import Rates, ideal, rates_of, seconds
from rankwise.records import CostOptions, DeviceFacts, FlopsByPhase, PhaseWork, Setup, StepSeconds, TimeEstimate, Trace
from rankwise.records.ledger import Correction

# AdamW: two moments, their corrections, the root, the division and the update are 12 operations a parameter.
ADAMW_OPERATIONS = 12.0
# Python with torch, transformers and peft imported, and a CUDA context: 6 to 9 s here, 10 to 15 s on GPU machines.
START_SECONDS = 12.0
# Of a checkpoint beside its bytes: a dozen files made durable one by one, and hashed (0.11 s of 0.14 s for 30 MB here).
CHECKPOINT_SECONDS = 0.1


@dataclass(frozen=True)
class Passes:
    """Seconds of one optimizer step by its parts, and of one evaluated micro-batch; None where a rate is unknown."""

    step: StepSeconds
    evaluation: float

    @property
    def total(self) -> float:
        return float(sum(self.step.model_dump().values()))


@dataclass(frozen=True)
class Course:
    """What a run does beside its steps.

    Attributes:
        max_steps: optimizer steps; None where unknown.
        evaluation_rows: rows of one validation.
        read_bytes: of the weights at the start. checkpoint_bytes: of one resumable checkpoint.
    """

    max_steps: int | None
    evaluation_rows: int
    read_bytes: int
    checkpoint_bytes: int


def step_flops(trace: Trace, setup: Setup, mean_length: float) -> FlopsByPhase:
    """Of one optimizer step on one device, for rows of `mean_length` tokens.

    The trace counts a micro-batch of rows of `setup.max_length`; shorter rows cost in proportion, attention with the
    square.
    """
    share = mean_length / setup.max_length

    def scaled(phase: str) -> float:
        attention = trace.work[phase].attention_flops
        whole = (trace.flops[phase] - attention) * share + attention * share * share
        return whole * setup.gradient_accumulation_steps

    return FlopsByPhase(
        forward=scaled("forward"), backward=scaled("backward"), optimizer=ADAMW_OPERATIONS * trace.trainable_params
    )


def estimate_time(
    trace: Trace,
    setup: Setup,
    device: DeviceFacts,
    costs: CostOptions,
    course: Course,
    found: Passes | None,
    *,
    mean_length: float,
    correction: Correction | None = None,
) -> TimeEstimate:
    """Seconds of one step and of the whole run; None where a rate or the number of steps is not known.

    Args:
        found: the step by formula (`passes`).
        mean_length: real tokens a row.
        correction: what this machine's ledger says of such predictions.
    """
    flops = step_flops(trace, setup, mean_length)
    tokens = mean_length * setup.per_device_train_batch_size * setup.gradient_accumulation_steps
    known = TimeEstimate(
        flops_per_token=(flops.forward + flops.backward) / tokens,
        flops=flops,
        tokens_per_second=None,
        step_seconds=None,
        train_seconds=None,
        interval=None,
    )
    if found is None:
        return known
    factor = correction.factor if correction else 1.0
    error = relative_error(device, setup) if correction is None else (correction.low, correction.high)
    step = StepSeconds(**{part: factor * value for part, value in found.step.model_dump().items()})
    length = factor * found.total
    timed = known.model_copy(
        update={
            "tokens_per_second": tokens * setup.world_size / length,
            "step_seconds": length,
            "step": step,
            "relative": error,
            "correction": correction.factor if correction else None,
        }
    )
    return timed.model_copy(update=_run(timed, setup, costs, course, factor * found.evaluation))


def _run(timed: TimeEstimate, setup: Setup, costs: CostOptions, course: Course, evaluation: float) -> dict[str, object]:
    """The durations of a whole run, for steps of `timed.step_seconds`."""
    assert timed.step_seconds is not None and timed.relative is not None
    load = START_SECONDS + course.read_bytes / costs.write_bandwidth
    if course.max_steps is None:
        return {"load_seconds": load}
    rows = setup.per_device_train_batch_size * setup.world_size
    validations = 1 + times(course.max_steps, costs.eval_steps) if course.evaluation_rows else 0  # one before step 1
    evaluating = validations * math.ceil(course.evaluation_rows / rows) * evaluation
    saved = CHECKPOINT_SECONDS + course.checkpoint_bytes / costs.write_bandwidth
    saving = times(course.max_steps, costs.save_steps) * saved
    whole = load + course.max_steps * timed.step_seconds + evaluating + saving
    return {
        "load_seconds": load,
        "evaluation_seconds": evaluating,
        "save_seconds": saving,
        "train_seconds": whole,
        "interval": (whole * timed.relative[0], whole * timed.relative[1]),
    }


def passes(
    trace: Trace,
    setup: Setup,
    device: DeviceFacts,
    *,
    mean_length: float,
    nodes: int = 1,
    reached: Efficiency | None = None,
) -> Passes | None:
    """One optimizer step by its parts, before any correction; None where a rate is not known.

    Args:
        reached: efficiencies to use instead of the fitted ones.
    """
    if device.kind == "cpu":
        return _on_cpu(trace, setup, device, mean_length)
    rates = rates_of(device, setup)
    link = link_rate(device, setup, nodes)
    if rates is None or (setup.world_size > 1 and link is None):
        return None
    return _on_gpu(trace, setup, device, mean_length, rates, link or math.inf, reached or efficiency_of(device))


def pass_seconds(trace: Trace, setup: Setup, device: DeviceFacts, tokens: float) -> float | None:
    """One row of `tokens` tokens forward through the model on a GPU, as an evaluation runs it; None where a rate is
    not known.
    """
    rates = rates_of(device, setup)
    if rates is None:
        return None
    length = tokens / setup.per_device_train_batch_size  # as many tokens as the traced batch has at that length
    return seconds(ideal(trace.work["eval"], setup, rates, length), efficiency_of(device))


def _on_cpu(trace: Trace, setup: Setup, device: DeviceFacts, mean_length: float) -> Passes | None:
    flops = step_flops(trace, setup, mean_length)
    rows = mean_length * setup.per_device_train_batch_size
    forward, backward = (phase_seconds(f, setup, device, rows) for f in (flops.forward, flops.backward))
    if forward is None or backward is None:
        return None
    step = StepSeconds(
        forward=forward,
        backward=backward,
        optimizer=update_seconds(trace),
        communication=0.0,
        offload=0.0,
        data=0.0,
    )
    return Passes(step, forward / setup.gradient_accumulation_steps)


def _on_gpu(
    trace: Trace,
    setup: Setup,
    device: DeviceFacts,
    mean_length: float,
    rates: Rates,
    link: float,
    reached: Efficiency,
) -> Passes:
    def phase(work: PhaseWork) -> float:
        return seconds(ideal(work, setup, rates, mean_length), reached)

    batches = setup.gradient_accumulation_steps
    forward, backward = phase(trace.work["forward"]), phase(trace.work["backward"])
    sent = moves(trace, setup)
    link *= reached.link
    communication = batches * (
        exposed(forward, sent.forward / link, reached) + exposed(backward, sent.backward / link, reached)
    )
    return Passes(
        StepSeconds(
            forward=batches * forward,
            backward=batches * backward,
            optimizer=_update(trace, setup, rates, reached),
            communication=communication + exposed(backward, sent.step / link, reached),
            offload=(batches * sent.host + sent.host_step) / host_rate(device) + sent.host_update / HOST_MEMORY,
            data=batches * reached.step,
        ),
        phase(trace.work["eval"]),
    )


def _update(trace: Trace, setup: Setup, rates: Rates, reached: Efficiency) -> float:
    """The optimizer on the device: its share of the parameters where they are sharded; nothing when offloaded."""
    if setup.offload != "none":
        return 0.0
    share = 1 / setup.world_size if setup.parallel in ("fsdp", "zero1", "zero2", "zero3") else 1.0
    work = trace.work["optimizer"]
    mine = work.model_copy(update={"moved_bytes": work.moved_bytes * share})
    return seconds(ideal(mine, setup, rates, setup.max_length), reached)
