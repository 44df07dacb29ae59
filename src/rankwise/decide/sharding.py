"""The files that DeepSpeed and FSDP2 are started with."""

from typing import Any

from rankwise.decide.deepspeed import own_settings
from rankwise.records.setup import Offload, Parallel


def deepspeed_config(parallel: Parallel, offload: Offload, own: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """DeepSpeed's JSON for the stages of ZeRO, a person's `own` where there is one; None without ZeRO. Ours is written
    with `auto` where the Trainer, accelerate or our own training fills in the run's value
    (huggingface.co/docs/transformers/deepspeed).
    """
    if not parallel.startswith("zero"):
        return None
    if own is not None:
        return own_settings(own)
    zero: dict[str, Any] = {
        "stage": int(parallel[-1]),
        "overlap_comm": True,
        "contiguous_gradients": True,
        "reduce_bucket_size": "auto",
    }
    if offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if parallel == "zero3":
        zero |= {
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_gather_16bit_weights_on_model_save": True,
        }
        if offload == "all":
            zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
    }


def fsdp_config(parallel: Parallel, offload: Offload) -> dict[str, Any] | None:
    """`fsdp_config` of transformers' TrainingArguments (5.23: FSDP2, started with `fsdp=True`); None for the others."""
    if parallel != "fsdp":
        return None
    return {
        "version": 2,
        "reshard_after_forward": True,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "cpu_ram_efficient_loading": True,
        "cpu_offload": offload != "none",
        "state_dict_type": "SHARDED_STATE_DICT",
    }
