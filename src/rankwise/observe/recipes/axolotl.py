"""Axolotl's YAML (src/axolotl/utils/schemas, loaders/model.py and core/builders at the commit of axolotl.toml)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankwise.observe.recipes.datasets import local_file
from rankwise.observe.recipes.launch import merged, of_deepspeed, of_fsdp
from rankwise.observe.recipes.translation import (
    PREFERENCES,
    PRETRAINING,
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

OTHER_STAGES = {
    "rl": PREFERENCES,
    "reward_model": PREFERENCES,
    "process_reward_model": PREFERENCES,
    "ebft": PREFERENCES,
    "kd_trainer": "it learns from another model's logits, and priced as SFT it would be wrong",
    "diffusion": "a diffusion model is trained on masked tokens with its own loss",
    "hatchery": "the training runs on somebody's server, not on hardware that is yours",
}
LEGACY = {
    "xformers_attention": "xformers",
    "sage_attention": "sage",
    "flex_attention": "flex_attention",
    "flash_attention": "flash_attention_2",
    "sdp_attention": "sdpa",
    "eager_attention": "eager",
}
# sdpa and eager isolate packed rows by a block-diagonal mask; without a backend nothing does (schemas/config.py).
ISOLATES = ("flash_attention_2", "flash_attention_3", "flex_attention", "xformers", "sage", "sdpa", "eager")
UNMODELLED = {
    "lora_modules_to_save": "whole copies of these modules are trained beside the adapter",
    "lora_target_parameters": "adapters on the parameters of experts are not modelled",
    "peft_layers_to_transform": "adapters on some layers only are not modelled",
    "peft_trainable_token_indices": "single trained rows of the embedding are not modelled beside an adapter",
    "unfrozen_parameters": "training a part of the weights is not modelled",
    "activation_offloading": "activations that move to the host are not modelled",
    "layer_offloading": "layers that move to the host are not modelled",
    "quantize_moe_experts": "quantised experts are not modelled",
    "model_quantization_config": "a base in MXFP4 or FP8 is not modelled",
    "fp8": "FP8 arithmetic is not modelled",
    "qat": "quantisation-aware training is not modelled",
    "relora": "ReLoRA's restarts are not modelled",
    "lisa_n_layers": "LISA's changing layers are not modelled",
    "tiled_mlp": "tiled MLPs are not modelled",
    "peft_layer_replication": "replicated layers are not modelled",
    "reinit_weights": "pretraining from random weights is not priced as fine-tuning",
    "use_onebitllms": "1.58-bit weights are not modelled",
    "llmcompressor": "sparse fine-tuning is not modelled",
    "nonexpert_quantization": "quantised weights of this kind are not modelled",
}
PARALLEL = {
    "tensor_parallel_size": "tensor",
    "context_parallel_size": "context",
    "sequence_parallel_degree": "sequence",
    "expert_parallel_size": "expert",
}


def translate(t: Translation) -> None:
    """Fill in settings and step. Raises RecipeError for a value of another kind, and for another kind of training."""
    _refuse_other_stages(t)
    t.take("model_name_or_path", "base_model", kind=text)
    _adapter(t)
    _precision(t)
    _rows(t)
    _course(t)
    _launch(t)
    t.unmodelled(UNMODELLED)
    if t.raw("gradient_checkpointing") in ("offload", "offload_disk"):
        t.unpriced("gradient_checkpointing", "checkpoints that move to the host are not modelled")
    for key, word in PARALLEL.items():
        if isinstance(t.raw(key), int) and t.raw(key) > 1:
            t.unpriced(key, f"{word} parallelism is not modelled")


def _refuse_other_stages(t: Translation) -> None:
    for key, why in OTHER_STAGES.items():
        if t.raw(key) not in (None, False, "", {}):
            named = t.raw(key) if isinstance(t.raw(key), str) else key.replace("_", " ")
            raise refuse(t.source, key, str(named), why)
    if t.said("pretraining_dataset"):
        raise refuse(t.source, "pretraining_dataset", "pretraining", PRETRAINING)
    if t.said("processor_type"):
        raise refuse(t.source, "processor_type", "a vision or audio model", VISION)
    if t.said("num_labels") and t.said("type_of_model", "model_type"):
        raise refuse(t.source, "num_labels", "a classifier", "it has a small head in place of the vocabulary's")


def _adapter(t: Translation) -> None:
    step = t.step
    adapter = (t.take("adapter", kind=text) or "full").lower()
    four, eight = t.take("load_in_4bit", kind=yes), t.take("load_in_8bit", kind=yes)
    step.quantised = "gptq" if t.raw("gptq") else "nf4" if four else "int8" if eight else None
    if adapter == "full":
        step.quantised = None
        return
    step.adapter = "lora" if adapter in ("lora", "qlora") else adapter
    t.take("r", "lora_r", kind=positive)
    t.take("lora_alpha", kind=number)
    t.take("lora_dropout", kind=number)
    step.dora = bool(t.take("use_dora", "peft_use_dora", kind=yes))
    step.rslora = bool(t.take("use_rslora", "peft_use_rslora", kind=yes))
    if t.raw("lora_target_linear"):
        step.targets = "all-linear"
        t.put("target_modules", "all-linear", key="lora_target_linear")
    else:
        step.targets = t.take("target_modules", "lora_target_modules", kind=targets_of)
    overrides = t.raw("bnb_config_kwargs")
    if isinstance(overrides, Mapping) and "bnb_4bit_use_double_quant" in overrides:
        step.double_quant = bool(overrides["bnb_4bit_use_double_quant"])
    step.kbit_upcast = step.quantised in ("nf4", "int8")


def _precision(t: Translation) -> None:
    """The weights are loaded in what `bf16`, `bfloat16`, `fp16` say (utils/config/__init__.py, resolve_dtype): full
    fine-tuning under `bf16: auto` trains bf16 weights, without an fp32 copy."""
    step = t.step
    fp16 = bool(t.raw("fp16")) and t.raw("bf16") in (None, False, "auto")
    bf16 = bool(t.take("bf16", kind=yes)) and not fp16
    if fp16:
        t.put("fp16", True, key="fp16")
    if bf16 and str(t.raw("bf16") or "auto").lower() == "auto":
        step.assumptions.append("bf16: auto is taken as true, which it is on GPUs from compute capability 8.0 on")
    step.weights = "bf16" if bf16 or t.raw("bfloat16") else "fp16" if fp16 or t.raw("float16") else "fp32"
    if step.weights == "fp32" and step.quantised == "int8":
        step.weights = "fp16"
    step.autocast = "bf16" if bf16 else "fp16" if fp16 else "none"
    if step.weights == "fp16" and step.adapter == "full" and fp16:
        t.unpriced("fp16", "fp16 weights under fp16 autocast cannot be trained: the gradient scaler refuses them")
    t.put("dtype", step.weights, key=t.said("bf16", "bfloat16", "fp16", "float16") or "bf16")
    attention = t.raw("attn_implementation")
    for key, name in LEGACY.items():
        if attention is None and t.raw(key):
            attention = name
            t.put("attn_implementation", name, key=key)
    if t.said("attn_implementation"):
        t.take("attn_implementation", kind=text)
    step.attn = kernel(step, attention if isinstance(attention, str) else None)
    plugins = " ".join(map(str, t.raw("plugins") or ()))
    fused = t.raw("liger_fused_linear_cross_entropy") and "liger" in plugins.lower()
    if fused or ("cut_cross_entropy" in plugins and t.raw("cut_cross_entropy") is not False):
        step.loss = "fused-linear"
    elif t.raw("chunked_cross_entropy"):
        step.loss = "chunked"
    elif t.raw("flash_attn_cross_entropy") or (t.raw("liger_cross_entropy") and "liger" in plugins.lower()):
        step.loss = "fast-ce"


def _rows(t: Translation) -> None:
    step = t.step
    t.take("max_length", "sequence_len", kind=positive)
    step.cut = t.take("on_long", "excess_length_strategy", kind=text, default="drop")
    step.packing = bool(t.take("packing", "sample_packing", kind=yes))
    if step.packing:
        said = t.value("attn_implementation")
        step.isolated = said is not None and (said in ISOLATES or "flash" in str(said) or "sage" in str(said))
    step.prompt_trained = bool(t.take("train_on_prompt", "train_on_inputs", kind=yes))
    t.take("chat_template", kind=text)
    t.take("validation", "val_set_size", kind=number)
    tokens = t.raw("special_tokens")
    for name in ("pad_token", "eos_token"):
        if isinstance(tokens, Mapping) and tokens.get(name):
            t.put(name, str(tokens[name]), key="special_tokens", inner=name)
    step.datasets = tuple(_datasets(t))
    kinds = {str(d.kind) for d in step.datasets}
    if kinds and all(kind.startswith("completion") for kind in kinds):
        step.goal = "knowledge"


def _datasets(t: Translation) -> list[Dataset]:
    given = t.raw("datasets")
    found = []
    for number_, entry in enumerate(given if isinstance(given, list) else []):
        if not isinstance(entry, Mapping):
            continue
        path, files = str(entry.get("path") or ""), entry.get("data_files")
        first = files[0] if isinstance(files, list) and files else files if isinstance(files, str) else None
        kind = entry.get("type")
        line = t.source.inner.get(("datasets", str(number_), "path"))
        found.append(
            Dataset(
                path=path or str(first or ""),
                kind=kind if isinstance(kind, str) else "custom" if kind else None,
                local=local_file(t.source, path, first),
                line=line,
            )
        )
    return found


def _course(t: Translation) -> None:
    t.take("learning_rate", kind=rate)
    t.take("num_train_epochs", "num_epochs", kind=number)
    t.take("max_steps", kind=whole)
    t.take("lr_scheduler_type", "lr_scheduler", kind=text)
    t.take("warmup_steps", kind=number)
    t.take("warmup_ratio", kind=number)
    t.take("weight_decay", kind=number)
    t.take("max_grad_norm", kind=number, default=1.0)
    t.take("optim", "optimizer", kind=text)
    micro = t.take("per_device_train_batch_size", "micro_batch_size", kind=positive) or 1
    if t.said("batch_size") and not t.said("gradient_accumulation_steps"):
        total = t.take("batch_size", kind=positive)
        t.put("gradient_accumulation_steps", max(1, total // micro), key="batch_size")
    else:
        t.take("gradient_accumulation_steps", kind=positive)
    t.put("gradient_checkpointing", bool(t.raw("gradient_checkpointing")), key="gradient_checkpointing")
    for name in ("eval_steps", "save_steps", "evals_per_epoch", "saves_per_epoch"):
        t.take(name, kind=number)
    for name in ("eval_strategy", "save_strategy"):
        t.take(name, kind=text)
    t.take("save_total_limit", kind=whole)
    t.take("save_only_model", kind=yes)
    t.take("load_best_model_at_end", kind=yes)
    t.take("logging_steps", kind=number)
    t.take("seed", kind=whole, default=42)


def _launch(t: Translation) -> None:
    found = [t.source.launch]
    if t.said("deepspeed"):
        found.append(of_deepspeed(_shipped(t.raw("deepspeed")), t.source.folder))
    found.append(of_fsdp(t.raw("fsdp"), t.raw("fsdp_config")))
    t.step.launch = merged(*found)


def _shipped(given: Any) -> Any:
    """`deepspeed_configs/zero2.json` is what `axolotl fetch deepspeed_configs` writes; its name says the stage."""
    return given if isinstance(given, Mapping) else str(Path(str(given)))
