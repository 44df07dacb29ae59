"""Checkpoints that can be trusted: published whole or not at all, hashed, and kept by value.

checkpoint-N/   weights (safetensors, as PEFT or transformers save them) and trainer_state.json; and the state that
                only training on needs: optimizer.pt, scheduler.pt, rng_state.pth; of several processes the first
                writes, and each one its own random state, and its own part of an optimizer that is split
best, last      links to the checkpoint with the lowest held-out loss, and to the newest
"""

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rankwise.errors import RunError
from rankwise.files import folder_bytes, free_bytes, hash_folder, link, publish_folder, require_space, write_text
from rankwise.methods import METHODS
from rankwise.model.trained import save_weights
from rankwise.records import Note, Saved, TrainConfig
from rankwise.store import Run, now
from rankwise.train.engines.engine import Engine
from rankwise.train.engines.group import Group
from rankwise.train.mirror import Mirror

# Hashes of the other files of a checkpoint; written last, so that a folder without it is not a checkpoint.
MANIFEST = "manifest.json"
STATE = "trainer_state.json"
MB = 1e6


class Checkpoints:
    """The checkpoints of one run.

    The newest `save_total_limit` can be resumed. The `save_top_k` with the lowest held-out loss are kept beside them,
    without the state that only training on needs.

    Attributes:
        green: the step that a run may go back to, which is never removed; None: it goes nowhere.
        acted_on: what the forgetting watch has acted on so far: slice -> difference from the base then.
    """

    def __init__(self, run: Run, config: TrainConfig, planned_bytes: int, mirror: Mirror | None = None):
        self.folder, self.root, self.mirror = run.checkpoints, run.folder, mirror
        self.keep_last, self.keep_best = config.save_total_limit, config.save_top_k
        self.planned_bytes = planned_bytes
        self.green: int | None = None
        self.acted_on: dict[str, float] = {}
        method = METHODS[config.method]
        self.encodes, self.trains_adapter = method.encodes, method.trains == "adapter"

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        found = [p.name.removeprefix("checkpoint-") for p in self.folder.glob("checkpoint-*")]
        return sorted(int(n) for n in found if n.isdigit())

    def path(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}"

    def save(
        self, step: int, engine: Engine, scheduler: Any, losses: dict[int, float], micro_batch: int
    ) -> Iterator[Note | Saved]:
        """Write checkpoint-`step`, then drop what retention does not keep. Every process calls it; the first one tells.

        Args:
            losses: step -> validation loss so far.
            micro_batch: rows in one forward pass as the run has them now.

        Raises:
            SpaceError: no room on the disk, even without what could be spared; nothing was written.
        """
        began = time.monotonic()
        if engine.group.first:
            yield from self._make_room(step, losses)
        with shared_folder(self.path(step), engine.group) as folder:
            self._write(folder, step, engine, scheduler, losses, micro_batch)
        if not engine.group.first:
            return
        removed = self._retain(losses)
        path = self.path(step)
        link(self.folder / "last", path.name)
        best = self.best(losses)
        if best is not None:
            link(self.folder / "best", self.path(best).name)
        if self.mirror:
            yield from self.mirror.follow([self.path(s) for s in self.steps()])
        yield Saved(
            time=now(),
            step=step,
            checkpoint=str(path.relative_to(self.root)),
            bytes=folder_bytes(path),
            seconds=time.monotonic() - began,
            removed=tuple(removed),
        )

    def rehearse(self, engine: Engine, scheduler: Any, micro_batch: int) -> int:
        """Write a whole checkpoint, and drop it: its bytes (0 in other processes than the first).

        Raises SpaceError, OSError as `save` would.
        """
        if engine.group.first:
            require_space(self.folder, self.planned_bytes, "a checkpoint")
        rehearsed = self.folder / ".rehearsed"
        try:
            with shared_folder(rehearsed, engine.group) as folder:
                self._write(folder, 0, engine, scheduler, {}, micro_batch)
            return folder_bytes(rehearsed) if engine.group.first else 0
        finally:
            if engine.group.first:
                shutil.rmtree(rehearsed, ignore_errors=True)

    def _write(
        self,
        folder: Path,
        step: int,
        engine: Engine,
        scheduler: Any,
        losses: dict[int, float],
        micro_batch: int,
    ) -> None:
        group = engine.group
        state = {
            "global_step": step,
            "validation_losses": {str(s): loss for s, loss in losses.items()},
            "green": self.green,
            "acted_on": self.acted_on,
            "train_batch_size": micro_batch,  # the Trainer's name for rows in one forward pass of one device
        }
        weights = self._write_weights(folder, engine, state)
        if group.first:
            torch.save(scheduler.state_dict(), folder / "scheduler.pt")
        group.meet()
        engine.save_optimizer(folder)
        torch.save(rng_state(), folder / rng_file(group))
        group.meet()
        if group.first:
            resuming = {name: digest for name, digest in hash_folder(folder).items() if name not in weights}
            _write_manifest(folder, weights, resuming)

    def _write_weights(self, folder: Path, engine: Engine, state: dict[str, Any]) -> dict[str, str]:
        """Weights and trainer_state.json; their hashes (none in other processes than the first)."""
        whole = engine.full_state(trained_only=self.trains_adapter)
        if not engine.group.first:
            return {}
        save_weights(engine.bare, folder, encodes=self.encodes, state=whole)
        write_text(folder / STATE, json.dumps(state, indent=1))
        return hash_folder(folder)

    def keep_first(self, engine: Engine) -> None:
        """Write the weights that a run begins with as checkpoint-0, from which nothing can be resumed."""
        if engine.group.first:
            require_space(self.folder, self.planned_bytes, "checkpoint-0")
        with shared_folder(self.path(0), engine.group) as folder:
            weights = self._write_weights(folder, engine, {"global_step": 0})
            if engine.group.first:
                _write_manifest(folder, weights, {})

    def _make_room(self, step: int, losses: dict[int, float]) -> Iterator[Note]:
        """Where the disk has less than a checkpoint free, what can be spared goes, the least useful first: never the
        best weights nor the newest checkpoint, and nothing at all where even that would not be enough.
        """
        missing, going = self.planned_bytes - free_bytes(self.folder), []
        for what, size, drop in self._spare(losses):
            if missing > 0:
                going.append((what, drop))
                missing -= size
        if missing <= 0:
            for _, drop in going:
                drop()
        require_space(self.folder, self.planned_bytes, f"checkpoint-{step}")
        if going:
            yield Note(
                time=now(),
                text=f"the disk had less than {self.planned_bytes / MB:,.0f} MB free for checkpoint-{step}; removed "
                f"{', '.join(what for what, _ in going)}",
            )

    def _spare(self, losses: dict[int, float]) -> Iterator[tuple[str, int, Callable[[], object]]]:
        """(what, its bytes, how it goes)"""
        older, best = self.steps()[:-1], self.best(losses)
        states = {step: self._state_bytes(step) for step in older}
        for step, size in states.items():
            if size:
                yield f"the optimizer's state of checkpoint-{step}", size, partial(self._thin, step)
        for step in sorted(older, key=lambda s: -losses.get(s, float("inf"))):
            if step not in (best, self.green):
                folder = self.path(step)
                yield folder.name, folder_bytes(folder) - states[step], partial(shutil.rmtree, folder)

    def _state_bytes(self, step: int) -> int:
        names = _manifest(self.path(step))["state"] if self.resumable(step) else {}
        return sum((self.path(step) / name).stat().st_size for name in names)

    def _retain(self, losses: dict[int, float]) -> list[str]:
        steps = self.steps()
        newest = set(steps[max(0, len(steps) - self.keep_last) :])
        best = set(self.ranked(losses)[: self.keep_best]) | {step for step in steps if step == self.green}
        doomed = [step for step in steps if step not in newest | best]
        for step in doomed:
            shutil.rmtree(self.path(step))
        for step in best - newest:
            if self.resumable(step):
                self._thin(step)
        return [self.path(step).name for step in doomed]

    def _thin(self, step: int) -> None:
        """Leave the weights alone. The manifest goes first: a kill in between leaves files that nobody looks for."""
        manifest = _manifest(self.path(step))
        _write_manifest(self.path(step), manifest["weights"], {})
        for name in manifest["state"]:
            (self.path(step) / name).unlink(missing_ok=True)

    def resumable(self, step: int) -> bool:
        """Can training go on from it, or does it hold weights alone?"""
        try:
            return bool(_manifest(self.path(step))["state"])
        except (OSError, ValueError):
            return False

    def ranked(self, losses: dict[int, float]) -> list[int]:
        """Trained steps with a checkpoint, by validation loss, the lowest first; the later one of equals."""
        return sorted((s for s in self.steps() if s in losses and s > 0), key=lambda step: (losses[step], -step))

    def best(self, losses: dict[int, float]) -> int | None:
        """The step with a checkpoint and the lowest validation loss; the later one of equals."""
        return next(iter(self.ranked(losses)), None)

    def newest_sound(self) -> tuple[int | None, list[str]]:
        """The last checkpoint to go on from, whose hashes hold (None: start over), and a sentence for each damaged one
        passed over. One that is newer where the copies go is fetched from there.
        """
        skipped = []
        away = self.mirror.steps() if self.mirror else []
        for step in sorted({*self.steps(), *away}, reverse=True):
            fault = self._fault(step)
            if fault and step in away:
                assert self.mirror is not None
                self.mirror.fetch(self.path(step))
                fault = self._fault(step)
            if fault:
                skipped.append(f"{self.path(step).name} is damaged ({fault}) and was not used")
            elif self.resumable(step):
                return step, skipped
        return None, skipped

    def sound_path(self, step: int, group: Group) -> Path:
        """Of a checkpoint whose weights shall be put back; fetched from where the copies go if it is not whole here.
        Every process calls it. Raises RunError where there is no whole one.
        """
        fault = self._fault(step) if group.first else None
        if fault and self.mirror and step in self.mirror.steps():
            self.mirror.fetch(self.path(step))
            fault = self._fault(step)
        if fault := group.from_first(fault):
            raise RunError(
                f"{self.path(step)} cannot be gone back to: {fault}",
                fix="the newest checkpoint can be resumed with another forgetting.action",
            )
        return self.path(step)

    def _fault(self, step: int) -> str | None:
        folder = self.path(step)
        try:
            manifest = _manifest(folder)
        except (OSError, ValueError):
            return "no readable manifest"
        found = hash_folder(folder)
        expected = manifest["weights"] | manifest["state"]
        wrong = sorted(name for name in expected if found.get(name) != expected[name])
        return f"{', '.join(wrong)} changed" if wrong else None

    def restore(self, step: int, engine: Engine, scheduler: Any) -> tuple[dict[int, float], int]:
        """Put weights, optimizer, scheduler and random state back; returns the validation losses so far and the rows
        in one forward pass.
        """
        folder = self.path(step)
        engine.restore_weights(folder)
        engine.restore_optimizer(folder)
        scheduler.load_state_dict(torch.load(folder / "scheduler.pt", weights_only=True))
        restore_rng(torch.load(folder / rng_file(engine.group), weights_only=True))
        state = json.loads((folder / STATE).read_text())
        self.green, self.acted_on = state.get("green"), state.get("acted_on", {})
        return {int(s): loss for s, loss in state["validation_losses"].items()}, state["train_batch_size"]


