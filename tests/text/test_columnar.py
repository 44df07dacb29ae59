"""Parquet and Arrow read as the jsonl rows they were made of, or are refused in a sentence."""

import datetime
import decimal
import gzip
import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankwise.errors import DataError
from rankwise.text.containers import read_records
from rankwise.text.formats import read_rows
from tests.datafiles import TALK, write_rows, write_table

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
IN_TMP = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


def values(path: Path) -> list[Any]:
    return [record.value for record in read_records(path)]


def fault(path: Path) -> DataError:
    with pytest.raises(DataError) as raised:
        read_records(path)
    return raised.value


def refused(folder: Path, table: pa.Table) -> DataError:
    """The error of a table, which is the same from Parquet and from Arrow where Parquet can hold it."""
    return fault(write_table(folder / "refused.arrow", table))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
CALL = st.fixed_dictionaries({"name": TEXT}, optional={"city": TEXT, "days": st.integers(-5, 5)})
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]), "content": TEXT},
    optional={"weight": st.sampled_from([0, 1]), "tool_calls": st.lists(CALL, min_size=1, max_size=2)},
)
ROW = st.fixed_dictionaries(
    {
        "messages": st.lists(TURN, max_size=3),
        "share": st.floats(allow_nan=False),
        "many": st.integers(-(2**63), 2**63 - 1),
        "good": st.booleans() | st.none(),
        "history": st.none() | st.lists(st.lists(TEXT, max_size=2), max_size=2),
    }
)


@IN_TMP
@given(rows=st.lists(ROW, min_size=1, max_size=5))
def test_the_same_rows_are_the_same_records_in_every_kind(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    expected = [(record.line, record.value) for record in read_records(write_rows(tmp_path / "a.jsonl", rows))]
    assert len(expected) == len(rows)
    written = [write_rows(tmp_path / name, rows) for name in ("a.parquet", "a.arrow", "a.jsonl.gz", "a.json.gz")]
    written.append(write_rows(tmp_path / "file.arrow", rows, stream=False))
    for path in written:
        assert [(record.line, record.value) for record in read_records(path)] == expected, path.name
        assert {record.path for record in read_records(path)} == {path}


def test_the_line_is_the_row_across_batches_and_row_groups(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    table = pa.table({"text": [f"{n}" for n in range(3000)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    for path in (tmp_path / "a.parquet", write_table(tmp_path / "a.arrow", table)):
        records = read_records(path)
        assert len(records) == 3000
        assert all(record.value == {"text": str(record.line - 1)} for record in records)


def test_a_fault_in_a_row_names_the_row(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [{"text": "a"}, {"text": " "}])
    with pytest.raises(DataError, match=r"a\.parquet:2: text is empty"):
        read_rows(tmp_path / "a.parquet")


def test_null_members_are_left_out_but_for_the_content_of_a_turn(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}
    other = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "g", "arguments": {"b": "c"}}}]}
    rows = [{"messages": [TALK[0], call]}, {"messages": [TALK[0], other]}, {"messages": TALK}]
    plain = [row.messages for row in read_rows(write_rows(tmp_path / "a.jsonl", rows)).rows]
    assert [row.messages for row in read_rows(write_rows(tmp_path / "a.parquet", rows)).rows] == plain
    turns = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello", "x": 1}]}
    (row,) = read_rows(write_rows(tmp_path / "b.parquet", [turns])).rows
    assert list(row.messages) == TALK


def test_a_column_that_a_row_lacks_is_null(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": "b", "input": "c"}, {"instruction": "d", "output": "e"}]
    assert values(write_rows(tmp_path / "a.parquet", rows))[1] == {**rows[1], "input": None}
    assert [row.messages[0]["content"] for row in read_rows(tmp_path / "a.parquet").rows] == ["a\nc", "d"]


def test_json_columns_dates_decimals_maps_and_encodings_come_out_plain(tmp_path: Path) -> None:
    parsed = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": [1, null]}', None]))
    moments = [datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), None]
    columns = {
        "json": parsed,
        "map": pa.array([[("k", [1.5])], None], pa.map_(pa.string(), pa.list_(pa.float64()))),
        "category": pa.array(["x", "x"]).dictionary_encode(),
        "half": pa.array([1.5, None], pa.float64()).cast(pa.float16()),
        "decimal": pa.array([decimal.Decimal("1.5"), None]),
        "day": pa.array([datetime.date(2026, 1, 2), None]),
        "moment": pa.array(moments, pa.timestamp("us", "UTC")),
        "nothing": pa.nulls(2),
    }
    expected = {
        "json": {"a": [1, None]},
        "map": {"k": [1.5]},
        "category": "x",
        "half": 1.5,
        "decimal": 1.5,
        "day": "2026-01-02",
        "moment": "2026-01-02T03:04:05+00:00",
        "nothing": None,
    }
    only_arrow = {
        "view": pa.array(["a", None], pa.string_view()),
        "views": pa.array([["a"], None], pa.list_view(pa.string())),
        "runs": pa.RunEndEncodedArray.from_arrays([2], ["r"]),
    }
    first, second = values(write_table(tmp_path / "a.parquet", pa.table(columns)))
    assert first == expected and second == dict.fromkeys(columns, None) | {"category": "x"}
    first, second = values(write_table(tmp_path / "a.arrow", pa.table(columns | only_arrow)))
    assert first == expected | {"view": "a", "views": ["a"], "runs": "r"} and second["view"] is None
    json.dumps(first)


@pytest.mark.parametrize(
    ("column", "said", "fix"),
    [
        (pa.array([b"x"]), "column 'odd' holds binary", "cast it to string if it is text"),
        (pa.array([{"bytes": b"x", "path": "a.png"}]), "binary, in 'struct<bytes: binary", "drop_columns(['odd'])"),
        (pa.array([[b"x"]]), "binary, in 'list<", "images"),
        (pa.array([1], pa.duration("s")), "holds duration[s]", "drop_columns(['odd'])"),
        (pa.array([[(1, "a")]], pa.map_(pa.int64(), pa.string())), "holds map<int64, string", "drop_columns"),
    ],
)
def test_what_has_no_place_in_json_is_refused_by_its_column(
    tmp_path: Path, column: pa.Array, said: str, fix: str
) -> None:
    error = refused(tmp_path, pa.table({"text": ["a"], "odd": column}))
    assert said in error.what and error.line is None
    assert "text, numbers" in error.expected and fix in error.fix


def test_columns_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    assert "several columns named 'a'" in refused(tmp_path, pa.table([["x"], ["y"]], names=["a", "a"])).what
    broken = pa.table({"text": pa.array([b"ok", b"\xff"]).view(pa.string())})
    error = refused(tmp_path, broken)
    assert "column 'text' cannot be read in the rows 1 to 2" in error.what and "UTF8" in error.what
    not_json = pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{"]))
    assert "column 'j' cannot be read" in refused(tmp_path, pa.table({"j": not_json})).what


def test_no_rows_and_no_such_file(tmp_path: Path) -> None:
    empty = pa.table({"text": pa.array([], pa.string())})
    for name in ("a.parquet", "a.arrow"):
        assert "there are no rows" in fault(write_table(tmp_path / name, empty)).what
    error = fault(tmp_path / "b.parquet")
    assert "no such file" in error.what and "a.parquet" in error.fix


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "file.arrow"])
def test_every_cut_is_noticed(tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path / name, [{"text": f"row {n}"} for n in range(20)], stream=name != "file.arrow")
    whole = path.read_bytes()
    cuts = [0, 1, 5, *range(8, len(whole), 17), len(whole) - 8, len(whole) - 1]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        error = fault(path)
        assert "damaged" in error.what and error.expected and error.fix, cut
    assert len(cuts) > 20


