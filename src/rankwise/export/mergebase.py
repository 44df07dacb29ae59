"""A base model's files as a merge sees them: which tensors lie where, and what transformers makes of their names."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rankwise.errors import ModelError
from rankwise.export.layout import Layout, Piece
from rankwise.export.shards import Stored, read_header
from rankwise.model.locate import weight_files
from rankwise.model.skeleton import quantised_weights, skeleton, tied_names, transposed_weights


@dataclass(frozen=True)
class BaseShard:
    """One file. Tensors in the order of their bytes."""

    file: Path
    tensors: tuple[Stored, ...]
    metadata: dict[str, str]


@dataclass(frozen=True)
class BaseFiles:
    """A model folder.

    Attributes:
        tensors: name in the files -> tensor.
        model: on the meta device (`rankwise.model.skeleton`).
        tied: name of a weight -> the one that it shares.
        transposed: names of the weights that are stored as (in, out).
        quantised: names of those that bitsandbytes would hold in 4 or 8 bit.
    """

    folder: Path
    shards: tuple[BaseShard, ...]
    tensors: dict[str, Stored]
    model: Any
    tied: dict[str, str]
    transposed: set[str]
    quantised: set[str]

    @classmethod
    def open(cls, folder: Path) -> "BaseFiles":
        """Read headers and config.json; no weight is read. Raises ModelError where files are missing or damaged."""
        shards = tuple(BaseShard(f, *_opened(f)) for f in weight_files(folder))
        if not shards:
            raise ModelError(f"{folder} holds no safetensors weights", expected="a model folder")
        model = skeleton(folder)
        return cls(
            folder,
            shards,
            {t.name: t for shard in shards for t in shard.tensors},
            model,
            tied_names(model),
            transposed_weights(model),
            quantised_weights(model),
        )

    @cached_property
    def layout(self) -> Layout:
        """What transformers makes of the tensors."""
        return Layout(self.model, self.tensors)

    def named(self, parameter: str) -> Stored | None:
        """The tensor of a parameter of the model; files of some models leave out, or add, the name of the body, or have
        another name for it.
        """
        found = next((self.tensors[name] for name in self._spellings(parameter) if name in self.tensors), None)
        return found if found is not None or self._all_are_its_own else self.layout.renamed(parameter)

    def _spellings(self, name: str) -> tuple[str, ...]:
        body = f"{self.model.base_model_prefix}."
        return name, name.removeprefix(body), body + name

    @cached_property
    def _parameters(self) -> set[str]:
        return {name for name, _ in self.model.named_parameters(remove_duplicate=False)}

    @cached_property
    def _all_are_its_own(self) -> bool:
        """Is every tensor stored by a name of the class? Then no layout is made, which takes 0.2 s."""
        return all(not self._parameters.isdisjoint(self._spellings(name)) for name in self.tensors)

    def pieces(self, parameter: str) -> list[Piece]:
        """Every tensor that a parameter is stored in, which may be one for each expert.

        Raises:
            ModelError: it is stored in a form that is not followed.
        """
        return [Piece(tensor) for tensor in self.places(parameter)] or self.layout.pieces(parameter)

    def places(self, parameter: str) -> list[Stored]:
        """Where a parameter is stored, and its tied partners: one tensor, or every copy that the files hold."""
        root = self.tied.get(parameter, parameter)
        group = [root, *(name for name, other in self.tied.items() if other == root)]
        found = {t.name: t for name in group if (t := self.named(name)) is not None}
        return list(found.values())

    def embeddings(self) -> list[Stored]:
        """Embedding and head; one where they are tied."""
        found: dict[str, Stored] = {}
        wanted = [self.model.get_input_embeddings(), self.model.get_output_embeddings()]
        for name, module in self.model.named_modules():
            if any(module is one for one in wanted):
                found |= {t.name: t for t in self.places(f"{name}.weight")}
        return list(found.values())

    def is_quantised(self, tensor: Stored) -> bool:
        return self._has(self.quantised, tensor)

    def is_transposed(self, tensor: Stored) -> bool:
        return self._has(self.transposed, tensor)

    def _has(self, parameters: set[str], tensor: Stored) -> bool:
        if not parameters.isdisjoint(self._spellings(tensor.name)):
            return True
        return not self._all_are_its_own and self.layout.names.get(tensor.name) in parameters

    def largest(self) -> int:
        """Bytes of the largest tensor."""
        return max(t.bytes for t in self.tensors.values())


def _opened(file: Path) -> tuple[tuple[Stored, ...], dict[str, str]]:
    tensors, metadata = read_header(file)
    return tuple(tensors), metadata


def nearest(name: str, known: Sequence[str]) -> str:
    """For an error: names of the base that end as a missing one does."""
    end = ".".join(name.split(".")[-2:])
    return next((n for n in known if n.endswith(end)), "")
