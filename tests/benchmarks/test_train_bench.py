"""The committed speeds are what the page says, and the metrics are those of the raw rows."""

import json
from pathlib import Path

import pytest
from benchmarks.train.bench import HERE, grid, metrics
from benchmarks.train.readme import readme
from benchmarks.train.rows import STEP_ROWS, VARIABLE, conversations

RATES = {"ours": (500.0, 600.0, 550.0), "trl best": (300.0, 250.0, 275.0), "trl lesson": (100.0, 110.0, 90.0)}


def rounds() -> list[dict[str, object]]:
    more = {"overhead": 0.01, "padding": 0.0, "flops_per_token": 4e8}
    losses = {"ours": 1.50, "trl best": 1.51, "trl lesson": 1.485}
    return [
        {"arm": arm, "tokens_per_second": rate, "held_out": losses[arm], **(more if arm == "ours" else {})}
        for arm, rates in RATES.items()
        for rate in rates
    ]


def test_metrics_are_medians_of_the_rows() -> None:
    found = metrics(rounds(), [8e11, 4e11, 9e11])
    assert found["ratio_vs_trl_lesson"] == pytest.approx(5.5) and found["ratio_vs_trl_best"] == pytest.approx(2.0)
    assert found["fraction_of_matmul_rate"] == pytest.approx(550 * 4e8 / 8e11)
    assert found["loss_gap"] == pytest.approx(0.015)


def test_the_page_says_what_is_missed() -> None:
    result = {
        "metrics": metrics(rounds(), [8e11]),
        "rows": rounds(),
        "grid": [
            {"arm": "batch 1", "tokens_per_second": 270.0},
            {"arm": "no", "tokens_per_second": None, "error": "X"},
        ],
        "best": "batch 1",
        "matmul_flops": [8e11],
        "data": {"source": "a.json", "rows": 32, "tokens": 7000, "held_out": 24},
        "threads": 2,
        "versions": {"trl": "1", "torch": "2"},
        "machine": "m",
        "commit": "c",
    }
    page = readme(result)
    assert "| 0.275 **missed** | at least 0.35 |" in page and "| 5.5 | at least 3.5 |" in page
    assert "| batch 1 | 270 |" in page and "| no | X |" in page


def test_the_page_is_made_of_the_committed_result() -> None:
    if not (HERE / "result.json").is_file():
        pytest.skip("not measured yet: `make bench-train` on an idle machine")
    result = json.loads((HERE / "result.json").read_text())
    assert (HERE / "README.md").read_text() == readme(result)
    assert result["metrics"] == pytest.approx(metrics(result["rows"], result["matmul_flops"]))


def test_every_setting_of_the_grid_takes_sixteen_rows_a_step() -> None:
    for config in grid(3500, 600).values():
        if not config.get("packing"):
            assert config["per_device_train_batch_size"] * config["gradient_accumulation_steps"] == STEP_ROWS


def test_rows_come_from_the_named_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"instruction": "Add.", "input": "1 + 1", "output": "2"}] * 3))
    monkeypatch.setenv(VARIABLE, str(path))
    found, source = conversations(None, 2)
    assert source == "rows.json" and len(found) == 2
    assert [m["content"] for m in found[0]] == ["Add.\n1 + 1", "2"]
