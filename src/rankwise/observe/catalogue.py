"""The architectures known offline: a hub id or a short name -> the model's config, with no download.

The data lie in `architectures/`: `index.toml` (names, hub ids, parameter counts, sources) and one `<name>.json` for
each architecture, which is the published config.json reduced to what decides the shape. Only the index is read to find
a name; a config is read when it is asked for.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from rankwise.errors import ModelError

FOLDER = Path(__file__).parent / "architectures"

# What a name may end in without another shape: the way it is stored, and how it was tuned.
STORAGE = r"(unsloth-)?bnb-[48]bit|[48]-?bits?|gptq(-int[48])?|awq(-int4)?|gguf|int[48]|nf4|fp8(-dynamic)?|hf|fp16|bf16"
TUNING = r"instruct|chat|it|base|pt|deduped|v0\.1"
SUFFIX = re.compile(rf"-({STORAGE}|{TUNING})$")

# Families spell their numbers differently: model classes of GPT-2's time say n_embd, MPT says d_model.
KEYS: dict[str, tuple[str, ...]] = {
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads"),
    "num_key_value_heads": ("num_key_value_heads", "num_kv_heads"),
    "intermediate_size": ("intermediate_size", "ffn_dim", "n_inner"),
    "vocab_size": ("vocab_size",),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "max_seq_len", "model_max_length"),
}


@dataclass(frozen=True)
class Architecture:
    """One model shape and the hub ids that have it.

    Attributes:
        name: the short name, lower case, such as `llama-3-8b`.
        hub_ids: exact hub ids; the first is canonical.
        total_params: parameters of the model that transformers builds from `config`, tied weights counted once.
        license: the license of the canonical weights as the hub names it, or None where unknown.
        source: where the shape was looked up, or from which published fact it follows.
        note: in what the built model differs from the published one, or None.
        aliases: names that other tools use for it.
        excluded: hub ids whose name would match although their shape differs.
    """

    name: str
    hub_ids: tuple[str, ...]
    total_params: int
    license: str | None
    source: str
    note: str | None
    aliases: tuple[str, ...] = field(default=())
    excluded: tuple[str, ...] = field(default=())

    @property
    def config(self) -> dict[str, Any]:
        """The config as a fresh dict, fit for transformers' `AutoConfig.for_model(**config)`."""
        config: dict[str, Any] = json.loads(_config_text(self.name))
        return config


@cache
def architectures() -> tuple[Architecture, ...]:
    """Every architecture, in the order of the index (families together, small before large)."""
    index = tomllib.loads((FOLDER / "index.toml").read_text(encoding="utf-8"))
    return tuple(
        Architecture(
            name=entry["name"],
            hub_ids=tuple(entry["hub_ids"]),
            total_params=entry["total_params"],
            license=entry.get("license"),
            source=entry["source"],
            note=entry.get("note"),
            aliases=tuple(entry.get("aliases", ())),
            excluded=tuple(entry.get("excluded", ())),
        )
        for entry in index["architecture"]
    )


def find_architecture(name: str) -> Architecture | None:
    """The architecture that a hub id or a short name means, or None: unknown, or it could mean several shapes.

    Case, `_` and the hyphen after the family's name do not matter. Suffixes that leave the shape alone (`-hf`,
    `-GPTQ`, `-bnb-4bit`, `-Instruct`, …) are dropped one by one from the end, and the longest name that is known wins:
    first with the organisation (`unsloth/phi-4` is stored with other modules than `microsoft/phi-4`), then without.
    """
    whole = _key(name)
    if not whole or _tail(whole) in _excluded():
        return None
    by_id, by_name, by_tail = _tables()
    for stem in _stems(whole):
        if found := by_id.get(stem):
            return _only(found)
    for stem in _stems(_tail(whole)):
        # An architecture's own name beats the ids that carry it: `phi-4` is Microsoft's, not a conversion of it.
        if found := by_name.get(stem) or by_tail.get(stem):
            return _only(found)
    return None


def gptq_group(name: str) -> dict[str, int] | None:
    """The group size of a GPTQ checkpoint that differs from the usual 128, as its quantization_config has it."""
    known = tomllib.loads((FOLDER / "gptq.toml").read_text(encoding="utf-8"))["group_size"]
    sizes = {hub_id.lower(): size for hub_id, size in known.items()}
    size = sizes.get(name.lower())
    return None if size is None else {"group_size": size}


