"""The products of an adapter, from the files of any LoRA that PEFT wrote or from the model that trains.

Files are read one matrix at a time and closed in between, since a mapped file counts as memory of the process for as
long as it is open.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rankwise.errors import ModelError
from rankwise.model.products import Product

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
# Ends of the names of the two factors, in PEFT's files.
PAIRS = {"lora_A.weight": "lora_B.weight", "lora_embedding_A": "lora_embedding_B"}
# Ways to begin that take the first A and B out of the base, so that a file of A and B alone is no update of it.
OUT_OF_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Kinds of LoRA whose update is more than B times A.
MORE_THAN_A_PRODUCT = ("use_qalora", "use_bdlora", "kasa_config", "monteclora_config", "target_parameters")
NOT_A_PRODUCT = {
    "IA3": "IA3 scales activations: its update of a matrix is W times a diagonal, which has no low rank",
    "PROMPT_TUNING": "prompt tuning puts vectors before the input and changes no matrix",
    "PREFIX_TUNING": "prefix tuning puts vectors before keys and values and changes no matrix",
    "P_TUNING": "p-tuning puts vectors before the input and changes no matrix",
    "RANKWISE_BOTTLENECK": "a bottleneck adapter is a layer of its own, with a nonlinearity, and changes no matrix",
}


@dataclass(frozen=True)
class AdapterFolder:
    """An adapter as PEFT's save_pretrained wrote it.

    Attributes:
        config: adapter_config.json.
        names: of all tensors of the file.
        pairs: (name of A, name of B) in the file, of each module.
        whole: name in the file -> name in the base, of weights that it holds whole (`modules_to_save`).
    """

    folder: Path
    config: Mapping[str, Any]
    names: Sequence[str]
    pairs: Mapping[str, tuple[str, str]]
    whole: Mapping[str, str]

    @classmethod
    def open(cls, folder: Path) -> "AdapterFolder":
        """Read the configuration and the names. Raises ModelError where there is no adapter in safetensors."""
        config = _config(folder)
        file = folder / WEIGHTS
        if not file.is_file():
            pickled = (folder / "adapter_model.bin").is_file()
            raise ModelError(
                f"{folder} holds no {WEIGHTS}" + (", only adapter_model.bin, a pickle that can run code" * pickled),
                expected="an adapter in safetensors, as PEFT's save_pretrained writes it",
                fix="load it where you trust it and save it again with save_pretrained" if pickled else "",
            )
        names = _names(file)
        pairs = {module: pair for name in names if (found := _pair(name, names)) for module, pair in [found]}
        kept = tuple(config.get("modules_to_save") or ())
        whole = {n: n.removeprefix(PREFIX) for n in names if n.endswith(tuple(f".{m}.weight" for m in kept))}
        return cls(folder, config, names, pairs, whole)

    @property
    def kind(self) -> str:
        """PEFT's name of the method."""
        return str(self.config.get("peft_type") or self.config.get("type") or "unknown")

    @property
    def method(self) -> str:
        """Our name of it where it is a LoRA, else PEFT's in lower case."""
        if self.kind != "LORA":
            return self.kind.lower()
        return "dora" if self.config.get("use_dora") else "rslora" if self.config.get("use_rslora") else "lora"

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Module -> (out, in) of each product on a weight that is no embedding; only the file's header is read."""
        found = {}
        with safe_open(self.folder / WEIGHTS, framework="pt") as file:
            for module, (a, b) in self.pairs.items():
                if not a.endswith("lora_embedding_A"):
                    sides = [file.get_slice(name).get_shape() for name in (a, b)]
                    found[module] = (sides[1][0], math.prod(sides[0][1:]))
        return found

    def remarks(self) -> list[str]:
        """What the spectra of its products do not say of it."""
        said = []
        if self.config.get("use_dora"):
            said.append("DoRA: the spectra are those of s B A, its direction part; the lengths of rows train beside it")
        if self.config.get("trainable_token_indices"):
            said.append("rows of tokens that train alone have no spectrum")
        return said

    def no_spectrum(self) -> str | None:
        """Why its update has no spectrum of s B A; None where it has one."""
        if self.kind != "LORA":
            return NOT_A_PRODUCT.get(self.kind, f"{self.kind} does not write its update as B times A")
        begun = self.config.get("init_lora_weights")
        if isinstance(begun, str) and begun.startswith(OUT_OF_THE_BASE):
            return (
                f"init_lora_weights is {begun}: A and B began as a part of the base, and the file does not say as which"
                "; PEFT's save_pretrained(path_initial_model_for_weight_conversion=...) writes the update"
            )
        if more := [key for key in MORE_THAN_A_PRODUCT if self.config.get(key)]:
            return f"with {more[0]} its update is more than B times A"
        return None if self.pairs else "it has no B and A"

    def products(self) -> Iterator[Product]:
        """Each product, in the order of the file's names; nothing of the others is in memory."""
        for module, names in self.pairs.items():
            a, b = self.tensors(names)
            yield self.product(module, names[0], a, b)

    def product(self, module: str, name_of_a: str, a: Tensor, b: Tensor) -> Product:
        """One update of this adapter. Convolutions are taken as PEFT does: (out, in x height x width)."""
        embedding = name_of_a.endswith("lora_embedding_A")
        flat = a.flatten(1), b.flatten(1)
        transposed = embedding or bool(self.config.get("fan_in_fan_out"))
        return Product(module, *flat, scale=scale_of(self.config, module, a.shape[0]), transposed=transposed)

    def tensors(self, names: Sequence[str]) -> list[Tensor]:
        """Tensors of the file by name; it is closed again."""
        with safe_open(self.folder / WEIGHTS, framework="pt") as file:
            return [file.get_tensor(name) for name in names]


