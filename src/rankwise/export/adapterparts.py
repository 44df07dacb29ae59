"""What an adapter's file does to which weight of the base: names in, changes out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rankwise.errors import ModelError
from rankwise.export.changes import Added, Change, Dora, LowRank, Product, Scaled, TokenRows
from rankwise.export.experts import Targeted, products_on, targeted_parameters
from rankwise.export.mergebase import BaseFiles, nearest
from rankwise.export.shards import Stored, read_header
from rankwise.model.adapterproducts import OUT_OF_THE_BASE, PREFIX, WEIGHTS, AdapterFolder, scale_of

TOKENS = ".token_adapter.trainable_tokens_delta"
MAGNITUDES = (".lora_magnitude_vector", ".lora_magnitude_vector.weight")
# Kinds of LoRA whose update depends on the input, or is more than B times A.
NOT_FIXED = {
    "use_qalora": "QALoRA pools its inputs",
    "use_bdlora": "BD-LoRA's factors are block-diagonal",
    "kasa_config": "KaSA's update has a diagonal of its own",
    "monteclora_config": "MonteCLoRA draws its factors",
    "arrow_config": "Arrow chooses among adapters at every token",
    "alora_invocation_tokens": "aLoRA is on after its invocation tokens alone",
}


@dataclass
class Parts:
    """Of one adapter.

    Attributes:
        changes: name of a tensor of the base -> what is done to it, in order.
        whole: name -> the adapter's own tensor that takes its place.
        products: name -> its update as B and A, where it is that.
    """

    changes: dict[str, list[Change]] = field(default_factory=dict)
    whole: dict[str, Stored] = field(default_factory=dict)
    products: dict[str, Product] = field(default_factory=dict)

    def add(self, places: list[Stored], change: Change) -> None:
        for place in places:
            self.changes.setdefault(place.name, []).append(change)


def read_parts(adapter: AdapterFolder, base: BaseFiles) -> Parts:
    """The parts of a LoRA or IA3 adapter.

    Raises:
        ModelError: it belongs to modules that this base does not have, or its update is not fixed.
    """
    _refuse_unfixed(adapter)
    stored = {t.name: t for t in read_header(adapter.folder / WEIGHTS)[0]}
    return _Reading(adapter, base, stored, targeted_parameters(adapter, base)).parts()


def _refuse_unfixed(adapter: AdapterFolder) -> None:
    begun = adapter.config.get("init_lora_weights")
    why = next((text for key, text in NOT_FIXED.items() if adapter.config.get(key)), "")
    if not why and isinstance(begun, str) and begun.startswith(OUT_OF_THE_BASE):
        why = adapter.no_spectrum() or ""
    if why:
        raise ModelError(
            f"{adapter.folder} cannot be merged: {why}", expected="an adapter whose update of a weight is fixed"
        )


@dataclass(frozen=True)
class _Reading:
    adapter: AdapterFolder
    base: BaseFiles
    stored: Mapping[str, Stored]
    targeted: Mapping[str, Targeted]

    @property
    def file(self) -> Path:
        return self.adapter.folder / WEIGHTS

    @cached_property
    def factors(self) -> set[str]:
        """Names of A and B in the file."""
        return {name for pair in self.adapter.pairs.values() for name in pair}

    def parts(self) -> Parts:
        parts = Parts()
        for name, tensor in self.stored.items():  # whole weights first: an update comes on top of them
            path = _own_name(name)
            if not name.endswith((".lora_A.weight", ".lora_B.weight")) and (places := self.base.places(path)):
                for place in places:
                    parts.whole.setdefault(place.name, tensor)
        for module, pair in self.adapter.pairs.items():
            if module in self.targeted:
                self._on_parameter(parts, self.targeted[module], pair)
            else:
                self._low_rank(parts, module, pair)
        for name, tensor in self.stored.items():
            self._other(parts, name, tensor)
        return parts

    def _on_parameter(self, parts: Parts, target: Targeted, pair: tuple[str, str]) -> None:
        shapes = {name: self.stored[name].shape for name in pair}
        products = products_on(target, self.adapter, self.base, pair, shapes)
        for name, product in products.items():
            parts.add([self.base.tensors[name]], LowRank(product))
        parts.products |= products

    def _low_rank(self, parts: Parts, module: str, pair: tuple[str, str]) -> None:
        places = self._places(f"{module}.weight", pair[0])
        a, b = (self.stored[name] for name in pair)
        transposed = self.base.is_transposed(places[0])
        if pair[0].endswith("lora_embedding_A") and not transposed:
            raise ModelError(f"{pair[0]} is an update of an embedding, and {places[0].name} is none")
        shape = (b.shape[0], *a.shape[1:])
        scale = scale_of(self.adapter.config, module, a.shape[0])
        product = Product(self.file, *pair, scale, transposed, tuple(reversed(shape)) if transposed else shape)
        stem = pair[0].removesuffix(".lora_A.weight").removesuffix(".lora_embedding_A")
        magnitude = next((stem + end for end in MAGNITUDES if stem + end in self.stored), None)
        if magnitude is None:
            parts.add(places, LowRank(product))
            parts.products |= {place.name: product for place in places}
        else:
            length = max(self.stored[magnitude].shape)
            parts.add(places, Dora(product, magnitude, length))

    def _other(self, parts: Parts, name: str, tensor: Stored) -> None:
        path = name.removeprefix(PREFIX)
        if path.endswith(TOKENS):
            module = path.removesuffix(TOKENS)
            places = self._places(f"{module}.weight", name)
            parts.add(places, TokenRows(self.file, name, self._token_ids(module), tensor.width))
        elif path.endswith(".ia3_l"):
            self._ia3(parts, path.removesuffix(".ia3_l"), name, tensor)
        elif path.endswith(".lora_B.bias"):
            module = path.removesuffix(".lora_B.bias")
            rank = self.stored[f"{PREFIX}{module}.lora_A.weight"].shape[0]
            scale = scale_of(self.adapter.config, module, rank)
            parts.add(self._places(f"{module}.bias", name), Added(self.file, name, tensor.rows, scale))
        elif not self._known(name):
            raise ModelError(
                f"{self.adapter.folder} holds {name}, of which no merge is known",
                expected="LoRA, DoRA, IA3, rows of tokens or whole modules, as PEFT writes them",
            )

    def _known(self, name: str) -> bool:
        return name in self.factors or name.endswith(MAGNITUDES) or bool(self.base.places(_own_name(name)))

    def _ia3(self, parts: Parts, module: str, name: str, tensor: Stored) -> None:
        """(out, 1) scales what a layer gives, (1, in) what it is given: PEFT's feedforward modules."""
        places = self._places(f"{module}.weight", name)
        feedforward = tensor.shape[0] == 1 and len(tensor.shape) > 1 and tensor.shape[1] != 1
        along = int(feedforward != self.base.is_transposed(places[0]))
        length = max(tensor.shape)
        parts.add(places, Scaled(self.file, name, length, along))
        if not feedforward and (bias := self.base.places(f"{module}.bias")):
            parts.add(bias, Scaled(self.file, name, length, 0))

    def _token_ids(self, module: str) -> tuple[int, ...]:
        said = self.adapter.config.get("trainable_token_indices") or self.adapter.config.get("token_indices") or []
        if isinstance(said, dict):
            said = next((ids for key, ids in said.items() if module == key or module.endswith(f".{key}")), [])
        return tuple(int(i) for i in said)

    def _places(self, parameter: str, name: str) -> list[Stored]:
        if found := self.base.places(parameter):
            return found
        if re.search(r"\.experts\.\d+\.", parameter):
            raise ModelError(
                f"{name} is an update of one expert as a layer of its own, and the files of {self.base.folder} hold "
                "all experts of a layer together",
                expected="a base that holds them one by one, as transformers' save_pretrained does for most models",
                fix="load the base with transformers, save it with save_pretrained, and merge into that",
            )
        near = nearest(parameter, list(self.base.tensors))
        raise ModelError(
            f"the adapter {self.adapter.folder} does not fit this base: {name} belongs to {parameter}, which the files "
            f"of {self.base.folder} do not have" + (f" (they have {near})" if near else ""),
            expected="the base model that it was trained on",
            fix="adapter_config.json names that base",
        )


def _own_name(name: str) -> str:
    """The weight that a whole tensor of an adapter stands for."""
    return name.removeprefix(PREFIX).replace(".base_layer.", ".").replace(".ln_tuning_layers.", ".")
