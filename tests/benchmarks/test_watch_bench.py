"""The committed runs are what the page says, and the metrics are those of the raw rows."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from benchmarks.watch.bench import HERE, metrics, spectrum_metrics
from benchmarks.watch.plot import frontier_svg, steps_svg
from benchmarks.watch.readme import SLICES, readme
from benchmarks.watch.rows import VARIABLE, task_rows

LEVELS = {0.0: "green", 0.02: "green", 0.05: "amber", 0.4: "red", 1.0: "red"}


def look(step: int, rise: float, seconds: float = 8.0) -> dict[str, Any]:
    parts = [
        {"name": name, "difference": rise, "interval": [rise - 0.01, rise + 0.01], "level": LEVELS[rise]}
        for name in SLICES
    ]
    return {"step": step, "slices": parts, "level": LEVELS[rise], "seconds": seconds}


def row(arm: str, rises: list[float], published: int, **more: Any) -> dict[str, Any]:
    looks = [look(5 * n, rise, 20.0 if n == 0 else 8.0) for n, rise in enumerate(rises)]
    frontier = [
        {"step": seen["step"], "task_loss": 2.0 - 0.1 * n, "differences": {"general rows": rises[n]}}
        for n, seen in enumerate(looks)
    ]
    limit = {
        "slice": "general rows",
        "baseline": 3.1,
        "unit": "nats per token",
        "amber": 0.03,
        "red": 0.1,
        "source": "s",
    }
    sets = [
        {
            "name": "general text",
            "metric": "general_loss",
            "items": 48,
            "tokens": 2800,
            "labelled": 2750,
            "chance": None,
        }
    ]
    return {
        "arm": arm,
        "seconds": 100.0,
        "config": {
            "method": "lora",
            "r": 1,
            "learning_rate": 1e-3,
            "replay_share": 0.0,
            "max_steps": 10,
            "watch_items": 48,
        },
        "steps": [{"step": n + 1, "loss": 1.0, "seconds": 2.0} for n in range(10)],
        "looks": looks,
        "acted": [],
        "stopped": [],
        "saved_seconds": [],
        "spectrum_seconds": [],
        "forgetting": {
            "step": published,
            "level": looks[published // 5]["level"],
            "frontier": frontier,
            "thresholds": [limit],
        },
        "planned_watch": {"steps": 5, "items": 48, "looks": 3, "seconds": 30.0, "share": 0.1},
        "watched": sets,
        **more,
    }


def rows() -> list[dict[str, Any]]:
    return [
        row("bad, stopped and resumed", [0.0, 0.4, 1.0], 10, stopped=[{"step": 5}]),
        row("bad, rolled back", [0.0, 0.4], 0, acted=[{"back_to": 0}]),
        row("bad, with replay", [0.0, 0.02, 0.05], 10),
        row("planned", [0.0, 0.02, 0.02], 10),
    ]


def test_metrics_are_those_of_the_rows() -> None:
    found = metrics(rows())
    assert (found["bad_nats"], found["bad_stopped_at"], found["bad_rolled_back_to"]) == (1.0, 5, 0)
    assert found["replay_saves"] == pytest.approx(0.95) and found["rolled_back_red"] == 0
    assert (found["look_seconds"], found["seconds"], found["planned_red"]) == (8.0, 400.0, 0)
    red = rows()
    red[3]["looks"][1] = look(5, 0.4)
    assert metrics(red)["planned_red"] == 1
    # 900 steps of 2 s, told 10 s a look: 72 s pay for 6 after the first, of which 4 fall together with validations.
    assert found["overhead"] == pytest.approx(5 * 8 / (1800 + 5 * 8))


MACHINE = {"cpus": 2, "processor": "x86_64", "platform": "Linux"}
SPECTRA = [
    {
        "what": "adapter alone, all modules",
        "model": "shapes",
        "rank": 64,
        "matrices": 224,
        "seconds": 9.4,
        "seconds_all_layers": 9.4,
        "cpu_seconds": 2.7,
        "peak_bytes": 283_000_000,
    }
]


def result(some: list[dict[str, Any]]) -> dict[str, Any]:
    data = {"source": "a.jsonl", "rows": 240, "held_out": 16}
    known = {"versions": {}, "machine": MACHINE, "commit": "c", "spectra": SPECTRA}
    return {"metrics": {**metrics(some), **spectrum_metrics(SPECTRA)}, "rows": some, "data": data, **known}


def test_what_fails_is_marked() -> None:
    good, worse = rows(), rows()
    worse[2]["looks"][-1] = look(10, 1.0)
    assert "**missed**" not in readme(result(good)) and readme(result(worse)).count("**missed**") == 1
    del worse[0]["stopped"][:]
    assert readme(result(worse)).count("**missed**") == 2


def test_the_plots_are_drawings_with_every_point() -> None:
    for svg in (frontier_svg(rows()), steps_svg(rows())):
        circles = [e for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("circle")]
        assert len(circles) == 11 + len(rows())  # points, and one a name
        assert all(0 <= float(c.attrib["cx"]) <= 760 and 0 <= float(c.attrib["cy"]) <= 420 for c in circles)


def test_the_page_is_that_of_the_committed_result() -> None:
    found = json.loads((HERE / "result.json").read_text(encoding="utf-8"))
    assert found["metrics"] == {**metrics(found["rows"]), **spectrum_metrics(found["spectra"])}
    assert (HERE / "README.md").read_text(encoding="utf-8") == readme(found)
    assert (HERE / "frontier.svg").read_text(encoding="utf-8") == frontier_svg(found["rows"])


def test_rows_come_from_a_file_or_from_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = {"question": "Which?", "choices": ["x", "y"], "answer": 1}
    path = tmp_path / "some.jsonl"
    path.write_text(json.dumps(probe) + "\n" + json.dumps(probe | {"question": "long " * 100}) + "\n")
    (row,), source = task_rows(path, 5)
    assert source == "some.jsonl" and row["messages"][0]["content"] == "Which?\nA. x\nB. y"
    assert json.loads(row["messages"][1]["content"]) == {"letter": "B", "answer": "y"}
    monkeypatch.setenv(VARIABLE, str(path))
    assert task_rows(None, 5)[1] == "some.jsonl"
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr("benchmarks.watch.rows.SHARED", tmp_path / "absent")
    own, source = task_rows(None, 3)
    assert len(own) == 3 and source == "examples/clinic/train.jsonl" and own[0]["messages"]
