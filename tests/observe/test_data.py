"""Counts over small files, the split, and described data."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from rankwise.errors import DataError
from rankwise.observe.data import histogram, observe_data
from rankwise.records import Job
from rankwise.text.formats import read_rows
from rankwise.text.split import hold_out
from rankwise.text.template import ChatText
from tests.tiny import tiny_tokenizer


@pytest.fixture
def chat(tmp_path: Path) -> ChatText:
    tiny_tokenizer(tmp_path)
    return ChatText.from_folder(tmp_path)


def _rows(path: Path, count: int, prefix: str = "q") -> Path:
    rows = [{"prompt": f"{prefix}{i}", "completion": "x" * (i + 1)} for i in range(count)]
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\n")
    return path


def _job(**data: Any) -> Job:
    return Job.model_validate({"goal": "task", "model": "m", "data": data})


def test_counts(tmp_path: Path, chat: ChatText) -> None:
    train, general = _rows(tmp_path / "t.jsonl", 20), _rows(tmp_path / "g.jsonl", 6, "g")
    probes = tmp_path / "f.jsonl"
    probes.write_text('{"question": "a?", "answer": "b"}\n')
    job = _job(train=train, validation=0.25, general={"path": general}, facts=probes)
    facts = observe_data(job, chat, None, "drop", general=general)
    assert (facts.rows, facts.validation_rows, facts.general_rows, facts.facts) == (15, 5, 6, 1)
    assert facts.tokens == pytest.approx(facts.mean_length * 15) and 0 < facts.supervised_tokens < facts.tokens
    assert sum(n for _, n in facts.length_histogram) == 15 and facts.long_rows == 0
    assert set(facts.files) == {str(train), str(general), str(probes)}
    assert facts.general_supervised_per_row and facts.general_supervised_per_row > 1


def test_folders_are_counted_and_hashed_by_their_files(tmp_path: Path, chat: ChatText) -> None:
    (tmp_path / "shards").mkdir()
    for name in "ab":
        _rows(tmp_path / "shards" / f"{name}.jsonl", 10, name)
    job = _job(train=tmp_path / "shards", validation=0.25)
    facts = observe_data(job, chat, None, "drop")
    assert facts.rows + facts.validation_rows == 20 and facts.source.startswith("read from 2 files")
    assert set(facts.files) == {str(tmp_path / "shards")}
    (tmp_path / "shards" / "b.jsonl").rename(tmp_path / "shards" / "c.jsonl")
    assert observe_data(job, chat, None, "drop").files != facts.files


def test_long_rows_are_counted_and_the_models_limit_holds(tmp_path: Path, chat: ChatText) -> None:
    job = _job(train=_rows(tmp_path / "t.jsonl", 60), validation=_rows(tmp_path / "v.jsonl", 3, "v"))
    free = observe_data(job, chat, None, "drop")
    assert (free.rows, free.validation_rows, free.dropped_rows) == (60, 3, 0)
    capped = observe_data(job, chat, None, "drop", max_positions=free.longest - 3)
    assert capped.dropped_rows == capped.long_rows > 0 and capped.longest == free.longest
    assert capped.rows == 60 - capped.dropped_rows and capped.lost_supervised_tokens > 0
    with pytest.raises(DataError):
        observe_data(job, chat, free.longest - 3, "error")


def test_described_data(chat: ChatText) -> None:
    facts = observe_data(_job(examples=1000, tokens_per_example=300), chat, None, "drop")
    assert (facts.rows, facts.validation_rows, facts.tokens) == (900, 100, 270_000)
    assert facts.files == {} and facts.source.startswith("described, not read")
    assert facts.length_histogram == ((512, 900),)


def test_histogram_has_no_holes() -> None:
    assert histogram([3, 16, 17, 100]) == ((16, 2), (32, 1), (64, 0), (128, 1))


def test_split_depends_on_content_and_seed_alone(tmp_path: Path) -> None:
    rows = read_rows(_rows(tmp_path / "t.jsonl", 40)).rows
    train, held = hold_out(rows, 0.1, 0)
    assert len(held) == 4 and len(train) == 36
    mixed = random.Random(0).sample(rows, len(rows))
    assert {r.line for r in hold_out(mixed, 0.1, 0)[1]} == {r.line for r in held}
    assert {r.line for r in hold_out(rows, 0.1, 1)[1]} != {r.line for r in held}


def test_equal_rows_stay_together_and_neither_side_is_empty(tmp_path: Path) -> None:
    rows = read_rows(_rows(tmp_path / "t.jsonl", 4)).rows
    train, held = hold_out(rows * 3, 0.01, 0)
    assert len(held) == 3 and len({r.line for r in held}) == 1 and len(train) == 9
    assert len(hold_out(rows, 0.99, 0)[0]) == 1
    with pytest.raises(DataError, match="1 are different"):
        hold_out(rows[:1] * 2, 0.5, 0)
