"""The process of one arm of a comparison: its sweep, a run for each seed, its answers. What is there already is not
done again.

    python -m rankwise.worker.comparing FOLDER ARM [--measure] [--held]

It tells how far it is as lines of FOLDER/logs/ARM.jsonl; everything else that it prints goes to standard error.
"""

import argparse
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch

from rankwise.compare.budget import final_steps
from rankwise.compare.folder import Folder, final_name, sweep_name
from rankwise.compare.measured import Told
from rankwise.errors import Interrupted, OutOfMemory, RankwiseError, TrainingError
from rankwise.evaluate.exam import Exam, set_exam
from rankwise.evaluate.paper import Paper, write_paper
from rankwise.evaluate.paperwork import paper_sizes, share_items
from rankwise.evaluate.scoring import score
from rankwise.evaluate.subject import Subject
from rankwise.evaluate.ways import asking_of
from rankwise.records import Allowance, Bakeoff, Trial
from rankwise.records.bakeoff import ArmKind
from rankwise.text.formats import Row
from rankwise.text.probes import read_probes
from rankwise.text.setaside import rows_learned
from rankwise.worker.held import die_with_parent
from rankwise.worker.measuring import measure
from rankwise.worker.road import failed
from rankwise.worker.trials import POINTS, Asked, Material, Spent, TrainingRun, gather, published, spent, untrained


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rankwise.worker.comparing")
    parser.add_argument("folder", type=Path)
    parser.add_argument("arm")
    parser.add_argument("--measure", action="store_true", help="measure how long its work takes, and do none of it")
    parser.add_argument("--held", action="store_true", help="standard input is the launcher's: bytes ask to stop")
    arguments = parser.parse_args()
    os.dup2(2, 1)  # whatever a library prints goes to the log
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if arguments.held:
        threading.Thread(target=die_with_parent, args=(stop,), daemon=True).start()
    folder = Folder(arguments.folder)

    def tell(told: Told) -> None:
        with folder.told_path(arguments.arm).open("a", encoding="utf-8") as file:
            file.write(told.model_dump_json() + "\n")

    try:
        arm = ArmWork(folder, arguments.arm, stop.is_set, tell)
        if arguments.measure:
            arm.measure()
        else:
            arm.work()
    except RankwiseError as error:
        tell(Told(what="failed", failed=error.to_json()))
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        first_line = next(iter(str(error).splitlines()), "")
        what = f"{arguments.arm}: {type(error).__name__}: {first_line}"
        fix = f"the traceback is in {folder.log_path(arguments.arm)}"
        tell(Told(what="failed", failed=TrainingError(what, fix=fix).to_json()))
        return 1
    return 0


