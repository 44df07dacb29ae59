"""The committed speeds are what the page says, and the metrics are those of the raw rows."""

import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from benchmarks.train.arm import Peer
from benchmarks.train.bench import HERE, OTHERS, Others, grid, metrics
from benchmarks.train.peer_litgpt import by_step
from benchmarks.train.readme import readme
from benchmarks.train.rows import STEP_ROWS, VARIABLE, conversations

RATES = {"ours": (500.0, 600.0, 550.0), "trl best": (300.0, 250.0, 275.0), "trl lesson": (100.0, 110.0, 90.0)}


def rounds() -> list[dict[str, Any]]:
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


def beside() -> list[dict[str, Any]]:
    """litgpt measured twice, LLaMA-Factory refused."""
    run = {"arm": "litgpt", "held_out": 1.52, "version": "0.5"}
    refused = {"arm": "llamafactory", "tokens_per_second": None, "error": "ImportError: no sound"}
    return [*rounds(), run | {"tokens_per_second": 200.0}, refused, run | {"tokens_per_second": 240.0}, refused]


def result(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "metrics": metrics(rows, [8e11]),
        "rows": rows,
        "grid": [
            {"arm": "batch 1", "tokens_per_second": 270.0},
            {"arm": "no", "tokens_per_second": None, "error": "X"},
        ],
        "best": "batch 1",
        "matmul_flops": [8e11],
        "data": {"source": "a.json", "rows": 32, "tokens": 7000, "held_out": 24},
        "threads": 2,
        "versions": {"trl": "1", "torch": "2"},
        "machine": {"cpus": 2, "processor": "x86_64", "platform": "Linux"},
        "commit": "c",
    }


def test_the_page_says_what_is_missed() -> None:
    page = readme(result(rounds()))
    assert "| 0.275 **missed** | at least 0.35 |" in page and "| 5.5 | at least 3.5 |" in page
    assert "| batch 1 | 270 |" in page and "| no | X |" in page
    assert "litgpt" not in page and "LLaMA-Factory" not in page


def test_other_trainers_count_where_they_were_measured_and_say_why_not_elsewhere() -> None:
    alone, found = metrics(rounds(), [8e11]), metrics(beside(), [8e11])
    assert found.pop("ratio_vs_litgpt") == pytest.approx(550 / 220)
    assert found == alone, "the figures beside TRL are what they were, and none is made up for LLaMA-Factory"
    page = readme(result(beside()))
    assert "| useful tokens/s, times litgpt | 2.5 | | |" in page
    assert "| litgpt 0.5 | 220 | 200 to 240 | 1.5200 |" in page
    assert "| LLaMA-Factory | ImportError: no sound | | |" in page and "times LLaMA-Factory" not in page


def test_an_arm_that_is_not_installed_is_a_reason(tmp_path: Path) -> None:
    peer = Peer("litgpt", tmp_path / ".venv-none" / "bin" / "python", tmp_path / "log", 1)
    assert peer.ask(folder=str(tmp_path)) == {"error": "not installed: there is no .venv-none"}
    peer.close()


@pytest.mark.skipif(find_spec("lightning") is not None, reason="lightning is installed here")
def test_an_arm_whose_library_is_missing_is_a_reason(tmp_path: Path) -> None:
    peer = Peer("litgpt", Path(sys.executable), tmp_path / "log", 1)
    expected = {"error": "ModuleNotFoundError: No module named 'lightning'"}
    assert peer.ask(folder=str(tmp_path)) == expected and peer.ask(folder=str(tmp_path)) == expected
    peer.close()


def test_an_arm_that_dies_is_a_reason(tmp_path: Path) -> None:
    peer = Peer("of_no_name", Path(sys.executable), tmp_path / "log", 1)
    assert "No module named benchmarks.train.peer_of_no_name" in str(peer.ask(folder=str(tmp_path))["error"])
    peer.close()


def test_others_run_once_and_again_only_while_the_time_lasts(tmp_path: Path) -> None:
    nobody = dict.fromkeys(OTHERS, tmp_path / ".venv-none" / "bin" / "python")
    hurried, leisurely = (Others(nobody, tmp_path, 1, time.monotonic() + s) for s in (0.0, 1000.0))
    assert [name for name, _ in hurried.turn(0, 10.0)] == list(OTHERS) and not list(hurried.turn(1, 10.0))
    assert [name for name, _ in leisurely.turn(0, 10.0)] == list(OTHERS)
    assert [name for name, _ in leisurely.turn(1, 10.0)] == list(OTHERS)
    assert not list(leisurely.turn(2, 2000.0)), "what comes later goes first"


def test_litgpts_micro_batches_are_put_together_to_steps() -> None:
    said = [{"iter_time": 1.0 + i, "loss": float(i)} for i in range(4)]
    assert by_step(said, 2) == {"step_seconds": [3.0, 7.0], "losses": [1.0, 3.0]}


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