def scale_of(config: Mapping[str, Any], module: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) under rsLoRA, with the alpha that PEFT's `alpha_pattern` gives the module. The rank
    is that of its matrices, in which `rank_pattern` has had its say.
    """
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    own = next((p for p in patterns if re.match(rf"(.*\.)?({p})$", module)), None)  # peft.utils.get_pattern_key
    alpha = float(patterns[own] if own is not None else config.get("lora_alpha", 8))
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def live_products(model: Any, state: Mapping[str, Tensor] | None = None) -> Iterator[Product]:
    """The products of a PEFT model while it trains; nothing for other models.

    A model that trains over the residual of PiSSA is seen by what was added since: s (B A - B0 A0).

    Args:
        state: whole tensors by the names of parameters, where the model itself holds parts of them; a product whose
            tensors are not among them is left out.
    """
    first: Mapping[str, Tensor] = getattr(model, "first_values", {})
    for name, layer in model.named_modules():
        for kind in ("lora_A", "lora_embedding_A"):
            if "default" not in getattr(layer, kind, {}):
                continue
            factors = [_factor(layer, name, k, state) for k in (kind, kind.replace("_A", "_B"))]
            if factors[0] is None or factors[1] is None:
                continue
            a, b = (factor.detach().flatten(1) for factor in factors if factor is not None)
            if first:
                a0, b0 = (first[f"{name}.{k}.weight"].to(a.device) for k in ("lora_A", "lora_B"))
                a, b = torch.cat([a, a0], 0), torch.cat([b, -b0], 1)
            transposed = kind == "lora_embedding_A" or bool(getattr(layer, "fan_in_fan_out", False))
            yield Product(name.removeprefix(PREFIX), a, b, float(layer.scaling["default"]), transposed)


def _factor(layer: Any, name: str, kind: str, state: Mapping[str, Tensor] | None) -> Tensor | None:
    held = getattr(layer, kind)["default"]
    path = f"{name}.{kind}.default"
    if not isinstance(held, Tensor):
        held, path = held.weight, f"{path}.weight"
    return held if state is None else state.get(path)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(
            f"{folder} holds no adapter: {CONFIG} is missing", expected="a folder written by PEFT's save_pretrained"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is damaged: {error}", fix="copy the adapter again") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a JSON object", fix="copy the adapter again")
    return config


def _names(file: Path) -> list[str]:
    try:
        with safe_open(file, framework="pt") as opened:
            return list(opened.keys())
    except SafetensorError as error:
        raise ModelError(f"{file} is damaged: {error}", fix="copy the adapter again") from None


def _pair(name: str, names: Sequence[str]) -> tuple[str, tuple[str, str]] | None:
    """(module, (A, B)) where `name` is the A of a pair."""
    for a, b in PAIRS.items():
        if name.endswith(f".{a}"):
            stem = name.removesuffix(a)
            if stem + b not in names:
                raise ModelError(f"the adapter has {name} and no {stem + b}", fix="copy the adapter again")
            return stem.removesuffix(".").removeprefix(PREFIX), (name, stem + b)
    return None
