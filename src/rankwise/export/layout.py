"""Which tensors of a model's files make up a parameter of its class.

transformers renames tensors as it loads them, stacks the experts of a layer that files hold one by one, and turns some
round; on saving it takes all of that back. Its own conversion mapping (transformers.conversion_mapping) is read here,
so that a merge finds the rows of a parameter where they lie, and writes them there.

    model.layers.0.block_sparse_moe.experts.3.w3.weight
        -> the lower half of the rows of the fourth matrix of model.layers.0.mlp.experts.gate_up_proj
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    Transpose,
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)

from rankwise.errors import ModelError
from rankwise.export.shards import Stored

# Ways to make a parameter of stored tensors that can be followed row by row: (operation, its dimensions), in order.
ONE_BY_ONE = (("MergeModulelist", (0,)),)
HALVES_ONE_BY_ONE = (*ONE_BY_ONE, ("Concatenate", (1,)))
TURNED = (("Transpose", (1, 2)),)


@dataclass(frozen=True)
class Piece:
    """A stored tensor as a part of a parameter, which is one matrix or one for each expert.

    Attributes:
        expert: number of the matrix that it lies in; None: it is the whole parameter.
        first: row of that matrix that is its first.
        turned: is each matrix stored as the transpose of what the class has?
    """

    tensor: Stored
    expert: int | None = None
    first: int = 0
    turned: bool = False


class Layout:
    """Of a model's files."""

    def __init__(self, model: Any, tensors: Mapping[str, Stored]):
        """Args: model, on the meta device. tensors: those of the files, by name."""
        conversions = get_model_conversion_mapping(model)
        renamings = [c for c in conversions if isinstance(c, WeightRenaming)]
        converters = [c for c in conversions if isinstance(c, WeightConverter)]
        self._converters = {pattern: c for c in converters for pattern in c.source_patterns}
        self._shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        self._parts: dict[str, list[tuple[Stored, str | None]]] = {}
        self.names: dict[str, str] = {}
        for name in sorted(tensors, key=dot_natural_key):  # the order in which transformers stacks them
            parameter, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, self._shapes)
            if parameter not in self._shapes and name in self._shapes:
                parameter, pattern = name, None
            self._parts.setdefault(parameter, []).append((tensors[name], pattern))
            if pattern is None:
                self.names[name] = parameter

    def renamed(self, parameter: str) -> Stored | None:
        """The stored tensor that is this parameter as it is, maybe by another name."""
        found = self._parts.get(parameter, ())
        return found[0][0] if len(found) == 1 and found[0][1] is None else None

    def pieces(self, parameter: str) -> list[Piece]:
        """Where a parameter is stored; empty where the files do not have it.

        Raises:
            ModelError: experts are missing, or it is put together in a way that is not followed.
        """
        if (stored := self.renamed(parameter)) is not None:
            return [Piece(stored)]
        parts = self._parts.get(parameter, [])
        patterns = [pattern for _, pattern in parts if pattern is not None]
        if not parts or len(patterns) < len(parts):
            return []
        converter = self._converters[patterns[0]]
        way = tuple((type(op).__name__, _dimensions(op)) for op in converter.operations)
        if way == TURNED and len(parts) == 1:
            return [self._one(parameter, parts[0][0], converter.operations[0])]
        if way not in (ONE_BY_ONE, HALVES_ONE_BY_ONE):
            raise ModelError(
                f"the files hold {parameter} in another form than the model has it, which transformers makes by "
                f"{', '.join(name for name, _ in way)}, and a merge does not follow that",
                expected="experts stored together, one by one, or with gate and up apart",
                fix="load the base with transformers, save it with save_pretrained(save_original_format=False), and "
                "merge into that",
            )
        return self._one_by_one(parameter, parts, converter.source_patterns)

    def _one(self, parameter: str, stored: Stored, turn: Any) -> Piece:
        turned = not turn.check_dims or stored.shape != self._shapes[parameter]
        return Piece(stored, turned=turned)

    def _one_by_one(
        self, parameter: str, parts: Sequence[tuple[Stored, str | None]], patterns: Sequence[str]
    ) -> list[Piece]:
        experts, rows, *_ = self._shapes[parameter]
        found, first = [], 0
        for pattern in patterns:
            own = [stored for stored, other in parts if other == pattern]
            if len(own) != experts:
                raise ModelError(
                    f"the files hold {len(own)} of the {experts} experts of {parameter}",
                    expected="every expert of every layer",
                    fix="copy or download the base again",
                )
            found += [Piece(stored, number, first) for number, stored in enumerate(own)]
            first += own[0].rows
        if first != rows:
            raise ModelError(
                f"the experts of {parameter} have {first} rows in the files, and {rows} by config.json",
                fix="copy or download the base again",
            )
        return found


def _dimensions(operation: Any) -> tuple[int, ...]:
    if isinstance(operation, Transpose):
        return tuple(sorted((operation.dim0, operation.dim1)))
    return (operation.dim,) if isinstance(operation, (Concatenate, MergeModulelist)) else ()
