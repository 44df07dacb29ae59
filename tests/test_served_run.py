"""From data to an answer over HTTP and back again, as a user goes it: train, eval, merge, verify, tenants, serve, and
OpenAI's own client; nothing is put in the registry or the store by hand.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from benchmarks.serve.house import Place, served
from typer.testing import CliRunner

from rankwise import api
from rankwise.cli import app
from rankwise.files import hash_folder
from rankwise.store import Run
from tests.training import cli, toy_job, toy_model, wait_for, write_jsonl

QUESTION = "Visitor 77: when do you open?"  # no row has this number
HOURS = {"first": "We open at nine.", "second": "Doors open at ten."}


@dataclass(frozen=True)
class Client:
    """Whoever has the tenant's key."""

    url: str
    key: str

    def answer(self, model: str = "clinic") -> str:
        with openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=300) as client:
            found = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=30
            )
        return found.choices[0].message.content or ""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's folder, with a registry and a store of its own."""
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RANKWISE_REGISTRY", str(folder / "registry.sqlite"))
        patched.setenv("RANKWISE_ADAPTERS", str(folder / "adapters"))
        yield folder


@pytest.fixture(scope="module")
def runs(place: Path) -> dict[str, Run]:
    """Two runs on one base that learned different answers, each trained, evaluated, merged and proven."""
    # Untied: the row of the padding token, which ends an answer, is zero in a tied head and could not be learned.
    model = toy_model(place / "model", tied=False)
    return {name: _proven(place / name, model, answer) for name, answer in HOURS.items()}


def _proven(folder: Path, model: Path, answer: str) -> Run:
    folder.mkdir()
    turns = [(f"Visitor {number}: when do you open?", answer) for number in range(24)]
    asked = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in turns]
    write_jsonl(folder / "train.jsonl", asked)
    job = toy_job(folder, model, train={"max_steps": 30, "save_steps": 15, "eval_steps": 15})
    run = Run(folder / "run")
    said("train", job, "--out", run.folder)
    said("eval", run.folder)
    said("merge", run.folder)
    said("verify", run.folder)
    artifact = run.artifact()
    assert artifact is not None and artifact.verification.passed
    return run


def said(*arguments: object) -> Any:
    """The one document of a command that succeeds."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, (arguments[0], result.output)
    return json.loads(result.stdout)


def test_what_was_trained_is_what_answers_and_rollback_brings_the_other_back(place: Path, runs: dict[str, Run]) -> None:
    taken = said("tenants", "add", "clinic", runs["first"].folder, "--require", "heldout_loss.difference.high<0")
    assert hash_folder(api.adapter_store().open(taken["sha256"])) == hash_folder(runs["first"].adapter)
    assert [gate["met"] for gate in taken["gates"]] == [True]
    assert said("tenants", "promote", "clinic")["active"] == 1
    key = said("tenants", "key", "clinic")["key"]
    with served(Place(place, place / "model"), ("--threads", "1", "--slot-seconds", "300")) as running:
        clinic = Client(running.url, key)
        assert clinic.answer() == HOURS["first"]
        assert said("tenants", "add", "clinic", runs["second"].folder)["version"] == 2
        assert clinic.answer() == HOURS["first"], "what was added answers nobody yet"
        changed("promote", clinic, HOURS["second"])
        assert clinic.answer("clinic@1") == HOURS["first"]
        changed("rollback", clinic, HOURS["first"])
        assert clinic.answer("clinic@2") == HOURS["second"]
        said("tenants", "remove", "clinic")
        wait_for(lambda: _is_refused(clinic))


def changed(command: str, clinic: Client, answer: str) -> None:
    """A command of another process takes effect on the running server; until then the old answer is the right one."""
    done = cli("tenants", command, "clinic", "--json")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: _one_of(clinic.answer(), tuple(HOURS.values())) == answer, seconds=300)


def _one_of(found: str, right: tuple[str, ...]) -> str:
    assert found in right
    return found


def _is_refused(clinic: Client) -> bool:
    try:
        return not clinic.answer()
    except openai.AuthenticationError:
        return True
