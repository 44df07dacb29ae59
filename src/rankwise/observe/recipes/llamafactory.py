"""LLaMA-Factory's YAML, JSON and arguments: src/llamafactory/hparams."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankwise.errors import RecipeError
from rankwise.observe.recipes.datasets import local_file
from rankwise.observe.recipes.launch import find, merged, of_deepspeed, of_fsdp
from rankwise.observe.recipes.reading import Launch
from rankwise.observe.recipes.translation import (
    PREFERENCES,
    PRETRAINING,
    VISION,
    Translation,
    kernel,
    names,
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

STAGES = {
    "pt": ("pretraining (stage: pt)", PRETRAINING),
    "rm": ("reward modelling (stage: rm)", PREFERENCES),
    "ppo": ("PPO (stage: ppo)", PREFERENCES),
    "dpo": ("DPO (stage: dpo)", PREFERENCES),
    "kto": ("KTO (stage: kto)", PREFERENCES),
}
VISION_KEYS = ("image_max_pixels", "image_min_pixels", "video_max_pixels", "video_fps", "audio_sampling_rate")
MEGATRON = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "expert_model_parallel_size")
UNMODELLED = {
    "additional_target": "whole copies of these modules are trained beside the adapter",
    "use_galore": "GaLore's projected states are not modelled",
    "use_apollo": "APOLLO's projected states are not modelled",
    "use_badam": "BAdam's changing blocks are not modelled",
    "use_adam_mini": "Adam-mini's states are not modelled",
    "use_muon": "Muon's states are not modelled",
    "use_llama_pro": "training added blocks is not modelled",
    "mixture_of_depths": "mixture of depths is not modelled",
    "use_kt": "KTransformers' experts on the host are not modelled",
    "fp8": "FP8 arithmetic is not modelled",
    "use_asft_loss": "ASFT keeps a second, frozen copy of the model, which is not modelled",
    "use_mca": "Megatron's parallelism is not modelled",
    "use_megatron_bridge": "Megatron's parallelism is not modelled",
    "use_hyper_parallel": "HyperParallel is not modelled",
    "train_from_scratch": "pretraining from random weights is not priced as fine-tuning",
    "resize_vocab": "whole embeddings are trained beside the adapter",
}


def translate(t: Translation) -> None:
    """Fill in settings and step. Raises RecipeError for a value of another kind, and for another kind of training."""
    _refuse_other_stages(t)
    t.take("model_name_or_path", kind=text)
    _adapter(t)
    _precision(t)
    _rows(t)
    _course(t)
    found = [t.source.launch]
    if t.said("deepspeed"):
        found.append(of_deepspeed(t.raw("deepspeed"), t.source.folder))
    found.append(of_fsdp(t.raw("fsdp"), t.raw("fsdp_config")))
    if t.said("ray_num_workers"):
        found.append(Launch(devices=t.take("ray_num_workers", kind=positive)))
    t.step.launch = merged(*found)
    t.unmodelled(UNMODELLED)


def _refuse_other_stages(t: Translation) -> None:
    if "export_dir" in t.source.said and not t.said("stage"):
        raise refuse(t.source, "export_dir", "an export", "nothing is trained")
    stage = str(t.raw("stage") or "sft")
    if stage in STAGES:
        raise refuse(t.source, "stage", *STAGES[stage])
    if stage != "sft":
        raise RecipeError(f"{t.source.where('stage')} is {stage!r}", expected="one of sft, pt, rm, ppo, dpo, kto")
    if not t.said("dataset", "stage", "do_train"):
        raise RecipeError(
            f"{t.source.path or 'arguments'} trains nothing: it has no stage, no dataset and no do_train",
            expected="the configuration of a training run, with stage: sft, do_train: true and dataset",
            fix="bring the training configuration; this one looks like one for chat, evaluation or export",
        )
    if t.raw("do_train") is not True and (t.raw("do_predict") or t.raw("do_eval")):
        raise refuse(t.source, "do_predict", "a prediction run", "nothing is trained: do_train is not set")
    if key := t.said(*MEGATRON):
        raise refuse(t.source, key, "a Megatron run", "its tensor and pipeline parallelism are not modelled")
    for key in VISION_KEYS:
        if t.said(key):
            raise refuse(t.source, key, "a vision or audio model", VISION)


def _adapter(t: Translation) -> None:
    step = t.step
    kind = t.take("finetuning_type", kind=text)
    bits = t.raw("quantization_bit")
    method = str(t.raw("quantization_method") or "bnb")
    if bits is not None:
        t.put("quantization_bit", bits, key="quantization_bit")
        step.quantised = {("bnb", "4"): "nf4", ("bnb", "8"): "int8"}.get((method, str(bits)), f"{method} {bits}-bit")
    else:
        step.quantised = _stored(str(t.raw("model_name_or_path") or ""))
    step.double_quant = bool(t.take("double_quantization", kind=yes, default=True))
    if kind == "full":
        return
    if kind == "freeze":
        step.adapter = "freeze"
        t.unpriced("finetuning_type", "training some layers (freeze) is not modelled")
    elif kind == "oft":
        _oft(t)
    elif kind == "lora":
        step.adapter = "lora"
        rank = t.take("r", "lora_rank", kind=positive)
        if t.take("lora_alpha", kind=number) is None:
            t.put("lora_alpha", 2.0 * rank, key="lora_alpha")
        t.take("lora_dropout", kind=number)
        step.dora = bool(t.take("use_dora", kind=yes))
        step.rslora = bool(t.take("use_rslora", kind=yes))
        step.targets = t.take("target_modules", "lora_target", kind=targets_of)
        step.targets = "all-linear" if step.targets == "all" else step.targets
        t.put("target_modules", step.targets, key="lora_target")
    else:
        raise RecipeError(f"{t.source.where('finetuning_type')} is {kind!r}", expected="lora, full, oft or freeze")


def _oft(t: Translation) -> None:
    """Priced by blocks of a size that the estimate does not take."""
    t.step.adapter = "oft"
    rank, block = t.take("r", "oft_rank", kind=whole), t.take("oft_block_size", kind=whole)
    if not rank:
        t.unpriced("oft_block_size", f"OFT is priced by a number of blocks, not by a block size of {block}")
    t.step.targets = "all-linear"


def _stored(model: str) -> str | None:
    """A base that is stored quantised, by its name."""
    low = model.lower()
    return next((kind for kind in ("gptq", "awq", "aqlm", "eetq", "hqq") if kind in low), None)


def _precision(t: Translation) -> None:
    """16-bit weights where a 16-bit flag is set; what is trained is raised to fp32 unless `pure_bf16`, or ZeRO-3 does
    it (model/adapter.py, init_adapter)."""
    step = t.step
    bf16, fp16 = bool(t.take("bf16", kind=yes)), bool(t.take("fp16", kind=yes))
    pure = bool(t.take("pure_bf16", kind=yes))
    compute = "bf16" if bf16 or pure else "fp16" if fp16 else "fp32"
    step.autocast = "bf16" if bf16 else "fp16" if fp16 else "none"
    step.weights = compute
    if step.adapter == "full" and not pure:
        step.weights = "fp32"
    step.adapter_dtype = "bf16" if pure else "fp32"
    if compute == "fp32":
        step.assumptions.append(
            "no bf16 or fp16 is set: fp32 is taken; LLaMA-Factory takes the dtype of the checkpoint"
        )
    t.put("dtype", step.weights, key=t.said("pure_bf16", "bf16", "fp16") or "bf16")
    attention = t.raw("flash_attn")
    if attention is not None:
        t.put("attn_implementation", str(attention), key="flash_attn")
    step.attn = kernel(step, None if attention is None else str(attention))
    if t.raw("enable_liger_kernel") is True:
        step.loss = "fused-linear"
        t.put("use_liger_kernel", True, key="enable_liger_kernel")
    elif t.raw("use_unsloth") is True:
        step.loss = "fast-ce"
        step.assumptions.append("Unsloth is priced by its cross-entropy kernel alone; its own kernels take less memory")
        t.put("use_unsloth", True, key="use_unsloth")
    off = t.raw("disable_gradient_checkpointing") is True
    key = "disable_gradient_checkpointing" if off else "gradient_checkpointing"
    t.put("gradient_checkpointing", not off, key=key)


def _rows(t: Translation) -> None:
    step = t.step
    t.take("max_length", "cutoff_len", kind=positive)
    neat = t.raw("neat_packing") is True
    step.packing = t.raw("packing") is True or neat
    t.put("packing", step.packing, key="neat_packing" if neat else "packing")
    if step.packing:
        step.isolated = neat
    step.prompt_trained = bool(t.take("train_on_prompt", kind=yes))
    t.take("chat_template", "template", kind=text)
    if t.said("eval_dataset"):
        t.put("validation", str(t.raw("eval_dataset")), key="eval_dataset")
    else:
        t.take("validation", "val_size", kind=number)
    t.take("max_samples", kind=positive)
    step.datasets = tuple(_datasets(t))


def _datasets(t: Translation) -> list[Dataset]:
    """Names of dataset_info.json, which says their files."""
    if not t.said("dataset"):
        return []
    folder = str(t.raw("dataset_dir") or t.schema.defaults.get("dataset_dir", "data"))
    path = find(str(Path(folder) / "dataset_info.json"), t.source.folder)
    known: dict[str, Any] = {}
    if path is not None:
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
            known = read if isinstance(read, dict) else {}
        except (OSError, ValueError):
            known = {}
    line = t.source.said["dataset"].line
    found = []
    for name in t.take("dataset", kind=names):
        entry = known.get(name)
        entry = entry if isinstance(entry, Mapping) else {}
        file = entry.get("file_name")
        local = local_file(t.source, str(path.parent / file)) if path is not None and isinstance(file, str) else None
        columns = entry.get("columns")
        if isinstance(columns, Mapping) and {"images", "videos", "audios"} & set(columns):
            raise refuse(t.source, "dataset", f"{name}, a data set with images, videos or sound,", VISION)
        found.append(Dataset(path=name, kind=str(entry.get("formatting") or "alpaca"), local=local, line=line))
    return found


def _course(t: Translation) -> None:
    t.take("learning_rate", kind=rate, default=5e-5)
    t.take("num_train_epochs", kind=number, default=3.0)
    t.take("max_steps", kind=whole)
    t.take("lr_scheduler_type", kind=text, default="linear")
    t.take("warmup_steps", kind=number)
    t.take("warmup_ratio", kind=number)
    t.take("weight_decay", kind=number)
    t.take("max_grad_norm", kind=number)
    t.take("optim", kind=text, default="adamw_torch_fused")
    t.take("per_device_train_batch_size", kind=positive, default=8)
    t.take("gradient_accumulation_steps", kind=positive, default=1)
    for name in ("eval_steps", "save_steps", "logging_steps"):
        t.take(name, kind=number)
    for name in ("eval_strategy", "save_strategy"):
        t.take(name, kind=text)
    t.take("save_total_limit", kind=whole)
    t.take("save_only_model", kind=yes)
    t.take("load_best_model_at_end", kind=yes)
    t.take("seed", kind=whole)
    t.take("do_train", kind=yes)
