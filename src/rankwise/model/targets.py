"""Which modules of a model an adapter is put on."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rankwise.errors import UsageError
from rankwise.methods import Tuner

# Where PEFT knows no default for a model type, these names stand for what its defaults name in the types it knows.
IA3_ATTENTION = ("k_proj", "v_proj", "key", "value", "query_key_value", "qkv_proj", "c_attn", "Wqkv")
IA3_FEEDFORWARD = ("down_proj", "fc2", "dense_4h_to_h", "fc_out", "output_linear", "w2")
VALUES = ("v_proj", "value", "v", "query_key_value", "qkv_proj", "c_attn", "Wqkv")


@dataclass(frozen=True)
class Targets:
    """Fields for the PEFT config, the modules that they hit (by full name), and what a person should know."""

    fields: dict[str, Any] = field(default_factory=dict)
    modules: dict[str, nn.Module] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def none_kept_out(name: str) -> bool:
    return False


def find_targets(
    model: PreTrainedModel,
    tuner: Tuner,
    asked: str | tuple[str, ...] | None,
    known: dict[str, Any] | None,
    kept_out: Callable[[str], bool] = none_kept_out,
) -> Targets:
    """What to tell PEFT about the targets.

    Args:
        asked: `all-linear`, names, or None for PEFT's default.
        known: PEFT's defaults by model type; empty for a tuner that finds its own place.
        kept_out: modules that `all-linear` leaves out.

    Raises:
        UsageError: none of the names is a module of the model.
    """
    if asked == "all-linear":
        return _all_linear(model, kept_out)
    if asked is None:
        return _default(model, tuner, known, kept_out) if known else Targets()
    return _named(model, tuner, (asked,) if isinstance(asked, str) else tuple(asked), plain=known is None)


def _all_linear(model: PreTrainedModel, kept_out: Callable[[str], bool]) -> Targets:
    """PEFT resolves the shorthand itself, except where it would take too much or not see a quantised layer."""
    found = linear_layers(model)
    chosen = {name: module for name, module in found.items() if not kept_out(name)}
    seen = all(isinstance(module, (nn.Linear, Conv1D)) for module in chosen.values())
    if len(chosen) == len(found) and seen and not _stacked(model):
        return Targets({"target_modules": "all-linear"}, chosen)
    return Targets({"target_modules": _ends(model, chosen)}, chosen)


def _stacked(model: nn.Module) -> bool:
    """Does it hold experts as parameters of three dimensions? To the shorthand PEFT adds those of some families, which
    are no linear layers: no plan counts them, and no engine here serves an adapter of them.
    """
    shapes = (getattr(p, "ds_shape", p.shape) for p in model.parameters())  # ZeRO-3 leaves an empty tensor in place
    return any(len(shape) == 3 for shape in shapes)


def _ends(model: nn.Module, modules: dict[str, nn.Module]) -> list[str]:
    """The ends of their paths, where those name no other module, else the paths."""
    ends = sorted({_last(path) for path in modules})
    return ends if _matching(model, tuple(ends)).keys() == modules.keys() else list(modules)


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Every linear layer but the head, by full name."""
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if module is not head and (isinstance(module, Conv1D) or _is_linear(module))
    }


def _is_linear(module: nn.Module) -> bool:
    return all(hasattr(module, name) for name in ("in_features", "out_features", "weight"))


def widths(module: nn.Module) -> tuple[int, int] | None:
    """(in, out) of a linear layer; None for anything else."""
    if isinstance(module, Conv1D):
        return int(module.nx), int(module.nf)
    if _is_linear(module):
        return int(module.in_features), int(module.out_features)  # type: ignore[arg-type]
    return None


def _matching(model: nn.Module, names: tuple[str, ...]) -> dict[str, nn.Module]:
    """As PEFT matches: the whole path of a module, or its end."""
    ends = tuple(f".{name}" for name in names)
    return {path: module for path, module in model.named_modules() if path in names or path.endswith(ends)}


