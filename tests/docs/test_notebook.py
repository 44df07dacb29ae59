"""examples/notebook.ipynb runs from top to bottom in a kernel of its own, and is committed without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.blocks import ROOT
from tests.training import environment, toy_model

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"


def executed(folder: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything the notebook prints, with `base` in the place of the embedded model."""
    for key, value in environment().items():
        monkeypatch.setenv(key, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    named = [cell for cell in notebook.cells if 'MODEL = "embedded"' in cell.source]
    assert len(named) == 1
    named[0].source = named[0].source.replace('MODEL = "embedded"', f'MODEL = "{base}"')
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(str(o.get("text") or o.get("data", {}).get("text/plain", "")) for o in outputs)


def test_it_is_committed_without_outputs() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert len(code) >= 8 and not any(cell.outputs or cell.execution_count for cell in code)


def test_it_runs_on_a_tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = executed(tmp_path, str(toy_model(tmp_path / "base")), monkeypatch)
    assert "step 1 " in said and "NO " not in said and said.count("ok ") >= 10
    assert (tmp_path / "rankwise-notebook" / "run" / "artifact.json").is_file()


@pytest.mark.prove
@pytest.mark.embedded
def test_it_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = executed(tmp_path, "embedded", monkeypatch)
    assert "NO " not in said and '{"order": 4711, "problem": "never came"}' in said
