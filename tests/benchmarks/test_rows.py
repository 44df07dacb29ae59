"""Published rows become options by their settings alone, or say why they cannot."""

import csv
from pathlib import Path

import pytest
from benchmarks.memory.rows import FULL_TABLE, GIB, SUBSET, Row, read_row, read_rows, summary
from hypothesis import given
from hypothesis import strategies as st

OPTION_NAMES = {
    "model",
    "method",
    "rank",
    "alpha",
    "dropout",
    "targets",
    "dtype",
    "amp",
    "autocast",
    "adapter_dtype",
    "optimizer",
    "optimizer_in_backward",
    "batch",
    "seq_len",
    "grad_accum",
    "gradient_checkpointing",
    "attn",
    "loss",
    "stack",
    "kbit_upcast",
    "double_quant",
    "prompt_length",
    "parallel",
    "offload",
    "gpus",
    "gpu",
}
with SUBSET.open(encoding="utf-8", newline="") as table:
    COLUMNS = csv.DictReader(table).fieldnames or []


def row(**cells: str) -> Row:
    """A LoRA run of Mistral-7B with every needed cell filled, and `cells` on top."""
    plain = {
        "id": "one",
        "kind": "measured",
        "status": "ok",
        "grade": "A",
        "source_repo": "someone/something",
        "model_id": "mistralai/Mistral-7B-v0.1",
        "method": "lora",
        "lora_rank": "16",
        "target_modules": "q_proj|v_proj",
        "base_dtype": "bfloat16",
        "autocast": "off",
        "optimizer": "adamw_torch",
        "micro_batch_size": "4",
        "seq_len": "4096",
        "seq_layout": "packed",
        "grad_ckpt": "on",
        "attn_impl": "flash_attention_2",
        "fused_or_chunked_ce": "off",
        "parallelism": "single",
        "num_gpus": "1",
        "gpu_type": "A100-80GB",
        "mem_scope": "per_gpu",
        "mem_stat": "peak_allocated",
        "peak_mem_bytes": "26700000000",
        "software": "torch 2.4.1; transformers 4.48.1",
    }
    return read_row(dict.fromkeys(COLUMNS, "") | plain | cells)


def options(**cells: str) -> dict[str, object]:
    mapped = row(**cells)
    assert mapped.options is not None, mapped.reason
    return mapped.options


def reason(**cells: str) -> str:
    refused = row(**cells)
    assert refused.options is None
    assert refused.reason is not None
    return refused.reason


def test_a_full_row_is_said_in_options() -> None:
    assert options() == {
        "model": "mistralai/Mistral-7B-v0.1",
        "method": "lora",
        "batch": 4,
        "seq_len": 4096,
        "dtype": "bf16",
        "rank": 16,
        "targets": "q_proj,v_proj",
        "optimizer": "adamw_torch",
        "gradient_checkpointing": True,
        "attn": "flash",
        "loss": "upcast-logits",
        "stack": "4.48",
        "parallel": "none",
        "gpus": 1,
        "gpu": "A100-80GB",
    }


@given(st.integers(min_value=1, max_value=10**12))
def test_options_do_not_depend_on_what_was_measured(peak: int) -> None:
    assert options(peak_mem_bytes=str(peak)) == options()


@pytest.mark.parametrize(
    ("model", "software", "loss"),
    [
        ("mistralai/Mistral-7B-v0.1", "transformers 4.30.2", "shifted-logits"),
        ("mistralai/Mistral-7B-v0.1", "transformers 4.45.2", "upcast-logits"),
        ("mistralai/Mistral-7B-v0.1", "transformers 4.48.1", "upcast-logits"),
        ("mistralai/Mistral-7B-v0.1", "transformers 4.49.0", "full-logits"),
        ("mistralai/Mistral-7B-v0.1", "transformers 5.13.1", "full-logits"),
        ("mistralai/Mistral-7B-v0.1", "", "upcast-logits"),
        ("bigcode/gpt_bigcode-santacoder", "transformers 4.48.1", "shifted-logits"),
        ("EleutherAI/pythia-1.4b", "transformers 4.45.2", "shifted-logits"),
        ("Qwen/Qwen-7B", "", "shifted-logits"),
        ("Qwen/Qwen2.5-7B", "transformers 4.45.2", "upcast-logits"),
    ],
)
def test_the_loss_without_a_kernel_is_that_of_the_version_and_the_class(model: str, software: str, loss: str) -> None:
    assert options(model_id=model, software=software)["loss"] == loss


def test_the_note_says_when_the_class_freed_its_logits() -> None:
    assert "16-bit logits" in row(software="transformers 4.47.1").note
    assert "16-bit logits" not in row(software="transformers 4.48.1").note
    assert "16-bit logits" not in row(model_id="meta-llama/Llama-2-7b-hf", software="transformers 4.47.1").note


