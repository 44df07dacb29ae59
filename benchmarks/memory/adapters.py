"""One function for each other memory estimator: a row's options in, the bytes that its own code computes out.

A function imports its peer when it is called, raises `RefusedError` for what the peer cannot say, and lets the peer's
own exceptions through. It returns the total that the peer's command prints, in bytes.
"""

# The peers live in a virtualenv of their own, which the type checker does not see.
# mypy: disable-error-code="import-not-found"

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.memory.case import Case, RefusedError

GIB = 2**30
MIB = 2**20


EIGHT_BIT = r"8bit"
FULL_STATES = r"^(paged_)?adamw(_torch|_torch_fused|_32bit)?$"
QKVO = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})
MLP = frozenset({"gate_proj", "up_proj", "down_proj"})


def vramcalc(case: Case) -> float:
    """`vramcalc MODEL --train`: its total, allocated bytes without its overhead for the CUDA context."""
    from vramcalc import estimate

    case.of_methods("full", "lora")
    case.on_one_gpu()
    if case.method == "lora" and case.targets != QKVO:
        raise RefusedError("LoRA on q, k, v, o only")
    result = estimate(
        dict(case.config),
        mode="train",
        dtype=case.dtype,
        batch=case.batch,
        seq_len=case.seq_len,
        lora_rank=case.rank if case.method == "lora" else None,
        grad_checkpoint=case.checkpointing,
        optimizer=case.of_optimizers({FULL_STATES: "adamw", "^sgd$": "sgd"}),
        precision="amp" if case.amp else "pure",
        attn_impl=case.attn,
    )
    return float(result.total)


def ftuneai(case: Case) -> float:
    """`ftune estimate`: total_gb, in GiB, with its 20 % for context and fragmentation."""
    import ftuneai.hub
    from ftuneai.estimator import Estimator

    case.of_methods("full", "lora", "qlora", "gptq-lora")
    if case.options.get("offload", "none") != "none":
        raise RefusedError("no offload")
    ftuneai.hub._fetch_json = lambda url, timeout=10: dict(case.config)
    known: dict[frozenset[str] | str, str] = {
        "all-linear": "all_linear",
        QKVO | MLP: "all_linear",
        QKVO: "attention_all",
        frozenset({"q_proj", "v_proj"}): "attention",
    }
    target = "attention" if case.method == "full" else known.get(case.targets)
    if target is None:
        raise RefusedError("no such LoRA targets")
    sharding = {"zero1": "zero_1", "zero2": "zero_2", "zero3": "zero_3", "fsdp": "fsdp"}
    estimator = Estimator(
        model=case.model,
        method="lora" if case.method == "gptq-lora" else case.method,
        quantization="4bit" if case.method in ("qlora", "gptq-lora") else "none",
        batch_size=case.batch,
        seq_length=case.seq_len,
        gradient_checkpointing=case.checkpointing,
        optimizer=case.of_optimizers(
            {EIGHT_BIT: "adam_8bit", FULL_STATES: "adamw", "^sgd$": "sgd", "^adafactor$": "adafactor"}
        ),
        lora_rank=case.rank,
        lora_target=target,
        flash_attention=case.attn == "flash",
        sharding=sharding.get(case.parallel, "none"),
        num_gpus=case.gpus,
    )
    return float(estimator.estimate_memory().total_gb) * GIB


@functools.cache
def parameters_of(folder: str, name: str) -> tuple[Any, int]:
    """hf-vram-calc's own reading of a config and its count of the parameters."""
    from hf_vram_calc.calculator import ParameterCalculator
    from hf_vram_calc.parser import ConfigParser

    config = ConfigParser.load_and_parse_config(name, folder)
    return config, ParameterCalculator.calculate_transformer_params(config)


