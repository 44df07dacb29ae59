"""One training run of a comparison: the loop of `rankwise train` on the rows that every arm shares, without looks at
general ability, spectra and rehearsal. Its end is its result: a run that kept its best checkpoint would have had more
looks at the rows than steps.
"""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from rankwise.errors import Interrupted, TrainingError
from rankwise.estimate.counted import counter_of
from rankwise.files import write_record
from rankwise.methods import METHODS, TUNERS
from rankwise.model.attach import load_adapter, total_params, trainable_params
from rankwise.model.likelihood import grouped_losses
from rankwise.model.load import load_base
from rankwise.model.vocabulary import extend
from rankwise.records import (
    Allowance,
    CurvePoint,
    Finished,
    Plan,
    Started,
    Step,
    Stopped,
    TrainConfig,
    Validation,
)
from rankwise.store import Run, now
from rankwise.text.dataset import Dataset, load_dataset
from rankwise.text.general import general_path
from rankwise.text.masks import Encoded
from rankwise.text.setaside import set_aside
from rankwise.text.template import ChatText
from rankwise.train.checkpoints import Checkpoints
from rankwise.train.engines.choice import start_engine
from rankwise.train.engines.engine import Engine
from rankwise.train.engines.group import Group
from rankwise.train.loop import Loop
from rankwise.train.mixing import mix
from rankwise.train.optimizers import make_optimizer
from rankwise.watch.evidence import summarise
from rankwise.worker.models import model_to_train
from rankwise.worker.publishing import publish

POINTS = 4  # of a final run's curve, after its first
TOGETHER = 4  # rows that are looked at in one forward pass
CHECKPOINT_SECONDS = 600  # between two checkpoints: what a kill may cost

Told = Callable[[str, int, int], None]


@dataclass
class Material:
    """What all runs of one arm share.

    Attributes:
        plan: of the arm. data: without the rows set aside. aside: those rows. last_aside: their highest key.
        start: the loss on them before the first step, where it does not depend on the run.
    """

    plan: Plan
    chat: ChatText
    data: Dataset
    aside: list[Encoded]
    last_aside: int
    group: Group
    start: Validation | None = field(default=None)

    @property
    def config(self) -> TrainConfig:
        config = self.plan.verdict.config
        assert config is not None, "an arm without a configuration is refused before its process starts"
        return config


@dataclass(frozen=True)
class Asked:
    """One run: at which rate, from which seed, for how long, with how many looks at its loss."""

    name: str
    learning_rate: float
    seed: int
    steps: int
    looks: int


def gather(plan: Plan) -> Material:
    """Read what an arm's plan names. Raises DataError."""
    config = plan.verdict.config
    assert config is not None
    chat = ChatText.for_job(plan.job, plan.facts.model.path)
    data = load_dataset(
        plan.job,
        chat,
        general=general_path(plan.job, plan.facts.model),
        max_length=config.max_length,
        on_long=config.on_long,
        seed=plan.split_seed,
    )
    kept, aside, last = set_aside(data, plan.split_seed)
    return Material(plan, chat, kept, aside, last, Group.join(cpu=plan.facts.device.kind == "cpu"))


class TrainingRun:
    """A run that is about to train, or to go on."""

    def __init__(self, run: Run, material: Material, asked: Asked, allowance: Allowance, stop: Callable[[], bool]):
        self.run, self.material, self.asked = run, material, asked
        base = material.config
        rows = mix(material.data.train, material.data.replay, base.replay_share, asked.seed)
        config = _config(
            base, asked, len(rows), _save_steps(allowance), own_warmup=material.plan.job.train.warmup_steps
        )
        verdict = material.plan.verdict.model_copy(update={"config": config})
        self.plan = material.plan.model_copy(update={"verdict": verdict})
        self._begin()
        self.engine = start_engine("none", material.group, config)
        self.checkpoints = Checkpoints(run, config, _checkpoint_bytes(self.plan))
        self.step, _ = self.checkpoints.newest_sound()
        self.model = model_to_train(
            self.plan, config, self.engine, None if self.step is None else self.checkpoints.path(self.step)
        )
        self.params = trainable_params(self.model), total_params(self.model)
        self.engine.wrap(self.model, lambda wrapped: make_optimizer(wrapped, config))
        self.looks = Looks(self.engine, material)
        self.loop = Loop(
            self.engine,
            rows,
            config,
            pad_token_id=material.chat.pad_token_id or 0,
            checkpoints=self.checkpoints,
            validate=self.looks.validate,
            try_validation=lambda: None,
            stop=lambda: "asked to stop" if stop() else None,
            plan_hash=self.plan.content_hash(),
            params=self.params,
            short=True,
        )

    def _begin(self) -> None:
        if not self.run.plan_path.is_file():
            shutil.rmtree(self.run.folder, ignore_errors=True)  # killed while it was begun
            self.run.begin(self.plan)
        self.run.mend_events()

    def train(self, told: Told, *, publishes: bool) -> Any:
        """Take the steps; returns the model as it is published, or as it trained.

        Raises:
            Interrupted: asked to stop; a checkpoint is written.
            TrainingError: the loss is not finite, or memory ran out.
        """
        for event in self.loop.events(self.step):
            if isinstance(event, Finished) and publishes:
                publish(self.run, self.plan, self.engine.bare, self.material.data, self.material.chat)
            self.run.append(event)
            if isinstance(event, Step):
                told(self.asked.name, event.step, self.asked.steps)
            if isinstance(event, Stopped):
                raise Interrupted(f"stopped at step {event.step} of {self.asked.name}")
        if publishes:
            write_record(self.run.evidence_path, summarise(self.plan, self.run.events()))
        shutil.rmtree(self.checkpoints.folder, ignore_errors=True)
        return self.engine.bare


