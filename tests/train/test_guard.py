"""What follows from a red look: once, and again only when it got worse."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import get_scheduler

from rankwise.errors import RunError
from rankwise.records import Acted, Interval, Level, Watched
from rankwise.store import Run
from rankwise.train.checkpoints import Checkpoints
from rankwise.train.engines.engine import Engine
from rankwise.train.engines.group import Group
from rankwise.train.guard import CUT, Action, Guard, lower
from tests import builders
from tests.tiny import tiny_config


def seen(step: int, difference: float, interval: Interval, level: Level, metric: str = "general_loss") -> Watched:
    look = builders.watched(step)
    part = look.slices[0].model_copy(
        update={"difference": difference, "interval": interval, "level": level, "metric": metric}
    )
    return look.model_copy(update={"slices": (part,), "level": level})


class Line(nn.Linear):
    """As much of a model as a checkpoint asks for."""

    def save_pretrained(self, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(self.weight.detach().numpy().tobytes())


class Given(Engine):
    """Reads what `Line` writes."""

    def restore_weights(self, folder: Path) -> None:
        bytes_ = bytearray((folder / "model.safetensors").read_bytes())
        with torch.no_grad():
            self.bare.weight.copy_(torch.frombuffer(bytes_, dtype=torch.float32).view_as(self.bare.weight))


class World:
    """A guard over given looks, with a real optimizer, schedule and checkpoints."""

    def __init__(self, tmp_path: Path, action: Action, looks: dict[int, Watched], every: int = 1):
        self.engine = Given(Group(0, 1, torch.device("cpu")), tiny_config("full"))
        self.engine.wrap(Line(2, 2, bias=False), lambda m: torch.optim.AdamW(m.parameters(), lr=0.9))
        self.scheduler: Any = get_scheduler("linear", self.engine.optimizer, 0, 100)
        self.checkpoints = Checkpoints(Run(tmp_path), tiny_config("full"), 0)
        self.guard = Guard(looks.__getitem__, every, action, self.checkpoints)

    def after(self, step: int, last: bool = False) -> list[Acted]:
        events = self.guard.after(step, last=last, engine=self.engine, scheduler=self.scheduler)
        return [e for e in events if isinstance(e, Acted)]

    def save(self, step: int) -> None:
        list(self.checkpoints.save(step, self.engine, self.scheduler, {}, 1))

    @property
    def rate(self) -> float:
        return float(self.scheduler.get_last_lr()[0])


RED = {
    0: seen(0, 0.0, (0.0, 0.0), "green"),
    1: seen(1, 0.20, (0.15, 0.25), "red"),
    2: seen(2, 0.22, (0.18, 0.26), "red"),  # no worse than chance explains
    3: seen(3, 0.40, (0.30, 0.50), "red"),  # worse
    4: seen(4, 0.05, (0.01, 0.09), "amber"),
    5: seen(5, 0.15, (0.12, 0.18), "red"),  # red anew
}


def test_red_is_acted_on_once_and_again_when_it_is_worse(tmp_path: Path) -> None:
    world = World(tmp_path, "warn", RED)
    assert [len(world.after(step)) for step in (1, 2, 3, 4, 5)] == [1, 0, 1, 0, 1]


def test_a_falling_share_is_worse_when_it_falls(tmp_path: Path) -> None:
    looks = {
        1: seen(1, -0.2, (-0.3, -0.1), "red", "choice"),
        2: seen(2, -0.2, (-0.3, -0.1), "red", "choice"),
        3: seen(3, -0.5, (-0.6, -0.4), "red", "choice"),
    }
    world = World(tmp_path, "warn", looks)
    assert [len(world.after(step)) for step in (1, 2, 3)] == [1, 0, 1]


def test_looks_come_at_their_steps_and_at_the_end(tmp_path: Path) -> None:
    world = World(tmp_path, "warn", dict.fromkeys((3, 6, 7), RED[4]), every=3)
    events = [
        list(world.guard.after(step, last=step == 7, engine=world.engine, scheduler=world.scheduler))
        for step in range(1, 8)
    ]
    assert [len(e) for e in events] == [0, 0, 1, 0, 0, 1, 1]


def test_the_rate_is_cut_for_the_rest_of_the_schedule(tmp_path: Path) -> None:
    world, free = World(tmp_path / "a", "lower_lr", RED), World(tmp_path / "b", "warn", RED)
    (acted,) = world.after(1)
    assert (acted.action, acted.learning_rate_factor) == ("lower_lr", CUT)
    for times in (1, 1, 2):
        for each in (world, free):
            each.engine.optimizer.step()
            each.scheduler.step()
        if times == 2:
            world.after(3)
        assert world.rate == pytest.approx(free.rate * CUT**times)
    (at_the_end,) = world.after(5, last=True) if world.after(4) == [] else []
    assert at_the_end.action == "warn"  # no step comes that would use another rate


def test_a_lowered_rate_is_in_the_states_that_are_saved(tmp_path: Path) -> None:
    world, other = World(tmp_path, "lower_lr", RED), World(tmp_path, "lower_lr", RED)
    world.after(1)
    world.save(1)
    other.checkpoints.restore(1, other.engine, other.scheduler)
    assert other.rate == world.rate == pytest.approx(0.3)
    other.engine.optimizer.step()
    other.scheduler.step()
    assert other.rate == pytest.approx(0.3 * 0.99)
    assert other.after(2) == [] and len(other.after(3)) == 1  # it knows what was acted on


def test_every_schedule_can_be_lowered() -> None:
    for name in ("cosine", "linear", "constant", "constant_with_warmup"):
        rates = []
        for factor in (1.0, 0.5):
            optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
            scheduler: Any = get_scheduler(name, optimizer, 2, 10)
            lower(scheduler, factor)
            rates.append([(optimizer.step(), scheduler.step(), scheduler.get_last_lr()[0])[2] for _ in range(8)])
        assert rates[1] == pytest.approx([rate / 2 for rate in rates[0]])


def test_stopping_says_why_and_is_saved(tmp_path: Path) -> None:
    world = World(tmp_path, "stop", RED)
    assert world.guard.stop is None and not world.guard.saves(0)
    world.after(1)
    assert world.guard.stop and "general text +0.200" in world.guard.stop and world.guard.saves(1)


def weights(world: World) -> torch.Tensor:
    return world.engine.bare.weight.detach().clone()


def trained(world: World, by: float) -> None:
    with torch.no_grad():
        world.engine.bare.weight += by


GREEN_FIRST = RED | {1: seen(1, 0.0, (0.0, 0.0), "green"), 2: RED[4].model_copy(update={"step": 2})}


def test_rolling_back_restores_what_was_green_last(tmp_path: Path) -> None:
    world = World(tmp_path, "rollback", GREEN_FIRST)
    list(world.guard.begin(world.engine))
    first = weights(world)
    assert (world.checkpoints.path(0)).is_dir() and not world.checkpoints.resumable(0)
    trained(world, 1.0)
    assert world.after(1) == [] and world.guard.saves(1)
    world.save(1)
    assert world.checkpoints.steps() == [0, 1] or world.checkpoints.steps() == [1]
    green = weights(world)
    trained(world, 1.0)
    assert world.after(2) == [] and not world.guard.saves(2)  # amber
    for step in (12, 13, 14):  # retention takes everything but what was green
        world.save(step)
    assert 1 in world.checkpoints.steps() and 0 not in world.checkpoints.steps()
    (acted,) = world.after(3)
    assert (acted.action, acted.back_to, world.guard.back_to) == ("rollback", 1, 1)
    assert torch.equal(weights(world), green) and not torch.equal(green, first)


def test_a_run_that_was_never_green_goes_back_to_its_start(tmp_path: Path) -> None:
    world = World(tmp_path, "rollback", RED)
    list(world.guard.begin(world.engine))
    first = weights(world)
    trained(world, 1.0)
    (acted,) = world.after(1)
    assert acted.back_to == 0 and torch.equal(weights(world), first)


def test_what_was_green_and_is_damaged_is_not_gone_back_to(tmp_path: Path) -> None:
    world = World(tmp_path, "rollback", RED)
    list(world.guard.begin(world.engine))
    (world.checkpoints.path(0) / "model.safetensors").write_bytes(b"x")
    with pytest.raises(RunError, match="cannot be gone back to"):
        world.after(1)