def hf_vram_calc(case: Case) -> float:
    """`hf-vram-calc --model M --model_path DIR`: its Training (full) or LoRA column, in GiB; no sequence, no batch."""
    from hf_vram_calc.calculator import LlmodelMemoryResult, VRAMCalculator
    from hf_vram_calc.config import ConfigManager

    case.of_methods("full", "lora", "qlora", "gptq-lora")
    case.on_one_gpu()
    dtype = "int4" if case.method in ("qlora", "gptq-lora") else "fp32" if case.amp else case.dtype
    config, count = parameters_of(case.folder, case.model)
    result = LlmodelMemoryResult(dtype, case.batch, case.seq_len, case.rank)
    result.calculate_all(config, count, VRAMCalculator(ConfigManager()))
    return float(result.training_memory if case.method == "full" else result.lora_memory) * GIB


@functools.cache
def training_with_adam(folder: str, dtype: str) -> float:
    """accelerate's "Training using Adam" of one model and dtype."""
    from accelerate.commands import estimate

    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    estimate.verify_on_hub = lambda repo, token=None: SimpleNamespace(config=config, library_name="transformers")
    data = estimate.gather_data(
        SimpleNamespace(model_name=folder, library_name="transformers", trust_remote_code=False, dtypes=[dtype])
    )
    return float(max(data[0][3].values()))


def accelerate(case: Case) -> float:
    """`accelerate estimate-memory MODEL`: its "Training using Adam", states only."""
    case.of_methods("full")
    case.on_one_gpu()
    case.of_optimizers({FULL_STATES: "adam"})
    return training_with_adam(case.folder, "float32" if case.dtype == "fp32" and not case.amp else "float16")


def llm_analysis(case: Case) -> float:
    """`python -m llm_analysis.analysis train`: weights, optimizer states, gradients and activations per GPU."""
    from llm_analysis.analysis import train

    case.of_methods("full")
    case.of_optimizers({FULL_STATES: "adam"})
    if case.options.get("offload", "none") != "none":
        raise RefusedError("no offload")
    if case.dtype == "fp32" and not case.amp:
        raise RefusedError("no fp32 weights")
    stage = {"zero1": 1, "zero2": 2, "zero3": 3, "fsdp": 3}.get(case.parallel, 0)
    # Pure 16-bit training keeps its copy, gradients and moments in 16 bit; the tool always counts the copy.
    pure = {} if case.amp else {"master_weights_dtype_bytes": 2, "other_op_bytes": 4}
    summary = train(
        model_name=case.folder,
        # The bytes do not depend on the GPU; the largest lets the tool report what does not fit a smaller one.
        gpu_name="mi250x-128gb",
        log_level="ERROR",
        batch_size_per_gpu=case.batch,
        gradient_accumulation_steps=1,
        seq_len=case.seq_len,
        activation_recomputation=2 if case.checkpointing else 0,
        ds_zero=stage,
        dp_size=case.gpus,
        flash_attn=case.attn != "eager",
        mlp_gated_linear_units="silu" in str(case.config.get("hidden_act")),
        **pure,
    )
    return float(summary["(weight+op_state+grad+act)_memory_per_gpu"])


