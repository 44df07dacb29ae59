"""The embedded job's bench: a plan's configuration as options, and the arithmetic of its rows."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.time.embedded import QUANTITIES, machine, metrics, options_of, row, rows_of, table

from rankwise import api
from rankwise.estimate.price import setup_of
from rankwise.options import JOB_OPTIONS
from rankwise.records import Candidate
from tests.training import toy_job, toy_model

torch.set_num_threads(1)


@pytest.mark.parametrize("method", ["full", {"name": "lora", "r": 4, "target_modules": ["q_proj", "v_proj"]}, "qlora"])
def test_the_options_mean_the_step_that_the_plan_would_take(method: Any, tmp_path: Path) -> None:
    model = toy_model(tmp_path / "model")
    train = {"gradient_checkpointing": method == "qlora", "gradient_accumulation_steps": 2}
    decided = api.plan_job(api.load_job(toy_job(tmp_path / "job", model, method, train=train), {}), tmp_path)
    api.write_plan(decided, tmp_path / "out")
    said = options_of(tmp_path / "out" / "plan.json")
    pairs, options = iter(said), {}
    for flag in pairs:
        name = flag.removeprefix("--").replace("-", "_")
        switch = flag.endswith(("gradient-checkpointing", "kbit-upcast"))
        options[name.removeprefix("no_")] = not name.startswith("no_") if switch else next(pairs)
    asked = api.configuration(options)
    config = decided.verdict.config
    assert config is not None
    wanted = setup_of(
        decided.facts, Candidate(id="a", recipe="a", method=config.method, parallel="none", config=config)
    ).model_dump()
    found = asked.setup("cpu").model_dump()
    # A configuration knows no share of labels, and says no to double quantisation where nothing is quantised.
    left_out = {"config", "labelled_share", *(["double_quant"] if method != "qlora" else [])}
    assert {k: v for k, v in found.items() if k not in left_out and v != wanted[k]} == {}
    assert asked.tokens_per_example == round(decided.facts.data.mean_length)


def test_the_cap_on_steps_is_an_option_of_plan() -> None:
    assert "--max-steps" in JOB_OPTIONS


def test_rows_hold_the_formula_and_what_was_told(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    told = {"predicted": 12.0, "interval": [9.0, 16.0], "actual": 10.0}
    (run / "evidence.json").write_text(json.dumps({"actuals": [{"quantity": q, **told} for q in QUANTITIES]}))
    lines = [{"quantity": q, "source": "calibrate", "predicted": 1.0} for q in QUANTITIES.values()]
    lines += [{"quantity": q, "source": "run run", "predicted": 5.0} for q in QUANTITIES.values()]
    (tmp_path / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = rows_of(run, tmp_path / "ledger.jsonl")
    assert len(rows) == 2 * len(QUANTITIES)
    assert [(r["predicted"], r["calibrated"], r["interval"]) for r in rows[:2]] == [
        (5.0, False, None),
        (12.0, True, [9.0, 16.0]),
    ]
    assert [r["error"] for r in rows[:2]] == pytest.approx([-0.5, 0.2])


def test_metrics_and_table() -> None:
    rows = [
        row("step_seconds", 5.0, None, 10.0, calibrated=False),
        row("step_seconds", 11.0, (8.0, 14.0), 10.0, calibrated=True),
        row("merge_seconds", 4.0, (3.0, 4.5), 5.0, calibrated=True),
    ]
    assert metrics(rows) == pytest.approx(
        {
            "embedded_abs_error_step_seconds": 0.1,
            "embedded_abs_error_merge_seconds": 0.2,
            "embedded_worst_abs_error": 0.2,
            "embedded_worst_abs_error_uncalibrated": 0.5,
            "embedded_intervals_held": 0.5,
        }
    )
    assert "| merge_seconds | yes | 4 s | 3 to 4.5 s | 5 s | -20% |" in table(rows)


def test_where_and_with_what_it_ran() -> None:
    found = machine()
    assert "load" in found["machine"] and {"rankwise", "torch", "peft"} <= set(found["versions"])
