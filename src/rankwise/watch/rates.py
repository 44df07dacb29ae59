"""Findings of rates: gradients that jump, and steps that are larger or smaller than what the field has trained with."""

import math
from collections.abc import Sequence
from statistics import median

from rankwise.records import Event, Finding, Plan, Started, Step, TrainConfig
from rankwise.watch.raised import raised, steps_of

SETTLED = 5  # steps, before which gradients may be wild
SEEN = 50  # steps before, of which the median is taken
FEWEST = 10  # steps, before which nothing is said
TIMES = 10.0  # that median
EXPLODING = 3  # steps in a row at the end
# Lowest and highest learning rate x alpha / r at which published runs learned. Adapters: from 1e-4 x 16 / 64 (E2, 33B
# and 65B) to below 3e-3, where 72 of 80 diverged runs had begun (E7). All weights: from half of 2e-6 (a survey of 8B to
# 70B) to three times 1e-4 (135M, run here).
LOW_RANK = ("lora", "qlora", "lora-8bit", "rslora", "dora", "pissa", "gptq-lora")
FIELD = {"adapter": (2.5e-5, 3e-3), "full": (1e-6, 3e-4)}


def gradient_spikes(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """A gradient norm ten times the median of the steps before it; a fault where the last three are."""
    steps = steps_of(events)
    if len(steps) < FEWEST:
        return None
    spikes = _spikes(steps)
    if not spikes:
        return None
    worst, usual = max(spikes, key=lambda found: found[0].grad_norm)
    exploding = _exploding(steps)
    clipped = plan is not None and plan.verdict.config is not None and plan.verdict.config.max_grad_norm > 0
    text = "The gradient norm jumped to ten times its median or more"
    return raised(
        "gradient_spikes",
        "fault" if exploding else "warning",
        text + (", and stays there." if exploding else "; clipping limited the damage." if clipped else "."),
        f"{len(spikes)} of {len(steps):,} steps, worst {worst.grad_norm:.2f} at step {worst.step}, median {usual:.2f}",
        "lower train.learning_rate, or look for broken rows" + ("" if clipped else "; clip: train.max_grad_norm 1"),
    )


def _spikes(steps: Sequence[Step]) -> list[tuple[Step, float]]:
    """Steps whose norm is TIMES the median of those before, with that median."""
    found = []
    for index in range(SETTLED, len(steps)):
        usual = median(s.grad_norm for s in steps[max(0, index - SEEN) : index])
        if usual > 0 and steps[index].grad_norm >= TIMES * usual:
            found.append((steps[index], usual))
    return found


def _exploding(steps: Sequence[Step]) -> bool:
    before = [s.grad_norm for s in steps[-EXPLODING - SEEN : -EXPLODING]]
    usual = median(before) if before else 0.0
    return usual > 0 and all(s.grad_norm >= TIMES * usual for s in steps[-EXPLODING:])


def planned_scale(config: TrainConfig) -> float | None:
    """s of the planned update s B A: alpha / r, of rsLoRA alpha / sqrt(r); None without a low-rank adapter."""
    if config.r is None or config.lora_alpha is None:
        return None
    return config.lora_alpha / (math.sqrt(config.r) if config.method == "rslora" else config.r)


def scaling_changed(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """The adapter that was found on the model has another rank or scale than the plan says."""
    found = next((e for e in reversed(events) if isinstance(e, Started)), None)
    config = plan.verdict.config if plan else None
    if found is None or config is None or found.adapter_r is None or found.adapter_scaling is None:
        return None
    scale = planned_scale(config)
    if scale is None or (found.adapter_r == config.r and math.isclose(found.adapter_scaling, scale, rel_tol=1e-6)):
        return None
    times = scale / found.adapter_scaling if found.adapter_scaling else math.inf
    return raised(
        "scaling_changed",
        "fault",
        "The adapter that trains is not the planned one: its rank or its scale, which acts as a learning rate, is "
        "another.",
        f"r {found.adapter_r} and scale {found.adapter_scaling:g} ran, r {config.r} and {scale:g} were planned",
        f"plan again; at this scale the planned step would be train.learning_rate x {times:.3g}",
    )


def effective_rate(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """The learning rate x alpha / r lies outside of what published runs learned with. Silent for methods, and scales,
    that nobody has swept.
    """
    config = plan.verdict.config if plan else None
    if config is None or not steps_of(events):
        return None
    scale, field = 1.0, FIELD["full"]
    if config.method in LOW_RANK:
        found = next((e for e in reversed(events) if isinstance(e, Started)), None)
        known = found.adapter_scaling if found and found.adapter_scaling is not None else planned_scale(config)
        if known is None:
            return None
        scale, field = known, FIELD["adapter"]
    elif config.method != "full":
        return None
    rate = config.learning_rate * scale
    if field[0] <= rate < field[1]:
        return None
    high = rate >= field[1]
    times = f" x {scale:g}" if config.method in LOW_RANK else ""
    return raised(
        "effective_rate",
        "warning",
        f"The learning rate is {'higher' if high else 'lower'} than those that the field learned with"
        + (", where most runs diverge or forget." if high else ": little will be learned."),
        f"{config.learning_rate:.1e}{times} = {rate:.1e}, field {field[0]:.1e} to {field[1]:.1e}",
        f"train.learning_rate {'at most' if high else 'at least'} {_inside(field, scale, high=high):.1e}",
    )


def _inside(field: tuple[float, float], scale: float, *, high: bool) -> float:
    """A third of the upper end, or three times the lower one, as a learning rate at this scale."""
    return (field[1] / 3 if high else 3 * field[0]) / scale if scale else field[0]
