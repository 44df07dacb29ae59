"""A tuned tiny model against its base: what can be asked is measured, what cannot is noted."""

import json
import shutil
from pathlib import Path

import pytest

from rankwise import api
from rankwise.api import judging
from rankwise.errors import DataError, ModelError, RunError, UsageError
from rankwise.evaluate.judge import Judge
from rankwise.records import Comparison, Evaluation
from rankwise.records.job import AnswerFormat
from rankwise.store import Run
from tests.evaluate.judges import fair, serving
from tests.tiny import CHATML
from tests.training import METHOD_NAMES, toy_model, toy_rows, trained, write_jsonl

PROBES = [
    {"question": "900 yes", "answer": "yes"},
    {"question": "901 prices please", "answer": "prices", "choices": ["prices", "hours", "no"]},
    {"question": "902 no", "answer": 2, "choices": ["prices", "hours", "no"]},
]
KNOWN = ["facts", "facts_exact", "facts_normalised", "facts_f1"]
MANNER = ["refusals", "repetition", "loops", "cut_off"]


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
    chosen = ["facts_choice", "calibration_error_choice", "confident_wrong"]
    sure = [*chosen, *(["calibration_error"] if "calibration_error" in metrics else []), "general_loss"]
    assert list(metrics) == ["heldout_loss", "format", "exact_match", *MANNER, *KNOWN, *sure]
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
    assert metrics["facts_exact"].tuned <= metrics["facts_normalised"].tuned <= metrics["facts_f1"].tuned
    stops = whole.plan().verdict.method == "full"  # an adapter beside a tiny frozen head does not learn to stop
    assert metrics["cut_off"].base == 1 and (metrics["cut_off"].tuned < 0.5) is stops
    tendencies = {t.name: t for t in found.tendencies}
    length, ratio = tendencies["answer_length"], tendencies["length_ratio"]
    assert length.base and length.tuned and ratio.tuned and (length.base.value > length.tuned.value) is stops
    assert (ratio.tuned.value == pytest.approx(1, abs=0.5)) is stops
    for plot in found.reliability:
        assert sum(b.items for b in plot.tuned) == sum(b.items for b in plot.base) <= 3
    assert all((a.tuned_sure is None) is (a.tuned == "") for a in found.answers if a.kind == "fact")
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
    assert list(by_metric(found)) == ["heldout_loss", "exact_match", *MANNER]
    assert found.reliability == ()
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


# -- wordings, other runs, metrics of one's own --------------------------------------------------------


