"""Published throughput becomes tokens per second over all devices and options, or says why it cannot."""

import csv
from pathlib import Path
from typing import Any

import pytest
from benchmarks.memory.rows import SUBSET
from benchmarks.time.rows import MPT, PEFT_MEAN_TOKENS, Row, read_row, read_rows, summary
from hypothesis import given
from hypothesis import strategies as st

with SUBSET.open(encoding="utf-8", newline="") as table:
    COLUMNS = csv.DictReader(table).fieldnames or []
PLAIN = {
    "id": "one",
    "kind": "measured",
    "status": "ok",
    "grade": "A",
    "source_repo": "someone/something @ 1234",
    "model_id": "mistralai/Mistral-7B-v0.1",
    "method": "lora",
    "lora_rank": "16",
    "target_modules": "q_proj|v_proj",
    "base_dtype": "bfloat16",
    "autocast": "off",
    "optimizer": "adamw_torch",
    "micro_batch_size": "4",
    "seq_len": "4096",
    "seq_layout": "fixed",
    "grad_ckpt": "on",
    "attn_impl": "flash_attention_2",
    "fused_or_chunked_ce": "off",
    "parallelism": "single",
    "num_gpus": "1",
    "gpu_type": "A100-80GB",
    "tokens_per_s": "3000",
    "tokens_scope": "total",
    "software": "torch 2.4.1; transformers 4.48.1",
}
SHARDED = {"parallelism": "FSDP", "num_gpus": "4", "grad_accum": "2"}


def cells(**changed: str) -> dict[str, str]:
    return dict.fromkeys(COLUMNS, "") | PLAIN | changed


def row(**changed: str) -> Row:
    return read_row(cells(**changed))


def options(**changed: str) -> dict[str, Any]:
    mapped = row(**changed)
    assert mapped.options is not None, mapped.reason
    assert mapped.reason is None
    return mapped.options


def refused(**changed: str) -> str:
    found = row(**changed)
    assert found.options is None and found.measured is None and found.reason is not None
    return found.reason


def test_a_row_is_a_source_a_figure_and_options() -> None:
    found = row()
    assert (found.id, found.source, found.grade, found.measured) == ("one", "someone/something", "A", 3000.0)
    said = options()
    assert (said["model"], said["method"], said["rank"]) == ("mistralai/Mistral-7B-v0.1", "lora", 16)
    assert (said["batch"], said["seq_len"], said["gpu"], said["gpus"]) == (4, 4096, "A100-80GB", 1)
    assert said["gradient_checkpointing"] is True and said["attn"] == "flash"


@given(st.floats(1, 1e7))
def test_options_do_not_depend_on_what_was_measured(figure: float) -> None:
    assert options(tokens_per_s=str(figure)) == options()


@pytest.mark.parametrize(
    ("scope", "gpus", "expected"),
    [("total", 4, 3000.0), ("total over GPUs", 4, 3000.0), ("per_gpu", 4, 12_000.0), ("per GPU", 2, 6000.0)],
)
def test_a_figure_of_one_gpu_is_multiplied(scope: str, gpus: int, expected: float) -> None:
    assert row(**(SHARDED | {"tokens_scope": scope, "num_gpus": str(gpus)})).measured == expected


def test_seconds_become_tokens_where_every_row_has_a_fixed_length() -> None:
    timed = SHARDED | {"tokens_per_s": "", "s_per_iter": "8"}
    assert row(**timed).measured == 4 * 2 * 4096 * 4 / 8
    assert "without a fixed length" in refused(**timed, seq_layout="dynamic padding")
    assert row(**(timed | {"tokens_per_s": "7", "tokens_scope": "total"})).measured == 7.0


@pytest.mark.parametrize("scope", ["unclear", "as printed"])
def test_a_scope_that_is_not_clear_is_refused(scope: str) -> None:
    assert "not clear" in refused(tokens_scope=scope)


@pytest.mark.parametrize("compile", ["on", "torch.compile", "inductor", "True"])
def test_compiled_runs_are_refused(compile: str) -> None:
    assert refused(compile=compile) == "compiled"


@pytest.mark.parametrize("compile", ["", "off", "none", "False"])
def test_eager_runs_are_not(compile: str) -> None:
    assert options(compile=compile) == options()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "claimed"}, "not measured"),
        ({"grade": "X"}, "grade X"),
        ({"method": "dpo"}, "not supervised text training"),
        ({"model_id": "7B class"}, "no one model named"),
        ({"seq_len": ""}, "length"),
    ],
)
def test_what_is_no_run_of_this_kind_is_refused(change: dict[str, str], reason: str) -> None:
    assert reason in refused(**change)


def test_what_time_does_not_need_has_a_default_that_is_said() -> None:
    found = row(optimizer="", grad_ckpt="")
    assert found.options is not None
    assert found.options["optimizer"].startswith("adamw")
    assert not found.options.get("gradient_checkpointing")
    assert "optimizer not stated" in found.note and "optimizer not stated" not in row().note


def test_pefts_rows_have_their_mean_length() -> None:
    assert options(source_repo="huggingface/peft")["tokens_per_example"] == PEFT_MEAN_TOKENS
    assert "tokens_per_example" not in options()


FOUNDRY = {
    "source_repo": "mosaicml/llm-foundry",
    "model_id": "MPT 7b",
    "method": "full",
    "lora_rank": "",
    "target_modules": "",
    "seq_len": "2048",
    "parallelism": "FSDP FULL_SHARD",
    "num_gpus": "16",
    "optimizer": "",
    "tokens_scope": "per_gpu",
}


def test_mpt_is_gpt2_of_its_sizes() -> None:
    said = options(**FOUNDRY)
    hidden, layers, heads = MPT["7b"]
    config = said["config"]
    assert (config["n_embd"], config["n_layer"], config["n_head"], config["n_positions"]) == (
        hidden,
        layers,
        heads,
        2048,
    )
    assert (said["gpus"], said["nodes"], said["parallel"]) == (8, 2, "fsdp")
    assert row(**FOUNDRY).measured == 16 * 3000.0
    assert "MPT as GPT-2" in row(**FOUNDRY).note


@pytest.mark.parametrize(
    ("gpus", "sharding", "expected"),
    [
        ("8", "FULL_SHARD", (8, 1, "fsdp")),
        ("4", "SHARD_GRAD_OP", (4, 1, "zero2")),
        ("64", "FULL_SHARD", (8, 8, "fsdp")),
    ],
)
def test_foundrys_gpus_stand_eight_to_a_node(gpus: str, sharding: str, expected: tuple[int, int, str]) -> None:
    said = options(**(FOUNDRY | {"num_gpus": gpus, "parallelism": f"FSDP {sharding}"}))
    assert (said["gpus"], said["nodes"], said["parallel"]) == expected


def test_a_table_is_read_for_its_throughput(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = [
        cells(id="kept"),
        cells(id="timed", tokens_per_s="", s_per_iter="2"),
        cells(id="memory alone", tokens_per_s=""),
        cells(id="failed", status="oom"),
        cells(id="compiled", compile="on"),
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    found = read_rows(path)
    assert [r.id for r in found] == ["kept", "timed", "compiled"]
    assert found[1].measured == 4 * 4096 / 2
    text = summary(found)
    assert text.startswith("3 rows with a throughput, 2 mapped") and "1 A compiled" in text
