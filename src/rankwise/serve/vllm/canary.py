"""What an adapter must be before it is loaded, and show after: vLLM 0.32 loads an adapter of other layers than the
base's without a word, and answers with the base.
"""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

import safetensors

from rankwise.errors import ModelError
from rankwise.methods.unmerged import SLOT_RANKS, highest_rank, why_not_unmerged
from rankwise.model.locate import weight_files
from rankwise.serve.engine import AdapterFiles, AdapterRefused
from rankwise.serve.vllm.client import Client
from rankwise.text.golden import GOLDEN_CHAT, Golden
from rankwise.text.template import ChatText

MERGE = "merge it (`rankwise merge`) and serve the merged model by itself, or serve with --engine embedded"
REPLY = "Good morning. I can help with that, and here is what I know about it."
BEGUN = 4  # tokens of the reply that each probe has more than the last
LOOKS = 3  # probes before an adapter is said to change nothing
# Times the base's difference from itself. All are asked in one moment: what is batched with other requests is rounded
# differently from one pass to the next.
NOISE = 3.0
LEAST = 1e-3  # nats on the mean; a trained adapter moves log-probabilities by a hundred times as much
LIKELY = 5  # tokens of each probe; no server is set to tell fewer
_PART = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")


def examine_files(adapter: AdapterFiles, modules: frozenset[str], max_rank: int) -> None:
    """Before loading.

    Args:
        modules: the base's, as `base_modules` gives them.
        max_rank: of the server's slots.

    Raises:
        AdapterRefused: vLLM does not carry it, or it is not of this base's layers.
    """
    config = _config(adapter)
    if reasons := why_not_unmerged(config):
        raise AdapterRefused(
            f"vLLM cannot serve {adapter.name} ({adapter.method}) unmerged: {'; '.join(reasons)}",
            expected="a LoRA or rank-stabilised LoRA of linear layers alone",
            fix=MERGE,
        )
    if (rank := highest_rank(config)) > max_rank:
        raise AdapterRefused(
            f"{adapter.name} has rank {rank}, and vLLM was started with slots of rank {max_rank}",
            expected=f"a rank of at most {max_rank}",
            fix=f"start with slots of a larger rank (vLLM has {', '.join(map(str, SLOT_RANKS))}), or {MERGE}",
        )
    _examine_weights(adapter, modules)


def _config(adapter: AdapterFiles) -> dict[str, Any]:
    path = adapter.folder / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise AdapterRefused(
            f"{adapter.name}: {path} cannot be read", expected="the folder of a PEFT adapter", fix="add it again"
        )
    return config


def _examine_weights(adapter: AdapterFiles, modules: frozenset[str]) -> None:
    tensors = _tensors(adapter)
    parts = {name: _PART.match(name) for name in tensors}
    strange = [name for name, part in parts.items() if part is None]
    strange += [part["module"] for part in parts.values() if part and modules and not _of(part["module"], modules)]
    if strange or not tensors:
        strange.sort()
        shown = ", ".join(strange[:3]) + (f" and {len(strange) - 3} more" if len(strange) > 3 else "")
        raise AdapterRefused(
            f"{adapter.name} holds weights that have no place in this base under vLLM: {shown or 'none at all'}",
            expected="lora_A and lora_B of the base's own layers; vLLM leaves others out and answers as the base",
            fix=f"see that the adapter is of this base; where it is and holds more than LoRA, {MERGE}",
        )
    if not any(part and part["side"] == "B" and tensors[name].strip(b"\0") for name, part in parts.items()):
        raise AdapterRefused(
            f"{adapter.name} changes nothing: every lora_B is zero, as before the first step of training",
            expected="an adapter that was trained",
            fix="train it, and see what `rankwise verify` says of it",
        )


def _tensors(adapter: AdapterFiles) -> dict[str, bytes]:
    """Bytes of each tensor, read without torch."""
    path = adapter.folder / "adapter_model.safetensors"
    try:
        return {name: told["data"] for name, told in safetensors.deserialize(path.read_bytes())}  # type: ignore[no-untyped-call]
    except (OSError, safetensors.SafetensorError):
        raise AdapterRefused(
            f"{adapter.name}: {path} cannot be read", expected="adapter_model.safetensors, whole", fix="add it again"
        ) from None


