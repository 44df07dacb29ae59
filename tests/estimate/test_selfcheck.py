"""The predicted peak against real steps on the CPU, byte for byte as torch's allocator reports them; and the self-check
around it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PretrainedConfig,
    Qwen2Config,
)

from rankwise.errors import RankwiseError, UsageError
from rankwise.estimate.devicechecks import device_conditions
from rankwise.estimate.measured import measure
from rankwise.estimate.selfcheck import Subject, cases_of, compare, require_device, weights_of
from rankwise.model.locate import locate
from rankwise.records import Setup
from rankwise.trace.peaks import trace

torch.set_num_threads(1)
TOLERANCE = 0.05
SIZES = {"vocab_size": 512, "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3}
LLAMA_LIKE = {**SIZES, "intermediate_size": 160, "num_key_value_heads": 2, "max_position_embeddings": 256}
TINY: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**LLAMA_LIKE, tie_word_embeddings=False),
    "llama-8-layers": lambda: LlamaConfig(**{**LLAMA_LIKE, "num_hidden_layers": 8}),
    "qwen2": lambda: Qwen2Config(**LLAMA_LIKE),
    "gemma": lambda: GemmaConfig(**LLAMA_LIKE, head_dim=16),
    "mistral-sliding": lambda: MistralConfig(**LLAMA_LIKE, sliding_window=32),
    "gpt2": lambda: GPT2Config(vocab_size=512, n_embd=64, n_head=4, n_layer=3, n_positions=256),
    "gpt-neox": lambda: GPTNeoXConfig(**SIZES, intermediate_size=160, max_position_embeddings=256),
    "opt": lambda: OPTConfig(**SIZES, ffn_dim=160, max_position_embeddings=256, word_embed_proj_dim=64),
}


def setup_of(config: dict[str, Any], method: str, **options: Any) -> Setup:
    adapter = {} if method == "full" else {"r": 8, "lora_alpha": 16.0, "target_modules": "all-linear"}
    shape = {"per_device_train_batch_size": 2, "max_length": 64, "dtype": "bf16"}
    return Setup(config=config, method=method, device="cpu", **{**shape, **adapter, **options})


def error_of(setup: Setup, folder: Path) -> float:
    return trace(setup).peak_allocated / measure(setup, folder, timed=0).peak_allocated - 1


@pytest.fixture(scope="module")
def embedded() -> tuple[dict[str, Any], Path]:
    folder = locate("embedded")
    return json.loads((folder / "config.json").read_text()), folder


@pytest.mark.embedded
@pytest.mark.parametrize(
    "checkpointing", [False, pytest.param(True, marks=pytest.mark.prove)], ids=("plain", "checkpointing")
)
@pytest.mark.parametrize(
    ("method", "options"),
    [
        pytest.param("full", {"dtype": "fp32", "autocast": "bf16"}, marks=pytest.mark.prove),
        pytest.param("full", {"dtype": "bf16"}, marks=pytest.mark.prove),
        ("lora", {"dtype": "bf16"}),
        ("qlora", {"dtype": "bf16"}),
    ],
    ids=["full-amp", "full-bf16", "lora", "qlora"],
)
def test_the_embedded_model_peaks_where_the_trace_says(
    embedded: tuple[dict[str, Any], Path], method: str, options: dict[str, Any], checkpointing: bool
) -> None:
    config, folder = embedded
    setup = setup_of(config, method, gradient_checkpointing=checkpointing, **options)
    found = error_of(setup, folder)
    print(f"{method} {options} checkpointing={checkpointing}: {found:+.4%}")
    assert abs(found) <= TOLERANCE


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[dict[str, Any], Path]]:
    made: dict[str, tuple[dict[str, Any], Path]] = {}

    def folder_of(name: str) -> tuple[dict[str, Any], Path]:
        if name not in made:
            config = TINY[name]()
            place = tmp_path_factory.mktemp(name)
            with weights_of(Subject(name, config.to_dict(), None, 2, 64)) as folder:
                for file in folder.iterdir():
                    (place / file.name).write_bytes(file.read_bytes())
            made[name] = json.loads((place / "config.json").read_text()), place
        return made[name]

    return folder_of


@pytest.mark.parametrize(("method", "checkpointing"), [("full", False), ("lora", True)], ids=["full", "lora"])
@pytest.mark.parametrize("name", TINY)
def test_other_classes_peak_where_the_trace_says(name: str, method: str, checkpointing: bool, tiny: Any) -> None:
    config, folder = tiny(name)
    found = error_of(setup_of(config, method, gradient_checkpointing=checkpointing), folder)
    print(f"{name} {method}: {found:+.4%}")
    assert abs(found) <= TOLERANCE


@pytest.mark.parametrize(
    "options",
    [
        {"attn_implementation": "eager"},
        {"lora_dropout": 0.1},
        {"loss": "labelled", "labelled_share": 0.25},
        {"loss": "upcast-logits"},
        {"gradient_accumulation_steps": 4},
        {"dtype": "fp32"},
        {"dtype": "fp32", "autocast": "bf16"},
        {"per_device_train_batch_size": 5, "max_length": 37},
    ],
    ids=str,
)
def test_every_option_moves_the_trace_and_the_step_alike(options: dict[str, Any], tiny: Any) -> None:
    config, folder = tiny("llama")
    found = error_of(setup_of(config, "lora", **options), folder)
    print(f"{options}: {found:+.4%}")
    assert abs(found) <= TOLERANCE


def test_a_step_that_holds_more_is_measured_larger(tiny: Any) -> None:
    config, folder = tiny("llama")
    short = measure(setup_of(config, "lora", max_length=64), folder, timed=1)
    long = measure(setup_of(config, "lora", max_length=128), folder, timed=0)
    assert long.peak_allocated > 1.4 * short.peak_allocated
    assert short.step_seconds is not None and short.step_seconds > 0 and long.step_seconds is None


def test_what_one_process_cannot_run_is_refused(tiny: Any) -> None:
    config, folder = tiny("llama")
    for options in ({"parallel": "ddp", "world_size": 2}, {"offload": "all"}, {"loss": "fast-ce"}, {"loss": "chunked"}):
        with pytest.raises(UsageError):
            measure(setup_of(config, "lora", **options), folder)


def test_a_case_that_cannot_run_is_a_row_with_its_error(tiny: Any) -> None:
    config, folder = tiny("llama")
    row = compare("flash", "llama", setup_of(config, "lora", attn_implementation="flash"), folder, "cpu")
    assert row.measured is None and row.error and row.allocated_error is None


def test_the_kernels_of_this_device_are_tried() -> None:
    found = {c.name: c for c in device_conditions("cpu", "cpu")}
    for name in ("sdpa math", "bitsandbytes 4-bit", "8-bit AdamW", "fused AdamW", "all-reduce"):
        assert found[name].ok is True, found[name]
    assert found["paged 8-bit AdamW"].ok is None and found["cuBLAS workspace"].ok is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_the_self_check_says_what_is_missing() -> None:
    with pytest.raises(RankwiseError, match="no CUDA device"):
        require_device("cuda:0")


def test_a_gpu_has_more_cases_than_a_cpu() -> None:
    subject = Subject("llama", {}, None, 2, 64)
    cpu, gpu = cases_of(subject, "cpu"), cases_of(subject, "gpu-8.0")
    assert set(cpu) < set(gpu)
    assert {s.method for s in gpu.values()} == {"full", "lora", "qlora", "lora-8bit", "dora", "prefix"}
    assert {s.optim for s in gpu.values()} >= {"adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"}
    assert {s.attn_implementation for s in gpu.values()} == {"sdpa", "eager", "flash"}
