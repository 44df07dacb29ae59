"""A translated configuration as options of `rankwise estimate`, and as keys of a job."""

from typing import Any, get_args

from rankwise.observe.recipes.translation import Translation
from rankwise.records.job import Optim

# trained -> `--method`; PEFT's other names are methods as they are.
SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup")
OPTIMIZERS = get_args(Optim)
TRAIN_NUMBERS = ("num_train_epochs", "learning_rate", "weight_decay", "max_grad_norm")
TRAIN_COUNTS = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_length",
    "save_total_limit",
    "eval_steps",
    "save_steps",
    "logging_steps",
    "max_steps",
)
GPTQ_LIKE = ("awq", "aqlm", "eetq", "hqq")


def method_of(t: Translation) -> str:
    """The `--method` of the estimate; what has none is noted as not priced, or as priced without a part."""
    step = t.step
    if step.adapter == "full":
        if step.quantised:
            t.unpriced("quantization", "a quantised base cannot be trained in full")
        return "full"
    if step.adapter != "lora":
        return {"llama-adapter": "adaption_prompt"}.get(step.adapter, step.adapter)
    if step.quantised is None:
        if step.dora and step.rslora:
            step.assumptions.append("rsLoRA's scale changes no memory: DoRA is priced")
        return "dora" if step.dora else "rslora" if step.rslora else "lora"
    if step.dora:
        t.unpriced("use_dora", "DoRA over a quantised base is not modelled")
    known = {"nf4": "qlora", "int8": "lora-8bit", "gptq": "gptq-lora"}
    if step.quantised not in known:
        t.unpriced("quantization", f"a base stored as {step.quantised} is not modelled")
        return "qlora"
    return known[step.quantised]


def estimate_options(t: Translation, method: str) -> dict[str, Any]:
    """Keys of `rankwise estimate`'s table. Examples and GPU are not in a configuration."""
    step, launch = t.step, t.step.launch
    options: dict[str, Any] = {
        "model": t.value("model_name_or_path"),
        "method": method,
        "optimizer": t.value("optim"),
        "batch": t.value("per_device_train_batch_size"),
        "seq_len": t.value("max_length"),
        "grad_accum": t.value("gradient_accumulation_steps"),
        "gradient_checkpointing": bool(t.value("gradient_checkpointing")),
        "attn": step.attn,
        "loss": step.loss,
        "stack": None if step.loss == "full-logits" else "today",  # elsewhere a loss may stand for older software
        "gpus": launch.devices,
        "nodes": launch.nodes,
        "epochs": t.value("num_train_epochs"),
        **_precision(t, method),
        **_split(t),
    }
    if method != "full":
        options |= _adapter(t, method)
    return {key: value for key, value in options.items() if value is not None}


def _adapter(t: Translation, method: str) -> dict[str, Any]:
    targets = t.step.targets
    if isinstance(targets, str) and targets != "all-linear":
        t.unpriced("target_modules", "a pattern of module names is not modelled; name the modules")
        targets = None
    if method == "adaption_prompt":
        return {}
    return {
        "rank": t.value("r"),
        "alpha": t.value("lora_alpha"),
        "dropout": t.value("lora_dropout"),
        "targets": list(targets) if isinstance(targets, tuple) else targets,
        "adapter_dtype": t.step.adapter_dtype,
    }


def _precision(t: Translation, method: str) -> dict[str, Any]:
    """fp32 weights under autocast are `amp`; DeepSpeed keeps 16-bit weights and an fp32 copy of its own."""
    step = t.step
    if step.quantised and method != "full":
        said = {"dtype": step.weights, "autocast": step.autocast, "kbit_upcast": step.kbit_upcast}
        return said | ({"double_quant": step.double_quant} if method == "qlora" else {})
    deepspeed = (step.launch.parallel or "").startswith("zero")
    if step.weights == "fp32" and step.autocast != "none":
        return {"dtype": step.autocast} if deepspeed else {"dtype": step.autocast, "amp": True}
    return {"dtype": step.weights, "autocast": step.autocast if step.autocast == step.weights else "none"}


def _split(t: Translation) -> dict[str, Any]:
    launch = t.step.launch
    devices = (launch.devices or 1) * (launch.nodes or 1)
    if launch.parallel is None:
        return {}
    if launch.parallel == "ddp":
        return {"parallel": "ddp"} if devices > 1 else {}
    return {"parallel": launch.parallel, "offload": launch.offload}


def job_keys(t: Translation, method: str) -> dict[str, Any]:
    """The same run as a job: model, goal, method and train as the configuration has them; data where they are here."""
    step = t.step
    job: dict[str, Any] = {"model": t.value("model_name_or_path"), "goal": step.goal or "instruction"}
    job["method"] = {"name": method}
    if method != "full":
        targets = list(step.targets) if isinstance(step.targets, tuple) else step.targets
        said = {"r": t.value("r"), "lora_alpha": t.value("lora_alpha"), "lora_dropout": t.value("lora_dropout")}
        job["method"] |= {k: v for k, v in (said | {"target_modules": targets}).items() if v is not None}
    files = [d.local for d in step.datasets if d.local]
    if len(files) == 1 == len(step.datasets):
        job["data"] = {"train": files[0]}
        share = t.value("validation")
        if isinstance(share, float) and 0 < share < 1:
            job["data"]["validation"] = share
    job["train"] = _train(t)
    hardware = {"count": step.launch.devices, "nodes": step.launch.nodes, "gpu": "cpu" if step.launch.cpu else None}
    job["hardware"] = {key: value for key, value in hardware.items() if value is not None}
    return job


def _train(t: Translation) -> dict[str, Any]:
    said = {name: t.value(name) for name in (*TRAIN_NUMBERS, "seed") if t.value(name) is not None}
    for name in TRAIN_COUNTS:
        value = t.value(name)
        if isinstance(value, int | float) and value >= 1 and float(value).is_integer():
            said[name] = int(value)
    warmup = t.value("warmup_steps")
    if isinstance(warmup, int | float) and warmup >= 1:
        said["warmup_steps"] = int(warmup)
    if t.value("lr_scheduler_type") in SCHEDULES:
        said["lr_scheduler_type"] = t.value("lr_scheduler_type")
    if t.value("optim") in OPTIMIZERS:
        said["optim"] = t.value("optim")
    said["bf16"] = t.step.autocast == "bf16" or t.step.weights == "bf16"
    said["gradient_checkpointing"] = bool(t.value("gradient_checkpointing"))
    said["on_long"] = {"drop": "drop", "raise": "error"}.get(t.step.cut, "truncate")
    return said