def base_modules(folder: Path) -> frozenset[str]:
    """Names of the base's weights without what stands before the number of the layer, which files of one model differ
    in; empty where they cannot be read.
    """
    found: set[str] = set()
    for path in weight_files(folder):
        with safetensors.safe_open(path, framework="numpy") as tensors:
            found |= {_core(name.removesuffix(".weight")) for name in tensors.keys()}  # noqa: SIM118 - no mapping
    return frozenset(found)


def _of(module: str, modules: frozenset[str]) -> bool:
    # Experts are one tensor in one file and many in another; a tied head has no weight of its own.
    return _core(module) in modules or ".experts" in module or module == "lm_head"


def _core(name: str) -> str:
    parts = name.split(".")
    first = next((place for place, part in enumerate(parts) if part.isdigit()), None)
    return parts[-1] if first is None else ".".join(parts[max(first - 1, 0) :])


def conversations(chat: ChatText) -> tuple[Golden, ...]:
    """The golden conversations that the model's template takes (some know no system turn), as ids."""
    found = []
    for messages in GOLDEN_CHAT if chat.has_template else ():
        with suppress(ModelError):
            found.append(Golden(messages, tuple(chat.encode_prompt(messages))))
    return tuple(found)


def probes(chat: ChatText, longest: int) -> tuple[tuple[int, ...], ...]:
    """Token ids, after each of which the next token is looked at: golden conversations, an answer to them begun.

    Args:
        longest: tokens of one.
    """
    reply = chat.encode(REPLY)
    begun = [one.ids for one in conversations(chat)] or [tuple(reply)] * 2
    return tuple((*ids, *reply[: BEGUN * place])[:longest] for place, ids in enumerate(begun))


async def examine_reading(client: Client, adapter: AdapterFiles, base: ChatText) -> None:
    """After loading: what the adapter's own template writes becomes the same ids by its own tokenizer, by the base's
    and by the server's. Which template that is makes no difference: ids are what a server gets.

    Raises:
        AdapterRefused: they differ.
        ModelError: its tokenizer's files are damaged.
    """
    own = ChatText.from_folder(adapter.folder) if (adapter.folder / "tokenizer.json").is_file() else base
    for one in conversations(own):
        text = own.render(one.messages, add_generation_prompt=True)
        if not tuple(base.encode(text)) == one.ids == await client.tokenize(adapter.name, text):
            raise AdapterRefused(
                f"{adapter.name} reads text as other ids than the base or the server does (as in "
                f"{one.messages[-1]['content']!r})",
                expected="one tokenizer for an adapter, its base and the server",
                fix=f"serve it beside the base that it was trained on; where it has new tokens, {MERGE}",
            )


async def examine_output(client: Client, base: str, name: str, probes: Sequence[tuple[int, ...]]) -> float:
    """After loading: by how much its output differs from the base's on the probes, in nats a token.

    Raises:
        AdapterRefused: not by more than the base's from itself.
    """
    seen, noise = 0.0, 0.0
    for _ in range(LOOKS):
        seen, noise = await _apart(client, base, name, probes)
        if seen > max(LEAST, NOISE * noise):
            return seen
    raise AdapterRefused(
        f"{name} was loaded and answers as the base: log-probabilities differ by {seen:.2g} nats, those of the base "
        f"from themselves by {noise:.2g}",
        expected=f"more than {max(LEAST, NOISE * noise):.2g} nats on the mean of {len(probes)} probes",
        fix="look at it with `rankwise verify`: it learned nothing, or its weights fit no layer of this base",
    )


async def _apart(client: Client, base: str, name: str, probes: Sequence[tuple[int, ...]]) -> tuple[float, float]:
    """Mean difference in nats of adapter and base, and of the base and itself, asked in one moment."""
    first, second, adapted = await asyncio.gather(
        *(client.likely(model, probes, LIKELY) for model in (base, base, name))
    )
    return _mean(first, adapted), _mean(first, second)


def _mean(one: Sequence[Mapping[str, float]], other: Sequence[Mapping[str, float]]) -> float:
    """Over the likely tokens of one; a token that the other does not name is at most as likely as its last."""
    return fmean(
        abs(value - theirs.get(token, min(theirs.values())))
        for mine, theirs in zip(one, other, strict=True)
        for token, value in mine.items()
    )
