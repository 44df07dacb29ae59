"""A small run: the product's own step, optimizer, order of rows, batches and attention, without what surrounds a run.

Rates are constant or follow Hugging Face's schedules; time is processor time of this process, which other programs on
the machine do not change much.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import get_scheduler

from rankwise.model.attach import narrow_inputs
from rankwise.model.blockwise import training_attention
from rankwise.model.likelihood import Labelled, arithmetic, row_losses
from rankwise.records import TrainConfig
from rankwise.step import training_step
from rankwise.text.masks import Encoded
from rankwise.train.batching import Batching
from rankwise.train.engines.engine import Engine
from rankwise.train.engines.group import Group
from rankwise.train.mixing import Order
from rankwise.train.optimizers import make_optimizer

CPU = torch.device("cpu")
ENDLESS = 1e6  # epochs: an order that never ends in a short batch; `max_steps` ends it


@dataclass(frozen=True)
class Trained:
    """What happened.

    Attributes:
        losses: nats per supervised token of each step's rows, before the step.
        looks: what `look` said, with the step, the tokens so far and the processor seconds of the steps so far.
        tokens, steps: in all.
    """

    losses: list[float]
    looks: list[dict[str, Any]]
    tokens: int
    steps: int


def config_of(
    method: str, rate: float, steps: int, seed: int, batch: int, r: int | None = None, alpha: float = 32.0, **more: Any
) -> TrainConfig:
    """A TrainConfig of the settings that an experiment changes; nothing decays, nothing drops out."""
    lora = {"r": r, "lora_alpha": alpha, "lora_dropout": 0.0, "target_modules": "all-linear"}
    values = {
        "method": method,
        **({} if method == "full" else lora),
        "num_train_epochs": 1.0,
        "max_steps": steps,
        "learning_rate": rate,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch",
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,
        "dtype": "fp32",
        "autocast": None,
        "max_length": 256,
        "on_long": "drop",
        "replay_share": 0.0,
        "eval_steps": steps,
        "save_steps": steps,
        "save_total_limit": 1,
        "logging_steps": 1,
        "seed": seed,
    }
    return TrainConfig(**{**values, **more})


def carried_out(
    model: Any,
    rows: Sequence[Encoded],
    config: TrainConfig,
    *,
    pad_token_id: int,
    looks: Sequence[int] = (),
    look: Callable[[int], dict[str, Any]] = lambda step: {},
    most_tokens: int | None = None,
    breathe: Callable[[], object] = lambda: None,
    by_document: bool = True,
) -> Trained:
    """Train `model`, on which the method is attached already.

    Args:
        looks: steps after which `look` is asked; 0 is before the first.
        most_tokens: no step begins that would train on more in all, so that arms can have equal tokens.
        breathe: called between steps.
        by_document: attend as a run does on a CPU, one row after the other; over a hundred rows of nine tokens that
            takes longer than all else.
    """
    engine = Engine(Group(0, 1, CPU), config)
    engine.wrap(model, lambda wrapped: make_optimizer(wrapped, config))
    schedule = get_scheduler(config.lr_scheduler_type, engine.optimizer, config.warmup_steps, config.max_steps)
    order = Order(len(rows), ENDLESS, config.effective_batch, config.seed)
    batching = Batching(config, pad_token_id, flat=False)
    losses: list[float] = []
    said = [{"step": 0, "tokens": 0, "seconds": 0.0, **look(0)}] if 0 in looks else []
    around = training_attention(CPU) if by_document else nullcontext
    tokens, seconds = 0, 0.0
    for number in range(config.max_steps):
        batches = batching.step([rows[i] for i in order.step(number)], config.per_device_train_batch_size)
        new = sum(batch.tokens for batch in batches)
        if most_tokens is not None and tokens + new > most_tokens:
            break
        breathe()
        began = time.process_time()
        losses.append(_step(engine, config, batches, around))
        schedule.step()
        tokens, seconds = tokens + new, seconds + time.process_time() - began
        if number + 1 in looks:
            said.append({"step": number + 1, "tokens": tokens, "seconds": seconds, **look(number + 1)})
    model.eval()
    return Trained(losses, said, tokens, len(losses))


def _step(
    engine: Engine,
    config: TrainConfig,
    batches: Sequence[Any],
    around: Callable[[Any], AbstractContextManager[object]],
) -> float:
    engine.module.train()
    with around(engine.bare), narrow_inputs(engine.bare, config.autocast):
        loss, _ = training_step(
            engine.module,
            batches,
            engine,
            backward=engine.backward,
            clip=engine.clip,
            autocast=lambda: arithmetic(CPU, config.autocast),
        )
    return float(loss)


def mean_loss(model: Any, rows: Sequence[Labelled], autocast: Any = None) -> float:
    """Nats per labelled token."""
    found = row_losses(model, rows, autocast)
    return sum(loss for loss, _ in found) / sum(count for _, count in found)
