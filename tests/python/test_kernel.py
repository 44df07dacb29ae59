"""In a real kernel, as JupyterLab asks it: a plan, a run and its evidence come back as HTML beside their text."""

import os
from pathlib import Path

import pytest

from rankwise.files import write_record
from rankwise.store import Run
from rankwise.watch.evidence import summarise
from tests import builders

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
CELLS = (
    "import rankwise as rw\nrun = rw.open_run('a')\nrun.plan()",
    "run",
    "run.evidence()",
    "rw.runs()",
    "rw.plan('nothing.yaml')",
)


def test_a_plan_a_run_and_its_evidence_display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    assert os.environ["PYTHONPATH"]
    run, plan = Run(tmp_path / "runs" / "a"), builders.plan()
    run.begin(plan)
    for event in builders.whole_run():
        run.append(event)
    write_record(run.evidence_path, summarise(plan, builders.whole_run()))
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    client = nbclient.NotebookClient(
        book, timeout=600, startup_timeout=600, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [cell.outputs[-1] for cell in book.cells]
    for output in shown[:3]:
        assert output.output_type == "execute_result", output
        assert '<div class="rankwise">' in output.data["text/html"] and output.data["text/plain"]
    assert plan.verdict.candidate in shown[0].data["text/html"]
    assert "Finished: step 20" in shown[1].data["text/plain"]
    assert "text/html" not in shown[3].data and "best_validation_loss" in shown[3].data["text/plain"]
    assert shown[4].output_type == "error" and shown[4].ename == "JobError"
