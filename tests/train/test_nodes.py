"""Which node this is, by torchrun's variables, and the wait for node 0's folder. No torch."""

from pathlib import Path

import pytest

from rankwise.errors import PlanError, RunError
from rankwise.records.job import Hardware
from rankwise.store import Run
from rankwise.train.nodes import Nodes, nodes_of, wait_for_folder
from tests.builders import plan

VARIABLES = ("PET_NNODES", "PET_NODE_RANK", "PET_NPROC_PER_NODE")


def said(monkeypatch: pytest.MonkeyPatch, *values: str | None) -> None:
    for name, value in zip(VARIABLES, values, strict=True):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("nodes", "values", "found"),
    [
        (1, (None, None, None), Nodes(1, 0)),
        (1, ("1", None, "4"), Nodes(1, 0)),
        (2, ("2", "0", "4"), Nodes(2, 0)),
        (2, ("2", "1", None), Nodes(2, 1)),
        (2, ("2:2", "1", "gpu"), Nodes(2, 1)),
    ],
)
def test_torchruns_variables_say_which_node_this_is(
    nodes: int, values: tuple[str | None, ...], found: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    said(monkeypatch, *values)
    assert nodes_of(Hardware(gpu="cpu", count=4, nodes=nodes)) == found


@pytest.mark.parametrize(
    ("nodes", "values", "fault"),
    [
        (2, (None, None, None), "this plan is for 2 nodes, and nothing says which"),
        (2, ("3", "0", None), "PET_NNODES is 3, and this plan is for 2 nodes"),
        (1, ("2", "0", None), "PET_NNODES is 2, and this plan is for 1 nodes"),
        (2, ("2", None, None), "PET_NODE_RANK is not set"),
        (2, ("2", "first", None), "PET_NODE_RANK is 'first'"),
        (2, ("2", "1", "8"), "PET_NPROC_PER_NODE is 8, and this plan is for 4 devices"),
    ],
)
def test_what_contradicts_the_plan_is_refused(
    nodes: int, values: tuple[str | None, ...], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said(monkeypatch, *values)
    with pytest.raises(PlanError, match=fault):
        nodes_of(Hardware(gpu="cpu", count=4, nodes=nodes))


def test_other_nodes_wait_for_the_folder_of_node_0(tmp_path: Path) -> None:
    wanted, run = plan(), Run(tmp_path / "run")
    with pytest.raises(RunError, match="node 0 has not made"):
        wait_for_folder(run, wanted, seconds=0.1)
    run.begin(wanted)
    assert wait_for_folder(run, wanted, seconds=0.1).folder == run.folder
    other = wanted.model_copy(update={"warnings": ("another",)})
    with pytest.raises(RunError, match="is the run of another plan"):
        wait_for_folder(run, other, seconds=0.1)
