"""Can an engine load what was published? By the limits that its source states (engines.toml), without the engine."""

import json
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from rankwise.model.adapterproducts import CONFIG, WEIGHTS
from rankwise.records import Check, EngineFit, ModelFacts
from rankwise.text.template import ChatText

MERGE = "merge it (`rankwise merge`) and serve the merged model"
SHRINK = "cut it (`rankwise watch RUN --shrink RANK --out DIR`), or merge it"
FACTORS = (".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B")


@dataclass(frozen=True)
class Wanted:
    """What an engine would load.

    Attributes:
        adapter: its folder; None for a whole model.
        base: facts of the base, or of the model.
        refused: why the method cannot run there unmerged (decide/compatibility.toml); empty where it can.
        unmergeable: why it can never be merged; empty where it can.
        chat: the text of the artifact; base_chat: that of the base folder, which the engine reads.
        rows: of the vocabulary with new tokens; None where there are none.
    """

    adapter: Path | None
    base: ModelFacts
    refused: str
    unmergeable: str
    chat: ChatText
    base_chat: ChatText
    rows: int | None


@cache
def limits(engine: str) -> dict[str, Any]:
    """One engine's table."""
    text = files("rankwise.export").joinpath("engines.toml").read_text(encoding="utf-8")
    found: dict[str, Any] = tomllib.loads(text)[engine]
    return found


def vllm_fit(wanted: Wanted) -> EngineFit:
    """vLLM: an adapter beside others on one base, or a whole model."""
    facts = limits("vllm")
    if wanted.adapter is None:
        known = wanted.base.architecture in (*facts["lora"], *facts["whole"])
        checks = [_check("architecture", known, wanted.base.architecture, "one of its text models")]
        return _fit("vllm", "model", checks, (), {"architecture": "serve it by transformers (`rankwise serve`)"})
    config: dict[str, Any] = json.loads((wanted.adapter / CONFIG).read_text(encoding="utf-8"))
    if wanted.refused:
        checks = [_check("method", False, wanted.refused, "LoRA or rank-stabilised LoRA")]
        return _fit("vllm", "adapter", checks, (), {"method": wanted.unmergeable or MERGE})
    rank = max([int(config.get("r") or 0), *(config.get("rank_pattern") or {}).values()])
    checks = [
        _check("method", True, str(config.get("peft_type")), "LoRA or rank-stabilised LoRA"),
        *_settings(config, facts),
        _check("rank", 0 < rank <= facts["ranks"][-1], f"r = {rank}", f"at most {facts['ranks'][-1]}"),
        _tensors(wanted.adapter / WEIGHTS),
        _check("architecture", wanted.base.architecture in facts["lora"], wanted.base.architecture, "takes LoRA there"),
        _vocabulary(wanted, facts),
    ]
    advice = {"rank": SHRINK, "architecture": MERGE, "tensors": MERGE, "settings": MERGE, "vocabulary": MERGE}
    slots = next((known for known in facts["ranks"] if known >= rank), None)
    options = ["--enable-lora", *([f"--max-lora-rank {slots}"] if slots and slots != facts["default_rank"] else [])]
    if wanted.chat.template_hash != wanted.base_chat.template_hash:
        options.append("--chat-template ADAPTER/chat_template.jinja")
    return _fit("vllm", "adapter", checks, tuple(options), advice)


def _settings(config: dict[str, Any], facts: dict[str, Any]) -> list[Check]:
    found = [f"{key}: {why}" for key, why in facts["refused"].items() if config.get(key)]
    if config.get("bias", "none") != "none":
        found.append(f"bias: {config['bias']}, and trained biases are not supported")
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower() not in facts["inits"]:
        found.append(f"init_lora_weights: {init} changes the base when it is loaded")
    return [_check("settings", not found, "; ".join(found) or "none that it refuses", "none that it refuses")]


def _tensors(file: Path) -> Check:
    """Its loader takes factors of LoRA alone, and embeddings as PEFT copies them beside."""
    try:
        with safe_open(file, framework="numpy") as opened:
            names = list(opened.keys())
    except (OSError, SafetensorError) as error:
        return _check("tensors", False, f"{file.name} cannot be read ({type(error).__name__})", "LoRA factors")
    other = [n for n in names if not n.endswith(FACTORS)]
    said = f"{len(other)} that are no factors of LoRA, such as {other[0]}" if other else f"{len(names)} LoRA factors"
    return _check("tensors", bool(names) and not other, said, "LoRA factors alone")


def _vocabulary(wanted: Wanted, facts: dict[str, Any]) -> Check:
    """The engine reads text with the base's tokenizer, and gives every adapter the base's vocabulary."""
    size, limit = wanted.base.vocab_size, facts["max_vocab_size"]
    if wanted.rows is not None:
        return _check("vocabulary", False, f"{wanted.rows:,} rows, and the base has {size:,}", "no new tokens")
    return _check("vocabulary", size <= limit, f"{size:,} tokens, those of the base", f"at most {limit:,}")


def ollama_fit(wanted: Wanted) -> EngineFit:
    """Ollama: the merged model as GGUF; as an adapter beside its base where it takes such ones."""
    facts = limits("ollama")
    told = wanted.unmergeable or "as GGUF of the whole model"
    checks = [_check("merged", not wanted.unmergeable, told, "a method that can be merged")]
    options = ["rankwise export RUN --to gguf", "ollama create NAME -f Modelfile"]
    plain = wanted.adapter is not None and not wanted.refused and wanted.rows is None
    if plain and wanted.base.architecture in facts["adapters"]:
        options.append("or ADAPTER with the folder of --to peft, on FROM the same base")
    advice = {"merged": "train LoRA instead, or serve it by transformers (`rankwise serve`)"}
    return _fit("ollama", "adapter" if wanted.unmergeable else "model", checks, tuple(options), advice)


def _check(name: str, passed: bool, number: str, limit: str) -> Check:
    return Check(name=name, passed=passed, number=number, limit=limit, text=TEXTS[name])


TEXTS = {
    "method": "How it was trained, against what the engine runs unmerged.",
    "settings": "Keys of adapter_config.json that the engine refuses.",
    "rank": "The largest rank of the adapter, against the engine's.",
    "tensors": "Names in adapter_model.safetensors, against what the engine's loader takes.",
    "architecture": "The model's class, against the engine's list.",
    "vocabulary": "The tokenizer's tokens, against the base that the engine loads.",
    "merged": "Can it be one model?",
}


def _fit(engine: Any, form: Any, checks: list[Check], options: tuple[str, ...], advice: dict[str, str]) -> EngineFit:
    failed = [c for c in checks if not c.passed]
    return EngineFit(
        engine=engine,
        source=limits(engine)["source"],
        form=form,
        loads=not failed,
        options=() if failed else options,
        checks=tuple(checks),
        advice=tuple(dict.fromkeys(advice[c.name] for c in failed)),
    )
