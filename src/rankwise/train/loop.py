"""The training loop: a generator that yields Events and reads from top to bottom."""

import math
import platform
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version

import torch
from transformers import get_scheduler

from rankwise.errors import TrainingError
from rankwise.model.attach import narrow_inputs
from rankwise.model.blockwise import spans_of, takes_documents, training_attention
from rankwise.model.likelihood import arithmetic
from rankwise.records import (
    Acted,
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
    Watched,
)
from rankwise.step import Batch, accumulate, training_step
from rankwise.store import now
from rankwise.text.masks import Encoded
from rankwise.train.batching import Batching
from rankwise.train.checkpoints import Checkpoints
from rankwise.train.engines.asserted import engine_class
from rankwise.train.engines.dealing import dealt, silent
from rankwise.train.engines.engine import Engine
from rankwise.train.guard import Guard
from rankwise.train.microbatch import Again, MicroBatch
from rankwise.train.mixing import Order
from rankwise.train.rehearsal import Rehearsal
from rankwise.version import __version__


class Loop:
    """One run's training. `events()` is the road; the rest are its parts.

    Args:
        engine: wrapped around the model with its method attached, in training precision.
        rows: all training rows, general ones already mixed in.
        validate: step -> Validation event; given by the worker, so that training does not know how rows are judged.
        try_validation: the same on the longest held-out row alone.
        most_rows: in one forward pass; None: as planned.
        stop: says why to stop, or None to go on; asked once a step.
        guard: looks at general ability and acts on it; None: nobody does.
        short: a trial of a comparison: nothing is tried beforehand, and its end is no checkpoint.
    """

    def __init__(
        self,
        engine: Engine,
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
        most_rows: int | None = None,
        guard: Guard | None = None,
        short: bool = False,
    ):
        self.engine, self.group = engine, engine.group
        self.rows, self.config = rows, config
        self.checkpoints, self.validate, self.stop = checkpoints, validate, stop
        self.try_validation, self.short = try_validation, short
        self.plan_hash, self.params, self.guard = plan_hash, params, guard
        self.step_rows = config.effective_batch * self.group.world
        self.order = Order(len(rows), config.num_train_epochs, self.step_rows, config.seed)
        self.scheduler = get_scheduler(
            config.lr_scheduler_type, engine.optimizer, config.warmup_steps, config.max_steps
        )
        self.attention = training_attention(self.group.device)
        flat = self.group.device.type == "cpu" and takes_documents(engine.bare)
        self.batching = Batching(config, pad_token_id, flat=flat)
        self.losses: dict[int, float] = {}
        again: Again = "never"
        if self.engine.accumulates:
            again = "here" if self.group.world == 1 else "from a checkpoint"
        self.micro_batch = MicroBatch(config.per_device_train_batch_size, config.effective_batch, again)
        self.micro_batch.at_most(most_rows)

    def events(self, resume_from: int | None) -> Iterator[Event]:
        """Train from the start, or from checkpoint-`resume_from`, to `max_steps`.

        Raises TrainingError when the loss is not finite; the last checkpoint stays as it is.
        """
        done = resume_from or 0
        if resume_from is not None:
            self.losses, rows = self.checkpoints.restore(resume_from, self.engine, self.scheduler)
            self.micro_batch.at_most(rows)
        yield self._started(done)
        if resume_from is None:
            yield self._validation(0)
            if self.guard:
                yield from self.guard.begin(self.engine)
        while done < self.config.max_steps:
            yield from self._step(done)
            done += 1
            if done == 1 and not self.short:
                yield from self._rehearse()
            last, reason = done == self.config.max_steps, self.stop()
            if done % self.config.eval_steps == 0 or last:
                yield self._validation(done)
            guarded = yield from self._guarded(done, last)
            if self.back_to is not None:
                break
            if done % self.config.save_steps == 0 or (last and not self.short) or reason or guarded:
                yield from self._save(done)
            # What is red is not published by itself, not even after the last step: a resume does it.
            if why := self.forgot or (None if last else reason):
                yield Stopped(time=now(), step=done, reason=why)
                return
        yield Finished(time=now(), step=done, peak_memory_bytes=peak_memory_bytes())

    @property
    def back_to(self) -> int | None:
        """The step whose weights are in place again, after which the run takes no more; None: those of the last."""
        return self.guard.back_to if self.guard else None

    @property
    def forgot(self) -> str | None:
        """Why the guard has the run stopped; None: it has not."""
        return self.guard.stop if self.guard else None

    def _guarded(self, step: int, last: bool) -> Generator[Watched | Acted, None, bool]:
        """Look at general ability where it is time; returns whether the state has to be saved."""
        if self.guard is None:
            return False
        yield from self.guard.after(step, last=last, engine=self.engine, scheduler=self.scheduler)
        return self.guard.saves(step)

    def _started(self, step: int) -> Started:
        return Started(
            time=now(),
            plan_hash=self.plan_hash,
            step=step,
            max_steps=self.config.max_steps,
            trainable_params=self.params[0],
            total_params=self.params[1],
            world_size=self.group.world,
            engine=engine_class(self.engine),
            local_params=self.engine.held_params()[0],
            threads=torch.get_num_threads(),
            device=str(self.group.device),
            versions=versions(),
        )

    def two_documents(self) -> tuple[Sequence[int], Sequence[int]]:
        """Token ids of the two longest training rows, of one twice where there is no other."""
        longest = sorted(self.rows, key=lambda row: -len(row.ids))[:2]
        return longest[0].ids, longest[-1].ids

    def _step(self, done: int) -> Iterator[Note | Step]:
        began = time.monotonic()
        rate = self.scheduler.get_last_lr()[0]
        sums, (loss, norm, model_seconds) = yield from self.micro_batch.attempt(
            lambda: self._taken(self._batches(done)), self._forget
        )
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(
                f"step {done + 1}: loss is {loss}, gradient norm is {norm}; {self.engine.touched}",
                expected="finite numbers",
                fix="lower train.learning_rate, or look at the rows of this step; the last checkpoint can be resumed",
            )
        self.scheduler.step()
        yield Step(
            time=now(),
            step=done + 1,
            epoch=(done + 1) * self.step_rows / len(self.rows),
            loss=loss,
            grad_norm=norm,
            learning_rate=rate,
            tokens=sums[0],
            supervised_tokens=sums[1],
            padding_tokens=sums[2],
            model_seconds=model_seconds,
            seconds=time.monotonic() - began,
        )

    def _taken(self, batches: list[Batch]) -> tuple[list[int], tuple[float, float, float]]:
        """(tokens, supervised tokens and padding of all processes; loss, gradient norm, seconds)"""
        own = [(b.tokens, b.supervised, b.padding) for b in batches]
        sums = self.group.sums([sum(column) for column in zip(*own, strict=True)])
        began = time.monotonic()
        self.engine.module.train()
        self.engine.begin(len(batches))
        with self._as_trained():
            total, norm = training_step(
                self.engine.module,
                batches,
                self.engine,
                backward=self.engine.backward,
                clip=self.engine.clip,
                autocast=self._arithmetic,
                supervised=sums[1],
                over_ranks=self.group.summed,
            )
        return sums, (float(total), float(norm), time.monotonic() - began)  # reading a number waits for the device

    @contextmanager
    def _as_trained(self) -> Iterator[None]:
        """Attention and adapters as a step has them, in forward and backward pass."""
        with self.attention(self.engine.bare), narrow_inputs(self.engine.bare, self.config.autocast):
            yield

    def _batches(self, done: int) -> list[Batch]:
        """This process's share of the rows of one step."""
        rows = sorted((self.rows[i] for i in self.order.step(done)), key=lambda row: len(row.ids))
        own = dealt(rows, self.group.rank, self.group.world)
        batches = [self._there(batch) for batch in self.batching.step(own, self.micro_batch.rows)]
        missing = self.group.highest(len(batches)) - len(batches)
        return batches + [silent(self._one(rows[:1]))] * missing

    def shapes(self, done: int) -> list[tuple[int, int, int, int]]:
        """Of each forward pass of step `done`, counted from 0: rows, padded tokens a row, positions of a row whose
        logits are made, and the sum of squares of the lengths that attention looks over.
        """
        flat = self.config.packing and self.batching.flat
        return [_shape(batch, documents=flat) for batch in self._batches(done)]

    def _one(self, rows: Sequence[Encoded]) -> Batch:
        return self._there(self.batching.one(rows))

    def _fullest(self, rows: Sequence[Encoded]) -> Batch:
        return self._there(self.batching.fullest(rows))

    def _there(self, batch: Batch) -> Batch:
        return batch.to(self.group.device)

    def _arithmetic(self) -> AbstractContextManager[object]:
        """Ours, around the forward pass only: accelerate's would patch model.forward, and what is saved, proven and
        served must be the model as it is.
        """
        return arithmetic(self.group.device, self.config.autocast)

    def _validation(self, step: int) -> Validation:
        event = self.validate(step)
        self.losses[step] = event.loss
        return event

    def _save(self, step: int) -> Iterator[Note | Saved]:
        return self.checkpoints.save(step, self.engine, self.scheduler, self.losses, self.micro_batch.rows)

    def _rehearse(self) -> Iterator[Note | Rehearsed]:
        """After the first step, when the optimizer has its state: what would fail late is tried now."""
        began = time.monotonic()
        trial = self._trial(self._one)
        precision = self.config.autocast or self.config.dtype
        gap = trial.accumulation_gap(self.micro_batch.rows, precision) if self.engine.keeps_trials else None
        full = self._trial(self._fullest)
        longest = yield from self.micro_batch.attempt(lambda: full.longest(self.micro_batch.rows), self._forget)
        self.try_validation()
        saved = self.checkpoints.rehearse(self.engine, self.scheduler, self.micro_batch.rows)
        yield Rehearsed(
            time=now(),
            accumulation_gap=gap,
            longest=longest,
            checkpoint_bytes=saved,
            peak_memory_bytes=peak_memory_bytes(),
            seconds=time.monotonic() - began,
        )

    def _trial(self, batch: Callable[[Sequence[Encoded]], Batch]) -> Rehearsal[Encoded]:
        norm = self.engine.clip if self.group.world > 1 else None
        rank, world = self.group.rank, self.group.world
        return Rehearsal(self.engine.bare, self.rows, batch, self._gradients, norm=norm, rank=rank, world=world)

    def _gradients(self, batches: Sequence[Batch]) -> None:
        """The gradient of a step over the `batches` of all processes, without the step."""
        (supervised,) = self.group.sums([sum(batch.supervised for batch in batches)])
        self.engine.begin(len(batches))
        with self._as_trained():
            accumulate(
                self.engine.module,
                batches,
                backward=self.engine.try_backward,
                autocast=self._arithmetic,
                supervised=supervised,
            )

    def _forget(self) -> None:
        self.engine.zero_grad()


def _shape(batch: Batch, *, documents: bool) -> tuple[int, int, int, int]:
    rows, length = batch.input_ids.shape
    lengths = [length] * rows
    if documents and batch.position_ids is not None:
        lengths = [last - first for _, first, last in spans_of(batch.position_ids, rows)]
    return rows, length, batch.keep.numel(), sum(n * n for n in lengths)


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
