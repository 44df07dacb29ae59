"""Rows are tokenised once, the same ones come back, a damaged cache is made again, memory does not follow the data."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rankwise.errors import DataError, ModelError
from rankwise.text import tokens
from rankwise.text.dataset import load_dataset, sides
from rankwise.text.fitting import OnLong, fit_length
from rankwise.text.formats import read_rows
from rankwise.text.masks import encode_rows
from rankwise.text.split import hold_out
from rankwise.text.template import ChatText
from rankwise.text.tokens import tokens_of
from tests.training import SRC

from .conftest import ModelFolder
from .published import PUBLISHED


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def chat(model_folder: ModelFolder) -> ChatText:
    return ChatText.from_folder(model_folder())


def write(path: Path, count: int, said: str = "Lima") -> Path:
    rows = [{"prompt": f"Where is {n}? " * (1 + n % 5), "completion": f"{said} {n % 7}"} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def stores(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "tokens").iterdir() if path.is_dir())


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.arrow", "a.jsonl.gz", "a.parquet"])
def test_what_comes_back_is_what_was_encoded(tmp_path: Path, chat: ChatText, name: str) -> None:
    from tests.datafiles import write_rows

    rows = [{"prompt": f"Where is {n}?", "completion": f"Lima {n}"} for n in range(30)]
    source = write_rows(tmp_path / name, rows)
    store = tokens_of(source, chat, 0)
    expected = [one for row in read_rows(source).rows for one in encode_rows(row, chat)]
    assert list(store.whole()) == expected
    assert list(store.whole().lengths) == [len(one.ids) for one in expected]
    assert list(store.whole().supervised) == [one.supervised for one in expected]
    assert list(store.source_rows()) == read_rows(source).rows and store.format == "prompt/completion"


def test_it_is_done_once_for_all_who_ask(tmp_path: Path, chat: ChatText, cache: Path) -> None:
    source, told = write(tmp_path / "a.jsonl", 2500), list[Any]()
    tokens_of(source, chat, 0, lambda *step: told.append(step))
    assert told == [("rows tokenised", 1000, 1001), ("rows tokenised", 2000, 2001), ("rows tokenised", 2500, 2500)]
    told.clear()
    assert tokens_of(source, chat, 0, lambda *step: told.append(step)).bytes > 2500 * 50
    assert told == [] and len(stores(cache)) == 1


def test_other_rows_templates_and_tokenizers_have_their_own(
    tmp_path: Path, model_folder: ModelFolder, chat: ChatText, cache: Path
) -> None:
    first = list(tokens_of(write(tmp_path / "a.jsonl", 5), chat, 0).whole())
    assert list(tokens_of(write(tmp_path / "a.jsonl", 5, "Rome"), chat, 0).whole()) != first
    assert list(tokens_of(write(tmp_path / "a.jsonl", 5), chat, 0).whole()) == first
    other = ChatText.from_folder(model_folder("llama3"))
    assert list(tokens_of(tmp_path / "a.jsonl", other, 0).whole()) != first
    assert len(stores(cache)) == 3


@pytest.mark.parametrize("harm", ["byte", "cut", "gone", "meta", "empty meta", "column"])
def test_a_damaged_cache_is_made_again(
    tmp_path: Path, chat: ChatText, cache: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = write(tmp_path / "a.jsonl", 40)
    sound = list(tokens_of(source, chat, 0).whole())
    (folder,) = stores(cache)
    ids, meta = folder / "ids.bin", folder / "meta.json"
    if harm == "byte":
        content = bytearray(ids.read_bytes())
        content[100] ^= 1
        ids.write_bytes(content)
    elif harm == "cut":
        ids.write_bytes(ids.read_bytes()[:-4])
    elif harm == "gone":
        ids.unlink()
    elif harm == "meta":
        meta.write_text(meta.read_text()[:-9])
    elif harm == "empty meta":
        meta.write_text("{}")
    else:
        (folder / "starts.col").write_bytes((folder / "starts.col").read_bytes()[8:] + bytes(8))
    assert list(tokens_of(source, chat, 0).whole()) == sound
    assert harm == "gone" or "again" in caplog.text


def test_damaged_keys_do_not_change_the_split(tmp_path: Path, chat: ChatText, cache: Path) -> None:
    source = write(tmp_path / "a.jsonl", 40)
    expected = [row.line for row in sides(tokens_of(source, chat, 3), 0.2, 3)[1]]
    keys = stores(cache)[0] / "keys-3.col"
    whole = keys.read_bytes()
    for damaged in (whole[:-8], b"\0" * len(whole), b"x"):
        keys.write_bytes(damaged)
        assert [row.line for row in sides(tokens_of(source, chat, 3), 0.2, 3)[1]] == expected
        assert keys.read_bytes() == whole


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.99])
def test_the_rows_held_out_are_those_of_the_rows_themselves(
    tmp_path: Path, chat: ChatText, seed: int, share: float
) -> None:
    source = write(tmp_path / "a.jsonl", 60)
    source.write_text(source.read_text() * 2)  # copies stay on one side
    train, held = hold_out(read_rows(source).rows, share, seed)
    store = tokens_of(source, chat, 1)
    found = sides(store, share, seed)
    assert [[row.line for row in side] for side in found] == [[row.line for row in side] for side in (train, held)]


@pytest.mark.parametrize("on_long", ["drop", "truncate", "split"])
@pytest.mark.parametrize("length", [2, 17, 30, 1000])
def test_made_to_fit_as_rows_in_memory_are(tmp_path: Path, chat: ChatText, on_long: OnLong, length: int) -> None:
    texts = tokens_of(write(tmp_path / "a.jsonl", 40), chat, 0).whole()
    try:
        expected, report = fit_length(list(texts), length, on_long)
    except DataError as fault:
        with pytest.raises(DataError, match="no row is left") as raised:
            fit_length(texts, length, on_long)
        assert raised.value.what == fault.what
        return
    found, found_report = fit_length(texts, length, on_long)
    assert list(found) == list(expected) and found_report == report and found[1:3] == list(expected)[1:3]
    assert list(found.supervised) == [row.supervised for row in expected]  # type: ignore[attr-defined]


def test_rows_taken_apart_stay_on_one_side(tmp_path: Path, model_folder: ModelFolder) -> None:
    folder = model_folder(None)
    (folder / "chat_template.jinja").write_text(PUBLISHED["qwen3"])
    text = ChatText.from_folder(folder)
    talks = [[turn for k in range(3) for turn in ask(f"question {n} {k}")] for n in range(10)]
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    store = tokens_of(source, text, 0)
    assert (store.count, len(store), store.apart) == (10, 30, 10)
    train, held = sides(store, 0.3, 0)
    assert (len(train), len(held)) == (21, 9) and not {r.line for r in train} & {r.line for r in held}


def ask(question: str) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "Lima.", "reasoning_content": f"about {question}"},
    ]


def test_faults_are_remembered_with_their_lines(tmp_path: Path, chat: ChatText) -> None:
    source = tmp_path / "a.jsonl"
    sound = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    unlearned = {"messages": [sound["messages"][0], {**sound["messages"][1], "weight": 0}]}
    source.write_text("\n".join(json.dumps(row) for row in (sound, {"messages": []}, sound, unlearned)))
    for _ in range(2):  # as made, and as read from the cache
        store = tokens_of(source, chat, 0)
        assert (store.count, store.refused_count, [f.line for f in store.refused]) == (2, 2, [2, 4])
        with pytest.raises(DataError, match=r"a\.jsonl:2: messages is empty") as raised:
            store.require_sound()
        assert raised.value.expected


def test_a_model_without_template_leaves_no_cache(tmp_path: Path, model_folder: ModelFolder, cache: Path) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        tokens_of(write(tmp_path / "a.jsonl", 3), ChatText.from_folder(model_folder(None)), 0)
    assert stores(cache) == []
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(DataError, match="malformed"):
        tokens_of(tmp_path / "bad.jsonl", ChatText.from_folder(model_folder(None)), 0)
    assert stores(cache) == []


def test_two_at_a_time_make_it_once(tmp_path: Path, model_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    source, made = write(tmp_path / "a.jsonl", 300), list[Path]()
    make = tokens._make
    monkeypatch.setattr(tokens, "_make", lambda *a: (made.append(a[3]), make(*a)))
    folder, found = model_folder(), list[Any]()

    def ask_for_it() -> None:
        found.append(list(tokens_of(source, ChatText.from_folder(folder), 0).whole()))

    threads = [threading.Thread(target=ask_for_it) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and found[0] == found[1] == found[2]


MEASURE = """
import json, resource, sys
from pathlib import Path
from rankwise.records import Job
from rankwise.text.dataset import load_dataset
from rankwise.text.template import ChatText
import numpy

