"""Going on from an adapter: its sizes are taken, others refused, and lineage leads back to the first run."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rankwise import api
from rankwise.cli import app
from rankwise.errors import JobError, ModelError, PlanError, RankwiseError
from rankwise.files import hash_file
from rankwise.report.lineage_words import ancestry
from rankwise.store import LINEAGE, Run
from tests.training import carry_out, losses, published, toy_job, toy_model, toy_run, trained, weights

SMALL = {"name": "lora", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
FILE = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def first(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("first"), model, SMALL, train={"max_steps": 4, "learning_rate": 1e-2})


def going_on(folder: Path, model: Path, adapter: Path, **method: object) -> Run:
    return toy_run(folder, model, {"name": "lora", "adapter": str(adapter)} | method, train={"max_steps": 4})


def test_sizes_are_the_adapters_and_lineage_leads_back(model: Path, first: Run, tmp_path: Path) -> None:
    second = going_on(tmp_path / "second", model, first.folder)
    config = second.plan().verdict.config
    assert config is not None and (config.r, config.lora_alpha, config.adapter) == (4, 8.0, str(first.adapter))
    assert config.target_modules == ("q_proj", "v_proj")
    carry_out(second)
    third = going_on(tmp_path / "third", model, second.adapter, name="qlora", r=4)
    carry_out(third)
    outcome, artifact = api.verify(third)
    assert outcome.passed and artifact is not None
    parent = artifact.lineage.parent
    assert parent is not None and parent.weights == hash_file(second.adapter / FILE) and parent.lineage is not None
    assert parent.lineage.data == second.plan().data_hash and parent.lineage.base_weights == first.plan().base_hash
    before = parent.lineage.parent
    assert before is not None and before.weights == hash_file(first.adapter / FILE)
    assert before.lineage is not None and before.lineage.job == first.plan().job_hash and before.lineage.parent is None
    said = ancestry(third.plan().facts.parent)
    assert len(said) == 2 and str(second.adapter) in said[0] and first.plan().data_hash in said[1]
    shown = CliRunner().invoke(app, ["show", str(third.folder)]).stdout.replace("\n", "")
    assert all(sentence.replace(" ", "") in shown.replace(" ", "") for sentence in said)
    assert json.loads(CliRunner().invoke(app, ["show", str(third.folder), "--json"]).stdout)["parent"]["weights"]


def test_it_is_resumed_exactly(model: Path, first: Run, tmp_path: Path) -> None:
    whole, broken = (going_on(tmp_path / name, model, first.folder) for name in ("whole", "broken"))
    carry_out(whole)
    carry_out(broken, stop_after=3)
    carry_out(broken, resume=True)
    assert losses(broken.events()) == losses(whole.events()) and weights(published(broken)) == weights(published(whole))


def test_a_checkpoint_and_a_copied_folder_know_where_they_came_from(model: Path, first: Run, tmp_path: Path) -> None:
    step = max(first.checkpoints.iterdir())
    shutil.copytree(first.adapter, tmp_path / "copy")
    for number, folder in enumerate((step, tmp_path / "copy")):
        parent = going_on(tmp_path / str(number), model, folder).plan().facts.parent
        assert parent is not None and parent.lineage == first.plan().lineage()
    (tmp_path / "copy" / LINEAGE).unlink()
    parent = going_on(tmp_path / "unknown", model, tmp_path / "copy").plan().facts.parent
    assert parent is not None and parent.lineage is None and "no lineage is known" in ancestry(parent)[0]


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"r": 8}, "method.r is 8, and the adapter"),
        ({"lora_alpha": 4}, "method.lora_alpha is 4.0, and the adapter"),
        ({"target_modules": "all-linear"}, "method.target_modules is all-linear, and the adapter"),
        ({"name": "dora"}, "method.name is dora, and the adapter"),
        ({"name": "pissa"}, "method.adapter does not go with pissa"),
        ({"name": "full"}, "full has no such option"),
    ],
)
def test_other_sizes_or_methods_are_refused(
    model: Path, first: Run, tmp_path: Path, method: dict[str, object], said: str
) -> None:
    with pytest.raises(JobError, match=said):
        going_on(tmp_path, model, first.folder, **method)


def test_another_base_is_refused(first: Run, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="trained on another base"):
        going_on(tmp_path, toy_model(tmp_path / "other", seed=1), first.folder)


@pytest.mark.parametrize(("folder", "kind"), [("nowhere", JobError), (".", ModelError)])
def test_what_is_no_adapter_is_refused(model: Path, tmp_path: Path, folder: str, kind: type[RankwiseError]) -> None:
    with pytest.raises(kind, match=r"method\.adapter"):
        going_on(tmp_path, model, Path(folder))


def test_an_adapter_that_changed_makes_the_plan_stale(model: Path, first: Run, tmp_path: Path) -> None:
    shutil.copytree(first.adapter, tmp_path / "copy")
    job = toy_job(tmp_path, model, {"name": "lora", "adapter": "copy"})
    folder = api.write_plan(api.plan(job), tmp_path / "planned")
    with (tmp_path / "copy" / FILE).open("ab") as file:
        file.write(b" ")
    with pytest.raises(PlanError, match="stale: the adapter"):
        api.prepare(folder, tmp_path / "run", {})
