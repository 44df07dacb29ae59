"""The options of `rankwise estimate` in one table: flags, keys of a batch file, defaults."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from rankwise.errors import UsageError
from rankwise.methods import TUNERS
from rankwise.records.costs import CostOptions
from rankwise.records.setup import Attention, Dtype, Loss, Offload, Parallel, Stack
from rankwise.unsupported import OTHER_TRAINING


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        kind: str, int, float or bool.
        help: one sentence.
        default: what holds when nothing is said; None where that is `derived` from other options, or unknown.
        derived: the default in words, where it is no constant.
        choices: the values that exist; empty where any will do.
        least: the smallest value of a number. above: a number is larger than this. below: it is smaller than this.
        panel: heading in --help.
    """

    kind: type
    help: str
    default: Any = None
    derived: str = ""
    choices: tuple[str, ...] = ()
    least: float | None = None
    above: float | None = None
    below: float | None = None
    panel: str = "The configuration"

    @property
    def default_words(self) -> str:
        if self.derived:
            return self.derived
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        if isinstance(self.default, float):
            return f"{self.default:g}"
        return "none" if self.default is None else str(self.default)


def _choice(kind: Any) -> tuple[str, ...]:
    return tuple(map(str, get_args(kind)))


# Field -> option; the flag is the field with hyphens.
OPTIONS: dict[str, Option] = {
    "model": Option(
        str, "Hub id, folder, config file (JSON), `embedded`, or a name from `rankwise models`.", derived="none; needed"
    ),
    "method": Option(
        str,
        "full, lora, qlora, gptq-lora, lora-8bit, dora, rslora, ia3, prompt, prefix, bottleneck, and PEFT's other "
        "tuners by their name.",
        "lora",
    ),
    "rank": Option(
        int, "Rank of a low-rank adapter.", 16, "16; what PEFT takes where rank means something else", least=1
    ),
    "alpha": Option(float, "Scale of a low-rank adapter; it changes no memory.", derived="2 x rank", above=0),
    "dropout": Option(
        float, "Dropout on the adapter's input; above 0 it keeps a mask and a copy.", 0.0, least=0, below=1
    ),
    "targets": Option(
        str,
        "Adapted modules: `all-linear`, or names with commas.",
        "all-linear",
        "all-linear; for what is no low-rank product (ia3, …), PEFT's own",
    ),
    "dtype": Option(str, "Of the weights and of the arithmetic: bf16, fp16, fp32.", "bf16", choices=_choice(Dtype)),
    "amp": Option(bool, "Mixed precision: fp32 weights, arithmetic in --dtype by autocast.", False),
    "autocast": Option(
        str,
        "Autocast arithmetic (bf16, fp16) over a frozen base in --dtype, as Hugging Face's bf16 and fp16 flags do.",
        "none",
        "none; --dtype over a quantised base where --kbit-upcast is not said either",
        choices=("none", "bf16", "fp16"),
    ),
    "adapter_dtype": Option(str, "Of the adapter's weights.", "fp32", choices=_choice(Dtype)),
    "optimizer": Option(
        str,
        "Hugging Face's `optim` name: adamw_torch (foreach), adamw_torch_fused, adamw_8bit, paged_adamw_8bit, sgd, "
        "adafactor, ….",
        "adamw_torch",
    ),
    "optimizer_in_backward": Option(
        bool,
        "Update each parameter in the backward pass as soon as its gradient is there, and free that (torchtune's "
        "optimizer_in_bwd). One device, no --grad-accum, no clipping by the global norm.",
        False,
    ),
    "bf16_stochastic_round": Option(
        bool,
        "Update trained bf16 weights in fp32, a part at a time, and round up or down by chance (torchao's name).",
        False,
    ),
    "batch": Option(int, "Rows in one forward pass on one device.", 1, least=1),
    "seq_len": Option(
        int, "Padded or packed length of a row, in tokens.", derived="2048, or the model's positions if fewer", least=1
    ),
    "grad_accum": Option(int, "Forward passes in one optimizer step.", 1, least=1),
    "gradient_checkpointing": Option(bool, "Recompute each layer in the backward pass.", False),
    "attn": Option(
        str,
        "Attention kernel: flash, sdpa (the kernel that PyTorch picks on the GPU), eager.",
        "sdpa",
        choices=_choice(Attention),
    ),
    "loss": Option(
        str,
        "Loss path: full-logits (today's transformers), upcast-logits (most 4.x up to 4.48), shifted-logits "
        "(GPT-BigCode of that time), fast-ce, chunked, fused-linear, labelled (`rankwise train`: logits at labels).",
        "full-logits",
        choices=_choice(Loss),
    ),
    "stack": Option(
        str,
        "Software of the run: today, 4.48 or 4.45 (transformers 4.46 to 4.48, and before: what lives beside the logits "
        "and between two layers differs), litgpt.",
        derived="the one that --loss is usually met with",
        choices=_choice(Stack),
    ),
    "kbit_upcast": Option(
        bool,
        "PEFT's documented preparation of a quantised base: all that is not quantised turns fp32.",
        derived="on for a quantised base (qlora, …), else off",
    ),
    "double_quant": Option(bool, "NF4: quantise the block scales once more.", derived="on for qlora"),
    "prompt_length": Option(int, "Learned positions of prompt and prefix methods.", 20, least=1),
    "bottleneck": Option(int, "Inner width of a bottleneck adapter.", 64, least=1),
    "parallel": Option(
        str,
        "Over several devices: none, ddp, zero1, zero2, zero3, fsdp.",
        derived="none; ddp when there are several devices",
        choices=_choice(Parallel),
    ),
    "offload": Option(
        str,
        "To the CPU: none, optimizer (states and update), all (weights, too). Needs zero2, zero3 or fsdp.",
        "none",
        choices=_choice(Offload),
    ),
    "gpus": Option(int, "Devices a node.", 1, least=1),
    "nodes": Option(int, "Machines.", 1, least=1),
    "gpu": Option(
        str,
        "GPU by name, loosely written (`rankwise gpus`), or `cpu`; of an unknown one fit, time and money are unknown.",
        derived="this machine's device",
    ),
    "examples": Option(int, "Training rows; without them the time of the whole run is unknown.", least=1),
    "epochs": Option(float, "Passes over the rows.", 1.0, above=0),
    "tokens_per_example": Option(int, "Mean real length of a row, which sets the time.", derived="--seq-len", least=1),
}

