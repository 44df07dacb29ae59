"""docs/first-hour.md as a new user goes through it: its blocks in their order, in an empty folder, nothing else."""

from pathlib import Path

import pytest

from rankwise.store import Run
from tests.docs.blocks import ROOT, SHELL, Block, blocks, calls
from tests.docs.test_blocks import carry_out
from tests.training import toy_model

PAGE = ROOT / "docs" / "first-hour.md"


def go_through(folder: Path, monkeypatch: pytest.MonkeyPatch, base: str) -> list[Block]:
    """Run the page; `base` stands in the place of the embedded model. Returns the blocks that ran."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    done = []
    for block in blocks(PAGE):
        if "file" in block.marks or block.runs:
            carry_out(block._replace(text=block.text.replace("model: embedded", f"model: {base}")), Path(base))
            done.append(block)
    return done


def holds_what_the_page_says(folder: Path, done: list[Block]) -> None:
    commands = [call[1] for block in done if block.language in SHELL for call in calls(block)]
    assert commands[:3] == ["doctor", "check", "plan"]
    assert {"train", "eval", "chat", "merge", "report", "show", "gpus", "estimate"} <= set(commands)
    run = Run(folder / "runs" / "first")
    artifact = run.artifact()
    assert artifact is not None and artifact.verification.passed
    assert (run.folder / "adapter").is_dir() and (run.folder / "model").is_dir()
    assert (run.folder / "report.html").stat().st_size > 10_000
    assert run.evidence().evaluation is not None


def test_the_page_works_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = toy_model(tmp_path / "base")
    done = go_through(tmp_path / "hour", monkeypatch, str(base))
    holds_what_the_page_says(tmp_path / "hour", done)


@pytest.mark.prove
@pytest.mark.embedded
def test_the_page_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = go_through(tmp_path / "hour", monkeypatch, "embedded")
    holds_what_the_page_says(tmp_path / "hour", done)
    evaluation = Run(tmp_path / "hour" / "runs" / "first").evidence().evaluation
    assert evaluation is not None
    (form,) = (c for c in evaluation.comparisons if c.metric == "format")
    assert form.tuned > form.base and form.answer == "better"


def test_what_is_left_out_needs_what_the_test_has_not() -> None:
    reasons = [block.marks["not run"] for block in blocks(PAGE) if "not run" in block.marks]
    assert len(reasons) == 4
    assert all(any(word in reason for word in ("GPU", "environment", "minutes")) for reason in reasons)