class ArmWork:
    """Everything that one arm does."""

    def __init__(self, folder: Folder, name: str, stop: Callable[[], bool], tell: Callable[[Told], None]):
        self.folder, self.stop, self.tell = folder, stop, tell
        self.bakeoff: Bakeoff = folder.bakeoff()
        self.allowance: Allowance = next(a for a in self.bakeoff.allowances if a.arm.name == name)
        self.arm = self.allowance.arm
        self.material: Material = gather(folder.plan(name))
        self.exam = self._exam()

    def _exam(self) -> Exam:
        job, material = self.bakeoff.job, self.material
        probes = read_probes(job.data.facts) if job.data.facts else []
        return set_exam(job, material.data, probes, self._learned())

    def _learned(self) -> Iterator[Row]:
        """The rows that every arm may learn from."""
        material = self.material
        return rows_learned(self.bakeoff.job, material.chat, material.plan.split_seed, material.last_aside)

    def _paper(self, kind: ArmKind, most: int | None) -> Paper:
        material, positions = self.material, self.positions
        asking = asking_of(kind, self._learned(), material.chat, positions, material.plan.split_seed)
        return write_paper(self.exam, material.chat, asking, positions, most)

    @property
    def positions(self) -> int | None:
        """Of the model, less those that a prompt method learns."""
        config = self.allowance.config
        limit = self.material.plan.facts.model.max_position_embeddings
        return limit - (config.num_virtual_tokens or 0) if limit is not None and config is not None else limit

    def measure(self) -> None:
        started = time.time() - psutil.Process().create_time()
        kinds: set[ArmKind] = {"trained", *(a.arm.kind for a in self.bakeoff.allowances)}
        sizes = paper_sizes(self.exam)
        papers = {kind: {most: self._paper(kind, most) for most in sizes} for kind in kinds}
        scratch = self.folder.runs / f".measured-{os.getpid()}"
        found = measure(self.material, papers, self.allowance, scratch, started)
        found = found.model_copy(update={"items": share_items(self.exam)})
        self.tell(Told(what="measured", measured=found))

    def work(self) -> None:
        """Raises Interrupted, TrainingError."""
        if self.arm.kind != "trained":
            self._untrained()
            return
        rate = self._chosen_rate()
        for number, seed in enumerate(self.bakeoff.seeds):
            self._final(rate, seed, final_steps(self.allowance, number))

    def _chosen_rate(self) -> float:
        """The one with the lowest loss on the rows set aside."""
        rates = self.allowance.learning_rates
        if len(rates) == 1:
            return rates[0]
        trials = [self._sweep(rate) for rate in rates]
        sound = [t for t in trials if t.chosen_by is not None and t.learning_rate is not None]
        if not sound:
            raise TrainingError(
                f"{self.arm.name} diverged at each learning rate of its sweep: {', '.join(f'{r:g}' for r in rates)}",
                fix="lower train.learning_rate in the job; the sweep goes from there",
            )
        best = min(sound, key=lambda t: (t.chosen_by, t.learning_rate))
        assert best.learning_rate is not None
        return best.learning_rate

    def _sweep(self, rate: float) -> Trial:
        name, seed = sweep_name(self.arm, rate), self.bakeoff.seeds[0]
        done = self.folder.trial(name)
        if done is not None:
            return done
        asked = Asked(name, rate, seed, self.allowance.sweep_steps, 1)
        run = self._run(asked)
        note: tuple[str, ...] = ()
        try:
            if not _finished(run):
                run.train(self._told, publishes=False)
        except OutOfMemory:
            raise
        except TrainingError as error:
            run.run.append(failed(error))
            note = (f"diverged: {error.what}",)
        took = spent(run)
        trial = self._trial(run, "sweep", took, None if note else took.curve[-1].loss, note)
        del run
        _free()
        self.folder.keep(name, trial)
        return trial

    def _final(self, rate: float, seed: int, steps: int) -> None:
        name = final_name(self.arm, seed)
        if self.folder.trial(name) is not None:
            return
        run = self._run(Asked(name, rate, seed, steps, POINTS))
        model = published(run.run, self.material) if _finished(run) else run.train(self._told, publishes=True)
        took = spent(run)
        trial = self._trial(run, "final", took, took.curve[-1].loss, ())
        run.engine.close()
        del run
        _free()
        self.folder.keep(name, self._scored(trial, model, name))
        del model
        _free()

    def _run(self, asked: Asked) -> TrainingRun:
        self._go_on()
        self.tell(Told(what=asked.name, done=0, total=asked.steps))
        return TrainingRun(self.folder.run(asked.name), self.material, asked, self.allowance, self.stop)

    def _untrained(self) -> None:
        seed = self.bakeoff.seeds[0]
        name = final_name(self.arm, seed)
        if self.folder.trial(name) is not None:
            return
        nothing = Trial(
            arm=self.arm.name,
            purpose="final",
            seed=seed,
            learning_rate=None,
            steps=0,
            flops=0.0,
            tokens=0,
            training_seconds=0.0,
            evaluation_seconds=0.0,
            peak_memory=None,
            stored_bytes=0,
            trainable_params=0,
            chosen_by=None,
            curve=(),
            scores=(),
            answers=(),
            notes=(),
        )
        self.folder.keep(name, self._scored(nothing, untrained(self.material), name))

    def _scored(self, trial: Trial, model: Any, name: str) -> Trial:
        """The trial with what the model answers."""
        paper = self._paper(self.arm.kind, self.bakeoff.most_items)

        def progress(what: str, done: int, total: int) -> None:
            self._go_on()
            self.tell(Told(what=f"{name}, {what}", done=done, total=total))

        found = score(paper, Subject(self.material.chat, model, progress), self.material.config.autocast)
        said = {"scores": found.scores, "answers": found.answers, "evaluation_seconds": found.seconds}
        return trial.model_copy(update={**said, "notes": (*trial.notes, *found.notes)})

    def _trial(
        self, run: TrainingRun, purpose: str, took: Spent, chosen_by: float | None, notes: tuple[str, ...]
    ) -> Trial:
        return Trial.model_validate(
            {
                "arm": self.arm.name,
                "purpose": purpose,
                "seed": run.asked.seed,
                "learning_rate": run.asked.learning_rate,
                "steps": took.steps,
                "flops": took.flops,
                "tokens": took.tokens,
                "training_seconds": took.seconds,
                "evaluation_seconds": 0.0,
                "peak_memory": took.peak_memory,
                "stored_bytes": took.stored_bytes,
                "trainable_params": took.trainable_params,
                "chosen_by": chosen_by,
                "curve": took.curve,
                "scores": (),
                "answers": (),
                "notes": notes,
            }
        )

    def _told(self, what: str, done: int, total: int) -> None:
        self.tell(Told(what=what, done=done, total=total, trains=0 < done < total))

    def _go_on(self) -> None:
        if self.stop():
            raise Interrupted("stopped between two runs")


def _finished(run: TrainingRun) -> bool:
    return run.run.state() == "finished"


def _free() -> None:
    """The model must be gone before the next one is loaded."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