@pytest.mark.parametrize(
    ("cell", "loss"),
    [
        ("fast CE kernel on materialised logits", "fast-ce"),
        ("on (Liger fused linear CE)", "fused-linear"),
        ("CutCrossEntropyPlugin", "fused-linear"),
        ("lm_head chunked (128 tokens)", "chunked"),
    ],
)
def test_a_stated_kernel_is_the_loss(cell: str, loss: str) -> None:
    assert options(fused_or_chunked_ce=cell)["loss"] == loss


@pytest.mark.parametrize(
    ("cells", "kbit_upcast"),
    [
        ({"notes": "HF prepare_model_for_kbit_training path"}, True),
        ({"notes": "no fp32 upcast of non-quantized params"}, False),
        ({"base_dtype": "float16/float32 for non-quantized"}, True),
        ({"source_repo": "Lightning-AI/litgpt"}, False),
        (
            {
                "notes": "HF prepare_model_for_kbit_training path",
                "parallelism": "FSDP FULL_SHARD",
                "num_gpus": "2",
            },
            False,
        ),
        ({}, None),
    ],
)
def test_kbit_preparation_is_read_from_the_row(cells: dict[str, str], kbit_upcast: bool | None) -> None:
    assert options(method="qlora", quantization="nf4", **cells).get("kbit_upcast") is kbit_upcast


@pytest.mark.parametrize(
    ("software", "stack"),
    [
        ("transformers 4.43.3", "4.45"),
        ("torch 2.4.1; transformers 4.45.2", "4.45"),
        ("transformers 4.46.0", "4.48"),
        ("transformers 4.48.1", "4.48"),
        ("transformers 4.49.0", "today"),
        ("transformers 5.17.0", "today"),
        ("torch 2.1.0+cu121; litgpt 8641822", "litgpt"),
        ("torch 2.1.1", None),
        ("", None),
    ],
)
def test_the_stack_is_the_software_that_ran(software: str, stack: str | None) -> None:
    assert options(software=software).get("stack") == stack


def test_statistics_printed_beside_an_allocated_peak_are_rows_of_their_own(tmp_path: Path) -> None:
    with SUBSET.open(encoding="utf-8", newline="") as table:
        cells = next(
            c for c in csv.DictReader(table) if c["mem_stat"].startswith("peak_allocated") and c["peak_mem_bytes"]
        )
    cells["other_mem"] = "MiB: peak_reserved=100; process=241.5; resident_before_step=1"
    path = tmp_path / "one.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerow(cells)
    first, reserved, device = read_rows(path)
    assert (reserved.id, reserved.statistic, reserved.measured) == (f"{first.id}:reserved", "reserved", 100 * 2**20)
    assert (device.id, device.statistic, device.measured) == (f"{first.id}:device", "device", 241.5 * 2**20)
    assert reserved.options == device.options == first.options


@pytest.mark.parametrize(
    ("quantization", "double"),
    [("nf4, no double quant", False), ("bnb.nf4", False), ("bnb.nf4-dq", True), ("nf4", None)],
)
def test_double_quantization_is_left_out_where_it_is_not_stated(quantization: str, double: bool | None) -> None:
    assert options(method="qlora", quantization=quantization).get("double_quant") is double


def test_autocast_over_16_bit_weights_and_over_fp32_weights() -> None:
    assert options(autocast="bf16 (Trainer flag)")["autocast"] == "bf16"
    mixed = options(base_dtype="float32", autocast="fp16 amp")
    assert (mixed["dtype"], mixed["amp"]) == ("fp16", True)
    assert "autocast" not in options(base_dtype="float16", autocast="fp16 compute")


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("torch AdamW (foreach default)", "adamw_torch"),
        ("AdamW fused", "adamw_torch_fused"),
        ("bnb PagedAdamW", "paged_adamw_32bit"),
        ("paged_adamw_8bit", "paged_adamw_8bit"),
        ("HF default", "adamw_torch"),
    ],
)
def test_optimizers_get_their_hf_name(cell: str, name: str) -> None:
    assert options(optimizer=cell)["optimizer"] == name


@pytest.mark.parametrize(
    ("software", "name"),
    [
        ("torch 2.8.0; transformers 4.54.1", "adamw_torch_fused"),
        ("torch 2.7.1; transformers 4.54.1", "adamw_torch"),
        ("torch 2.8.0; transformers 4.53.3", "adamw_torch"),
    ],
)
def test_the_hf_default_became_the_fused_adamw(software: str, name: str) -> None:
    assert options(optimizer="HF default", software=software)["optimizer"] == name


def test_optimizer_in_backward_is_an_option() -> None:
    mapped = options(method="full", optimizer="bnb PagedAdamW + optimizer-in-backward")
    assert (mapped["optimizer"], mapped["optimizer_in_backward"]) == ("paged_adamw_32bit", True)


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("all linear", "all-linear"),
        ("query|value rows of fused attn", "q_proj,v_proj,query_key_value"),
        (r"model.layers.[\d]+.(mlp|self_attn).(up|down|q|v)_proj", "up_proj,down_proj,q_proj,v_proj"),
        ("", None),
    ],
)
def test_targets_are_written_out(text: str, targets: str | None) -> None:
    assert options(target_modules=text).get("targets") == targets