def nearest(name: str) -> tuple[str, ...]:
    """Up to three known names that look like `name`, nearest first, for an error message."""
    spelled: dict[str, str] = {}
    for architecture in architectures():
        for known in (architecture.name, *architecture.aliases, *map(_tail, architecture.hub_ids)):
            spelled.setdefault(_tail(_key(known)), architecture.name)
    wanted = list(_stems(_tail(_key(name))))[-1]
    close = get_close_matches(wanted, spelled, n=12, cutoff=0.6)
    return tuple(dict.fromkeys(spelled[key] for key in close))[:3]


def read_config(path: Path) -> dict[str, Any]:
    """A config.json that a person names.

    Raises:
        ModelError: it cannot be read, is no JSON object, or names no `model_type`.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read as a model config: {error}",
            expected="a config.json as the Hugging Face hub stores it",
            fix="name another file, a hub id or a name from `rankwise models`",
        ) from None
    if not isinstance(config, dict):
        raise ModelError(
            f"{path} is not a JSON object",
            expected="a config.json as the Hugging Face hub stores it",
            fix="name another file, a hub id or a name from `rankwise models`",
        )
    if not isinstance(config.get("model_type"), str) or not config["model_type"]:
        raise ModelError(
            f"{path} names no model_type",
            expected='a key such as "model_type": "llama", by which transformers finds the model class',
            fix="add the model_type of the model class to the file",
        )
    return config


def rows() -> list[dict[str, Any]]:
    """One plain dict for each architecture, for a table; None where the config has no such number."""
    return [
        {
            "name": architecture.name,
            "hub_id": architecture.hub_ids[0],
            "total_params": architecture.total_params,
            **_shape(architecture.config),
            "license": architecture.license,
        }
        for architecture in architectures()
    ]


def _shape(config: dict[str, Any]) -> dict[str, Any]:
    shape: dict[str, Any] = {
        row: next((config[key] for key in keys if config.get(key) is not None), None) for row, keys in KEYS.items()
    }
    shape["tie_word_embeddings"] = config.get("tie_word_embeddings")
    return shape


@cache
def _config_text(name: str) -> str:
    return (FOLDER / f"{name}.json").read_text(encoding="utf-8")


def _key(name: str) -> str:
    """One spelling for the many of a name: `Qwen/Qwen-1_8B` -> `qwen/qwen-1.8b`, `Meta-Llama3 8B` -> `llama-3-8b`."""
    key = re.sub(r"(?<=\d)_(?=\d)", ".", name.strip().lower())
    key = re.sub(r"[\s_]+", "-", key)
    organisation, slash, tail = key.rpartition("/")
    tail = tail.removeprefix("meta-")
    return organisation + slash + re.sub(r"^([a-z]+)(?=\d)", r"\1-", tail)


def _tail(name: str) -> str:
    return name.rpartition("/")[2]


def _stems(key: str) -> Iterator[str]:
    """The key, then the key without its last suffix, and so on."""
    yield key
    while (shorter := SUFFIX.sub("", key)) != key:
        yield (key := shorter)


def _only(found: set[Architecture]) -> Architecture | None:
    return next(iter(found)) if len(found) == 1 else None


Table = dict[str, set[Architecture]]


@cache
def _tables() -> tuple[Table, Table, Table]:
    """Spellings -> architectures: by hub id, by short name or alias, by hub id without its organisation."""

    def table(names: Callable[[Architecture], tuple[str, ...]], spell: Callable[[str], str]) -> Table:
        found: Table = {}
        for architecture in architectures():
            for name in names(architecture):
                found.setdefault(spell(name), set()).add(architecture)
        return found

    return (
        table(lambda a: a.hub_ids, _key),
        table(lambda a: (a.name, *a.aliases), _key),
        table(lambda a: a.hub_ids, lambda name: _tail(_key(name))),
    )


@cache
def _excluded() -> frozenset[str]:
    return frozenset(_tail(_key(name)) for architecture in architectures() for name in architecture.excluded)
