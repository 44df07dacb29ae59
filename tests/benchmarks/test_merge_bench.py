"""The metrics are those of the raw rows, the page says them, and the synthetic checkpoint is one that loads."""

from pathlib import Path
from typing import Any

import pytest
from benchmarks.merge import synthetic
from benchmarks.merge.arms import ARMS, run
from benchmarks.merge.bench import metrics
from benchmarks.merge.readme import readme

from rankwise.export.mergebase import BaseFiles


def row(model: str, arm: str, seconds: float, peak: float) -> dict[str, Any]:
    return {
        "model": model,
        "arm": arm,
        "seconds": seconds,
        "imports_bytes": 500_000_000,
        "peak_bytes": 500_000_000 + int(peak),
        "largest_tensor_bytes": 100_000_000,
        "written_bytes": 14_000_000_000,
    }


ROWS = [
    *(row("7b", "copy", s, 1e6) for s in (40.0, 42.0, 41.0)),
    *(row("7b", "ours", s, 60e6) for s in (46.0, 45.0)),
    {"model": "7b", "arm": "peft", "error": "killed: -9", "largest_tensor_bytes": 100_000_000},
    row("embedded", "copy", 1.0, 0),
    row("embedded", "ours", 1.6, 800e6),
    row("embedded", "peft", 3.2, 900e6),
]


def test_metrics_are_ratios_of_medians_and_the_worst_peak() -> None:
    found = metrics(ROWS)
    assert found["time_vs_copy"] == pytest.approx(45.5 / 41.0)
    assert found["peak_mb_over_limit"] == pytest.approx(60 - 400 - 300) and "time_vs_peft" not in found
    assert found["embedded_time_vs_peft"] == 0.5 and found["embedded_peak_mb_over_limit"] == pytest.approx(100)


def test_the_page_names_what_was_missed() -> None:
    result = {
        "metrics": metrics(ROWS),
        "rows": ROWS,
        "layers": 32,
        "machine": {"cpus": 2},
        "versions": {"torch": "2"},
        "commit": "abc",
    }
    page = readme(result)
    assert "| 7b | PEFT, `merge_and_unload` in bf16 | killed: -9 | 0 of 1 | | |" in page
    assert "| 7B shapes: time over copying | 1.11 | at most 1.5 (met), aim 1.2 (met) |" in page
    assert "| embedded model: time over copying | 1.60 | at most 1.5 (**missed**), aim 1.2 (missed by 0.40) |" in page


def test_every_arm_runs_over_the_synthetic_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = {name: (out // 64, into // 64) for name, (out, into) in synthetic.LINEARS.items()}
    config = {"hidden_size": 64, "intermediate_size": 224, "num_attention_heads": 4, "num_key_value_heads": 1}
    monkeypatch.setattr(synthetic, "LINEARS", narrow)
    monkeypatch.setattr(synthetic, "CONFIG", {**synthetic.CONFIG, **config})
    monkeypatch.setattr(synthetic, "SHARD", 100_000)
    monkeypatch.setattr(synthetic, "shapes", lambda layers: small(layers, narrow))
    base = synthetic.write_base(tmp_path / "base", 2)
    adapter = synthetic.write_adapter(tmp_path / "adapter", 2)
    files = BaseFiles.open(base)
    expected = {name: tuple(p.shape) for name, p in files.model.named_parameters()}
    assert {name: t.shape for name, t in files.tensors.items()} == expected and len(files.shards) > 1
    for arm in ARMS:
        took = run(arm, base, adapter, tmp_path / "out")
        assert "error" not in took and took["seconds"] > 0 and took["written_bytes"] > 0, took
        assert not (tmp_path / "out").exists()


def small(layers: int, linears: dict[str, tuple[int, int]]) -> Any:
    yield "model.embed_tokens.weight", (32000, 64)
    for layer in range(layers):
        for name, shape in linears.items():
            yield f"model.layers.{layer}.{name}.weight", shape
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{layer}.{name}.weight", (64,)
    yield "model.norm.weight", (64,)
    yield "lm_head.weight", (32000, 64)