class Looks:
    """Looks at the rows set aside, a few of similar length together."""

    def __init__(self, engine: Engine, material: Material):
        self.engine, self.material = engine, material
        ordered = sorted(material.aside, key=lambda row: len(row.ids))
        self.groups = [ordered[i : i + TOGETHER] for i in range(0, len(ordered), TOGETHER)]
        method = METHODS[material.config.method]
        self.same_start = method.trains == "weights" or method.neutral is not None
        self.look_seconds = 0.0

    def validate(self, step: int) -> Validation:
        """Raises TrainingError where the loss is not finite."""
        if step == 0 and self.same_start and self.material.start is not None:
            return self.material.start
        found = self._look(step)
        if step == 0:
            self.material.start = found
        return found

    def _look(self, step: int) -> Validation:
        began = time.monotonic()
        groups = grouped_losses(self.engine.module, self.groups, self.material.config.autocast)
        nats, tokens = (sum(column) for column in zip(*(one for group in groups for one in group), strict=True))
        if not math.isfinite(nats):
            raise TrainingError(
                f"after step {step} the loss on the rows set aside is {nats}", expected="a finite number"
            )
        self.look_seconds = time.monotonic() - began
        loss, seconds = nats / tokens, self.look_seconds
        return Validation(time=now(), step=step, loss=loss, supervised_tokens=int(tokens), seconds=seconds)


@dataclass(frozen=True)
class Spent:
    """What a run took, from its events and the order of its rows."""

    steps: int
    flops: float
    tokens: int
    seconds: float
    peak_memory: float | None
    trainable_params: int | None
    stored_bytes: int | None
    curve: tuple[CurvePoint, ...]


def spent(run: TrainingRun) -> Spent:
    """Every step that counts, those before a resume included."""
    events = run.run.events()
    taken = [e for e in events if isinstance(e, Step)]
    count = counter_of(run.plan)
    flops, seconds = [0.0], [0.0]
    for event in taken:
        flops.append(flops[-1] + count.step(run.loop.shapes(event.step - 1)))
        seconds.append(seconds[-1] + event.seconds)
    curve = [
        CurvePoint(step=e.step, flops=flops[e.step], seconds=seconds[e.step], loss=e.loss)
        for e in events
        if isinstance(e, Validation)
    ]
    peak = next((e.peak_memory_bytes for e in reversed(events) if isinstance(e, Finished)), None)
    began = next(e for e in events if isinstance(e, Started))
    tokens = sum(e.tokens for e in taken)
    return Spent(
        len(taken), flops[-1], tokens, seconds[-1], peak, began.trainable_params, _stored_bytes(run.run), tuple(curve)
    )


def _stored_bytes(run: Run) -> int | None:
    """Of the published weights; None where nothing was published."""
    files = [*run.adapter.glob("*.safetensors"), *run.model.glob("*.safetensors")]
    return sum(file.stat().st_size for file in files) if files else None


def published(run: Run, material: Material) -> Any:
    """The model of a run that has finished, from its files, in the precision that they are used in."""
    plan, config, device = material.plan, material.config, str(material.group.device)
    if METHODS[config.method].trains == "weights":
        return load_base(run.model, dtype=inference_dtype(plan), device=device)
    stored = TUNERS[config.method].base
    base = load_base(
        plan.facts.model.path,
        dtype=config.dtype,
        four_bit=stored == "nf4",
        eight_bit=stored == "int8",
        device=device,
    )
    return load_adapter(extend(base, plan.facts.new_tokens), run.adapter)


def untrained(material: Material) -> Any:
    """The base as trained arms of this kind are asked."""
    plan = material.plan
    base = load_base(plan.facts.model.path, dtype=inference_dtype(plan), device=str(material.group.device))
    return extend(base, plan.facts.new_tokens)


def inference_dtype(plan: Plan) -> Literal["bf16", "fp32"]:
    """Of the frozen base, or that in which a full model was saved."""
    config = plan.verdict.config
    assert config is not None
    if METHODS[config.method].trains == "adapter":
        return config.dtype
    return "bf16" if config.autocast == "bf16" and plan.facts.model.dtype == "bf16" else "fp32"


def _config(
    base: TrainConfig, asked: Asked, rows: int, save_steps: int | None, *, own_warmup: int | None
) -> TrainConfig:
    """The arm's configuration for one run. Whole epochs: no step is short of rows, so that all cost alike. No warm-up
    of a short run: its first step would change nothing, and there are few.
    """
    epochs = max(1, math.ceil(asked.steps * base.effective_batch / rows))
    return base.model_copy(
        update={
            "learning_rate": asked.learning_rate,
            "seed": asked.seed,
            "max_steps": asked.steps,
            "num_train_epochs": float(epochs),
            "warmup_steps": round(0.05 * asked.steps) if own_warmup is None else own_warmup,
            "eval_steps": max(1, math.ceil(asked.steps / asked.looks)),
            "save_steps": save_steps or asked.steps + 1,
            "save_total_limit": 1,
            "watch_steps": None,
            "watch_items": None,
            "save_url": None,
        }
    )


def _save_steps(allowance: Allowance) -> int | None:
    """Steps between two checkpoints; None: not known."""
    return max(1, int(CHECKPOINT_SECONDS / allowance.step_seconds)) if allowance.step_seconds else None


def _checkpoint_bytes(plan: Plan) -> int:
    estimate = plan.chosen()
    return estimate.storage.checkpoint_bytes if estimate else 0
