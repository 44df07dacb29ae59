"""Copies of checkpoints are whole or not there, follow what retention does, and another machine goes on from them."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from fsspec.registry import _registry

from rankwise import api
from rankwise.errors import JobError, RunError
from rankwise.files import hash_folder
from rankwise.store import Run
from rankwise.train.mirror import LAST, Mirror, require_protocol
from tests.train.test_checkpoints import Stub, alone, checkpoints, save, truncate
from tests.training import carry_out, cli, edited, losses, published, toy_job, toy_model, toy_run, weights

PLAN = "a" * 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


def mirrored(tmp_path: Path, keep: int = 2, plan: str = PLAN, *, resume: bool = False) -> Any:
    """Checkpoints of a run whose copies go to tmp_path/store."""
    run = Run(tmp_path / "run")
    run.folder.mkdir(parents=True, exist_ok=True)
    mirror = Mirror(f"file://{tmp_path}/store", run, plan)
    mirror.begin(resume=resume)
    kept = checkpoints(run.folder, keep)
    kept.mirror = mirror
    return kept


def copies(tmp_path: Path) -> dict[str, str]:
    return {n: h for n, h in hash_folder(tmp_path / "store").items() if n.startswith("checkpoint-")}


def originals(kept: Any) -> dict[str, str]:
    return {
        f"{path.name}/{name}": digest
        for path in kept.folder.glob("checkpoint-*")
        for name, digest in hash_folder(path).items()
    }


def test_copies_are_what_retention_leaves(tmp_path: Path) -> None:
    kept, values = mirrored(tmp_path), {1: 1.0, 2: 4.0, 3: 3.0, 4: 2.0}
    for step in values:
        save(kept, step, {s: loss for s, loss in values.items() if s <= step})
        assert copies(tmp_path) == originals(kept)
    assert kept.mirror.steps() == [1, 3, 4] and not kept.resumable(1)


def test_another_machine_fetches_the_newest_and_passes_over_half_a_copy(tmp_path: Path) -> None:
    kept = mirrored(tmp_path)
    kept.mirror.run.events_path.write_text("{}\n")
    save(kept, 1)
    save(kept, 2)
    before = hash_folder(kept.path(2))
    shutil.rmtree(tmp_path / "run")
    other = mirrored(tmp_path, resume=True)
    assert other.mirror.run.events_path.read_text() == "{}\n"
    assert other.newest_sound() == (2, []) and hash_folder(other.path(2)) == before
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "store" / "checkpoint-2" / LAST).unlink()  # as a kill in the middle of a copy leaves it
    assert mirrored(tmp_path, resume=True).newest_sound() == (1, [])


def test_a_damaged_checkpoint_is_fetched_again_and_a_damaged_copy_is_named(tmp_path: Path) -> None:
    kept = mirrored(tmp_path)
    save(kept, 1)
    save(kept, 2)
    truncate(kept.path(2))
    assert kept.newest_sound() == (2, [])
    truncate(kept.path(2))
    truncate(tmp_path / "store" / "checkpoint-2")
    assert kept.newest_sound() == (1, ["checkpoint-2 is damaged (model.safetensors changed) and was not used"])


def test_a_checkpoint_that_is_made_again_is_copied_again(tmp_path: Path) -> None:
    class Other(Stub):
        def save_pretrained(self, folder: Path) -> None:
            (folder / "model.safetensors").write_bytes(b"WEIGHTS" * 100)

    kept = mirrored(tmp_path)
    save(kept, 1)
    list(kept.save(1, alone(Other(), Stub()), Stub(), {}, 4))
    assert copies(tmp_path) == originals(kept)


def test_a_copy_that_fails_is_said_and_made_up_for(tmp_path: Path) -> None:
    kept = mirrored(tmp_path)
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "store").write_text("a file in the way")
    note, saved = kept.save(1, alone(Stub(), Stub()), Stub(), {}, 4)
    assert "could not be copied" in note.text and "the next save tries again" in note.text and saved.step == 1
    (tmp_path / "store").unlink()
    save(kept, 2)
    assert copies(tmp_path) == originals(kept)


def test_what_lies_there_is_not_overwritten(tmp_path: Path) -> None:
    save(mirrored(tmp_path), 1)
    with pytest.raises(RunError, match="holds checkpoints of another plan"):
        mirrored(tmp_path, plan="b" * 64, resume=True)
    with pytest.raises(RunError, match="already holds checkpoints of this plan") as error:
        mirrored(tmp_path)
    assert "--resume" in error.value.fix


def test_what_an_interrupted_copy_left_goes_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    kept, store = mirrored(tmp_path, keep=1), tmp_path / "store"
    save(kept, 1)
    shutil.copytree(store / "checkpoint-1", store / "checkpoint-0")
    (store / "checkpoint-0" / LAST).unlink()  # half a copy, or half of it dropped
    (store / "checkpoint-1" / "of-before.pt").write_text("")
    for name in ("notes.txt", "checkpoint-notes/mine.txt"):
        (store / name).parent.mkdir(exist_ok=True)
        (store / name).write_text("mine")
    save(kept, 2)
    assert sorted(path.name for path in store.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-notes"]
    assert (store / "notes.txt").read_text() == (store / "checkpoint-notes" / "mine.txt").read_text() == "mine"
    shutil.rmtree(store / "checkpoint-notes")
    assert copies(tmp_path) == originals(kept)
    (store / "checkpoint-2" / "of-before.pt").write_text("")
    list(kept.mirror.follow([kept.path(2)]))
    assert copies(tmp_path) == originals(kept)


def test_a_missing_package_is_said_before_anything_is_looked_at(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as if it were not installed
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(JobError, match=r"train\.save_url s3://bucket/run cannot be opened: .*s3fs") as error:
        toy_run(tmp_path, folder, train={"save_url": "s3://bucket/run"})
    assert error.value.fix == "pip install s3fs" and error.value.expected == "the package s3fs"
    assert not (tmp_path / "run").exists()
    run = toy_run(tmp_path, folder, train={"save_url": f"file://{tmp_path}/store"})
    carry_out(run, stop_after=1)
    edited(run, save_url="simplecache::s3://bucket/run")  # begun where the package was, resumed where it is not
    with pytest.raises(JobError, match="cannot be opened"):
        next(api.train(run, resume=True))


def test_a_package_that_is_not_whole_is_named_as_python_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s3fs.py").write_text("from json import nothing_of_this_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "s3fs", raising=False)
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(JobError, match="nothing_of_this_name") as error:
        require_protocol("s3://bucket/run")
    assert error.value.fix == "install again what the message names"


def test_a_place_that_is_none_is_said_before_anything_trains(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"train\.save_url s4://bucket/run cannot be opened") as error:
        toy_run(tmp_path / "s4", folder, train={"save_url": "s4://bucket/run"})
    assert "s4 is none of fsspec's protocols" in error.value.fix and not (tmp_path / "s4" / "run").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be reached"):
        Mirror(f"file://{tmp_path}/file/run", Run(tmp_path), PLAN).begin(resume=False)
    for url, why in (("runs/here", "names its protocol"), ("s3://key:secret@bucket/run", "would stand in the plan")):
        with pytest.raises(JobError, match=why):
            toy_run(tmp_path / "job", folder, train={"save_url": url})


def test_a_run_goes_on_where_its_machine_is_gone(folder: Path, tmp_path: Path) -> None:
    """Through the command line: the same line begins and goes on, and the end is that of the unbroken run."""
    whole = toy_run(tmp_path / "whole", folder, {"name": "lora", "lora_dropout": 0.1})
    carry_out(whole)
    run = toy_run(
        tmp_path / "a", folder, {"name": "lora", "lora_dropout": 0.1}, train={"save_url": f"file://{tmp_path}/store"}
    )
    carry_out(run, stop_after=3)
    shutil.copy(run.plan_path, tmp_path / "plan.json")
    shutil.rmtree(run.folder)
    done = cli("train", tmp_path / "plan.json", "--out", tmp_path / "b", "--resume", "--json")
    assert done.returncode == 0, done.stderr
    again = Run(tmp_path / "b")
    assert "resumed at step 3" in done.stderr and json.loads(done.stdout)["steps"] == 6
    assert losses(again.events()) == losses(whole.events())
    assert weights(published(again)) == weights(published(whole))


def test_resume_begins_where_nothing_has_begun(folder: Path, tmp_path: Path) -> None:
    job = toy_job(tmp_path, folder, train={"max_steps": 2})
    done = cli("train", job, "--out", tmp_path / "R", "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "finished"
