"""The training loop: a generator over accelerate that yields Events and reads from top to bottom."""

import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import Any

import torch
from accelerate import Accelerator
from peft.optimizers import create_loraplus_optimizer
from transformers import get_scheduler

from rankwise.errors import TrainingError
from rankwise.model.likelihood import arithmetic
from rankwise.records import (
    Event,
    Finished,
    Note,
    Rehearsed,
    Saved,
    Started,
    Step,
    Stopped,
    TrainConfig,
    Validation,
)
from rankwise.step import Batch, accumulate, collate, training_step
from rankwise.store import now
from rankwise.text.masks import Encoded
from rankwise.train.checkpoints import Checkpoints
from rankwise.train.microbatch import MicroBatch
from rankwise.train.mixing import Order
from rankwise.train.rehearsal import Rehearsal
from rankwise.version import __version__

OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]] = {
    "adamw_torch": (torch.optim.AdamW, {}),
    "adamw_torch_fused": (torch.optim.AdamW, {"fused": True}),
    "sgd": (torch.optim.SGD, {}),
}


class Loop:
    """One run's training. `events()` is the road; the rest are its parts.

    Args:
        model: with the method attached, in training precision.
        rows: all training rows, general ones already mixed in.
        validate: step -> Validation event; given by the worker, so that training does not know how rows are judged.
        try_validation: the same on the longest held-out row alone.
        stop: says why to stop, or None to go on; asked once a step.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[Encoded],
        config: TrainConfig,
        *,
        pad_token_id: int,
        checkpoints: Checkpoints,
        validate: Callable[[int], Validation],
        try_validation: Callable[[], object],
        stop: Callable[[], str | None],
        plan_hash: str,
        params: tuple[int, int],
        cpu: bool,
    ):
        self.rows, self.config, self.pad = rows, config, pad_token_id
        self.checkpoints, self.validate, self.stop = checkpoints, validate, stop
        self.try_validation = try_validation
        self.plan_hash, self.params = plan_hash, params
        self.order = Order(len(rows), config.num_train_epochs, config.effective_batch, config.seed)
        # Autocast is ours, around the forward pass only: accelerate's would patch model.forward, and what is saved,
        # proven and served must be the model as it is.
        self.accelerator = Accelerator(cpu=cpu, mixed_precision="no")
        optimizer = _optimizer(model, config)
        self.scheduler = get_scheduler(config.lr_scheduler_type, optimizer, config.warmup_steps, config.max_steps)
        self.bare = model
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.losses: dict[int, float] = {}
        alone = self.accelerator.num_processes == 1
        self.micro_batch = MicroBatch(config.per_device_train_batch_size, config.effective_batch, alone=alone)

    def events(self, resume_from: int | None) -> Iterator[Event]:
        """Train from the start, or from checkpoint-`resume_from`, to `max_steps`.

        Raises TrainingError when the loss is not finite; the last checkpoint stays as it is.
        """
        done = resume_from or 0
        if resume_from is not None:
            self.losses, self.micro_batch.rows = self.checkpoints.restore(
                resume_from, self.bare, self.optimizer, self.scheduler
            )
        yield self._started(done)
        if resume_from is None:
            yield self._validation(0)
        while done < self.config.max_steps:
            yield from self._step(done)
            done += 1
            if done == 1:
                yield from self._rehearse()
            last, reason = done == self.config.max_steps, self.stop()
            if done % self.config.eval_steps == 0 or last:
                yield self._validation(done)
            if done % self.config.save_steps == 0 or last or reason:
                yield from self._save(done)
            if reason and not last:
                yield Stopped(time=now(), step=done, reason=reason)
                return
        yield Finished(time=now(), step=done, peak_memory_bytes=peak_memory_bytes())

    def _started(self, step: int) -> Started:
        accelerator = self.accelerator
        return Started(
            time=now(),
            plan_hash=self.plan_hash,
            step=step,
            max_steps=self.config.max_steps,
            trainable_params=self.params[0],
            total_params=self.params[1],
            world_size=accelerator.num_processes,
            threads=torch.get_num_threads(),
            device=str(accelerator.device),
            versions=versions(),
        )

    def _step(self, done: int) -> Iterator[Note | Step]:
        began = time.monotonic()
        rate = self.scheduler.get_last_lr()[0]
        batches, (total, clipped) = yield from self.micro_batch.attempt(
            lambda: (batches := self._batches(done), self._taken(batches)), self._forget
        )
        loss, norm = float(total), float(clipped)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(
                f"step {done + 1}: loss is {loss}, gradient norm is {norm}; the weights were not touched by this step",
                expected="finite numbers",
                fix="lower train.learning_rate, or look at the rows of this step; the last checkpoint can be resumed",
            )
        self.scheduler.step()
        yield Step(
            time=now(),
            step=done + 1,
            epoch=(done + 1) * self.config.effective_batch / len(self.rows),
            loss=loss,
            grad_norm=norm,
            learning_rate=rate,
            tokens=sum(b.tokens for b in batches),
            supervised_tokens=sum(b.supervised for b in batches),
            seconds=time.monotonic() - began,
        )

    def _taken(self, batches: list[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
        self.model.train()
        return training_step(
            self.model,
            batches,
            self.optimizer,
            backward=self.accelerator.backward,
            clip=lambda: self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm),
            autocast=self._arithmetic,
        )

    def _batches(self, done: int) -> list[Batch]:
        """The rows of one step, similar lengths together so that little is padded."""
        rows = sorted((self.rows[i] for i in self.order.step(done)), key=lambda row: len(row.ids))
        size = self.micro_batch.rows
        return [self._batch(rows[i : i + size]) for i in range(0, len(rows), size)]

    def _arithmetic(self) -> AbstractContextManager[object]:
        return arithmetic(self.accelerator.device, self.config.autocast)

    def _batch(self, rows: Sequence[Encoded]) -> Batch:
        batch = collate([r.ids for r in rows], [r.labels for r in rows], self.pad)
        return batch.to(self.accelerator.device)

    def _validation(self, step: int) -> Validation:
        event = self.validate(step)
        self.losses[step] = event.loss
        return event

    def _save(self, step: int) -> Iterator[Note | Saved]:
        rows = self.micro_batch.rows
        return self.checkpoints.save(step, self.bare, self.optimizer, self.scheduler, self.losses, rows)

    def _rehearse(self) -> Iterator[Note | Rehearsed]:
        """After the first step, when the optimizer has its state: what would fail late is tried now."""
        began = time.monotonic()
        trial = Rehearsal(self.bare, self.rows, self._batch, self._gradients)
        gap = trial.accumulation_gap(self.micro_batch.rows, self.config.autocast or self.config.dtype)
        longest = yield from self.micro_batch.attempt(lambda: trial.longest(self.micro_batch.rows), self._forget)
        self.try_validation()
        saved = self.checkpoints.rehearse(self.bare, self.optimizer, self.scheduler, self.micro_batch.rows)
        yield Rehearsed(
            time=now(),
            accumulation_gap=gap,
            longest=longest,
            checkpoint_bytes=saved,
            peak_memory_bytes=peak_memory_bytes(),
            seconds=time.monotonic() - began,
        )

    def _gradients(self, batches: Sequence[Batch]) -> None:
        """The gradient of a step over `batches`, without the step."""
        accumulate(self.model, batches, backward=self.accelerator.backward, autocast=self._arithmetic)

    def _forget(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)


def _optimizer(model: Any, config: TrainConfig) -> torch.optim.Optimizer:
    """Over what trains. With LoRA+, B and vectors have a rate of their own, as PEFT groups them."""
    kind, arguments = OPTIMIZERS[config.optim]
    if config.loraplus_lr_ratio is not None:
        made: torch.optim.Optimizer = create_loraplus_optimizer(
            model,
            kind,
            lr=config.learning_rate,
            loraplus_lr_ratio=config.loraplus_lr_ratio,
            loraplus_weight_decay=config.weight_decay,
            **arguments,
        )
        return made
    trained = [p for p in model.parameters() if p.requires_grad]
    return kind(trained, lr=config.learning_rate, weight_decay=config.weight_decay, **arguments)


def peak_memory_bytes() -> int | None:
    """Peak of this process: reserved bytes on a GPU, resident set (VmHWM) on a CPU; None where neither can be read."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def versions() -> dict[str, str]:
    """Of what decides the numbers of a run."""
    names = ("torch", "transformers", "peft", "accelerate")
    return {"python": platform.python_version(), "rankwise": __version__} | {name: version(name) for name in names}