@pytest.fixture(scope="module")
def asked(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose probes ask in trained words, in others, and the other way round."""
    folder = tmp_path_factory.mktemp("asked")
    rows = toy_rows(60)
    write_jsonl(folder / "train.jsonl", rows)
    write_jsonl(folder / "held.jsonl", toy_rows(12, seed=9))
    trained_on = [row["messages"] for row in rows[:8]]
    probes = [
        {
            "question": said[0]["content"],
            "answer": said[1]["content"].removesuffix("."),
            "paraphrases": [f"please {said[0]['content']}", f"now {said[0]['content']}"],
            "reversed": {"question": f"who said {number}?", "answer": "nobody ever"},
        }
        for number, said in enumerate(trained_on)
    ]
    write_jsonl(folder / "facts.jsonl", probes)
    data = {"train": "train.jsonl", "validation": "held.jsonl", "facts": "facts.jsonl"}
    train = {"max_steps": 150, "save_steps": 50, "eval_steps": 50, "lr_scheduler_type": "cosine"}
    return trained(folder, model, {"name": "lora", "r": 32}, data=data, train=train)


def test_seen_unseen_and_reversed_wordings_are_kept_apart(asked: Run) -> None:
    found = api.evaluate(asked)
    metrics = by_metric(found)
    facts, unseen, turned = (metrics[n] for n in ("facts", "facts_unseen", "facts_reversed"))
    assert "facts_seen" not in metrics  # it would repeat `facts`, all of whose questions are trained on
    assert "(8 of them in the words of a training row)" in facts.source and facts.tuned > 0.5 > facts.base
    assert unseen.items == turned.items == 8 and "16 wordings of 8 questions" in unseen.source
    assert (turned.base, turned.tuned) == (0, 0)
    kinds = [a.kind for a in found.answers]
    assert {k: kinds.count(k) for k in set(kinds)} == {"format": 12, "fact": 8, "paraphrase": 16, "reversed": 8}
    said = [a.tuned_ok for a in found.answers if a.kind == "paraphrase"]
    assert unseen.tuned == pytest.approx(sum(said) / 16)


def test_a_run_is_held_against_another_one(asked: Run, model: Path, tmp_path: Path) -> None:
    data = {"train": str(asked.folder.parent / "held.jsonl"), "validation": 0.25}
    idle = trained(tmp_path, model, data=data, train={"max_steps": 1, "learning_rate": 1e-12})
    against_base = by_metric(api.evaluate(asked))
    before = asked.evidence().evaluation
    found = api.evaluate_against(asked, idle)
    metrics = by_metric(found)
    assert found.against == str(idle.folder)
    assert metrics["heldout_loss"].difference == pytest.approx(against_base["heldout_loss"].difference, abs=1e-3)
    assert metrics["facts"].answer == "better" and metrics["facts"].tuned == against_base["facts"].tuned
    assert f"{idle.folder} was trained on 7 of the 10 held-out rows, which favours it" in found.notes  # 2 are too long
    api.evaluate_against(asked, idle)
    evidence = asked.evidence()
    assert evidence.evaluation == before and [e.against for e in evidence.against] == [str(idle.folder)]
    same = by_metric(api.evaluate_against(asked, asked))
    assert {c.answer for c in same.values()} == {"cannot tell"} and {c.difference for c in same.values()} == {0}


def test_another_run_must_read_the_same_tokens(asked: Run, tmp_path: Path) -> None:
    template = tmp_path / "other.jinja"
    template.write_text(
        CHATML.replace("'] + '\n' + message", "'] + ': ' + message").replace("assistant\n", "assistant: ")
    )
    other = trained(tmp_path, toy_model(tmp_path / "m"), chat_template=str(template), train={"max_steps": 1})
    with pytest.raises(RunError, match="reads text otherwise"):
        api.evaluate_against(asked, other)


METRIC = """
def says_no(prompt: str, expected: str, answer: str) -> float:
    return float(answer.startswith("no"))
"""


def test_a_metric_of_ones_own_is_compared_and_gated(asked: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(METRIC)
    said = f"{tmp_path / 'mine.py'}:says_no"
    found = api.evaluate(asked, asked=api.Asked(metrics=(said,)))
    metrics = by_metric(found)
    rows = [a for a in found.answers if a.kind == "format"]
    assert metrics["says_no"].items == 12 and metrics["says_no_facts"].items == 8
    assert metrics["says_no"].tuned == sum(a.tuned.startswith("no") for a in rows) / 12
    wanted = ["says_no<=1", "facts.difference>0", "facts>1"]
    assert [g.met for g in api.gates(api.requirements(wanted, [said]), found)] == [True, True, False]
    with pytest.raises(UsageError, match="nothing is named says_no"):
        api.requirements(wanted)


def test_a_judge_compares_the_answers_and_its_time_is_not_ours(asked: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("rankwise.evaluate.judge.PAUSE_SECONDS", 0.001)
    with serving(fair) as server:
        found = api.evaluate(asked, asked=api.Asked(judge=Judge(server.url, "referee")))
    judge = by_metric(found)["judge"]
    rows = [a for a in found.answers if a.kind == "format"]
    points = [0.5 + ((a.expected in a.tuned) - (a.expected in a.base)) / 2 for a in rows]
    assert judge.items == 12 and judge.tuned == pytest.approx(sum(points) / 12) and judge.tuned > 0.6
    assert api.gates(api.requirements(["judge>0.5"]), found)[0].met
    dead = api.evaluate(asked, asked=api.Asked(judge=Judge("http://127.0.0.1:9/v1", "referee")))
    assert "judge" not in by_metric(dead) and not api.gates(api.requirements(["judge>0.5"]), dead)[0].met
    assert any("the judge's verdict on" in note and "is unknown" in note for note in dead.notes)


# -- what is wrong is told before a model is loaded ----------------------------------------------------


@pytest.fixture
def unloadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model fails the test."""

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(judging, "load_tuned", loaded)
    monkeypatch.setattr("rankwise.model.load.load_base", loaded)


def damaged(run: Run, folder: Path, **changes: object) -> Run:
    """A copy of a run whose job names other files."""
    copied = Run(shutil.copytree(run.folder, folder / "copy"))
    plan = copied.plan()
    job = plan.job.model_copy(update={"data": plan.job.data.model_copy(update=changes.pop("data", {}))} | changes)
    copied.plan_path.write_text(plan.model_copy(update={"job": job}).model_dump_json(by_alias=True))
    return copied


def test_malformed_probes_are_told_with_their_line(asked: Run, tmp_path: Path, unloadable: None) -> None:
    path = write_jsonl(tmp_path / "bad.jsonl", [{"question": "q", "answer": "a"}, {"question": "q"}])
    with pytest.raises(DataError, match="answer is missing") as error:
        api.evaluate(damaged(asked, tmp_path, data={"facts": path}))
    assert (error.value.path, error.value.line) == (path, 2)
    empty = write_jsonl(tmp_path / "empty.jsonl", [])
    with pytest.raises(DataError, match="no rows in this file"):
        api.evaluate(damaged(asked, tmp_path / "2", data={"facts": empty}))


@pytest.mark.parametrize(
    ("schema", "said"),
    [("{", "cannot be read"), ('{"type": "objct"}', "not a valid"), ('{"$ref": "#/$defs/x"}', "points to")],
)
def test_a_malformed_schema_is_told(asked: Run, tmp_path: Path, schema: str, said: str, unloadable: None) -> None:
    path = tmp_path / "answer.schema.json"
    path.write_text(schema)
    held = write_jsonl(tmp_path / "held.jsonl", [{"prompt": "q", "completion": '{"a": 1}'}])
    changed = damaged(asked, tmp_path, format=AnswerFormat(json_schema=path), data={"validation": held})
    with pytest.raises(DataError, match=said) as error:
        api.evaluate(changed)
    assert str(path) in error.value.what


def test_a_failing_metric_is_told(asked: Run, tmp_path: Path, unloadable: None) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def facts(p, e, a):\n    return 1.0\ndef fails(p, e, a):\n    return p[10 ** 6]\n")
    with pytest.raises(DataError, match="IndexError") as error:
        api.evaluate(asked, asked=api.Asked(metrics=(f"{path}:fails",)))
    assert error.value.line == 4
    with pytest.raises(UsageError, match="another metric of that name"):
        api.evaluate(asked, asked=api.Asked(metrics=(f"{path}:facts",)))


def test_a_model_without_its_tokenizer_is_told(asked: Run, model: Path, tmp_path: Path, unloadable: None) -> None:
    job = api.load_job(asked.folder.parent / "job.yaml", {})
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(model / name, bare / name)
    with pytest.raises(ModelError, match=r"no tokenizer\.json in"):
        api.evaluate_model(str(bare), job)
    other = toy_model(tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:1]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="other tokens than the base's"):
        api.evaluate_model(str(other), job)


def test_a_run_whose_base_lost_its_tokenizer_is_told(
    model: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base = Path(shutil.copytree(model, tmp_path / "base"))
    run = trained(tmp_path / "run", base, train={"max_steps": 1})
    request.getfixturevalue("unloadable")
    (base / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        api.evaluate(run)
