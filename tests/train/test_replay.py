"""The base writes general rows itself: from its seed alone, fit to be learned, and only once."""

import json
from pathlib import Path

import pytest

from rankwise import api
from rankwise.errors import TrainingError
from rankwise.model.load import load_base
from rankwise.records import DataFacts, Job, Note, Plan
from rankwise.text.formats import read_rows
from rankwise.text.general import Replay, general_path, replay_of
from rankwise.text.template import ChatText
from rankwise.train.replay import Written, _judged, generate, write_replay
from tests.tiny import tiny_llama_untied
from tests.training import carry_out, toy_job

FEW = Replay(rows=6, seed=0, question_tokens=64, answer_tokens=96)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_llama_untied(tmp_path_factory.mktemp("base") / "model", dtype="fp32")
    model = load_base(folder, dtype="fp32")
    model.lm_head.weight.data[2] *= 3  # so that random weights stop now and then
    model.save_pretrained(folder)
    return folder


def written(folder: Path, replay: Replay) -> Written:
    model, chat = load_base(folder, dtype="fp32"), ChatText.from_folder(folder)
    return list(generate(model, chat, replay))[-1]


def test_rows_follow_from_the_seed_and_differ_from_each_other(base: Path) -> None:
    first, again, other = written(base, FEW), written(base, FEW), written(base, Replay(6, 1, 64, 96))
    assert len(first.rows) == 6 and first.rows == again.rows and first.rows != other.rows
    assert len({json.dumps(row) for row in first.rows}) == 6
    for row in first.rows:
        question, answer = row["messages"]
        assert (question["role"], answer["role"]) == ("user", "assistant")
        assert question["content"].strip() and answer["content"].strip()
        assert "<|im_" not in question["content"] + answer["content"]


def test_a_base_without_template_writes_documents(base: Path, tmp_path: Path) -> None:
    model, chat = load_base(base, dtype="fp32"), ChatText.from_folder(base)
    bare = ChatText(chat._tokenizer, chat.special_tokens)
    path = tmp_path / "rows.jsonl"
    steps = list(write_replay(path, model, bare, FEW))
    rows = read_rows(path)
    assert rows.format == "text" and len(rows.rows) == 6 and steps[-1].sentence().startswith("6 rows kept of ")
    stamp = path.stat().st_mtime_ns
    assert list(write_replay(path, model, bare, FEW)) == [] and path.stat().st_mtime_ns == stamp


def test_a_base_that_never_stops_is_refused(base: Path, tmp_path: Path) -> None:
    model, chat = load_base(base, dtype="fp32"), ChatText.from_folder(base)
    with pytest.raises(TrainingError, match="0 rows kept of 32 begun") as raised:
        list(write_replay(tmp_path / "rows.jsonl", model, chat, Replay(4, 0, question_tokens=1)))
    assert "data.general.path" in raised.value.fix and not (tmp_path / "rows.jsonl").exists()


def test_what_is_dropped(base: Path) -> None:
    chat = ChatText.from_folder(base)
    stop, stops = chat.eos_token_id, {chat.eos_token_id}

    def judged(text: str, *ids: int) -> str | None:
        return _judged([*chat.encode(text), *ids], chat, stops)[1]

    assert judged("a fine answer", stop) is None
    assert judged("a fine answer") == "unfinished"
    assert judged(" \n", stop) == "empty"
    assert judged("a fine <|im_start|> answer", stop) == "with special tokens"
    assert judged("yes please " * 60, stop) == "in circles"
    assert judged("yes please " * 5, stop) is None  # too short to tell


def test_a_job_trains_on_what_its_base_wrote_and_measures_on_the_rest(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    data = {"train": "train.jsonl", "validation": 0.25, "general": {"self_generated": 6, "share": 0.5}}
    job = toy_job(tmp_path, base, data=data, train={"max_length": 256, "max_steps": 2})
    before = api.plan(job)
    assert (before.facts.data.general_rows, before.facts.data.general_to_write) == (6, 6)
    assert any("6 general rows" in warning for warning in before.warnings)
    told: list[tuple[str, int, int]] = []
    run = api.prepare(job, tmp_path / "run", {}, lambda *step: told.append(step))
    assert ("replay rows written by the base", 6, 6) in told
    plan: Plan = run.plan()
    facts: DataFacts = plan.facts.data
    path = general_path(plan.job, plan.facts.model)
    assert path is not None and path.is_file() and str(path) in facts.files
    assert (facts.general_rows, facts.general_to_write) == (6, 0) and facts.general_supervised_per_row
    path.unlink()  # a machine that has not written them yet
    notes = [event.text for event in carry_out(run) if isinstance(event, Note)]
    assert any(text.startswith("the base writes 6 rows for replay") for text in notes) and path.is_file()
    from rankwise.api.loading import load_inputs

    _, _, inputs = load_inputs(plan)
    trained, measured = {row.ids for row in inputs.replay}, {row.ids for row in inputs.general}
    assert trained and measured and not trained & measured


def test_another_base_or_number_writes_anew(base: Path) -> None:
    plan = Job.model_validate({"goal": "task", "model": "m", "data": {"examples": 1, "general": {"self_generated": 9}}})
    assert replay_of(plan) == Replay(9, 0)
    assert replay_of(plan.model_copy(update={"data": plan.data.model_copy(update={"general": None})})) is None


@pytest.mark.prove
@pytest.mark.embedded
@pytest.mark.timeout(3600)
def test_what_the_base_wrote_cuts_forgetting(tmp_path: Path) -> None:
    """The embedded model, LoRA at a rate high enough to forget: the general loss rises less with a fifth of replay."""
    clinic = Path(__file__).resolve().parents[2] / "examples" / "clinic" / "train.jsonl"
    rises = {}
    for share in (0.0, 0.2):
        data = {"train": str(clinic), "validation": 0.1, "general": {"self_generated": 32, "share": share}}
        train = {"max_steps": 60, "learning_rate": 2e-3, "max_length": 384, "eval_steps": 60, "save_steps": 60}
        job = toy_job(
            tmp_path / str(share), "embedded", {"name": "lora", "r": 8, "lora_alpha": 16}, data=data, train=train
        )
        run = api.prepare(job, tmp_path / str(share) / "run", {})
        carry_out(run)
        (found,) = [c for c in api.evaluate(run).comparisons if c.metric == "general_loss"]
        rises[share] = found.difference
    assert rises[0.0] > 0.02 and rises[0.2] < rises[0.0] / 2