def _named(model: PreTrainedModel, tuner: Tuner, names: tuple[str, ...], *, plain: bool) -> Targets:
    hits = {name: _matching(model, (name,)) for name in names}
    missing = [name for name, found in hits.items() if not found]
    kept = [name for name in names if hits[name]]
    if not kept:
        have = sorted({_last(path) for path in linear_layers(model)})
        raise UsageError(
            f"targets {', '.join(names)}: no module of {type(model).__name__} has such a name",
            expected=f"all-linear, or some of {', '.join(have)}",
        )
    notes = tuple(f"target {name} is ignored: {type(model).__name__} has no such module" for name in missing)
    modules = {path: module for name in kept for path, module in hits[name].items()}
    fields: dict[str, Any] = {"target_modules": kept[0] if plain and len(kept) == 1 else kept}
    if tuner.peft_type == "IA3":
        # PEFT's default can name a module that was not asked for, and it refuses that.
        fields["feedforward_modules"] = [n for n in kept if n in IA3_FEEDFORWARD or n.endswith("mlp.c_proj")]
    return Targets(fields, modules, notes)


def _default(model: PreTrainedModel, tuner: Tuner, known: dict[str, Any], kept_out: Callable[[str], bool]) -> Targets:
    """PEFT's default for the model type, left to PEFT; else a fallback that is named in a note."""
    names = known.get(model.config.model_type)
    if isinstance(names, str) and names:
        return Targets()
    if names:  # said to PEFT again, because its conversion of mixture-of-experts targets overlooks a default
        return Targets({"target_modules": list(names)}, _matching(model, tuple(names)))
    chosen = _fallback(model, tuner, kept_out)
    if not chosen.modules:
        raise UsageError(
            f"PEFT has no default targets of {tuner.name} for {model.config.model_type}, and none was found",
            fix="name them with --targets",
        )
    return chosen


def _fallback(model: PreTrainedModel, tuner: Tuner, kept_out: Callable[[str], bool]) -> Targets:
    modules = {path: module for path, module in model.named_modules() if not kept_out(path)}
    if tuner.peft_type == "LN_TUNING":
        return _choose(model, tuner, {path: module for path, module in modules.items() if _is_norm(module)})
    if tuner.peft_type == "IA3":
        names = (*IA3_ATTENTION, *IA3_FEEDFORWARD)
        chosen = _choose(model, tuner, {path: m for path, m in modules.items() if _last(path) in names})
        ends = [n for n in chosen.fields["target_modules"] if _last(n) in IA3_FEEDFORWARD]
        return Targets(chosen.fields | {"feedforward_modules": ends}, chosen.modules, chosen.notes)
    if tuner.peft_type == "BEFT":
        return _choose(model, tuner, {path: m for path, m in modules.items() if _last(path) in VALUES})
    every = _all_linear(model, kept_out)
    note = f"PEFT has no default targets of {tuner.name} for {model.config.model_type}: all linear layers"
    return Targets(every.fields, every.modules, (note,))


def _choose(model: PreTrainedModel, tuner: Tuner, modules: dict[str, nn.Module]) -> Targets:
    """By their names."""
    ends = ", ".join(sorted({_last(path) for path in modules}))
    note = f"PEFT has no default targets of {tuner.name} for {model.config.model_type}: {ends}"
    return Targets({"target_modules": _ends(model, modules)}, modules, (note,))


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower() and getattr(module, "weight", None) is not None


def fitted(tuner: Tuner, targets: Targets, config: Any, given: set[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """A block size that divides the width of every target, where the tuner needs one and nobody `gave` it."""
    if tuner.divides is None:
        return {}, ()
    name, side = tuner.divides
    size = getattr(config, name)
    sizes = [widths(module) for module in targets.modules.values()]
    wide = [w for pair in sizes if pair for w in {"in": pair[:1], "out": pair[1:], "both": pair}[side]]
    best = math.gcd(size, *wide) if size else size
    if name in given or best == size:
        return {}, ()
    return {name: best}, (f"{name} {best} instead of {size}: it has to divide the width of every target",)


def check_rank(tuner: Tuner, targets: Targets, r: int | None) -> None:
    """Raises UsageError for a rank that no targeted matrix can have."""
    if r is None:
        return
    if r < 1:
        raise UsageError(f"rank {r}: a rank is at least 1")
    if not tuner.matrix_rank:
        return
    sides = {name: min(pair) for name, module in targets.modules.items() if (pair := widths(module))}
    limits = {name: side for name, side in sides.items() if side > 1}  # a gate of one output is no matrix
    if limits and r > min(limits.values()):
        name = min(limits, key=lambda n: limits[n])
        raise UsageError(
            f"rank {r} is more than the smallest targeted matrix can have: {name} has {limits[name]}",
            expected=f"a rank of at most {limits[name]}",
            fix="lower the rank, or name larger targets",
        )
