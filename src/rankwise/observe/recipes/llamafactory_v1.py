"""LLaMA-Factory's nested configuration, read with USE_V1=1 (src/llamafactory/v1/config)."""

from collections.abc import Mapping
from typing import Any

from rankwise.errors import RecipeError
from rankwise.observe.recipes.datasets import local_file
from rankwise.observe.recipes.launch import merged, of_deepspeed
from rankwise.observe.recipes.reading import Launch
from rankwise.observe.recipes.translation import (
    PREFERENCES,
    VISION,
    Translation,
    kernel,
    number,
    positive,
    rate,
    refuse,
    targets_of,
    text,
    whole,
    yes,
)
from rankwise.records.recipe import Dataset


def translate(t: Translation) -> None:
    """Fill in settings and step. Raises RecipeError for a value of another kind, and for another kind of training."""
    step = t.step
    if t.said("pref_loss", "pref_beta"):
        raise refuse(t.source, t.said("pref_loss", "pref_beta") or "", "DPO", PREFERENCES)
    rows = str(t.raw("train_dataset") or "").lower()
    if "dpo" in rows or "preference" in rows:  # the stage stands in the command, not in the file
        raise refuse(t.source, "train_dataset", f"DPO (by the name of its rows, {rows})", PREFERENCES)
    if "multimodal" in rows or "vision" in rows:
        raise refuse(t.source, "train_dataset", f"a multimodal run (by the name of its rows, {rows})", VISION)
    step.assumptions.append("the file does not name its stage, which stands in the command: SFT is taken")
    if str(t.raw("model_class") or "llm") not in ("llm",):
        raise refuse(t.source, "model_class", "a vision or audio model", VISION)
    t.take("model_name_or_path", "model", kind=text)
    peft, quant, dist = (_plugin(t, name) for name in ("peft_config", "quant_config", "dist_config"))
    if "export_dir" in peft or not t.said("train_dataset"):
        raise RecipeError(
            f"{t.source.path or 'arguments'} trains nothing: it names no train_dataset",
            expected="the configuration of a training run",
            fix="bring the training configuration; this one looks like one for chat or export",
        )
    if peft:
        _adapter_v1(t, peft)
    if quant:
        step.quantised = {"4": "nf4", "8": "int8"}.get(str(quant.get("quantization_bit")), "auto")
    bf16 = bool(t.take("bf16", kind=yes))
    step.weights = "bf16" if bf16 and step.adapter != "full" else "fp32"
    step.autocast = "bf16" if bf16 else "none"
    t.put("dtype", step.weights, key="bf16")
    t.take("max_length", "cutoff_len", kind=positive)
    t.take("per_device_train_batch_size", "micro_batch_size", kind=positive)
    t.take("gradient_checkpointing", "enable_activation_checkpointing", kind=yes)
    _course_v1(t)
    name = str(dist.get("name") or "")
    found = [t.source.launch]
    if "fsdp" in name:
        found.append(Launch(parallel="fsdp"))
    elif "deepspeed" in name:
        config = dist.get("config_file") or dist.get("config")
        found.append(of_deepspeed(config, t.source.folder) if config else Launch(parallel="zero3"))
    step.launch = merged(*found)
    if isinstance(t.raw("cp_size"), int) and t.raw("cp_size") > 1:
        t.unpriced("cp_size", "context parallelism is not modelled")
    if str(_plugin(t, "optim_config").get("name") or "") not in ("", "adamw", "adamw_torch"):
        t.unpriced("optim_config", f"{_plugin(t, 'optim_config')['name']} is not modelled")
    if "liger" in str(_plugin(t, "kernel_config")):
        step.loss = "fused-linear"
    if str(t.raw("batching_strategy") or "normal") != "normal":
        step.packing, step.isolated = True, True
    step.attn = kernel(step, t.take("attn_implementation", "flash_attn", kind=text))
    line = t.source.said["train_dataset"].line
    path = str(t.raw("train_dataset"))
    step.datasets = (Dataset(path=path, kind=None, local=local_file(t.source, path), line=line),)


def _adapter_v1(t: Translation, peft: Mapping[str, Any]) -> None:
    step = t.step
    step.adapter = str(peft.get("name") or "lora")
    if step.adapter != "lora":
        t.unpriced("peft_config", f"{step.adapter} is not modelled")
    for name in ("r", "lora_alpha", "lora_dropout"):
        if name in peft:
            t.put(name, peft[name], key="peft_config", inner=name)
    if "target_modules" in peft:
        step.targets = targets_of(peft["target_modules"])
        t.put("target_modules", step.targets, key="peft_config", inner="target_modules")


def _course_v1(t: Translation) -> None:
    t.take("learning_rate", kind=rate)
    t.take("num_train_epochs", kind=number)
    t.take("max_steps", kind=whole)
    t.take("max_grad_norm", kind=number)
    t.take("save_steps", kind=number)
    t.take("save_total_limit", kind=whole)
    t.take("logging_steps", kind=number)
    t.take("seed", kind=whole)
    t.put("optim", "adamw_torch", key="optim_config")
    t.put("gradient_accumulation_steps", 1, key="global_batch_size")


def _plugin(t: Translation, key: str) -> Mapping[str, Any]:
    value = t.raw(key)
    return value if isinstance(value, Mapping) else {}
