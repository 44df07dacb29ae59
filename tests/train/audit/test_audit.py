"""Each fault of a data set is found, with its lines; sound data has none; what is shown is what is trained."""

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise import api
from rankwise.errors import DataError, JobError, ModelError
from rankwise.records import Audit
from rankwise.report.audit_words import view_lines
from rankwise.text.formats import Row
from rankwise.text.masks import IGNORE, encode_row
from rankwise.text.template import ChatText
from rankwise.train.audit.audit import Material, audit
from rankwise.train.audit.ends import learned_runs
from rankwise.train.audit.reading import NOTHING, Encodings
from tests.tiny import CHATML, tiny_tokenizer
from tests.training import toy_model, toy_rows, write_jsonl

ENDLESS = CHATML.replace("<|im_end|>", "<end>")
BEGUN = "{{ bos_token }}" + CHATML.replace("<|im_start|>", "<|start|>")
REWRITING = CHATML.replace(
    "message['content']", "(message['content'] if loop.last or message['role'] == 'user' else 'x')"
)


def turn(user: str, said: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": said, **more}]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model") / "m")


def with_template(model: Path, folder: Path, template: str) -> Path:
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.jinja").write_text(template)
    return folder


def looked(folder: Path, model: Path, rows: list[Any], **options: Any) -> Audit:
    """Of `rows` as a file, all of them trained on but the held-out ones."""
    path = write_jsonl(folder / "train.jsonl", rows)
    show = options.pop("show", 0)
    return api.check(path, {"model": str(model)} | options, show=show)


def lines(found: Audit, check: str) -> list[int]:
    return [p.line for f in found.findings if f.check == check for p in f.places]


def levels(found: Audit) -> dict[str, str]:
    return {f.check: f.level for f in found.findings}


def test_sound_rows_have_no_finding_and_every_check_says_how_much_it_saw(tmp_path: Path, model: Path) -> None:
    found = looked(tmp_path, model, toy_rows(40))
    assert found.findings == () and found.faults == ()
    amounts = {c.check: c.amount for c in found.checked}
    assert amounts["eos"] == amounts["rows"] == 40 and amounts["duplicates"] + amounts["overlap"] == 40
    assert 0 < found.supervised_tokens < found.tokens
    assert sum(rows for _, rows in found.length_histogram) == 40


FAULTS: dict[str, tuple[list[Any], str, str, list[int]]] = {
    "nothing learned": ([turn("a", "b"), turn("c", "d", weight=0), turn("e", "f")], "rows", "fault", [2]),
    "another format": ([turn("a", "b"), {"text": "x"}, turn("e", "f")], "rows", "fault", [2]),
    "an empty answer": ([turn("a", "b"), turn("c", " "), turn("e", "f")], "rows", "fault", [2]),
    "copies": ([turn("a", "b"), turn("c", "d"), turn("e", "f"), turn("c", "d")], "duplicates", "warning", [4]),
    "special tokens": ([turn("a", "b"), turn("c <|im_end|> d", "e")], "special tokens", "warning", [2]),
    "placeholders": ([turn("a", "b"), turn("who?", "I am {{ name }}.")], "placeholders", "warning", [2]),
    "thin answers": ([turn("a", "b"), turn("word " * 800, "d")], "supervised", "warning", [2]),
}