@functools.cache
def counted(folder: str) -> tuple[int, int]:
    """(parameters, parameters of the largest module) of the transformers model, tied weights once."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    largest = max(sum(p.numel() for p in module.parameters(recurse=False)) for module in model.modules())
    return sum(p.numel() for p in model.parameters()), largest


def deepspeed(case: Case) -> float:
    """`estimate_zero{2,3}_model_states_mem_needs`: model states per GPU; a single GPU is stage 3 on one."""
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    case.of_methods("full")
    if case.parallel in ("zero1", "ddp"):
        raise RefusedError(f"no {case.parallel}")
    total, largest = counted(case.folder)
    offload = case.options.get("offload", "none")
    if case.parallel == "zero2":
        _, gpu = estimate_zero2_model_states_mem_needs(total, case.gpus, cpu_offload=offload != "none")
        return float(gpu)
    _, gpu, _ = estimate_zero3_model_states_mem_needs(
        total, largest, case.gpus, cpu_offload=offload != "none", cpu_offload_params=offload == "all"
    )
    return float(gpu)


FITCHECK_GPUS = {
    r"t4": "t4",
    r"a100.*40": "a100-40",
    r"a100": "a100-80",
    r"h100": "h100",
    r"b200": "b200",
    r"l40s": "l40s",
    r"3090": "3090",
    r"4090": "4090",
    r"a10": "a10",
    r"v100": "v100-16",
    r"l4": "l4",
}


def fitcheck(case: Case) -> float:
    """`fitcheck MODEL`: total, in MiB, with its overhead: what the process takes."""
    from fitcheck.config_parser import fetch_model_config
    from fitcheck.estimator import TrainingConfig, estimate
    from fitcheck.gpu_db import get_gpu

    case.of_methods("full", "lora", "qlora")
    case.on_one_gpu()
    if case.method == "full":
        targets: list[str] = ["q_proj"]
    elif case.targets == "all-linear":
        targets = sorted(QKVO | MLP)
    elif isinstance(case.targets, frozenset) and case.targets and case.targets <= QKVO | MLP:
        targets = sorted(case.targets)
    else:
        raise RefusedError("no such LoRA targets")
    gpu = next((key for pattern, key in FITCHECK_GPUS.items() if re.search(pattern, case.gpu, re.IGNORECASE)), None)
    if gpu is None:
        raise RefusedError("no such GPU")
    pure = case.method == "full" and not case.amp and case.dtype != "fp32"
    training = TrainingConfig(
        precision=case.dtype,
        quantization="nf4" if case.method == "qlora" else "none",
        double_quant=case.method == "qlora" and bool(case.options.get("double_quant", True)),
        optimizer=case.of_optimizers({EIGHT_BIT: "adam8bit", FULL_STATES: "adamw", "^sgd$": "sgd"}),
        optimizer_dtype="bf16" if pure and EIGHT_BIT not in case.optimizer else "fp32",
        batch_size=case.batch,
        seq_len=case.seq_len,
        lora_rank=None if case.method == "full" else case.rank,
        lora_targets=targets,
        grad_checkpoint=case.checkpointing,
        flash_attn=case.attn != "eager",
    )
    return float(estimate(fetch_model_config(case.model), training, get_gpu(gpu)).total_mib) * MIB


@functools.lru_cache(maxsize=1)
def kitsune_model(name: str) -> tuple[Any, tuple[int, ...]]:
    """torch-kitsune's model on the meta device."""
    from kitsune.predict.hf_integration import load_hf_model

    return load_hf_model(name)  # type: ignore[no-any-return]


@functools.cache
def kitsune_bytes(
    name: str, batch: int, seq_len: int, dtype: str, lora: tuple[int, frozenset[str], bool] | None
) -> int:
    """torch-kitsune's total of one setting, as its `predict` and `lora` commands compute it."""
    from kitsune.predict.estimator import predict_memory
    from kitsune.predict.lora_estimator import LoRAConfig, estimate_lora_memory

    model, _ = kitsune_model(name)
    if lora is None:
        return int(predict_memory(model, (seq_len,), batch, dtype, "adamw", training=True).total_bytes)
    rank, targets, quantized = lora
    config = LoRAConfig(rank=rank, target_modules=tuple(sorted(targets)), use_qlora=quantized, optimizer="adamw")
    return int(estimate_lora_memory(model, (seq_len,), batch, dtype, config).total_bytes)


def torch_kitsune(case: Case) -> float:
    """`kitsune predict --hf` and `kitsune lora --hf`: total with 15 % overhead."""
    case.of_methods("full", "lora", "qlora")
    case.on_one_gpu()
    case.of_optimizers({FULL_STATES: "adamw"})
    dtype = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}["fp32" if case.amp else case.dtype]
    if case.method == "full":
        return kitsune_bytes(case.model, case.batch, case.seq_len, dtype, None)
    if not isinstance(case.targets, frozenset) or not case.targets:
        raise RefusedError("LoRA targets by name only")
    return kitsune_bytes(case.model, case.batch, case.seq_len, dtype, (case.rank, case.targets, case.method == "qlora"))


