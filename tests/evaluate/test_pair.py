"""A tuned tiny model against its base: what can be asked is measured, what cannot is noted."""

from pathlib import Path

import pytest

from rankwise import api
from rankwise.records import Comparison, Evaluation
from rankwise.store import Run
from tests.training import METHOD_NAMES, toy_model, toy_rows, trained, write_jsonl

PROBES = [
    {"question": "900 yes", "answer": "yes"},
    {"question": "901 prices please", "answer": "prices", "choices": ["prices", "hours", "no"]},
    {"question": "902 no", "answer": 2, "choices": ["prices", "hours", "no"]},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", params=METHOD_NAMES)
def whole(request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that learned its task, with everything given that can be asked."""
    folder = tmp_path_factory.mktemp(f"whole-{request.param}")
    write_jsonl(folder / "facts.jsonl", PROBES)
    write_jsonl(folder / "general.jsonl", toy_rows(12, seed=8))
    data = {"train": "train.jsonl", "validation": 0.2, "facts": "facts.jsonl", "general": {"path": "general.jsonl"}}
    train = {"max_steps": 200, "save_steps": 50, "eval_steps": 50, "lr_scheduler_type": "cosine", "learning_rate": 1e-2}
    method = request.param if request.param == "full" else {"name": request.param, "r": 32}
    return trained(folder, model, method, rows=60, data=data, format={"regex": r"[a-z]+( [a-z]+)?\..*"}, train=train)


def by_metric(found: Evaluation) -> dict[str, Comparison]:
    return {c.metric: c for c in found.comparisons}


def test_everything_that_can_be_asked_is_measured(whole: Run) -> None:
    told: list[tuple[str, int, int]] = []
    found = api.evaluate(whole, lambda *now: told.append(now))
    assert found.notes == ()
    metrics = by_metric(found)
    assert list(metrics) == ["heldout_loss", "format", "exact_match", "facts", "facts_choice", "general_loss"]
    assert metrics["heldout_loss"].answer == "better" and metrics["format"].answer == "better"
    assert metrics["format"].base < 0.3 and metrics["format"].tuned > 0.8
    data = whole.plan().facts.data
    assert metrics["heldout_loss"].items == data.validation_rows == metrics["format"].items == 12
    assert metrics["facts"].items == 3 and metrics["facts_choice"].items == 2 and metrics["general_loss"].items == 6
    assert {a.kind for a in found.answers} == {"format", "fact"} and len(found.answers) == 15
    for metric, kind in (("format", "format"), ("facts", "fact")):
        answers = [a for a in found.answers if a.kind == kind]
        assert sum(a.tuned_ok for a in answers) / len(answers) == metrics[metric].tuned
        assert sum(a.base_ok for a in answers) / len(answers) == metrics[metric].base
    assert told and all(0 < done <= total for _, done, total in told)
    assert whole.evidence().evaluation == found  # and on disk


def test_the_held_out_loss_is_that_of_training(whole: Run) -> None:
    """Same rows, same arithmetic: what training measured at the published step, measured again from the files."""
    found = by_metric(api.evaluate(whole))["heldout_loss"]
    evidence = whole.evidence()
    assert found.base == pytest.approx(evidence.base_validation_loss, rel=0.01)
    assert found.tuned == pytest.approx(evidence.best_validation_loss, rel=0.05, abs=0.02)


def test_twice_the_same_numbers(whole: Run) -> None:
    one, other = (api.evaluate(whole) for _ in range(2))
    assert one.comparisons == other.comparisons and one.answers == other.answers


def test_what_was_not_given_is_noted(model: Path, tmp_path: Path) -> None:
    run = trained(tmp_path, model, train={"max_steps": 2})
    found = api.evaluate(run)
    assert list(by_metric(found)) == ["heldout_loss", "exact_match"]
    said = " / ".join(found.notes)
    for missing in ("format adherence", "what the model knows", "forgetting"):
        assert f"{missing} was not measured" in said


def test_documents_have_no_answers_to_compare(model: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [{"text": f"The clinic opens at {i}."} for i in range(12)])
    run = trained(tmp_path, model, train={"max_steps": 2})
    found = api.evaluate(run)
    assert list(by_metric(found)) == ["heldout_loss"]
    assert any("answers were not compared" in n for n in found.notes)


def test_an_untrained_adapter_cannot_be_told_from_its_base(model: Path, tmp_path: Path) -> None:
    run = trained(tmp_path, model, train={"max_steps": 1, "learning_rate": 1e-12}, format={"regex": ".*"})
    found = api.evaluate(run)
    assert {c.answer for c in found.comparisons} == {"cannot tell"}
    assert all(a.base == a.tuned for a in found.answers)


def test_a_foreign_model_is_judged_on_the_rows_of_a_job(model: Path, tmp_path: Path) -> None:
    run = trained(tmp_path / "a", model, train={"max_steps": 40, "save_steps": 20})
    job = api.load_job(tmp_path / "a" / "job.yaml", {})
    same = by_metric(api.evaluate_model(str(model), job))
    assert same["heldout_loss"].difference == 0 and same["heldout_loss"].answer == "cannot tell"
    merged = by_metric(api.evaluate_model(str(api.merge(run)), job))
    assert merged["heldout_loss"].answer == "better"