@contextmanager
def shared_folder(target: Path, group: Group) -> Iterator[Path]:
    """`publish_folder` for all processes: the first makes it and publishes it, when all are through with it."""
    if not group.first:
        yield Path(group.from_first(""))
        group.meet()
        return
    with publish_folder(target) as folder:
        group.from_first(str(folder))
        yield folder
    group.meet()


def rng_file(group: Group) -> str:
    """Named as transformers' Trainer names it."""
    return "rng_state.pth" if group.world == 1 else f"rng_state_{group.rank}.pth"


def _manifest(folder: Path) -> dict[str, dict[str, str]]:
    """`weights` and `state`: file -> sha256. Raises OSError, ValueError."""
    manifest = json.loads((folder / MANIFEST).read_text())
    if not (isinstance(manifest, dict) and {"weights", "state"} <= set(manifest)):
        raise ValueError("not a manifest")
    return manifest


def _write_manifest(folder: Path, weights: dict[str, str], state: dict[str, str]) -> None:
    write_text(folder / MANIFEST, json.dumps({"weights": weights, "state": state}, indent=1))


def rng_state() -> dict[str, Any]:
    """Of everything that draws: torch on each device, and Python."""
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_rng(state: dict[str, Any]) -> None:
    """Random numbers go on as they would have."""
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
