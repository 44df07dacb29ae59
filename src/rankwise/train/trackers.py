"""Experiment trackers told of a run's events: TensorBoard, Weights & Biases, MLflow, Trackio, through accelerate's.

Each is told by a thread of its own. One that fails is left, once and in words; one that hangs is not waited for: the
run's own record is events.jsonl, and a tracker never stops a run.
"""

import hashlib
import logging
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rankwise.errors import JobError
from rankwise.records import Event, Step, TrainConfig, Validation, Watched

LOG = logging.getLogger(__name__)
PROJECT = "rankwise"
PATIENCE = 30.0  # seconds that the end of a run waits for a tracker to send what it has
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}


def require_installed(names: Sequence[str]) -> None:
    """Raises JobError where the package of a tracker is missing."""
    for name in names:
        if find_spec(PACKAGES[name]) is None:
            raise JobError(
                f"train.report_to names {name}, and its package is not installed",
                expected=f"the package {PACKAGES[name]}",
                fix=f"pip install {PACKAGES[name]}, or leave report_to out; the run's page shows its curves anyway",
            )


@contextmanager
def reporters(names: Sequence[str], folder: Path, config: TrainConfig) -> Iterator["Reporters"]:
    """Trackers that are told events while inside; at the end they have PATIENCE seconds to send what they have."""
    told = Reporters([Reporter(name, folder, config) for name in names])
    try:
        yield told
    finally:
        told.close()


class Reporters:
    """All trackers of a run."""

    def __init__(self, reporters: Sequence["Reporter"]) -> None:
        self._reporters = list(reporters)

    def tell(self, event: Event) -> None:
        """Pass an event on; returns at once."""
        for reporter in self._reporters:
            reporter.tell(event)

    def failures(self) -> list[str]:
        """A sentence for each tracker that has failed since this was asked last; it is left."""
        failed = [r for r in self._reporters if r.trouble is not None]
        self._reporters = [r for r in self._reporters if r not in failed]
        return [f"{r.name} is told nothing more: {r.trouble}" for r in failed]

    def close(self) -> None:
        """Wait for them, PATIENCE seconds each at most; what fails now is said in the log."""
        for reporter in self._reporters:
            reporter.close()
        for sentence in self.failures():
            LOG.warning("%s", sentence)


class Reporter:
    """One tracker and its thread.

    Attributes:
        trouble: why it failed; None while it works.
    """

    def __init__(self, name: str, folder: Path, config: TrainConfig) -> None:
        self.name = name
        self.trouble: str | None = None
        self._folder, self._config = folder, config
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"tell {name}", daemon=True)
        self._thread.start()

    def tell(self, event: Event) -> None:
        """Returns at once."""
        self._events.put(event)

    def close(self) -> None:
        """Wait until it has sent everything, PATIENCE seconds at most."""
        self._events.put(None)
        self._thread.join(PATIENCE)

    def _work(self) -> None:
        try:
            tracker = _started(self.name, self._folder)
            tracker.store_init_configuration(_flat(self._config))
            while (event := self._events.get()) is not None:
                if values := numbers(event):
                    tracker.log(values, step=getattr(event, "step", None))
            tracker.finish()
        except BaseException as error:  # libraries of others, over a network: SystemExit is among what they raise
            self.trouble = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"


def numbers(event: Event) -> dict[str, float]:
    """What a tracker is told of an event, by the Trainer's names; empty where there is nothing to draw."""
    if isinstance(event, Step):
        return {
            "train/loss": event.loss,
            "train/grad_norm": event.grad_norm,
            "train/learning_rate": event.learning_rate,
            "train/epoch": event.epoch,
            "train/tokens_per_second": event.tokens / event.seconds if event.seconds > 0 else 0.0,
        }
    if isinstance(event, Validation):
        shares = {"eval/fact_accuracy": event.fact_accuracy, "eval/other_accuracy": event.other_accuracy}
        return {"eval/loss": event.loss} | {name: share for name, share in shares.items() if share is not None}
    if isinstance(event, Watched):
        kl = {} if event.kl is None else {"forgetting/kl": event.kl}
        return {f"forgetting/{s.name.replace(' ', '_')}": s.difference for s in event.slices} | kl
    return {}


def _started(name: str, folder: Path) -> Any:
    """accelerate's tracker of this name. A resumed run goes on in the same place where the tracker can."""
    from accelerate import tracking

    run, stable = folder.name, hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    tracker: Any
    if name == "tensorboard":
        tracker = tracking.TensorBoardTracker("tensorboard", folder)
    elif name == "wandb":
        tracker = tracking.WandBTracker(PROJECT, name=run, id=stable, resume="allow", dir=str(folder))
    elif name == "mlflow":
        tracker = tracking.MLflowTracker(PROJECT, run_name=run)
    else:
        tracker = tracking.TrackioTracker(PROJECT, name=run, resume="allow")
    tracker.start()
    return tracker


def _flat(config: TrainConfig) -> dict[str, Any]:
    """Values that every tracker takes."""
    said = config.model_dump(mode="json", exclude_none=True)
    return {key: value if isinstance(value, (int, float, str, bool)) else str(value) for key, value in said.items()}