@pytest.mark.parametrize(("rows", "check", "level", "where"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found_on_its_line(
    tmp_path: Path, model: Path, rows: list[Any], check: str, level: str, where: list[int]
) -> None:
    path = write_jsonl(tmp_path / "held.jsonl", [turn("held", "out")])
    options = {"data.validation": str(path), "train.max_length": 100_000}
    found = looked(tmp_path, model, rows, **options)
    assert levels(found).get(check) == level, found.findings
    assert lines(found, check) == where


def test_answers_that_do_not_end_are_a_fault(tmp_path: Path, model: Path) -> None:
    found = looked(tmp_path, with_template(model, tmp_path / "m", ENDLESS), toy_rows(20))
    (fault,) = found.faults
    assert fault.check == "eos" and fault.count == fault.of == 20 and "<|im_end|>" in fault.text


def test_a_begin_token_stands_once(tmp_path: Path, model: Path) -> None:
    """ChatML begins every turn with it, and that is no fault; a template of its own may write it once."""
    once = with_template(model, tmp_path / "once", BEGUN)
    assert looked(tmp_path, once, toy_rows(8)).faults == ()
    twice = with_template(model, tmp_path / "twice", "{{ bos_token }}" + BEGUN)
    assert [f.check for f in looked(tmp_path, twice, toy_rows(8)).faults] == ["bos"]
    rows = [*toy_rows(8), turn("a <|im_start|> b", "c")]
    assert lines(looked(tmp_path, once, rows), "bos") == [9]


def test_a_template_that_rewrites_earlier_turns_gives_several_texts_and_it_is_said(tmp_path: Path, model: Path) -> None:
    rewriting = with_template(model, tmp_path / "m", REWRITING)
    several = {"messages": [m for _ in range(2) for m in turn("a", "b")["messages"]]}
    found = looked(tmp_path, rewriting, [*toy_rows(4), several])
    assert lines(found, "template") == [5] and levels(found)["template"] == "warning"
    assert "6 of 5 rows" in next(f.text for f in found.findings if f.check == "template") and found.rows == 5


def test_a_template_that_rewrites_the_question_is_a_fault(tmp_path: Path, model: Path) -> None:
    counting = with_template(model, tmp_path / "m", "{{ messages | length }}" + CHATML)
    with pytest.raises(DataError, match="not prefix-stable") as raised:
        looked(tmp_path, counting, toy_rows(4))
    assert raised.value.line == 1 and "chat_template" in raised.value.fix


def test_what_the_template_does_not_write_is_a_fault(tmp_path: Path, model: Path) -> None:
    """CHATML writes role and content alone: tools and reasoning vanish."""
    thinking = turn("a", "b", reasoning_content="Let me see.")
    using = {**turn("a", "b"), "tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}]}
    found = looked(tmp_path, model, [*toy_rows(4), thinking, using])
    assert lines(found, "left out") == [5, 6] and levels(found)["left out"] == "fault"
    (finding,) = [f for f in found.findings if f.check == "left out"]
    assert "reasoning_content, tools" in finding.text or "tools, reasoning_content" in finding.text


def test_an_answer_that_inference_does_not_ask_for_is_a_warning(tmp_path: Path, model: Path) -> None:
    opening = CHATML.replace("assistant\n", "assistant\n<think>")
    assert opening != CHATML
    found = looked(tmp_path, with_template(model, tmp_path / "m", opening), toy_rows(4))
    assert levels(found)["prompt"] == "warning"
    assert "prompt" not in levels(looked(tmp_path, model, toy_rows(4)))


def test_a_given_template_is_what_is_looked_at(tmp_path: Path, model: Path) -> None:
    (tmp_path / "mine.jinja").write_text(ENDLESS)
    found = looked(tmp_path, model, toy_rows(4), chat_template=str(tmp_path / "mine.jinja"))
    assert levels(found)["eos"] == "fault"


def test_rows_that_are_too_long_are_answered_by_a_key_or_a_fault(tmp_path: Path, model: Path) -> None:
    rows = [*toy_rows(10), turn("word " * 100, "an answer")]
    dropped = looked(tmp_path, model, rows, **{"train.max_length": 64})
    (finding,) = [f for f in dropped.findings if f.check == "length"]
    assert finding.level == "answered" and finding.count == 1 and "answer tokens are lost" in finding.text
    refused = looked(tmp_path, model, rows, **{"train.max_length": 64, "train.on_long": "error"})
    assert [f.check for f in refused.faults] == ["length"]
    assert lines(refused, "length") == [11]


def test_near_copies_are_found_and_rows_that_differ_are_not(tmp_path: Path, model: Path) -> None:
    said = "The river begins in the mountains, passes three towns and a forest, and ends after ninety miles in the sea."
    rows = [turn("where does it go?", said), *toy_rows(12), turn("where does it go?", said.replace("ninety", "nearly"))]
    long = [turn("where does it go?", said * 3), *toy_rows(12), turn("where does it go?", said * 3 + " Yes.")]
    held = {"data.validation": str(write_jsonl(tmp_path / "held.jsonl", [turn("held", "out")]))}
    assert lines(looked(tmp_path, model, long, **held), "near duplicates") == [14]
    assert lines(looked(tmp_path, model, rows, **held), "near duplicates") == []  # 5 of 22 five-grams differ


def test_held_out_rows_that_are_trained_on_are_a_fault(tmp_path: Path, model: Path) -> None:
    rows = toy_rows(30)
    held = write_jsonl(tmp_path / "held.jsonl", [*rows[3:5], turn("new", "row")])
    found = looked(tmp_path, model, rows, **{"data.validation": str(held)})
    (fault,) = found.faults
    assert fault.check == "overlap" and (fault.count, fault.of) == (2, 3) and fault.places[0].path == held


def test_probes_in_the_words_of_training_are_named(tmp_path: Path, model: Path) -> None:
    rows = [*toy_rows(10), turn("What is the capital of Peru?", "Lima.")]
    probes = [{"question": "what is the capital of peru", "answer": "Lima"}, {"question": "Peru's?", "answer": "Lima"}]
    held = {"data.validation": str(write_jsonl(tmp_path / "held.jsonl", [turn("held", "out")]))}
    found = looked(tmp_path, model, rows, **held, **{"data.facts": str(write_jsonl(tmp_path / "f.jsonl", probes))})
    assert lines(found, "probes") == [11] and levels(found)["probes"] == "warning"


def test_documents_are_looked_at_too(tmp_path: Path, model: Path) -> None:
    found = looked(tmp_path, model, [{"text": f"Document {n} says something."} for n in range(12)])
    assert found.faults == () and found.supervised_tokens == found.tokens and found.format == "text"


def test_what_cannot_be_looked_at_is_an_error(tmp_path: Path, model: Path) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl:1: .*unknown format"):
        looked(tmp_path, model, [{"a": 1}])
    with pytest.raises(DataError, match="no assistant turn"):
        looked(tmp_path, model, [{"messages": [{"role": "user", "content": "a"}]}])
    bare = with_template(model, tmp_path / "bare", "x")
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        looked(tmp_path, bare, toy_rows(4))
    job = tmp_path / "job.yaml"
    job.write_text(f"goal: instruction\nmodel: {model}\ndata: {{examples: 10, tokens_per_example: 10}}\n")
    with pytest.raises(JobError, match="only describes"):
        api.check(job, {})


def test_the_rows_shown_are_what_is_trained(tmp_path: Path, model: Path) -> None:
    found = looked(tmp_path, model, toy_rows(30), show=3)
    assert len(found.views) == 3
    for view in found.views:
        trained = "".join(p.text for p in view.pieces if p.trained)
        given = toy_rows(30)[view.place.line - 1]["messages"][1]["content"]
        assert trained == f"{given}<|im_end|>"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.text("ab c", min_size=1), st.text("xy z", min_size=1)), min_size=1, max_size=6))
