"""Findings of learning: does the loss fall, does what was learned carry over, and is it manner or content?"""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from rankwise.records import Event, Finding, Finished, Plan, Step, Validation
from rankwise.watch.raised import raised, steps_of, validations_of

WINDOW = 10  # steps whose losses are averaged: one step's loss is that of a few rows
ZEROS = 3  # losses of exactly 0 in a row, from which on it is no accident
RISE = 1.2  # times the lowest mean, beyond noise: a run that diverges goes on to far more
SURE = 3.0  # standard errors; the lowest of many means is low by chance, by two or three of them
FLAT = 0.02  # of the loss: a fall that is smaller over a fifth of the run is none
HIGH = 0.5  # of the first loss: what is left when more than half was not learned
FILLED = 0.5  # of the bits planned: adapters were full at 0.13 to 0.66 bits a parameter (X2), 1 is planned
GAP = 0.1  # between names and numbers and the rest, as a share
FEWEST = 30  # names and numbers, below which their accuracy says little
NORMAL_95 = 1.96


def learned(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """Did held-out loss fall below the untouched base? Said to be no at the second validation that shows none, or at
    the end.
    """
    losses = {e.step: e.loss for e in validations_of(events)}
    trained = {step: loss for step, loss in losses.items() if step > 0}
    if 0 not in losses or not trained:
        return None
    best = min(trained.values())
    number = f"{losses[0]:.3f} -> {best:.3f} nats per token"
    if best < losses[0]:
        return raised("learned", "good", "Held-out loss fell below that of the untouched base.", number, None)
    if len(trained) < 2 and not any(isinstance(e, Finished) for e in events):
        return None
    return raised(
        "learned",
        "fault",
        "Held-out loss never fell below that of the untouched base: the run taught nothing that carries over.",
        number,
        "try another learning rate (a third, or three times as much), and read the answers in the report",
    )


def overfitting(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """Held-out loss rose by more than 5 % from its best while training went on."""
    validations = [e for e in validations_of(events) if e.step > 0]
    if len(validations) < 3:
        return None
    best = min(validations, key=lambda v: v.loss)
    last = validations[-1]
    if last.loss <= 1.05 * best.loss or last.step == best.step:
        return None
    return raised(
        "overfitting",
        "warning",
        f"Held-out loss was lowest at step {best.step} and rose until step {last.step}; the best one was kept.",
        f"{best.loss:.3f} -> {last.loss:.3f} nats per token",
        "train fewer epochs, or give more rows",
    )


def loss_at_zero(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """A loss of exactly 0: from the first step on nothing is supervised; later all is known by heart, or overflowed."""
    steps = steps_of(events)
    if not steps:
        return None
    if steps[0].loss == 0.0:
        return raised(
            "loss_at_zero",
            "fault",
            "The loss is 0 from the first step on: no token is supervised, so nothing is learned.",
            f"0 nats at step {steps[0].step}",
            "look at the labels: `rankwise check` shows what of a row is learned",
        )
    if len(steps) < ZEROS or any(s.loss != 0.0 for s in steps[-ZEROS:]):
        return None
    since = next(s.step for s, later in zip(steps, _suffixes(steps), strict=True) if later)
    return raised(
        "loss_at_zero",
        "warning",
        f"The training loss is exactly 0 since step {since}: the rows are known by heart, or arithmetic overflowed.",
        f"{steps[0].loss:.3f} -> 0 nats per token",
        "train fewer epochs; in fp16, take bf16 instead",
    )


def _suffixes(steps: Sequence[Step]) -> list[bool]:
    """For each step: are its loss and those of all later steps 0?"""
    found, all_zero = [], True
    for one in reversed(steps):
        all_zero = all_zero and one.loss == 0.0
        found.append(all_zero)
    return found[::-1]


def diverging(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """The mean of the last WINDOW losses lies above the lowest mean of any earlier WINDOW of them, by a fifth and by
    SURE standard errors; a fault where it lies above the first mean as well.
    """
    steps = steps_of(events)
    if len(steps) < 2 * WINDOW:
        return None
    losses = [s.loss for s in steps]
    last, earlier = losses[-WINDOW:], _lowest(losses[:-WINDOW])
    best, now = fmean(earlier), fmean(last)
    noise = math.sqrt((stdev(last) ** 2 + stdev(earlier) ** 2) / WINDOW)
    if now <= RISE * best + SURE * noise:
        return None
    lost = now > fmean(losses[:WINDOW])
    return raised(
        "diverging",
        "fault" if lost else "warning",
        "The training loss rises" + (" and lies above where it began." if lost else " instead of falling."),
        f"{best:.3f} -> {now:.3f} nats per token, means of {WINDOW} steps",
        "lower train.learning_rate to a third and go on from a checkpoint before the rise",
    )


def _lowest(losses: Sequence[float]) -> Sequence[float]:
    """The WINDOW losses in a row whose sum is lowest."""
    windows = (losses[i : i + WINDOW] for i in range(len(losses) - WINDOW + 1))
    return min(windows, key=sum)


def underfitting_at_capacity(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """The training loss is flat and high, and the bits that the rows have taught fill what the adapter can hold.

    Taught, at most: fall of the loss in nats / ln 2 x supervised tokens of one epoch. Held: the plan's bits.
    """
    losses = [s.loss for s in steps_of(events)]
    if plan is None or plan.held_bits is None or len(losses) < 4 * WINDOW:
        return None
    width = max(WINDOW, len(losses) // 5)
    first, before, now = fmean(losses[:WINDOW]), fmean(losses[-2 * width : -width]), fmean(losses[-width:])
    taught = (first - now) / math.log(2) * plan.facts.data.supervised_tokens
    if before - now >= FLAT * before or now < HIGH * first or taught < FILLED * plan.held_bits:
        return None
    return raised(
        "underfitting_at_capacity",
        "warning",
        "The training loss stays high, and the adapter is full.",
        f"{now:.3f} of {first:.3f} nats per token are left; up to {taught / 1e6:,.2f} Mbit were taught, and "
        f"{plan.held_bits / 1e6:,.2f} Mbit are what the adapter is planned to hold",
        "a higher method.r (twice), or full fine-tuning",
    )


def names_and_numbers(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """Names and numbers are predicted worse than the rest, by GAP and beyond chance (tokens taken as independent), and
    did not gain more than the rest did.
    """
    known = [v for v in validations_of(events) if v.fact_accuracy is not None and v.other_accuracy is not None]
    if not known or known[-1].step == 0 or (known[-1].fact_tokens or 0) < FEWEST:
        return None
    last, base = known[-1], next((v for v in known if v.step == 0), None)
    facts, others = _shares(last)
    gap = others - facts
    if gap <= max(GAP, NORMAL_95 * _error_of_gap(last)):
        return None
    before = None if base is None else _shares(base)
    if before is not None and facts - before[0] > others - before[1]:
        return None
    return raised(
        "names_and_numbers",
        "warning",
        "Names and numbers that the prompt does not say are written right less often than the rest, and training did "
        "not close the gap: it learns how to say things rather than what is true.",
        f"{last.fact_tokens:,} tokens of names and numbers {_moved(facts, before[0] if before else None)}, the rest "
        f"{_moved(others, before[1] if before else None)}",
        "give each fact in about ten wordings, or have it looked up; `rankwise eval` tells knowing from sounding",
    )


def _shares(seen: Validation) -> tuple[float, float]:
    assert seen.fact_accuracy is not None and seen.other_accuracy is not None
    return seen.fact_accuracy, seen.other_accuracy


def _error_of_gap(seen: Validation) -> float:
    """Standard error of the difference of two shares."""
    facts, others = _shares(seen)
    many = seen.fact_tokens or 1
    rest = max(1, seen.supervised_tokens - many)
    return math.sqrt(facts * (1 - facts) / many + others * (1 - others) / rest)


def _moved(share: float, before: float | None) -> str:
    since = "" if before is None else f" ({100 * (share - before):+z.0f} points)"
    return f"{100 * share:.0f} % right{since}"
