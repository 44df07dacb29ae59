"""Is this the base that the weights were trained on? By hash where a lineage was written down, else by shapes."""

from pathlib import Path
from typing import Any

from rankwise.api.subjects import Subject, Weights, named_base
from rankwise.errors import ModelError
from rankwise.observe.model import weights_hash


def require_match(subject: Subject, base: Path) -> str:
    """How it was made sure of, as a sentence. Raises ModelError where it is another base."""
    assert subject.last is not None
    if (lineage := subject.lineage) is not None:
        found = weights_hash(base)
        if found != lineage.base_weights:
            wanted = lineage.base_weights
            raise ModelError(
                f"{subject.last.folder} was trained on another base than {base}",
                expected=f"base weights of sha256 {wanted[:12]}… as its lineage says, found {found[:12]}…",
                fix="name the base that it was trained on with --base, or look at the adapter alone (--adapter-only)",
            )
        return f"by the sha256 of the base's weights that the lineage names ({found[:12]}…)"
    compared = _require_shapes(subject.last, base)
    return f"{compared}; nobody wrote a hash of the base down, so other weights of the same shapes would not be noticed"


def _require_shapes(weights: Weights, base: Path) -> str:
    from rankwise.watch.directions import Base

    known = Base(base)
    wanted = _adapted_shapes(weights) if weights.adapter else _own_shapes(Base(weights.folder))
    names = {module: known.find(module) for module in wanted}
    if not any(names.values()):
        raise _other_base(weights, base, f"none of its {len(wanted)} modules has a weight in the base's files")
    for module, (rows, columns, either_way) in wanted.items():
        name = names[module]
        if name is None:
            continue
        shape = known.flat_shape(name)
        if shape != (rows, columns) and not (either_way and shape == (columns, rows)):
            said = f"{module} is trained for a weight of {rows} x {columns}, and the base's has {shape[0]} x {shape[1]}"
            raise _other_base(weights, base, said)
    given = f" (it names {named} as its base)" if (named := named_base(weights)) else ""
    fitting = sum(name is not None for name in names.values())
    return f"by name and shape of {fitting} of {len(wanted)} weights{given}"


def _other_base(weights: Weights, base: Path, what: str) -> ModelError:
    named = named_base(weights)
    return ModelError(
        f"{weights.folder} does not belong on {base}: {what}",
        expected=f"the base that it was trained on: {named}" if named else "the base that it was trained on",
        fix="name that base with --base, or look at the adapter alone (--adapter-only)",
    )


def _adapted_shapes(weights: Weights) -> dict[str, tuple[int, int, bool]]:
    """Module -> rows, columns, and whether the base may have them the other way round. Embeddings are left out: new
    tokens make them longer.
    """
    from rankwise.model.adapterproducts import AdapterFolder

    adapter = AdapterFolder.open(weights.folder)
    return {
        module: (rows, columns, bool(adapter.config.get("fan_in_fan_out")))
        for module, (rows, columns) in adapter.shapes().items()
    }


def _own_shapes(model: Any) -> dict[str, tuple[int, int, bool]]:
    """Of the matrices of a whole model but those with a row for each token.

    Args:
        model: watch.directions.Base.
    """
    found = {n: model.flat_shape(n) for n, shape in model.shapes.items() if len(shape) > 1}
    tokens = ("embed_tokens.weight", "lm_head.weight", "wte.weight")
    return {n.removesuffix(".weight"): (*shape, False) for n, shape in found.items() if not n.endswith(tokens)}