def peak():  # MB of this process alone, without pages of files
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1e3

source, folder = Path(sys.argv[1]), Path(sys.argv[2])
chat = ChatText.from_folder(folder)
chat.encode_document("to be " * 5000)
before = peak()
job = Job.model_validate({"goal": "task", "model": "m", "data": {"train": source, "validation": 0.01}})
data = load_dataset(job, chat, general=None, max_length=4096, on_long="split", seed=0)
seen = sum(len(row.ids) for row in data.train)
print(json.dumps({"grown": peak() - before, "tokens": seen, "rows": len(data.train)}))
"""


@pytest.mark.parametrize(
    ("megabytes", "most"), [(12, 9), pytest.param(250, 40, marks=pytest.mark.prove)], ids=["12 MB", "250 MB"]
)
def test_memory_does_not_follow_the_data(
    tmp_path: Path, model_folder: ModelFolder, cache: Path, megabytes: int, most: int
) -> None:
    """A file of `megabytes` is read, split, made to fit and gone through while the process grows by at most `most`."""
    source = tmp_path / "big.jsonl"
    words = "The capital of Peru is Lima, and it rains. " * 90
    with source.open("w") as file:
        number = 0
        while file.tell() < megabytes * 1e6:
            file.write(json.dumps({"text": f"{number} {words}"}) + "\n")
            number += 1
    environment = {**os.environ, "PYTHONPATH": str(SRC), "RANKWISE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(source), str(model_folder())],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["rows"] > number * 0.95 and found["tokens"] > number * 500
    assert found["grown"] < most


def test_a_dataset_reads_what_a_job_names(tmp_path: Path, chat: ChatText) -> None:
    from rankwise.records import Job

    train, general = write(tmp_path / "t.jsonl", 40), write(tmp_path / "g.jsonl", 21, "Rome")
    job = Job.model_validate({"goal": "task", "model": "m", "data": {"train": train, "validation": 0.25}})
    data = load_dataset(job, chat, general=general, max_length=None, on_long="drop", seed=0)
    assert (len(data.train), len(data.validation), data.general_rows) == (30, 10, 21)
    assert data.replay and data.general and data.longest == max(len(row.ids) for row in data.train)
    assert [row.line for row in data.held_out] == [row.line for row in data.validation]
    assert not {row.ids for row in data.replay} & {row.ids for row in data.general}
