"""Options -> Configuration: defaults filled in, combinations that cannot be refused."""

from collections.abc import Mapping
from typing import Any

from rankwise.errors import UsageError
from rankwise.estimate.options import OPTIONS
from rankwise.methods import Tuner, tuner
from rankwise.methods.prompt import PROMPT_TUNERS
from rankwise.records import Configuration, CostOptions
from rankwise.unsupported import NOT_TEXT

POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "model_max_length")
USUAL_LENGTH = 2048
# Options that only some methods have, by what the method is.
OF_MATRICES = ("rank", "alpha", "dropout", "targets")
OF_METHOD = {
    "full": (),
    "bottleneck": ("bottleneck",),
    **{t.name: ("prompt_length",) for t in PROMPT_TUNERS},
}


def configure(said: Mapping[str, Any], config: Mapping[str, Any]) -> Configuration:
    """One configuration. What the model's modules decide (targets, the highest rank) is checked where it is traced.

    Args:
        said: options that were given, each of its kind (`estimate.options.typed`), with `model` among them.
        config: the model's config.json.

    Raises:
        UsageError: a combination that cannot be, or that would be priced wrong.
    """
    method = tuner(said.get("method", OPTIONS["method"].default))
    _refuse_foreign_options(said, method)
    chosen = {name: said.get(name, option.default) for name, option in OPTIONS.items()}
    chosen |= _of_method(said, method)
    chosen["seq_len"] = _length(said, config)
    chosen["parallel"] = _parallel(said, chosen["gpus"] * chosen["nodes"])
    if _as_in_the_trainer(said, method) and chosen["dtype"] in ("bf16", "fp16"):
        chosen["autocast"] = chosen["dtype"]
    _refuse_impossible(chosen, method)
    notes = _assumed(said, chosen, method)
    costs = CostOptions(**{name: chosen.pop(name) for name in CostOptions.model_fields})
    return Configuration(**chosen, costs=costs, id=said.get("id"), config=dict(config), notes=tuple(notes))


def refuse_other_models(config: Mapping[str, Any], name: str) -> None:
    """Raises UsageError for a model that reads more than text."""
    if found := [key for key in NOT_TEXT if config.get(key)]:
        raise UsageError(
            f"{name} ({config.get('model_type')}) is a vision or audio model ({found[0]} in its config): its other "
            "towers are not modelled, and priced as a text model it would be wrong",
            expected="a causal language model",
            fix="name its text-only counterpart",
        )


def positions_of(config: Mapping[str, Any]) -> int | None:
    """The longest sequence that a model's config allows; None where it does not say."""
    return next((int(config[key]) for key in POSITIONS if config.get(key)), None)


def _refuse_foreign_options(said: Mapping[str, Any], method: Tuner) -> None:
    """An option of another method, given, shows that something else was meant."""
    own = OF_METHOD.get(method.name, OF_MATRICES)
    wrong = [o for o in (*OF_MATRICES, "prompt_length", "bottleneck") if said.get(o) and o not in own]
    if said.get("kbit_upcast") and method.base == "as-loaded":
        wrong.append("kbit_upcast")
    if said.get("double_quant") and method.base != "nf4":
        wrong.append("double_quant")
    if wrong:
        flags = ", ".join("--" + option.replace("_", "-") for option in wrong)
        raise UsageError(f"{method.name} has no {flags}", fix="drop it, or choose a method that has it")


def _of_method(said: Mapping[str, Any], method: Tuner) -> dict[str, Any]:
    """The method's own options; None where it has no such option, or where PEFT's default stands."""
    own = OF_METHOD.get(method.name, OF_MATRICES)
    found = {
        option: said.get(option, OPTIONS[option].default) if option in own else None
        for option in (*OF_MATRICES, "prompt_length", "bottleneck")
    }
    if not method.matrix_rank:  # what `rank` means there differs from method to method
        found["rank"], found["targets"] = said.get("rank"), said.get("targets")
    elif found["alpha"] is None and found["rank"] is not None:
        found["alpha"] = 2.0 * found["rank"]
    found["dropout"] = found["dropout"] or 0.0
    found["kbit_upcast"] = said.get("kbit_upcast", method.base != "as-loaded")
    found["double_quant"] = said.get("double_quant", method.base == "nf4")
    return found