@pytest.mark.parametrize(
    ("method", "model", "trained", "length"),
    [
        ("prefix_tuning", "meta-llama/Llama-3.2-3B", 200 * 28 * 2 * 1024, 200),
        ("adaption_prompt", "meta-llama/Llama-3.2-3B", 28 * (100 * 3072 + 1), 100),
        ("llama-adapter", "meta-llama/Llama-2-7b-hf", 30 * (10 * 4096 + 32), 10),
    ],
)
def test_the_prompt_length_follows_from_the_trained_parameters(
    method: str, model: str, trained: int, length: int
) -> None:
    mapped = options(method=method, model_id=model, trainable_params=str(trained), lora_rank="")
    assert mapped["prompt_length"] == length


def test_a_total_is_divided_only_where_the_load_is_even() -> None:
    cells = {"mem_scope": "total", "num_gpus": "4", "peak_mem_bytes": "40"}
    assert row(parallelism="DeepSpeed ZeRO-3", **cells).measured == 10
    assert "unevenly" in reason(parallelism="device_map pipeline over 2 GPUs", **cells)


def test_a_bracket_gives_its_middle_and_both_ends() -> None:
    mapped = row(peak_mem_bytes="", peak_mem_gib_min="10", peak_mem_gib_max="12")
    assert (mapped.low, mapped.measured, mapped.high) == (10 * GIB, 11 * GIB, 12 * GIB)


def test_out_of_memory_is_an_outcome_and_a_failure_is_none() -> None:
    assert row(status="oom", peak_mem_bytes="").outcome == "oom"
    assert row(status="oom", peak_mem_bytes="").options is not None
    assert "not told apart" in reason(status="oom_or_failed", peak_mem_bytes="")


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"mem_stat": ""}, "no memory figure"),
        ({"peak_mem_bytes": ""}, "no memory figure"),
        ({"mem_stat": "peak_reserved or allocated"}, "ambiguous"),
        ({"mem_stat": "unspecified"}, "statistic"),
        ({"kind": "claimed"}, "not measured"),
        ({"grade": "X"}, "grade X"),
        ({"seq_len": ""}, "sequence length not stated"),
        ({"seq_layout": "padded per batch, short rows"}, "shorter than the cap"),
        ({"notes": "vision inputs"}, "not supervised text"),
        ({"model_id": "7B class"}, "no one model"),
        ({"method": "lisa"}, "method not on the command line"),
        ({"lora_rank": ""}, "rank not stated"),
        ({"base_dtype": ""}, "dtype not stated"),
        ({"grad_ckpt": ""}, "checkpointing not stated"),
        ({"grad_ckpt": "on + activation offload"}, "offloaded"),
        ({"grad_ckpt": "selective (per op)"}, "selective"),
        ({"parallelism": "TP4", "num_gpus": "4"}, "parallelism"),
        ({"parallelism": "", "num_gpus": "4"}, "parallelism"),
        ({"method": "full", "quantization": "float8"}, "low-precision"),
    ],
)
def test_what_cannot_be_said_is_refused_with_its_reason(cells: dict[str, str], words: str) -> None:
    assert words in reason(**cells)


def consistent(rows: list[Row]) -> None:
    assert len({row.id for row in rows}) == len(rows)
    for one in rows:
        assert (one.options is None) != (one.reason is None), one.id
        if one.options is not None:
            assert set(one.options) <= OPTION_NAMES, one.id
            assert one.statistic in ("allocated", "reserved", "device")
            assert (one.measured is None) == (one.outcome == "oom"), one.id


def test_the_subset_has_both_grades_and_several_sources() -> None:
    rows = read_rows(SUBSET)
    consistent(rows)
    mapped = [one for one in rows if one.options is not None]
    assert len(mapped) >= 40
    assert {one.grade for one in mapped} == {"A", "B"}
    assert len({one.source for one in mapped}) >= 6
    assert any(one.outcome == "oom" for one in mapped)
    assert "mapped" in summary(rows)


@pytest.mark.skipif(not FULL_TABLE.exists(), reason="the full table does not lie beside the repository")
def test_every_exact_row_of_the_full_table_is_mapped_but_seven(tmp_path: Path) -> None:
    rows = read_rows(FULL_TABLE)
    consistent(rows)
    exact = [one for one in rows if one.grade == "A" and one.statistic == "allocated"]
    refused = {one.reason for one in exact if one.options is None}
    assert len(exact) == 205
    assert sum(one.options is not None for one in exact) == 198
    assert refused == {"method not on the command line: llama-adapter-v2", "sequence length not one number"}
