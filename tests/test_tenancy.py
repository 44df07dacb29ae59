"""From a proven run to a tenant that is served: through the real command line, on a run that was really trained."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rankwise import api
from rankwise.cli import app
from rankwise.files import hash_folder, write_record
from rankwise.serve.registry import Registry
from rankwise.store import Run
from tests.serve.databases import added
from tests.training import cli, toy_model, trained


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A LoRA that was trained, evaluated and proven."""
    folder = tmp_path_factory.mktemp("proven")
    run = trained(folder, toy_model(folder / "model"))
    api.evaluate(run)
    outcome, artifact = api.verify(run)
    assert artifact is not None, outcome
    return run


@pytest.fixture
def run(proven: Run, tmp_path: Path) -> Run:
    """A copy that a test may spoil."""
    return Run(Path(shutil.copytree(proven.folder, tmp_path / "run")))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANKWISE_REGISTRY", str(tmp_path / "registry.sqlite"))
    monkeypatch.setenv("RANKWISE_ADAPTERS", str(tmp_path / "adapters"))
    return tmp_path


def tenants(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["tenants", *map(str, arguments)], input=stdin)


def said(*arguments: object) -> Any:
    """The one document of a call that succeeds."""
    result = tenants(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(code: int, *arguments: object) -> str:
    """What a call says that is refused with this exit code, with and without --json."""
    plain, document = tenants(*arguments), tenants(*arguments, "--json")
    assert (plain.exit_code, document.exit_code) == (code, code), plain.output
    assert plain.stdout == ""
    return str(json.loads(document.stdout)["error"]["what"])


def test_the_whole_road_of_a_tenant(run: Run, here: Path) -> None:
    first = said("add", "clinic", run.folder)
    assert (first["tenant"], first["version"], first["method"], first["rank"]) == ("clinic", 1, "lora", 16)
    assert first["base_hash"] == run.plan().base_hash
    assert first["artifact_hash"] == run.artifact().content_hash()  # type: ignore[union-attr]
    assert [g["name"] for g in first["gates"]] == ["proof", "evaluation"] and all(g["met"] for g in first["gates"])
    kept = api.adapter_store().open(first["sha256"])
    assert hash_folder(kept) == hash_folder(run.adapter)

    assert said("list")[0]["active"] is None
    assert said("promote", "clinic")["active"] == 1
    assert said("show", "clinic")["rolls_back_to"] is None
    said("add", "clinic", run.folder)
    assert said("promote", "clinic")["active"] == 2
    assert said("promote", "clinic", "--version", 1)["active"] == 1
    assert said("show", "clinic")["rolls_back_to"] == 2
    assert said("rollback", "clinic")["active"] == 2
    assert said("rollback", "clinic")["active"] == 1
    assert "answered before version 1" in refused(3, "rollback", "clinic")
    shown = said("show", "clinic")
    assert len(shown["history"]) == 7 and shown["tokens_today"] == 0 and shown["requirements"] == []
    assert said("remove", "clinic") == {"name": "clinic", "removed": True}
    assert "was removed" in refused(1, "promote", "clinic")
    assert said("list") == []


def test_a_run_without_a_proof_is_not_taken_in(run: Run) -> None:
    artifact = run.artifact()
    assert artifact is not None
    broken = artifact.verification.model_copy(update={"passed": False})
    write_record(run.artifact_path, artifact.model_copy(update={"verification": broken}))
    assert "proof" in refused(3, "add", "clinic", run.folder)
    run.artifact_path.unlink()
    assert "no artifact.json" in refused(3, "add", "clinic", run.folder)
    assert said("list") == []


@pytest.mark.parametrize("way", ["changed", "one more", "one less"])
def test_files_that_are_not_those_of_the_proof_are_not_taken_in(run: Run, way: str, here: Path) -> None:
    if way == "changed":
        weights = run.adapter / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    elif way == "one more":
        (run.adapter / "tokenizer.model").write_text("x")
    else:
        (run.adapter / "README.md").unlink()
    assert "not those that were proven" in refused(3, "add", "clinic", run.folder)
    assert not (here / "adapters").exists() and said("list") == []


def test_a_copy_of_all_weights_is_no_tenants_adapter(run: Run) -> None:
    artifact = run.artifact()
    assert artifact is not None
    whole = artifact.model_copy(update={"adapter": None, "model": "model", "kind": "model", "method": "full"})
    write_record(run.artifact_path, whole)
    assert "no adapter" in refused(3, "add", "clinic", run.folder)


def test_a_missed_requirement_is_kept_and_stands_in_the_way(run: Run) -> None:
    loss = next(c for c in run.evidence().evaluation.comparisons if c.metric == "heldout_loss").tuned  # type: ignore[union-attr]
    reached, missed = f"heldout_loss<={loss + 1}", f"heldout_loss<={loss / 2}"
    said("add", "clinic", run.folder, "--require", reached)
    said("promote", "clinic")
    second = said("add", "clinic", run.folder, "--require", reached, "--require", missed)
    assert [g["met"] for g in second["gates"]] == [True, False]
    assert f"heldout_loss is {loss:g} (nats per token), required is {missed}" in refused(3, "promote", "clinic")
    assert said("show", "clinic")["active"] == 1
    third = said("add", "clinic", run.folder)  # the same is required of what comes after
    assert [g["requirement"] for g in third["gates"]] == [reached, missed]
    assert said("show", "clinic")["requirements"] == [reached, missed]
    assert refused(2, "add", "clinic", run.folder, "--require", "loss<1").startswith("--require")


def test_without_an_evaluation_neither_gate_is_passed(run: Run) -> None:
    write_record(run.evidence_path, run.evidence().model_copy(update={"evaluation": None}))
    said("add", "clinic", run.folder)
    assert "evaluation is 0 (evaluations of the run), required is evaluation>=1" in refused(3, "promote", "clinic")
    said("add", "shop", run.folder, "--require", "facts>=0.6")
    assert "facts is not measured" in refused(3, "promote", "shop")


@pytest.mark.parametrize(("level", "passes"), [("green", True), ("amber", True), ("red", False)])
def test_forgetting_that_ended_red_stands_in_the_way(run: Run, level: str, passes: bool) -> None:
    ended = {"level": level, "step": 6, "worst": "red", "worst_step": 2, "slices": (), "thresholds": (), "frontier": ()}
    content = json.loads(run.evidence_path.read_text())
    content["forgetting"] = {**ended, "looks": 3, "seconds": 1.0}
    run.evidence_path.write_text(json.dumps(content))
    said("add", "clinic", run.folder)
    if passes:
        assert said("promote", "clinic")["active"] == 1
    else:
        assert "forgetting is 2 (level: 0 green, 1 amber, 2 red), required is forgetting<2" in refused(
            3, "promote", "clinic"
        )


def test_another_base_is_told(run: Run) -> None:
    added(Registry(), "shop")
    result = tenants("add", "clinic", run.folder)
    assert result.exit_code == 0 and "another base than shop" in result.stderr


def test_keys_are_shown_once_and_end_one_by_one_or_together(run: Run) -> None:
    said("add", "clinic", run.folder)
    first, second = said("key", "clinic")["key"], tenants("key", "clinic").stdout.strip()
    assert Registry().tenant_of_key(second) == "clinic"
    assert first not in json.dumps(said("show", "clinic"))
    ended = tenants("key", "clinic", "--revoke-one", "--json", stdin=first + "\n")
    assert json.loads(ended.stdout)["revoked"] == 1
    assert (Registry().tenant_of_key(first), Registry().tenant_of_key(second)) == (None, "clinic")
    again = tenants("key", "clinic", "--revoke-one", stdin=first + "\n")
    assert again.exit_code == 2 and first not in again.output
    assert said("key", "clinic", "--revoke") == {"name": "clinic", "revoked": 1}
    assert tenants("key", "clinic", "--revoke", "--revoke-one").exit_code == 2


def test_limits_change_one_by_one(run: Run) -> None:
    said("add", "clinic", run.folder)
    said("limits", "clinic", "--requests-per-minute", 60, "--tokens-per-day", 1000)
    now = said("limits", "clinic", "--tokens-per-day", 0, "--concurrent-requests", 2)
    assert now == {"name": "clinic", "requests_per_minute": 60, "tokens_per_day": None, "concurrent_requests": 2}
    assert "60 requests per minute" in tenants("show", "clinic").stdout


def test_names_limits_and_passwords_that_cannot_be_are_refused(run: Run) -> None:
    assert "cannot be the name" in refused(1, "add", "../clinic", run.folder)
    assert "larger than" not in tenants("add", "clinic", run.folder, "--max-mb", 1).output
    assert "rank" in refused(1, "add", "clinic", run.folder, "--max-rank", 2)
    told = refused(2, "list", "--registry", "postgresql://rankwise:sesame@localhost/x")
    assert "password" in told and "sesame" not in told
    assert "no tenant" in refused(1, "show", "nobody")


def test_options_name_another_registry_and_another_store(run: Run, here: Path) -> None:
    elsewhere = here / "elsewhere"
    said("add", "clinic", run.folder, "--registry", elsewhere / "r.sqlite", "--adapters", elsewhere / "files")
    for command in (("list",), ("show", "clinic"), ("promote", "clinic"), ("limits", "clinic"), ("key", "clinic")):
        assert said(*command, "--registry", elsewhere / "r.sqlite")
    assert "answered before" in refused(3, "rollback", "clinic", "--registry", elsewhere / "r.sqlite")
    assert said("remove", "clinic", "--registry", elsewhere / "r.sqlite")
    assert said("list") == [] and len(list((elsewhere / "files").glob("[0-9a-f]*"))) == 1


def test_a_person_reads_what_happened(run: Run) -> None:
    assert "No tenants yet" in tenants("list").stdout
    assert "clinic@1 is taken in" in tenants("add", "clinic", run.folder).stdout
    assert "version 1 answers" in tenants("promote", "clinic").stdout
    assert "passed" in tenants("list").stdout
    shown = tenants("show", "clinic").stdout
    assert "promoted version 1" in shown and "clinic@1: lora, rank 16" in shown and "met:" in shown
    assert "is removed" in tenants("remove", "clinic").stdout


@pytest.mark.parametrize("name", ["add", "list", "show", "promote", "rollback", "remove", "key", "limits"])
def test_every_command_has_json_help_and_an_example(name: str) -> None:
    text = tenants(name, "--help").stdout
    assert all(word in text for word in ("--json", "--debug", "--registry", "rankwise tenants"))


def test_a_running_process_sees_a_promotion_by_another(run: Run) -> None:
    """As a gateway does: it polls the revision."""
    said("add", "clinic", run.folder)
    gateway = Registry()
    before = gateway.revision()
    other = cli("tenants", "promote", "clinic", "--json", cwd=Path.cwd())
    assert isinstance(other, subprocess.CompletedProcess) and other.returncode == 0, other.stderr
    assert gateway.revision() == before + 1 and gateway.tenant("clinic").active == 1
