"""The ways of training that are looked at: a method with the precision of what trains and its optimizer."""

from dataclasses import dataclass
from typing import Literal, get_args

from rankwise.methods import METHODS
from rankwise.records.job import Optim
from rankwise.records.setup import Offload, Parallel

EXECUTED: tuple[str, ...] = get_args(Optim)  # optimizers that `train` has
Kind = Literal["usual", "variant", "discouraged", "unkept"]


@dataclass(frozen=True)
class Recipe:
    """One way of training, before its sizes are known.

    Attributes:
        name: unique; the stem of its candidates' ids.
        method: a `--method` name.
        kind: usual; a variant of LoRA, which needs its own sweep; discouraged: never recommended; unkept: its library
            is no longer kept.
        pure_bf16: trained weights are bf16 themselves, not fp32 under autocast.
        optim: Hugging Face's name.
        shards: how it may be spread over several devices, the quickest first; empty: one device alone.
        offload: to the host's memory, which nobody has looked at; DeepSpeed does it on one device, too.
        lean_optim: an optimizer with smaller states, for the last rung.
        cpu: is it looked at on a CPU, too?
        package: of an unkept recipe: name, version and date of its last release.
        asked: looked at only where a job forces its method, because a sibling of it is looked at always,
            or it is rarely wanted.
    """

    name: str
    method: str
    kind: Kind = "usual"
    pure_bf16: bool = False
    optim: str = "adamw_torch_fused"
    optimizer_in_backward: bool = False
    lean_optim: str = ""
    shards: tuple[Parallel, ...] = ("ddp",)
    offload: Offload = "none"
    cpu: bool = True
    package: str = ""
    asked: bool = False

    @property
    def trains_weights(self) -> bool:
        return self.method == "full"

    @property
    def low_rank(self) -> bool:
        """Has it a rank that can be chosen for capacity?"""
        return "r" in METHODS[self.method].options

    @property
    def executable(self) -> bool:
        """Can this version's `train` carry it out, on one device?"""
        return self.optim in EXECUTED and self.offload == "none"


SHARDED: tuple[Parallel, ...] = ("ddp", "zero2", "fsdp", "zero3")
# An adapter's gradients are too small for ZeRO-2 to matter, and ZeRO-3 holds what FSDP holds.
FROZEN: tuple[Parallel, ...] = ("ddp", "fsdp")

# In the order of the science: plain adapters, full fine-tuning from the safest precision on, what replaces it where it
# does not fit, and what is looked at to be able to say why not.
RECIPES: tuple[Recipe, ...] = (
    Recipe("lora", "lora", shards=FROZEN),
    Recipe("qlora", "qlora", shards=("ddp", "fsdp"), lean_optim="paged_adamw_8bit"),
    Recipe("full", "full", shards=SHARDED),
    Recipe("full-8bit", "full", cpu=False, optim="adamw_8bit"),
    Recipe("full-bf16", "full", cpu=False, pure_bf16=True, shards=("ddp", "fsdp")),
    Recipe(
        "full-backward",
        "full",
        cpu=False,
        pure_bf16=True,
        optim="paged_adamw_8bit",
        optimizer_in_backward=True,
        shards=(),
    ),
    Recipe("full-offload", "full", cpu=False, shards=("zero3",), offload="all"),
    Recipe("full-galore", "full", kind="unkept", package="galore-torch 1.0 of 2024-03-15"),
    Recipe("full-apollo", "full", kind="unkept", package="apollo-torch 1.0.3 of 2025-02-06"),
    Recipe("full-lomo", "full", kind="unkept", package="lomo-optim 0.1.1 of 2024-07-02"),
    Recipe("dora", "dora", kind="variant", shards=FROZEN),
    Recipe("rslora", "rslora", kind="variant", shards=FROZEN),
    Recipe("pissa", "pissa", kind="variant", asked=True),
    Recipe("lora-8bit", "lora-8bit", asked=True),
    Recipe("bottleneck", "bottleneck", kind="variant"),
    Recipe("ia3", "ia3", kind="discouraged"),
    Recipe("prefix", "prefix", kind="discouraged"),
    Recipe("prompt", "prompt", kind="discouraged"),
    Recipe("p_tuning", "p_tuning", kind="discouraged", asked=True),
)
BY_NAME = {recipe.name: recipe for recipe in RECIPES}
# What a job may force, by method: the usual recipe of that method.
PLANNED_METHODS = tuple(dict.fromkeys(recipe.method for recipe in RECIPES))