COSTS = "The bill"


def _of_field(field: FieldInfo, derived: str = "") -> Option:
    """An option that is a field of CostOptions: its sentence, its default and its bounds stand there."""
    kinds = [k for k in (get_args(field.annotation) or (field.annotation,)) if k is not type(None)]
    kind = kinds[0] if kinds[0] in (int, float, bool) else str
    bounds = {name: getattr(m, name) for m in field.metadata for name in ("ge", "gt", "lt") if hasattr(m, name)}
    return Option(
        kind,
        (field.description or "").partition("; null:")[0].removesuffix(".") + ".",
        field.default,
        derived,
        choices=_choice(field.annotation) if get_origin(field.annotation) is Literal else (),
        least=bounds.get("ge"),
        above=bounds.get("gt"),
        below=bounds.get("lt"),
        panel=COSTS,
    )


DERIVED = {
    "prices": "our list (`rankwise gpus`)",
    "runs": "10 to 20",
    "sweep": "none",
    "save_steps": "four times in a run",
    "eval_steps": "four times in a run",
}
OPTIONS |= {name: _of_field(field, DERIVED.get(name, "")) for name, field in CostOptions.model_fields.items()}

OTHER_PARALLEL = ("tensor", "context", "expert", "pipeline", "sequence", "tp", "cp", "ep", "pp")


def typed(said: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were said, each of its kind; None counts as not said.

    Raises:
        UsageError: an unknown key, a value of another kind, no such choice, a number out of range.
    """
    known = {key: value for key, value in said.items() if value is not None}
    for key in known:
        if key not in OPTIONS:
            near = difflib.get_close_matches(str(key).replace("-", "_"), [*OPTIONS, "id"], 1, cutoff=0.5)
            raise UsageError(
                f"there is no option {key}",
                expected=f"one of id, {', '.join(OPTIONS)}",
                fix=f"did you mean {near[0]}?" if near else "remove it",
            )
    return {key: _value(key, OPTIONS[key], value) for key, value in known.items()}


def _value(key: str, option: Option, value: Any) -> Any:
    if key == "targets":
        return _targets(value)
    if key == "offload" and isinstance(value, bool):
        value = "all" if value else "none"
    made = _of_kind(key, option, value)
    if key == "method" or option.choices:
        _require_choice(key, made, option)
    if isinstance(made, int | float) and not isinstance(made, bool):
        _require_range(key, made, option)
    return made


def _of_kind(key: str, option: Option, value: Any) -> Any:
    kinds = {str: "a name", int: "a whole number", float: "a number", bool: "true or false"}
    if option.kind is bool:
        if isinstance(value, bool):
            return value
    elif not isinstance(value, bool) and isinstance(value, str | int | float):
        try:
            if option.kind is not int or not isinstance(value, float) or value.is_integer():
                return option.kind(value)
        except (ValueError, OverflowError):
            pass
    raise UsageError(f"{key} is {value!r}", expected=kinds[option.kind])


def _require_range(key: str, value: float, option: Option) -> None:
    least, above, below = option.least, option.above, option.below
    inside = (
        math.isfinite(value)
        and (least is None or value >= least)
        and (above is None or value > above)
        and (below is None or value < below)
    )
    if not inside:
        bounds = {"of at least": least, "above": above, "below": below}
        said = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
        raise UsageError(f"{key} is {value}", expected=f"a number {said}")


def _require_choice(key: str, value: str, option: Option) -> None:
    choices = tuple(TUNERS) if key == "method" else option.choices
    if value in choices:
        return
    low = value.lower()
    if key == "parallel" and low.removesuffix("-parallel").removesuffix("_parallel") in OTHER_PARALLEL:
        raise UsageError(f"{value} parallelism is not modelled", expected=f"one of {', '.join(choices)}")
    if key == "method" and low in OTHER_TRAINING:
        raise UsageError(
            f"{value} is not modelled: it needs {OTHER_TRAINING[low]}, and priced as supervised fine-tuning it would "
            "be wrong",
            expected=f"one of {', '.join(choices)}",
        )
    near = difflib.get_close_matches(low, choices, 1)
    raise UsageError(
        f"there is no {key} {value!r}",
        expected=f"one of {', '.join(choices)}",
        fix=f"did you mean {near[0]}?" if near else "",
    )


def _targets(value: Any) -> str | tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
        raise UsageError(f"targets is {value!r}", expected="`all-linear`, or module names")
    names = tuple(dict.fromkeys(n.strip() for n in names if n.strip()))
    if not names:
        raise UsageError("targets names no module", expected="`all-linear`, or module names with commas")
    return "all-linear" if names == ("all-linear",) else names
