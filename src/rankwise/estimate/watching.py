"""How often a run looks at general ability, and what that takes: as often as SHARE of the run allows, and before and
after in any case. A long run whose two looks would already be dearer looks at fewer items.
"""

import math
from collections.abc import Callable, Sequence

from rankwise.estimate.course import times
from rankwise.records import TimeEstimate, WatchedSet, WatchEstimate
from rankwise.records.ledger import EvaluationWork

SHARE = 0.05  # of a run of LONG_SECONDS and more; shorter ones look before and after whatever it takes
AIM = 0.8  # of SHARE: a look's seconds are a prediction
LONG_SECONDS = 1800.0
MOST_LOOKS = 20  # after the first one: more say nothing new
LEAST_ITEMS = 16  # of a set: with fewer the interval is wider than what it is held against
# What the divergence adds: prompts of the task, and the positions of them that are looked at (model/divergence.py).
PROMPTS = 8
PROMPT_TOKENS = 64


def with_watch(
    time: TimeEstimate,
    sets: Sequence[WatchedSet],
    *,
    asked: int | None,
    max_steps: int | None,
    eval_steps: int | None,
    seconds_of: Callable[[EvaluationWork], float | None],
) -> TimeEstimate:
    """The run with its looks.

    Args:
        sets: what is looked at; none: nobody looks.
        asked: steps between two looks, where the job says so.
        eval_steps: between validations, which looks fall together with: a state with both is a point of the frontier.
        seconds_of: passes forward through the model -> seconds; None where no rate is known.
    """
    if not sets or max_steps is None:
        return time
    watch = plan_watch(sets, asked, max_steps, eval_steps, time.train_seconds, lambda n: seconds_of(look(sets, n)))
    if watch.seconds is None or time.train_seconds is None or time.relative is None:
        return time.model_copy(update={"watch": watch})
    whole = time.train_seconds + watch.seconds
    return time.model_copy(
        update={
            "watch": watch.model_copy(update={"share": watch.seconds / whole}),
            "train_seconds": whole,
            "interval": (whole * time.relative[0], whole * time.relative[1]),
        }
    )


def plan_watch(
    sets: Sequence[WatchedSet],
    asked: int | None,
    max_steps: int,
    eval_steps: int | None,
    run_seconds: float | None,
    one: Callable[[int], float | None],
) -> WatchEstimate:
    """Cadence and size.

    Args:
        run_seconds: of the run without its looks.
        one: items of each set at most -> seconds of one look.
    """
    items, validations = max(s.items for s in sets), times(max_steps, eval_steps)
    every = eval_steps or math.ceil(max_steps / validations)
    seconds = one(items)
    if asked is None and seconds is not None and run_seconds is not None:
        room = AIM * SHARE * run_seconds
        if run_seconds >= LONG_SECONDS and 2 * seconds > room:
            items = fitting(items, lambda n: 2 * (one(n) or 0.0) <= room)
            seconds = one(items)
        after = min(MOST_LOOKS, max(1, math.floor(room / seconds) - 1)) if seconds else MOST_LOOKS
        every = cadence(every, validations, after)
    steps = min(asked or every, max_steps)
    looks = 1 + math.ceil(max_steps / steps)
    whole = None if seconds is None else looks * seconds
    return WatchEstimate(steps=steps, items=items, looks=looks, seconds=whole, share=None)


def cadence(eval_steps: int, validations: int, after: int) -> int:
    """Steps between looks, so that there are at most `after` of them: at every k-th validation, or so many times
    between two that each validation has one.
    """
    if after < validations:
        return eval_steps * math.ceil(validations / after)
    between = next(m for m in range(after // validations, 0, -1) if eval_steps % m == 0)
    return eval_steps // between


def fitting(items: int, fits: Callable[[int], bool]) -> int:
    """The most items that fit, by halving; LEAST_ITEMS (or all there are) even where they do not."""
    low, high = min(LEAST_ITEMS, items), items
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def look(sets: Sequence[WatchedSet], items: int) -> EvaluationWork:
    """What one look at `items` of each set asks of the model."""
    rows, tokens, labelled = PROMPTS, PROMPTS * PROMPT_TOKENS, PROMPTS * PROMPT_TOKENS
    for part in sets:
        taken = min(items, part.items) / part.items
        rows += round(taken * part.items)
        tokens += round(taken * part.tokens)
        labelled += round(taken * part.labelled)
    return EvaluationWork(rows=rows, tokens=tokens, labelled=labelled, batches=())
