"""Facts that cannot be guessed: a random name of four letters has a random number of four digits, 13.3 bits each; and
the small model that is pretrained on some of them, so that it knows facts before it is taught new ones.

One character is one token.
"""

import math
import random
import string
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from rankwise.files import publish_folder
from rankwise.model.load import quiet_transformers
from rankwise.text.masks import IGNORE, Encoded

SYMBOLS = "\0^:" + string.digits + string.ascii_lowercase  # padding and the beginning of a row come first
PAD, BEGIN = 0, 1
LETTERS = DIGITS = 4
BITS = DIGITS * math.log2(10)  # of one number
SHAPE = {
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32,
}
Fact = tuple[str, str]


def facts(count: int, seed: int, known: frozenset[str] = frozenset()) -> list[Fact]:
    """(name, number), of names that differ from each other and from `known`."""
    draw = random.Random(f"facts-{seed}-{len(known)}")
    found: dict[str, str] = {}
    while len(found) < count:
        name = "".join(draw.choices(string.ascii_lowercase, k=LETTERS))
        if name not in known:
            found[name] = f"{draw.randrange(10**DIGITS):0{DIGITS}}"
    return list(found.items())


def old_and_new(seed: int, old: int, new: int) -> tuple[list[Fact], list[Fact]]:
    """Facts to pretrain on, and new ones; fewer new ones are the first of more."""
    before = facts(old, seed)
    return before, facts(new, seed, frozenset(name for name, _ in before))


def rows_of(some: list[Fact]) -> list[Encoded]:
    """Ids of name and number, labels on the number."""
    return [_row(name, number) for name, number in some]


def _row(name: str, number: str) -> Encoded:
    prompt, answer = (BEGIN, *map(SYMBOLS.index, f"{name}:")), tuple(map(SYMBOLS.index, number))
    return Encoded((*prompt, *answer), (*[IGNORE] * len(prompt), *answer), 1)


def fresh(folder: Path, seed: int) -> Path:
    """An untrained model (fp32, about 0.34M parameters) in `folder`, as transformers saves it."""
    config = LlamaConfig(
        vocab_size=len(SYMBOLS),
        tie_word_embeddings=True,
        bos_token_id=BEGIN,
        eos_token_id=PAD,
        pad_token_id=PAD,
        **SHAPE,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    save(model, folder)
    return folder


def save(model: Any, folder: Path) -> None:
    """A whole model as safetensors; in the place of what was there."""
    model.generation_config = GenerationConfig(bos_token_id=BEGIN, eos_token_id=PAD, pad_token_id=PAD)
    with publish_folder(folder) as place, quiet_transformers():
        model.save_pretrained(place)