def test_another_file_under_that_name_is_refused(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.arrow"):
        path = tmp_path / name
        path.write_text('{"text": "a"}\n' * 5)
        assert f"damaged or not {name[2:]}" in fault(path).what
        path.write_bytes(gzip.compress(b"x" * 100))
        assert f"damaged or not {name[2:]}" in fault(path).what
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
        assert "pointer of Git LFS" in fault(path).what and "git lfs pull" in fault(path).fix


CHANGED = """
import random, sys
from pathlib import Path
from rankwise.errors import DataError
from rankwise.text.containers import read_records
count = refused = 0
for source in map(Path, sys.argv[1:]):
    whole, chance = source.read_bytes(), random.Random(0)
    for _ in range(250):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path = source.with_name("changed" + source.suffix)
        path.write_bytes(content)
        count += 1
        try:
            read_records(path)
        except DataError:
            refused += 1
print(count, refused)
"""


def test_changed_bytes_are_read_or_refused_but_never_crash(tmp_path: Path) -> None:
    rows = [{"messages": TALK, "n": n, "text": "x" * n} for n in range(40)]
    paths = [write_rows(tmp_path / "a.parquet", rows), write_rows(tmp_path / "a.arrow", rows)]
    paths.append(write_rows(tmp_path / "file.arrow", rows, stream=False))
    done = subprocess.run(  # in a process of its own: a crash of pyarrow would end it
        [sys.executable, "-c", CHANGED, *map(str, paths)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    count, wrong = map(int, done.stdout.split())
    assert count == 750 and wrong > 100


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="the datasets library is not installed")
def test_what_the_datasets_library_saves_is_read(tmp_path: Path) -> None:
    code = (
        "import sys, json, datasets; rows = json.loads(sys.argv[2])\n"
        "datasets.Dataset.from_list(rows).save_to_disk(sys.argv[1], num_shards=2)"
    )
    rows = [{"messages": TALK, "n": n} for n in range(5)]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "saved"), json.dumps(rows)],
        env=os.environ | {"HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert values(tmp_path / "saved") == rows
    assert [record.line for record in read_records(tmp_path / "saved")] == [1, 2, 3, 1, 2]


REAL = [
    "train/alpaca_en_demo.json",
    "train/identity.json",
    "medical/medquad_ghr.jsonl",
    "medical/pubmedqa_labeled.jsonl",
]


@pytest.mark.parametrize("name", REAL)
def test_real_data_read_equal_in_every_kind(tmp_path: Path, name: str) -> None:
    source = DATA / name
    if not source.is_file():
        pytest.skip(f"../shared/data/{name} is not here")
    rows = values(source)
    assert len(rows) > 90
    half = random.Random(0).randrange(1, len(rows))
    shards = tmp_path / "shards"
    write_rows(shards / "train-00000-of-00002.parquet", rows[:half])
    write_rows(shards / "train-00001-of-00002.parquet", rows[half:])
    assert values(shards) == rows
    for kind in ("a.parquet", "a.arrow", "a.jsonl.gz"):
        path = write_rows(tmp_path / kind, rows)
        assert values(path) == rows
        assert [record.line for record in read_records(path)] == list(range(1, len(rows) + 1))
