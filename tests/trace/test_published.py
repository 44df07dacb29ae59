"""Measurements that others published, as torch.cuda.max_memory_allocated had them, against the trace of the run."""

from typing import Any

import pytest

from rankwise.observe.catalogue import find_architecture
from rankwise.records.setup import Setup
from rankwise.trace.peaks import trace

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
# foundation-model-stack/fms-acceleration, scripts/benchmarks/refs/a100_80gb.csv and a100_80gb_liger.csv at 876e2ed:
# Mistral-7B-v0.1 on A100-80GB, rows of 4096 tokens, flash attention, checkpointing, rank 0.
FMS: dict[str, Any] = {
    "max_length": 4096,
    "gradient_checkpointing": True,
    "attn_implementation": "flash",
    "loss": "upcast-logits",
    "stack": "4.48",
    "device": "gpu-8.0",
}
LORA: dict[str, Any] = {"r": 16, "lora_alpha": 16.0, "lora_dropout": 0.1, "target_modules": PROJECTIONS}
NF4: dict[str, Any] = {**LORA, "autocast": "bf16"}
GPTQ: dict[str, Any] = {**LORA, "autocast": "fp16", "dtype": "fp16"}
FSDP: dict[str, Any] = {"parallel": "fsdp", "world_size": 2}
FAST4: dict[str, Any] = {"autocast": "bf16", "loss": "fast-ce", "stack": "4.45", "parallel": "fsdp", "world_size": 4}
ROWS: list[tuple[str, str, int, dict[str, Any], int]] = [
    ("row 9", "full", 4, {}, 72_434_837_504),
    ("row 33", "lora", 4, LORA, 26_704_571_904),
    ("row 57", "qlora", 4, {**NF4, "kbit_upcast": True}, 20_669_338_112),
    ("row 77, without upcast", "qlora", 4, NF4, 16_373_838_336),
    ("row 101", "gptq-lora", 4, GPTQ, 16_404_148_736),
    ("row 37, fast kernels", "lora", 4, {**LORA, "loss": "fast-ce"}, 24_473_332_736),
    ("row 10, 2 GPUs", "full", 2, FSDP, 36_225_939_968),
    ("row 34, 2 GPUs", "lora", 2, {**LORA, **FSDP}, 15_144_870_400),
    ("row 58, 2 GPUs", "qlora", 2, {**NF4, **FSDP}, 9_424_594_432),
    ("liger row 162, 4 GPUs", "full", 8, FAST4, 39_783_938_560),
]
# Anassbzdd/fitcheck, data/measurements/t4-sweep-2026-09-15.json, runs[6]: SmolLM2-1.7B on a Tesla T4, transformers 5.0.
T4: dict[str, Any] = {
    "dtype": "fp16",
    "r": 32,
    "target_modules": PROJECTIONS,
    "max_length": 1024,
    "gradient_checkpointing": True,
    "attn_implementation": "eager",
    "kbit_upcast": True,
    "double_quant": False,
    "device": "gpu-7.5",
}


def peak(model: str, method: str, rows: int, options: dict[str, Any]) -> int:
    found = find_architecture(model)
    assert found is not None
    values = {"dtype": "bf16", **options}
    return trace(Setup(config=found.config, method=method, per_device_train_batch_size=rows, **values)).peak_allocated


@pytest.mark.parametrize(("method", "rows", "options", "measured"), [pytest.param(*r[1:], id=r[0]) for r in ROWS])
def test_mistral_7b_on_an_a100(method: str, rows: int, options: dict[str, Any], measured: int) -> None:
    assert peak("mistralai/Mistral-7B-v0.1", method, rows, FMS | options) == pytest.approx(measured, rel=0.001)


def test_smollm2_on_a_t4() -> None:
    assert peak("HuggingFaceTB/SmolLM2-1.7B", "qlora", 4, T4) == pytest.approx(5_554_591_744, rel=0.001)