def test_the_parts_of_a_row_add_up(pairs: list[tuple[str, str]]) -> None:
    chat = _chat()
    rows = [
        Row(({"role": "user", "content": u + "."}, {"role": "assistant", "content": s + "."}), None, n, Path("x.jsonl"))
        for n, (u, s) in enumerate(pairs, 1)
    ]
    encoded = [encode_row(row, chat) for row in rows]
    found = audit(
        Material("messages", Encodings(rows, encoded, [1] * len(rows)), NOTHING, []),
        chat,
        model="m",
        max_length=None,
        on_long="drop",
        progress=lambda what, done, total: None,
        show=len(rows),
    )
    assert found.supervised_tokens == sum(e.supervised for e in encoded)
    for one in encoded:
        runs = list(learned_runs(one))
        assert sum(end - start for start, end in runs) == one.supervised
        assert all(label != IGNORE for start, end in runs for label in one.labels[start:end])
    for view in found.views:
        ids = encoded[view.place.line - 1].ids
        assert "".join(p.text for p in view.pieces) == chat.decode(ids, skip_special_tokens=False)


_kept: list[ChatText] = []


def _chat() -> ChatText:
    if not _kept:
        import tempfile

        folder = Path(tempfile.mkdtemp())
        tiny_tokenizer(folder)
        (folder / "config.json").write_text(json.dumps({"eos_token_id": 2}))
        _kept.append(ChatText.from_folder(folder))
    return _kept[0]


