"""Checkpoints that can be trusted: published whole or not at all, hashed, and kept by value (the best and the last
n).
"""

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from rankwise.methods import METHODS
from rankwise.model.trained import save_weights
from rankwise.records import Saved, TrainConfig
from rankwise.store import Run, folder_bytes, hash_folder, now, publish_folder, require_space, write_text
from rankwise.train.engines.engine import Engine
from rankwise.train.engines.group import Group

# Hashes of the other files of a checkpoint; written last, so that a folder without it is not a checkpoint.
MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints of one run.

    A checkpoint holds the weights (whole, safetensors, as PEFT or transformers save them), optimizer.pt, scheduler.pt,
    rng_state.pth and trainer_state.json: everything that the next step depends on. Of several processes the first
    writes, and each one its own random state, and its own part of an optimizer that is split.
    """

    def __init__(self, run: Run, config: TrainConfig, planned_bytes: int):
        self.folder, self.root = run.checkpoints, run.folder
        self.keep_last, self.planned_bytes = config.save_total_limit, planned_bytes
        method = METHODS[config.method]
        self.encodes, self.trains_adapter = method.encodes, method.trains == "adapter"

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        found = [p.name.removeprefix("checkpoint-") for p in self.folder.glob("checkpoint-*")]
        return sorted(int(n) for n in found if n.isdigit())

    def path(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}"

    def save(self, step: int, engine: Engine, scheduler: Any, losses: dict[int, float]) -> Saved:
        """Write checkpoint-`step`, then drop what retention does not keep. `losses`: step -> validation loss so far."""
        began = time.monotonic()
        weights = engine.full_state(trained_only=self.trains_adapter)
        if not engine.group.first:
            return self._beside(step, engine, began)
        require_space(self.folder, self.planned_bytes, f"checkpoint-{step}")
        with publish_folder(self.path(step)) as folder:
            engine.group.from_first(str(folder))
            save_weights(engine.bare, folder, encodes=self.encodes, state=weights)
            torch.save(scheduler.state_dict(), folder / "scheduler.pt")
            _save_own(engine, folder)
            state = {"global_step": step, "validation_losses": {str(s): loss for s, loss in losses.items()}}
            write_text(folder / "trainer_state.json", json.dumps(state, indent=1))
            write_text(folder / MANIFEST, json.dumps(hash_folder(folder), indent=1))
        removed = self._retain(losses)
        engine.group.meet()
        path = self.path(step)
        return Saved(
            time=now(),
            step=step,
            checkpoint=str(path.relative_to(self.root)),
            bytes=folder_bytes(path),
            seconds=time.monotonic() - began,
            removed=tuple(removed),
        )

    def _beside(self, step: int, engine: Engine, began: float) -> Saved:
        """What a process that is not the first one adds; nobody reads the event that it gives."""
        _save_own(engine, Path(engine.group.from_first("")))
        engine.group.meet()
        seconds = time.monotonic() - began
        return Saved(time=now(), step=step, checkpoint="", bytes=0, seconds=seconds, removed=())

    def _retain(self, losses: dict[int, float]) -> list[str]:
        steps = self.steps()
        best = self.best(losses)
        keep = {*steps[max(0, len(steps) - self.keep_last) :], *([best] if best is not None else [])}
        doomed = [step for step in steps if step not in keep]
        for step in doomed:
            shutil.rmtree(self.path(step))
        return [self.path(step).name for step in doomed]

    def best(self, losses: dict[int, float]) -> int | None:
        """The step with a checkpoint and the lowest validation loss; the later one of equals."""
        known = [step for step in self.steps() if step in losses]
        return min(known, key=lambda step: (losses[step], -step)) if known else None

    def newest_sound(self) -> tuple[int | None, list[str]]:
        """The last checkpoint whose hashes hold (None: start over), and a sentence for each damaged one passed over."""
        skipped = []
        for step in reversed(self.steps()):
            if fault := self._fault(self.path(step)):
                skipped.append(f"{self.path(step).name} is damaged ({fault}) and was not used")
            else:
                return step, skipped
        return None, skipped

    def _fault(self, folder: Path) -> str | None:
        try:
            expected = json.loads((folder / MANIFEST).read_text())
        except (OSError, ValueError):
            return "no readable manifest"
        found = {name: digest for name, digest in hash_folder(folder).items() if name != MANIFEST}
        wrong = sorted(name for name in expected if found.get(name) != expected[name])
        return f"{', '.join(wrong)} changed" if wrong else None

    def restore(self, step: int, engine: Engine, scheduler: Any) -> dict[int, float]:
        """Put weights, optimizer, scheduler and random state back; returns the validation losses so far."""
        folder = self.path(step)
        engine.restore_weights(folder)
        engine.restore_optimizer(folder)
        scheduler.load_state_dict(torch.load(folder / "scheduler.pt", weights_only=True))
        _restore_rng(torch.load(folder / rng_file(engine.group), weights_only=True))
        state = json.loads((folder / "trainer_state.json").read_text())
        return {int(s): loss for s, loss in state["validation_losses"].items()}


def _save_own(engine: Engine, folder: Path) -> None:
    """What only this process knows; returns when every process has written its own."""
    engine.save_optimizer(folder)
    torch.save(_rng_state(), folder / rng_file(engine.group))
    engine.group.meet()


def rng_file(group: Group) -> str:
    """Named as transformers' Trainer names it."""
    return "rng_state.pth" if group.world == 1 else f"rng_state_{group.rank}.pth"


def _rng_state() -> dict[str, Any]:
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _restore_rng(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
