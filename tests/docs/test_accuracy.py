"""docs/accuracy.md is what the results say."""

import json
import shutil
from pathlib import Path

from benchmarks.accuracy import HERE, accuracy

from tests.docs.blocks import ROOT


def test_the_page_is_that_of_the_results() -> None:
    assert (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8") == accuracy(), "make docs writes it anew"


def test_no_figure_is_unknown_and_every_kept_result_is_shown() -> None:
    page = accuracy()
    assert "unknown" not in page
    for result in HERE.glob("*/result.json"):
        if "metrics" in json.loads(result.read_text(encoding="utf-8")):
            assert f"`make bench-{result.parent.name}`, code" in page


def test_a_changed_result_changes_the_page_and_a_missing_one_is_said(tmp_path: Path) -> None:
    for folder in ("memory", "time"):
        shutil.copytree(
            HERE / folder, tmp_path / folder, ignore=lambda _, names: [n for n in names if n != "result.json"]
        )
    result = tmp_path / "memory" / "result.json"
    document = json.loads(result.read_text(encoding="utf-8"))
    document["metrics"]["worst_under_allocated_a"] = -0.4242
    del document["metrics"]["median_abs_error_device_a"]
    result.write_text(json.dumps(document))
    page = accuracy(tmp_path)
    assert "-42.42 %" in page and "| on the device (nvidia-smi) | unknown |" in page
    assert "No result of `make bench-decisions` is kept with this version." in page