def _as_in_the_trainer(said: Mapping[str, Any], method: Tuner) -> bool:
    """A quantised base of which neither preparation nor autocast is said: both, as Trainer and TRL users have them."""
    return method.base != "as-loaded" and not {"kbit_upcast", "autocast", "amp"} & set(said)


def _length(said: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    limit = positions_of(config)
    asked = said.get("seq_len")
    if asked is None:
        return min(USUAL_LENGTH, limit or USUAL_LENGTH)
    if limit is not None and asked > limit:
        raise UsageError(
            f"seq_len is {asked:,}, and {said['model']} has {limit:,} positions",
            expected=f"1 to {limit:,} tokens",
            fix="shorten the rows, or give a config.json whose positions were extended",
        )
    return int(asked)


def _parallel(said: Mapping[str, Any], devices: int) -> str:
    asked = said.get("parallel")
    if asked == "none" and devices > 1:
        raise UsageError(
            f"parallel is none, and there are {devices} devices", expected="ddp, zero1, zero2, zero3 or fsdp"
        )
    return str(asked or ("ddp" if devices > 1 else "none"))


def _refuse_impossible(chosen: Mapping[str, Any], method: Tuner) -> None:
    parallel, offload, dtype = chosen["parallel"], chosen["offload"], chosen["dtype"]
    if chosen["amp"] and dtype == "fp32":
        raise UsageError("--amp computes in --dtype, and fp32 is no mixed precision", expected="--dtype bf16 or fp16")
    if chosen["amp"] and chosen["autocast"] not in ("none", dtype):
        raise UsageError(
            f"--amp computes in {dtype}, and --autocast says {chosen['autocast']}", fix="give one of the two"
        )
    if chosen["amp"] and method.base != "as-loaded":
        raise UsageError(
            f"--amp keeps fp32 weights, and {method.name} keeps them as {method.base}",
            fix="say --autocast for the arithmetic over a quantised base",
        )
    if parallel == "zero3" and method.base != "as-loaded":
        raise UsageError(
            f"{method.name} loads its base with a device_map, which DeepSpeed ZeRO-3 refuses",
            expected="none, ddp, zero1, zero2 or fsdp",
        )
    if offload != "none" and parallel not in ("zero2", "zero3", "fsdp"):
        raise UsageError(f"offload {offload} needs zero2, zero3 or fsdp, and parallel is {parallel}")
    if offload == "all" and parallel == "zero2":
        raise UsageError("ZeRO-2 keeps whole weights on the device", expected="--offload optimizer, or zero3")


def _assumed(said: Mapping[str, Any], chosen: dict[str, Any], method: Tuner) -> list[str]:
    notes = []
    if method.base != "as-loaded" and "kbit_upcast" not in said:
        notes.append(
            "PEFT's preparation for k-bit training is taken as done (what is not quantised is fp32)"
            + (f", under the Trainer's {chosen['autocast']} flag" if _as_in_the_trainer(said, method) else "")
            + ": --no-kbit-upcast prices the model without it"
        )
    if method.name == "full" and said.get("adapter_dtype"):
        notes.append(f"adapter_dtype says nothing about {method.name}, which has no adapter")
    real = chosen["tokens_per_example"]
    if real is not None and real > chosen["seq_len"]:
        chosen["tokens_per_example"] = chosen["seq_len"]
        notes.append(f"rows of {real:,} tokens are cut to the {chosen['seq_len']:,} of seq_len")
    if "gpus" not in said and "nodes" not in said and chosen["parallel"] not in ("none",):
        notes.append(f"{chosen['parallel']} over one device")
    return notes
