"""TRL's `trl sft` (YAML or arguments; trl/trainer, trl/scripts), and scripts around transformers' Trainer, whose
arguments have the same names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankwise.errors import RecipeError
from rankwise.observe.catalogue import find_architecture
from rankwise.observe.recipes.datasets import local_file
from rankwise.observe.recipes.launch import merged, of_accelerate, of_command, of_deepspeed, of_fsdp
from rankwise.observe.recipes.reading import Launch
from rankwise.observe.recipes.translation import (
    DTYPES,
    PEFT_TARGETS,
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

FLASH_NAMES = ("flash_attention_2", "flash_attention_3", "kernels-community/flash-attn", "flash")
PREFERENCE_KEYS = (
    "beta",
    "num_generations",
    "reward_funcs",
    "reward_model_name_or_path",
    "ref_model",
    "max_completion_length",
)
UNMODELLED = {
    "lora_modules_to_save": "whole copies of these modules are trained beside the adapter",
    "modules_to_save": "whole copies of these modules are trained beside the adapter",
    "lora_target_parameters": "adapters on the parameters of experts are not modelled",
    "activation_offloading": "activations that move to the host are not modelled",
}
LAUNCHER_KEYS = (
    "num_processes",
    "num_machines",
    "accelerate_config",
    "config_file",
    "multi_gpu",
    "mixed_precision",
    "machine_rank",
)
# What scripts of their own call it; the first is transformers' or PEFT's name.
MODEL = ("model_name_or_path", "model_name", "base_model", "model_id", "model")
RANK = ("lora_r", "lora_rank", "r", "rank")
TARGETS = ("lora_target_modules", "target_modules", "lora_target")
LENGTH = (
    "max_length",
    "max_seq_length",
    "model_max_length",
    "block_size",
    "max_seq_len",
    "cutoff_len",
    "max_source_length",
)
ADAPTER = ("use_peft", "use_lora", "lora", "peft")
FOUR = ("load_in_4bit", "use_4bit", "use_4bit_quantization", "q_lora", "use_qlora")
ROWS = ("dataset_name", "train_file", "train_data", "data_path", "dataset_path", "dataset", "dataset_name_or_path")
EIGHT = ("load_in_8bit", "use_8bit", "use_8bit_quantization")


def translate(t: Translation) -> None:
    """`trl sft`. Raises RecipeError for a value of another kind, and for another kind of training."""
    _refuse_other_stages(t)
    t.take("model_name_or_path", kind=text)
    if bool(t.take("use_peft", kind=yes)):
        _lora(t)
    four, eight = t.take("load_in_4bit", kind=yes), t.take("load_in_8bit", kind=yes)
    t.step.quantised = "nf4" if four else "int8" if eight else None
    t.step.double_quant = bool(t.take("use_bnb_nested_quant", kind=yes))
    if t.step.quantised:  # SFTTrainer turns the adapters of a quantised base to bf16
        t.step.adapter_dtype = "bf16"
    t.step.weights = DTYPES[_dtype(t, t.take("dtype", "dtype", "torch_dtype", kind=text))]
    _mixed(t, bf16_by_default=True)
    _loss(t)
    _rows(t)
    _course(t, logging=10)
    _launch(t)
    t.unmodelled(UNMODELLED)


def translate_arguments(t: Translation) -> None:
    """A script of one's own around the Trainer: its arguments by their usual names."""
    _refuse_other_stages(t)
    step = t.step
    if not t.said("learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "output_dir"):
        raise RecipeError(
            f"{t.source.path or 'the command'} names no argument of a training run",
            expected="arguments of transformers' Trainer, such as --learning_rate and --per_device_train_batch_size",
            fix="say whose it is with --tool, or bring the configuration file that the script reads",
        )
    t.take("model_name_or_path", *MODEL, kind=text)
    four, eight = t.take("load_in_4bit", *FOUR, kind=yes), t.take("load_in_8bit", *EIGHT, kind=yes)
    bits = t.raw("bits")
    if bits in (4, 8):
        four, eight = bits == 4, bits == 8
        t.put("load_in_4bit" if four else "load_in_8bit", True, key="bits")
    step.quantised = "nf4" if four else "int8" if eight else None
    step.kbit_upcast = step.quantised is not None
    switch = t.said(*ADAPTER)
    wanted = t.take("use_peft", switch, kind=yes) if switch else t.said(*RANK) is not None
    if wanted or step.quantised:
        _lora(t)
    said = t.said("torch_dtype", "dtype")
    step.weights = DTYPES[_dtype(t, t.raw(said))] if said else "fp32"
    if said:
        t.put("dtype", step.weights, key=said)
    else:
        which = "what is not quantised is" if step.quantised else "the weights are"
        step.assumptions.append(f"{which} taken as loaded in fp32; the script may load it in 16 bits (--torch_dtype)")
    _mixed(t, bf16_by_default=False)
    step.loss = "fused-linear" if t.take("use_liger_kernel", kind=yes) else "full-logits"
    _rows(t)
    _course(t, logging=500)
    t.take("gradient_checkpointing", kind=yes)
    _launch(t)
    t.unmodelled(UNMODELLED)


def _dtype(t: Translation, value: Any) -> str:
    name = str(value).removeprefix("torch.")
    if name not in DTYPES:
        raise RecipeError(f"{t.source.where('dtype')} is {name!r}", expected="auto, bfloat16, float16 or float32")
    return name


def _refuse_other_stages(t: Translation) -> None:
    if key := t.said(*PREFERENCE_KEYS):
        raise refuse(t.source, key, f"a run with {key}", PREFERENCES)
    if str(t.raw("lora_task_type") or "CAUSAL_LM") != "CAUSAL_LM":
        raise refuse(t.source, "lora_task_type", str(t.raw("lora_task_type")), "it has another head")
    for key in ("image_column", "vision_tower", "freeze_vision_tower"):
        if t.said(key):
            raise refuse(t.source, key, "a vision model", VISION)


def _lora(t: Translation) -> None:
    step = t.step
    step.adapter = "lora"
    t.take("r", *RANK, kind=positive, default=8)
    t.take("lora_alpha", kind=number, default=8)
    t.take("lora_dropout", kind=number, default=0.0)
    step.dora = bool(t.take("use_dora", kind=yes))
    step.rslora = bool(t.take("use_rslora", kind=yes))
    key = t.said(*TARGETS)
    if key:
        step.targets = t.take("target_modules", key, kind=targets_of)
        return
    known = find_architecture(str(t.value("model_name_or_path") or ""))
    kind = known.config.get("model_type") if known else None
    step.targets = PEFT_TARGETS.get(str(kind))
    if step.targets is None:
        t.unpriced(
            "lora_target_modules", f"no target is named, and PEFT has none of its own for {kind or 'this model'}"
        )
    else:
        t.put("target_modules", step.targets, key=TARGETS[0])


def _mixed(t: Translation, *, bf16_by_default: bool) -> None:
    step = t.step
    fp16 = bool(t.take("fp16", kind=yes))
    bf16 = bool(t.take("bf16", kind=yes, default=bf16_by_default and not fp16))
    step.autocast = "bf16" if bf16 else "fp16" if fp16 else "none"
    mixed = t.raw("mixed_precision")
    if mixed in ("bf16", "fp16") and step.autocast == "none":
        step.autocast = mixed
    step.attn = kernel(step, t.take("attn_implementation", kind=text))


def _loss(t: Translation) -> None:
    """loss_type: unset means chunked_nll, with Liger nll (sft_config.py, __post_init__)."""
    liger = bool(t.take("use_liger_kernel", kind=yes))
    kind = t.take("loss_type", kind=text, default="nll" if liger else "chunked_nll")
    t.step.loss = "fused-linear" if liger else "chunked" if kind == "chunked_nll" else "full-logits"
    t.take("gradient_checkpointing", kind=yes)


def _rows(t: Translation) -> None:
    step = t.step
    if "max_length" in t.source.said and t.raw("max_length") is None:
        step.assumptions.append("max_length: null cuts nothing; rows as long as the model allows, or 2,048, are taken")
    else:
        t.take("max_length", *LENGTH, kind=positive)
    step.packing = bool(t.take("packing", kind=yes))
    if step.packing:
        strategy = t.take("packing_strategy", kind=text, default="bfd")
        flash = any(name in str(t.value("attn_implementation")) for name in FLASH_NAMES)
        step.isolated = strategy != "wrapped" and flash
    for name in ("assistant_only_loss", "completion_only_loss"):
        t.take(name, kind=yes)
    for name in ("eos_token", "pad_token", "chat_template_path"):
        t.take(name, kind=text)
    if t.value("assistant_only_loss") or t.value("completion_only_loss"):
        step.prompt_trained = False
    step.datasets = tuple(_datasets(t))


def _datasets(t: Translation) -> list[Dataset]:
    mixture = t.raw("datasets")
    found = []
    for number_, entry in enumerate(mixture if isinstance(mixture, list) else []):
        if isinstance(entry, Mapping):
            files = entry.get("data_files")
            first = files[0] if isinstance(files, list) and files else files
            path = str(first if entry.get("path") in ("json", "csv", "parquet") else entry.get("path") or first or "")
            line = t.source.inner.get(("datasets", str(number_), "path"))
            found.append(Dataset(path=path, kind=None, local=local_file(t.source, path, first), line=line))
    if found:
        return found
    key = t.said(*ROWS)
    said = t.raw(key) if key is not None else None
    if key is None or isinstance(said, dict) or said == []:
        return []
    path = str(said[0] if isinstance(said, list) else said)
    if "image" in path.lower() or "vlm" in path.lower() or "vision" in path.lower():
        raise refuse(t.source, key, f"a vision data set ({Path(path).name})", VISION)
    return [Dataset(path=path, kind=None, local=local_file(t.source, path), line=t.source.said[key].line)]


def _course(t: Translation, *, logging: int) -> None:
    t.take("learning_rate", kind=rate)
    t.take("num_train_epochs", kind=number)
    t.take("max_steps", kind=whole)
    t.take("lr_scheduler_type", kind=text)
    t.take("warmup_steps", kind=number)
    t.take("warmup_ratio", kind=number)
    t.take("weight_decay", kind=number)
    t.take("max_grad_norm", kind=number)
    t.take("optim", kind=text, default="adamw_torch_fused")
    t.take("per_device_train_batch_size", kind=positive, default=8)
    t.take("gradient_accumulation_steps", kind=positive, default=1)
    for name in ("eval_steps", "save_steps"):
        t.take(name, kind=number)
    t.take("logging_steps", kind=number, default=logging)
    for name in ("eval_strategy", "evaluation_strategy", "save_strategy"):
        t.take("eval_strategy" if name == "evaluation_strategy" and t.said(name) else name, name, kind=text)
    t.take("save_total_limit", kind=whole)
    t.take("save_only_model", kind=yes)
    t.take("load_best_model_at_end", kind=yes)
    t.take("seed", kind=whole)


def _launch(t: Translation) -> None:
    """`trl sft` takes accelerate's options among its own."""
    folder = t.source.folder
    given = {key: t.raw(key) for key in LAUNCHER_KEYS if t.said(key)}
    found = [t.source.launch, of_command(given, {}, folder)]
    if t.raw("use_cpu") is True or t.raw("no_cuda") is True:
        found.append(Launch(cpu=True))
    if t.said("accelerate_config"):
        found.append(of_accelerate(str(t.raw("accelerate_config")), folder))
    if t.said("deepspeed"):
        found.append(of_deepspeed(t.raw("deepspeed"), folder))
    found.append(of_fsdp(t.raw("fsdp"), t.raw("fsdp_config")))
    t.step.launch = merged(*found)
