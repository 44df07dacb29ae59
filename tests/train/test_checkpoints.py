"""Checkpoints are whole or not there, checked before use, and kept by value."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import get_scheduler

from rankwise import files
from rankwise.errors import RunError, SpaceError
from rankwise.model.attach import attach
from rankwise.model.load import load_base
from rankwise.model.trained import restore_weights
from rankwise.store import Run
from rankwise.train.checkpoints import MANIFEST, Checkpoints
from rankwise.train.engines.engine import Engine
from rankwise.train.engines.group import Group
from tests.tiny import tiny_config
from tests.training import METHOD_NAMES, carry_out, losses, toy_model, toy_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


class Training:
    """A model, its optimizer and its schedule, a few steps in."""

    def __init__(self, folder: Path, method: str = "lora"):
        config = tiny_config(method)
        self.model: Any = attach(
            load_base(folder, dtype="bf16" if method == "qlora" else "fp32", four_bit=method == "qlora"), config
        )
        self.optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-2)
        self.scheduler = get_scheduler("cosine", self.optimizer, 2, 20)

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            ids = torch.randint(3, 300, (1, 9))
            self.model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.scheduler.step()

    def save(self, checkpoints: Checkpoints, step: int, losses: dict[int, float]) -> Any:
        *_, saved = checkpoints.save(step, alone(self.model, self.optimizer), self.scheduler, losses, 4)
        return saved

    def trained(self) -> dict[str, torch.Tensor]:
        return {n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad}


def alone(model: Any, optimizer: Any) -> Engine:
    """One process around a model and its optimizer."""
    engine = Engine(Group(0, 1, torch.device("cpu")), tiny_config("lora"))
    engine.wrap(model, lambda wrapped: optimizer)
    return engine


def checkpoints(tmp_path: Path, keep: int = 2, planned: int = 0, top: int = 1) -> Checkpoints:
    return Checkpoints(Run(tmp_path), tiny_config(save_total_limit=keep, save_top_k=top), planned)


class Stub:
    """Retention and damage do not depend on what is saved."""

    def save_pretrained(self, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"weights" * 100)

    def state_dict(self) -> dict[str, Any]:
        return {"a": torch.arange(3)}


def save(kept: Checkpoints, step: int, losses: dict[int, float] | None = None) -> Any:
    *_, saved = kept.save(step, alone(Stub(), Stub()), Stub(), losses or {}, 4)
    return saved


def names(kept: Checkpoints) -> list[str]:
    """Folders and files among the checkpoints, hidden ones too; links are looked at on their own."""
    return sorted(p.name for p in kept.folder.iterdir() if not p.is_symlink())


@pytest.mark.parametrize(
    ("keep", "values", "expected"),
    [
        (1, {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}, [1, 4]),
        (1, {1: 4.0, 2: 3.0, 3: 2.0, 4: 1.0}, [4]),
        (2, {1: 4.0, 2: 1.0, 3: 2.0, 4: 3.0}, [2, 3, 4]),
        (2, {1: 4.0, 2: 1.0, 3: 1.0, 4: 3.0}, [3, 4]),  # of equals the later
        (3, {}, [2, 3, 4]),
        (9, {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}, [1, 2, 3, 4]),
    ],
)
def test_the_last_n_and_the_best_are_kept(
    tmp_path: Path, keep: int, values: dict[int, float], expected: list[int]
) -> None:
    kept, removed = checkpoints(tmp_path, keep), []
    for step in range(1, 5):
        so_far = {s: loss for s, loss in values.items() if s <= step}
        removed += save(kept, step, so_far).removed
    assert kept.steps() == expected
    assert sorted(removed) == [f"checkpoint-{s}" for s in range(1, 5) if s not in expected]
    assert kept.best(values) == (min(values, key=lambda s: (values[s], -s)) if values else None)


@pytest.mark.parametrize(
    ("top", "values", "weights_alone"),
    [
        (1, {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}, [1]),
        (2, {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}, [1, 2]),
        (3, {1: 2.0, 2: 3.0, 3: 9.0, 4: 8.0, 5: 1.0, 6: 7.0}, [1, 2]),  # the third of the best is among the last
        (1, {1: 4.0, 2: 3.0, 3: 2.0, 4: 1.0}, []),
    ],
)
def test_the_best_hold_weights_alone_and_the_last_can_be_resumed(
    tmp_path: Path, top: int, values: dict[int, float], weights_alone: list[int]
) -> None:
    kept, last = checkpoints(tmp_path, 2, top=top), max(values)
    for step in values:
        save(kept, step, {s: loss for s, loss in values.items() if s <= step})
    assert [s for s in kept.steps() if not kept.resumable(s)] == weights_alone
    assert kept.steps() == sorted({*weights_alone, last - 1, last} | ({5} if last == 6 else set()))
    for step in weights_alone:
        assert {p.name for p in kept.path(step).iterdir()} == {"model.safetensors", "trainer_state.json", MANIFEST}
        assert kept._fault(step) is None
    assert (kept.folder / "last").resolve() == kept.path(last).resolve()
    assert (kept.folder / "best").resolve() == kept.path(min(values, key=lambda s: (values[s], -s))).resolve()


def test_one_never_resumes_from_weights_alone(tmp_path: Path) -> None:
    kept, values = checkpoints(tmp_path, 1), {1: 1.0, 2: 2.0, 3: 3.0}
    for step in values:
        save(kept, step, values)
    assert kept.steps() == [1, 3]
    truncate(kept.path(3))
    start, skipped = kept.newest_sound()
    assert start is None and skipped == ["checkpoint-3 is damaged (model.safetensors changed) and was not used"]


def test_a_kill_while_a_checkpoint_is_thinned_leaves_it_sound(tmp_path: Path) -> None:
    """The manifest is written first, so that what was not yet deleted is not missed."""
    kept, values = checkpoints(tmp_path, 1), {1: 1.0, 2: 2.0}
    save(kept, 1, values)
    state = (kept.path(1) / "optimizer.pt").read_bytes()
    save(kept, 2, values)
    (kept.path(1) / "optimizer.pt").write_bytes(state)
    assert kept._fault(1) is None and not kept.resumable(1)


def test_a_rehearsed_save_leaves_nothing(tmp_path: Path) -> None:
    kept = checkpoints(tmp_path)
    save(kept, 1)
    size = files.folder_bytes(kept.path(1))
    assert kept.rehearse(alone(Stub(), Stub()), Stub(), 4) == pytest.approx(size, abs=200)
    assert names(kept) == ["checkpoint-1"] and kept.steps() == [1]


def test_steps_are_ordered_by_number(tmp_path: Path) -> None:
    kept = checkpoints(tmp_path, 9)
    for step in (2, 10, 9):
        save(kept, step)
    (kept.folder / "checkpoint-x").mkdir()
    assert kept.steps() == [2, 9, 10] and kept.newest_sound() == (10, [])


def truncate(path: Path) -> None:
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray((path / "optimizer.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (path / "optimizer.pt").write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (truncate, "model.safetensors changed"),
    "flipped": (flip, "optimizer.pt changed"),
    "no manifest": (lambda path: (path / MANIFEST).unlink(), "no readable manifest"),
    "half a manifest": (lambda path: (path / MANIFEST).write_text('{"a"'), "no readable manifest"),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), "model.safetensors changed"),
    "empty": (lambda path: [f.unlink() for f in path.iterdir()], "no readable manifest"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path, name: str) -> None:
    damage, fault = DAMAGES[name]
    kept = checkpoints(tmp_path, 3)
    for step in (1, 2, 3):
        save(kept, step)
    damage(kept.path(3))
    assert kept.newest_sound() == (2, [f"checkpoint-3 is damaged ({fault}) and was not used"])
    damage(kept.path(2))
    damage(kept.path(1))
    start, skipped = kept.newest_sound()
    assert start is None and len(skipped) == 3


def test_no_checkpoint_means_from_the_start(tmp_path: Path) -> None:
    assert checkpoints(tmp_path).newest_sound() == (None, [])


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_restore_puts_everything_back(folder: Path, tmp_path: Path, method: str) -> None:
    if method == "qlora":
        pytest.importorskip("bitsandbytes")
    torch.manual_seed(3)
    random.seed(3)
    one = Training(folder, method)
    one.step(3)
    kept = checkpoints(tmp_path)
    one.save(kept, 3, {0: 2.5, 3: 1.5})
    expected, draws = one.trained(), (torch.rand(4), random.random())
    rate, state = one.scheduler.get_last_lr(), one.optimizer.state_dict()["state"]
    torch.manual_seed(99)
    random.seed(99)
    other = Training(folder, method)
    other.step(1)
    assert kept.restore(3, alone(other.model, other.optimizer), other.scheduler) == ({0: 2.5, 3: 1.5}, 4)
    assert torch.equal(torch.rand(4), draws[0]) and random.random() == draws[1]
    assert other.scheduler.get_last_lr() == rate
    found = other.trained()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    for key, values in other.optimizer.state_dict()["state"].items():
        assert all(torch.equal(values[name], state[key][name]) for name in values)
    torch.manual_seed(4)
    one.step(2)
    torch.manual_seed(4)
    other.step(2)
    after = other.trained()
    assert all(torch.equal(after[name], tensor) for name, tensor in one.trained().items())


@pytest.mark.parametrize("method", ["full", "lora"])
def test_weights_are_safetensors_and_nothing_needs_pickle(folder: Path, tmp_path: Path, method: str) -> None:
    training = Training(folder, method)
    training.step()
    saved = training.save(checkpoints(tmp_path), 1, {1: 1.0})
    path = tmp_path / saved.checkpoint
    names = {p.name for p in path.iterdir()}
    assert names >= {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", MANIFEST}
    assert ("adapter_model.safetensors" if method == "lora" else "model.safetensors") in names
    assert not [n for n in names if n.endswith((".bin", ".pkl", ".ckpt"))]
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.load(path / name, weights_only=True)
    assert all(load_file(file) for file in path.glob("*.safetensors"))
    state = {"global_step": 1, "validation_losses": {"1": 1.0}, "train_batch_size": 4}
    state |= {"green": None, "acted_on": {}}
    assert json.loads((path / "trainer_state.json").read_text()) == state
    assert saved.bytes == sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def test_weights_of_another_shape_or_kind_are_refused(folder: Path, tmp_path: Path) -> None:
    kept = checkpoints(tmp_path)
    Training(folder, "full").save(kept, 1, {})
    file = kept.path(1) / "model.safetensors"
    tensors = load_file(file)
    from safetensors.torch import save_file

    save_file({k: v for k, v in tensors.items() if "layers.0.mlp" not in k}, file, metadata={"format": "pt"})
    with pytest.raises(RunError, match="does not fit"):
        restore_weights(Training(folder, "full").model, kept.path(1))


def test_no_space_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = checkpoints(tmp_path, planned=10_000)
    save(kept, 1)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=9_999))
    with pytest.raises(SpaceError, match="checkpoint-2"):
        save(kept, 2)
    assert names(kept) == ["checkpoint-1"]
    assert kept.newest_sound() == (1, [])


def test_a_disk_that_gets_short_takes_what_can_be_spared_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """States of older ones, then the worst; the best weights and the newest checkpoint stay."""
    kept, values = checkpoints(tmp_path, 3), {1: 1.0, 2: 3.0, 3: 2.0, 4: 4.0}
    for step in (1, 2, 3):
        save(kept, step, values)
    everything = files.folder_bytes(kept.folder)

    def disk(room: int) -> Any:
        """A disk on which `room` bytes are free beside what lies there now."""
        return lambda _: SimpleNamespace(free=room + everything - files.folder_bytes(kept.folder))

    state = sum((kept.path(1) / n).stat().st_size for n in ("optimizer.pt", "scheduler.pt", "rng_state.pth"))
    kept.planned_bytes = 10_000
    monkeypatch.setattr(files.shutil, "disk_usage", disk(10_000 - state))
    note, _ = kept.save(4, alone(Stub(), Stub()), Stub(), values, 4)
    assert note.text.endswith("removed the optimizer's state of checkpoint-1")
    assert kept.steps() == [1, 2, 3, 4] and [kept.resumable(s) for s in kept.steps()] == [False, True, True, True]

    everything = files.folder_bytes(kept.folder)
    monkeypatch.setattr(files.shutil, "disk_usage", disk(10_000 - 2 * state - 1))
    note, _ = kept.save(5, alone(Stub(), Stub()), Stub(), values, 4)
    assert "state of checkpoint-2, the optimizer's state of checkpoint-3, checkpoint-2" in note.text
    assert kept.steps() == [1, 3, 4, 5]

    monkeypatch.setattr(files.shutil, "disk_usage", disk(-(10**9)))
    before = files.hash_folder(kept.folder)
    with pytest.raises(SpaceError, match="checkpoint-6"):
        next(kept.save(6, alone(Stub(), Stub()), Stub(), values, 4))
    assert files.hash_folder(kept.folder) == before  # what would not be enough is not given up


def test_a_disk_that_fills_up_while_saving_leaves_no_half_checkpoint(tmp_path: Path) -> None:
    class Full(Stub):
        def state_dict(self) -> dict[str, Any]:
            raise OSError(28, "No space left on device")

    kept = checkpoints(tmp_path)
    save(kept, 1)
    with pytest.raises(OSError, match="No space"):
        list(kept.save(2, alone(Stub(), Full()), Stub(), {}, 4))
    assert names(kept) == ["checkpoint-1"]


@pytest.mark.parametrize("name", ["truncated", "flipped", "no manifest"])
def test_resume_uses_the_checkpoint_before_a_damaged_one(folder: Path, tmp_path: Path, name: str) -> None:
    """And ends where the unbroken run ends."""
    unbroken = toy_run(tmp_path / "one", folder)
    expected = losses(carry_out(unbroken))
    run = toy_run(tmp_path / "two", folder)
    carry_out(run, stop_after=5)
    newest = run.checkpoints / "checkpoint-5"
    if name == "truncated":
        file = newest / "adapter_model.safetensors"
        file.write_bytes(file.read_bytes()[:-9])
    else:
        DAMAGES[name][0](newest)
    events = carry_out(run, resume=True)
    assert any(e.event == "note" and "checkpoint-5 is damaged" in e.text for e in events)
    assert next(e.step for e in events if e.event == "started") == 4
    assert losses(run.events()) == expected


def test_resume_with_every_checkpoint_damaged_starts_over(folder: Path, tmp_path: Path) -> None:
    unbroken = losses(carry_out(toy_run(tmp_path / "one", folder)))
    run = toy_run(tmp_path / "two", folder)
    carry_out(run, stop_after=3)
    for path in run.checkpoints.glob("checkpoint-*"):
        (path / MANIFEST).unlink()
    events = carry_out(run, resume=True)
    assert next(e.step for e in events if e.event == "started") == 0
    assert losses(events) == unbroken == losses(run.events())
    shutil.rmtree(run.checkpoints)