def gpu_estimator(case: Case) -> float:
    """`gpu-estimate --huggingface-model`: total memory of the training, in GiB."""
    from gpu_estimator.estimator import GPUEstimator

    case.of_methods("full")
    case.on_one_gpu()
    result = GPUEstimator().estimate_from_huggingface(
        model_id=case.model,
        batch_size=case.batch,
        sequence_length=case.seq_len,
        precision="fp32" if case.amp else case.dtype,
        optimizer=case.of_optimizers({FULL_STATES: "adamw", "^sgd$": "sgd"}),
        gradient_checkpointing=case.checkpointing,
    )
    return float(result.total_memory_gb) * GIB


def qmemcalc(case: Case) -> float:
    """`qmemcalc --model_name`: total_MB, in units of 1e6; without a rank nothing is trained, so no full fine-tuning."""
    from qmemcalc.memory import estimate_memory

    case.of_methods("lora", "qlora", "gptq-lora")
    case.on_one_gpu()
    result = estimate_memory(
        model_name=case.model,
        batch_size=case.batch,
        seq_len=case.seq_len,
        lora_r=case.rank,
        precision="fp32" if case.amp else case.dtype,
        quantization="none" if case.method == "lora" else "4bit",
        optimizer=case.of_optimizers({FULL_STATES: "adamw", "^sgd$": "sgd"}),
        gradient_checkpointing=case.checkpointing,
    )
    return float(result["total_MB"]) * 1e6


def soup_cli(case: Case) -> float:
    """The gate of `soup train`: peak_vram_gb, in units of 1e9, with the model's size read off its name."""
    from soup_cli.utils.gpu import model_size_from_name
    from soup_cli.utils.hardware_fit import HardwareFitInput, estimate_peak_vram_gb

    case.of_methods("full", "lora", "qlora", "gptq-lora", "dora")
    case.on_one_gpu()
    asked = HardwareFitInput(
        params_b=model_size_from_name(case.model),
        seq_len=case.seq_len,
        batch_size=case.batch,
        optimizer=case.of_optimizers(
            {"^paged_adamw_8bit$": "paged_adamw_8bit", EIGHT_BIT: "adamw_bnb_8bit", "fused": "adamw_torch_fused"}
            | {FULL_STATES: "adamw_torch", "^adafactor$": "adafactor", "^sgd$": "sgd"}
        ),
        quant={"qlora": "4bit", "gptq-lora": "gptq"}.get(case.method, "none"),
        peft="lora" if case.method == "gptq-lora" else case.method,
        gradient_checkpointing=case.checkpointing,
    )
    return float(estimate_peak_vram_gb(asked).total_gb) * 1e9


# name on PyPI -> (what it says it predicts, its adapter)
PEERS: dict[str, tuple[str, Callable[[Case], float]]] = {
    "vramcalc": ("peak allocated, without the CUDA context", vramcalc),
    "ftuneai": ("VRAM with 20 % for context and fragmentation", ftuneai),
    "hf-vram-calc": ("training or LoRA memory; no batch, no sequence", hf_vram_calc),
    "accelerate": ("model states with Adam; no activations", accelerate),
    "llm-analysis": ("weights, states, gradients and activations per GPU", llm_analysis),
    "deepspeed": ("model states per GPU; no activations", deepspeed),
    "fitcheck-llm": ("memory of the process", fitcheck),
    "torch-kitsune": ("peak memory with 15 % overhead; no checkpointing", torch_kitsune),
    "gpu-estimator": ("training memory with 20 % overhead", gpu_estimator),
    "qmemcalc": ("training memory with 10 % buffers", qmemcalc),
    "soup-cli": ("peak VRAM", soup_cli),
}
