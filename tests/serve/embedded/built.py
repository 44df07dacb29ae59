"""Adapters of every method on tiny models, their values moved so that answers differ, and what PEFT alone answers."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rankwise.methods import METHODS
from rankwise.model.attach import attach, load_adapter
from rankwise.model.load import load_base
from rankwise.model.trained import publish_weights
from tests.tiny import tiny_config

SERVED = tuple(name for name, method in METHODS.items() if method.trains == "adapter")
NEW = 12  # tokens of an answer


def build(base: Path, folder: Path, method: str, seed: int, **changes: Any) -> Path:
    """An adapter in `folder`, its values moved at random as training would move them."""
    options: dict[str, Any] = {"r": None, "lora_alpha": None, "lora_dropout": None, "target_modules": None}
    config = tiny_config(method, **({} if "r" in METHODS[method].options else options), **changes)
    model: Any = attach(load_base(base, dtype="fp32", four_bit=method == "qlora", eight_bit="8bit" in method), config)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn(parameter.shape, generator=draw)
    publish_weights(model, folder)
    return folder


Said = list[tuple[int, float]]  # tokens and their log-probabilities


def alone(base: Path, folder: Path | None, prompt: Sequence[int], new: int = NEW) -> Said:
    """The greedy answer of PEFT on this one row: a whole pass without a cache for each token."""
    model: Any = load_base(base, dtype="fp32")
    if folder is not None:
        model = load_adapter(model, folder)
    ids, said = list(prompt), Said()
    with torch.inference_mode():
        for _ in range(new):
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            ids.append(int(logits.argmax()))
            said.append((ids[-1], float(logits.log_softmax(-1)[ids[-1]])))
    return said


def prompts(count: int, seed: int = 0, longest: int = 40) -> list[tuple[int, ...]]:
    """Random prompts of 1 to `longest` tokens."""
    draw = random.Random(seed)
    return [tuple(draw.randrange(3, 300) for _ in range(draw.randint(1, longest))) for _ in range(count)]
