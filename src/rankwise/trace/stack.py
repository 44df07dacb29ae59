"""Which software ran: what differs in memory between releases of transformers, and in litgpt's own models.

Read in the releases themselves. Up to 4.45 a model's class computed its loss and freed its 16-bit logits by
`logits = logits.float()`; from 4.46 (Mistral and Granite from 4.48) ForCausalLMLoss did, while its caller still held
them; from 4.49 on the labels are shifted instead of the logits. Up to 4.47 flash attention of Mistral, Mixtral, Qwen2
and Phi-3 got keys and values repeated to the number of query heads. Gradient checkpointing was reentrant by default
before transformers 5: a layer's recomputed output and the gradient that came in live as long as its backward.
"""

from dataclasses import dataclass

from rankwise.errors import UsageError
from rankwise.records.setup import Arithmetic, Dtype, Setup, Stack

SHARDED_WEIGHTS = ("fsdp", "zero3")
SIXTEEN_BIT = {"qlora": "lora", "lora-8bit": "lora", "gptq-lora": "lora"}  # an adapter is merged into 16-bit weights
KBIT = tuple(SIXTEEN_BIT)
REPEATED_KV = {"mistral", "mixtral", "qwen2", "qwen2_moe", "phi3", "gemma2", "starcoder2"}


@dataclass(frozen=True)
class Traits:
    """What a stack does in memory.

    Attributes:
        autocast: arithmetic of the forward pass where it differs from the weights'.
        reentrant: gradient checkpointing by torch's reentrant variant.
        repeat_kv: flash attention gets as many key and value heads as query heads.
        loss_in_class: the 16-bit logits are gone when their fp32 copy exists.
        litgpt: litgpt's models and bitsandbytes 0.41 (kernels/litgpt.py).
    """

    autocast: Arithmetic | None
    reentrant: bool
    repeat_kv: bool
    loss_in_class: bool
    litgpt: bool


def traits(setup: Setup) -> Traits:
    """Of `setup.stack`, or of the stack that its loss path comes from."""
    stack = setup.stack or usual_stack(setup)
    return Traits(
        autocast=setup.autocast or _trainers_flag(setup, stack),
        reentrant=stack in ("4.45", "4.48"),
        repeat_kv=stack == "4.45" and setup.config["model_type"] in REPEATED_KV,
        loss_in_class=stack == "4.45",
        litgpt=stack == "litgpt",
    )


def _trainers_flag(setup: Setup, stack: Stack) -> Arithmetic | None:
    """Where a setup does not say it: published runs of the 4.x stacks had the Trainer's bf16 or fp16 flag with k-bit
    bases, and with 4.45 everywhere.
    """
    flagged = stack == "4.45" or (stack == "4.48" and setup.method in KBIT)
    return setup.dtype if flagged and setup.dtype != "fp32" else None


def weights_dtype(setup: Setup) -> Dtype:
    """Of the tensors that compute: FSDP's mixed precision gathers fp32 weights in 16 bit."""
    if setup.parallel == "fsdp" and setup.dtype == "fp32" and setup.autocast:
        return setup.autocast
    return setup.dtype


def unsharded(setup: Setup) -> Setup:
    """The step of one device that a sharded step is made of: what `shard` and the allocator alone look at is left out,
    so that setups which differ in nothing else are run once.
    """
    raised = setup.kbit_upcast and setup.method in KBIT and setup.parallel not in SHARDED_WEIGHTS
    alone: dict[str, object] = {"parallel": "none", "world_size": 1, "offload": "none", "capacity": None}
    return setup.model_copy(update=alone | {"dtype": weights_dtype(setup), "kbit_upcast": raised})


def refuse_in_backward(setup: Setup) -> None:
    """Raises UsageError for an optimizer in the backward pass together with what needs whole gradients after it."""
    if not setup.optimizer_in_backward:
        return
    wants = {
        "gradient accumulation": setup.gradient_accumulation_steps > 1,
        setup.parallel: setup.parallel != "none",
        "offload": setup.offload != "none",
    }
    found = " and ".join(name for name, wanted in wants.items() if wanted)
    if found:
        raise UsageError(
            f"an optimizer in the backward pass frees each gradient at once, and {found} would need it later",
            expected="one device, no accumulation, no offload",
            fix="leave out --optimizer-in-backward, or what stands beside it",
        )


def fp32_master(setup: Setup) -> bool:
    """Do the ranks hold fp32 of trained 16-bit weights? accelerate raises them under FSDP's mixed precision."""
    mixed = traits(setup).autocast is not None
    return setup.parallel == "fsdp" and setup.method == "full" and mixed and weights_dtype(setup) != "fp32"


def usual_stack(setup: Setup) -> Stack:
    """The stack that a loss path is usually met with. The fast kernel sets were published with 4.45; Granite's class
    computed its own loss in three of the four releases that upcast.
    """
    if setup.loss == "chunked":
        return "litgpt"
    if setup.loss in ("fast-ce", "fused-linear", "shifted-logits"):
        return "4.45"
    if setup.loss == "upcast-logits":
        return "4.45" if setup.config["model_type"] == "granite" else "4.48"
    return "today"


def assumptions(setup: Setup) -> tuple[str, ...]:
    """What a trace takes for granted that the setup does not say, one sentence each."""
    stack, found = setup.stack or usual_stack(setup), []
    if setup.stack is None and stack != "today":
        found.append(f"--loss {setup.loss} is priced as it was in {SPELLED[stack]}; --stack says otherwise")
    if setup.autocast is None and _trainers_flag(setup, stack):
        found.append(f"arithmetic under the Trainer's {setup.dtype} flag is assumed, as in published runs of that time")
    if setup.optimizer_in_backward:
        found.append("with the optimizer in the backward pass, gradients are not clipped by their global norm")
    if setup.kbit_upcast and setup.parallel in SHARDED_WEIGHTS:
        found.append("a sharded k-bit base is not raised to fp32: TRL leaves that out")
    if stack == "today" and setup.loss == "full-logits":
        found.append(
            "the loop holds the model's outputs during backward; the Trainer does not, and needs 2 bytes a logit less"
        )
    if setup.attn_implementation == "sdpa" and setup.device.startswith("gpu-") and float(setup.device[4:]) < 8.0:
        found.append("sdpa on this GPU is the memory-efficient kernel over repeated key and value heads")
    if setup.parallel.startswith("zero"):
        found.append(
            "ZeRO is priced by DeepSpeed's documented partitions and transformers' `auto` buckets, "
            "checked against few published runs"
        )
    if setup.config.get("num_local_experts") or setup.config.get("num_experts"):
        found.append("every expert gets an equal share of the tokens; a run's routing is never so even")
        if setup.target_modules == "all-linear":
            found.append("all-linear leaves the experts out, as a run does; PEFT's own adapts those of some models")
    return tuple(found)


SPELLED: dict[Stack, str] = {
    "today": "the installed transformers",
    "4.48": "transformers 4.46 to 4.48",
    "4.45": "transformers up to 4.45",
    "litgpt": "litgpt of 2023",
}