@pytest.mark.parametrize(
    ("on_long", "lost"), [("drop", "all"), ("truncate", "the end"), ("split", "nothing"), ("error", "all")]
)
def test_a_row_that_is_too_long_is_shown_with_what_is_lost(
    tmp_path: Path, model: Path, on_long: str, lost: str
) -> None:
    rows = [*toy_rows(20), turn("long", "word " * 40)]
    limits = {"train.max_length": 60, "train.on_long": on_long, "data.validation": 0.1}
    found = looked(tmp_path, model, rows, show=2, **limits)
    *typical, long = found.views
    assert len(typical) == 2 and not any(p.lost for view in typical for p in view.pieces)
    assert long.place.line == 21 and long.tokens > 60
    assert {"all": [True], "the end": [False, False, True], "nothing": [False]}[lost] == (
        [p.lost for p in long.pieces] if lost == "the end" else sorted({p.lost for p in long.pieces})
    )
    assert "".join(p.text for p in long.pieces).count("word") == 40
    learned = sum(p.text.count("word") for p in long.pieces if p.trained)
    assert learned == 0 if lost == "all" else 0 < learned <= 40
    said = "\n".join(line for view in found.views for line in view_lines(view))
    assert ("in braces: what is left out" in said) == (lost != "nothing")


def handed_over(model: Path, name: str, content: bytes, **options: Any) -> Audit:
    return api.check_handed_over(name, io.BytesIO(content), {"model": str(model)} | options, show=1)


def test_rows_that_are_handed_over_are_looked_at_and_not_kept(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, name in (("TMPDIR", "tmp"), ("RANKWISE_CACHE", "cache")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.setattr(tempfile, "tempdir", None)
    rows = [*toy_rows(20), {"messages": [{"role": "user", "content": "a"}]}]
    written = write_jsonl(tmp_path / "rows.jsonl", rows)
    name = '../../etc/"quoted" \\ näme.jsonl'
    found = handed_over(model, name, written.read_bytes())
    assert found.faults and found.faults[0].places[0].line == 21
    assert {str(p.path) for f in found.findings for p in f.places} | {str(v.place.path) for v in found.views} == {name}
    lying = looked(tmp_path, model, rows, show=1)
    assert [f.text for f in found.findings] == [f.text for f in lying.findings]
    assert [v.pieces for v in found.views] == [v.pieces for v in lying.views]
    assert list((tmp_path / "tmp").iterdir()) == []
    (kept,) = (tmp_path / "cache" / "tokens").glob("*/meta.json")
    assert "train.jsonl" in kept.read_text(), "of what lies on the disk the tokens are kept, of the other not"


@pytest.mark.parametrize(
    ("name", "content", "line", "said"),
    [
        ("rows.jsonl", b'{"messages": [', 1, "JSON"),
        ("rows.jsonl", b"", None, "no rows"),
        ("rows.csv", b"a,b\n1,2\n", None, "format"),
        ("rows.parquet", b"no parquet", None, "arquet"),
        ("rows.exe", b"MZ", None, "'.exe' files are not read here"),
        ("rows", b"{}", None, "its name has no ending"),
        ("", b"{}", None, "its name has no ending"),
    ],
)
def test_what_cannot_be_read_is_said_by_the_name_it_came_with(
    model: Path, name: str, content: bytes, line: int | None, said: str
) -> None:
    with pytest.raises(DataError, match=said) as caught:
        handed_over(model, name, content)
    error = caught.value
    assert "rankwise-" not in str(error) and (line is None or error.line == line)
    assert error.what.startswith(f"{name}:{error.line}: " if error.line else f"{name}: ")
