"""What a run does when general ability is red: warn, lower the learning rate, stop, or go back to what was green.

The first time that a slice is red is acted on, and then each time that it has got worse by more than chance explains:
what was lost does not come back by itself, so acting on every red look would divide the rate until nothing is learned.
What was acted on, and what was green, is part of every checkpoint, so that a resumed run acts as an unbroken one.

Rolling back ends the run. What was green was so at another rate, and going on from there at a lower one would be
another run than was planned: steps taken twice, other data in them, a bill twice as long. `lower_lr` is for going on.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal

from rankwise.records import Acted, Slice, Watched
from rankwise.store import now
from rankwise.train.checkpoints import Checkpoints
from rankwise.train.engines.engine import Engine

Action = Literal["warn", "lower_lr", "stop", "rollback"]
CUT = 1 / 3  # C10b: first cut the rate by 3


class Guard:
    """The looks of one run and what follows from them. Every process has one, and all of them act alike.

    Args:
        look: step -> what general ability is now; given by the worker.
        every: optimizer steps between two looks.
    Attributes:
        stop: why the run shall save and stop; None: it goes on.
        back_to: the step whose weights are in place again; None: those of the last step are.
    """

    def __init__(self, look: Callable[[int], Watched], every: int, action: Action, checkpoints: Checkpoints):
        self.look, self.every, self.action, self.checkpoints = look, every, action, checkpoints
        self.stop: str | None = None
        self.back_to: int | None = None

    def begin(self, engine: Engine) -> Iterator[Watched]:
        """Before step 1. Where the run may go back, what it starts from counts as green, and is kept."""
        yield self.look(0)
        if self.action == "rollback":
            self.checkpoints.keep_first(engine)
            self.checkpoints.green = 0

    def after(self, step: int, *, last: bool, engine: Engine, scheduler: Any) -> Iterator[Watched | Acted]:
        """Look where it is time, and act where it is red."""
        if step % self.every and not last:
            return
        seen, known = self.look(step), self.checkpoints.acted_on
        yield seen
        red = [s for s in seen.slices if s.level == "red"]
        acts = [s for s in red if s.name not in known or _worse(s, known[s.name])]
        self.checkpoints.acted_on = {s.name: s.difference if s in acts else known[s.name] for s in red}
        if self.action == "rollback" and seen.level == "green":
            self.checkpoints.green = step
        if acts:
            yield self._act(step, acts, last, engine, scheduler)

    def saves(self, step: int) -> bool:
        """A run that may go back keeps each state that was green; one that is stopped, what it was stopped at."""
        return self.stop is not None or (self.action == "rollback" and self.checkpoints.green == step)

    def _act(self, step: int, red: list[Slice], last: bool, engine: Engine, scheduler: Any) -> Acted:
        # A rate that no step will use need not be lowered.
        action: Action = "warn" if self.action == "lower_lr" and last else self.action
        reason = f"red: {'; '.join(map(_said, red))}"
        if action == "lower_lr":
            lower(scheduler, CUT)
        elif action == "stop":
            self.stop = f"forgetting is {reason} (forgetting.action: stop)"
        elif action == "rollback":
            assert self.checkpoints.green is not None, "the start is kept before the first step"
            engine.restore_weights(self.checkpoints.sound_path(self.checkpoints.green, engine.group))
            self.back_to = self.checkpoints.green
        return Acted(
            time=now(),
            step=step,
            action=action,
            reason=reason,
            learning_rate_factor=CUT if action == "lower_lr" else None,
            back_to=self.back_to,
        )


def lower(scheduler: Any, factor: float) -> None:
    """Multiply the learning rate, now and for the rest of the schedule. Optimizer and scheduler keep it in their state,
    and so does a checkpoint.
    """
    scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
    for group in scheduler.optimizer.param_groups:
        group["lr"] *= factor
        group["initial_lr"] *= factor
    scheduler._last_lr = [group["lr"] for group in scheduler.optimizer.param_groups]


def _worse(part: Slice, before: float) -> bool:
    """Does the whole interval of the difference lie beyond the one that was acted on?"""
    low, high = part.interval
    return low > before if part.metric == "general_loss" else high < before


def _said(part: Slice) -> str:
    low, high = part.interval
    return f"{part.name} {part.difference:+z.3f} {part.unit} against the base (95 %: {low:+z.3f} to {high:+z.3f})"
