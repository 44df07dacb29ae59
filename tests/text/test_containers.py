"""Archives and folders read as the files in them; what `tests/text/test_formats.py` says of single files holds."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankwise.errors import DataError
from rankwise.text.containers import read_records
from tests.datafiles import said, write_rows

IN_TMP = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)


def fault(path: Path) -> DataError:
    with pytest.raises(DataError) as raised:
        read_records(path)
    return raised.value


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv"])
def test_an_archive_reads_as_the_file_in_it(tmp_path: Path, ending: str) -> None:
    plain = tmp_path / f"a{ending}"
    if ending == ".csv":
        plain.write_text('prompt,completion\n"a\nb",c\nd,e\n')
    else:
        write_rows(plain, said("a", "b", "c"))
    packed = tmp_path / f"a{ending}.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    expected = [(record.line, record.value) for record in read_records(plain)]
    assert len(expected) > 1
    assert [(record.line, record.value) for record in read_records(packed)] == expected
    assert {record.path for record in read_records(packed)} == {packed}
    capital = packed.rename(tmp_path / f"A{ending.upper()}.GZ")
    assert len(read_records(capital)) == len(expected)


def test_a_fault_inside_an_archive_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n{"text": \n'))
    assert fault(path).line == 2 and "malformed JSON" in fault(path).what
    path.write_bytes(gzip.compress(b'[{"text": "a"}]'[:-1] + b"\n"))
    assert fault(path).fix == "if the file is one JSON array, name it .json"
    path.write_bytes(gzip.compress(b'{"text": "\xe4"}'))
    assert "not UTF-8" in fault(path).what


def test_every_cut_of_an_archive_is_noticed(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl.gz", said(*(f"word {n}" for n in range(50))))
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        error = fault(path)
        assert "archive is damaged" in error.what and "gzip --test" in error.fix, cut
    assert len(whole) > 100
    path.write_bytes(b'{"text": "a"}\n')
    assert "archive is damaged" in fault(path).what


@IN_TMP
@given(at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_changed_byte_of_an_archive_is_refused_or_harmless(tmp_path: Path, at: float, byte: int) -> None:
    path = write_rows(tmp_path / "a.json.gz", said("one", "two"))
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] = byte
    path.write_bytes(content)
    try:
        values = [record.value for record in read_records(path)]
    except DataError as error:
        assert "archive is damaged" in error.what or "no rows" in error.what
    else:
        assert values == said("one", "two")  # gzip's checksum lets nothing else through


def test_an_archive_of_another_kind_and_a_pointer(tmp_path: Path) -> None:
    for name in ("a.parquet.gz", "a.txt.gz", "a.gz"):
        (tmp_path / name).write_bytes(b"")
        error = fault(tmp_path / name)
        assert "are not read here" in error.what and "gunzip" in error.fix and ".jsonl.gz" in error.expected
    (tmp_path / "a.jsonl").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    assert "pointer of Git LFS" in fault(tmp_path / "a.jsonl").what


@pytest.mark.parametrize("kind", [".parquet", ".jsonl", ".arrow", ".json.gz"])
def test_a_folders_records_keep_their_file_and_line(tmp_path: Path, kind: str) -> None:
    second = write_rows(tmp_path / f"train-00001-of-00002{kind}", said("c"))
    first = write_rows(tmp_path / f"train-00000-of-00002{kind}", said("a", "b"))
    found = [(record.path, record.line, record.value) for record in read_records(tmp_path)]
    a, b, c = said("a", "b", "c")
    assert found == [(first, 1, a), (first, 2, b), (second, 1, c)]


def test_a_fault_in_a_folder_names_the_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", said("a"))
    (tmp_path / "b.jsonl").write_text(json.dumps(said("b")[0]) + "\nnot json\n")
    error = fault(tmp_path)
    assert (error.path, error.line) == (tmp_path / "b.jsonl", 2)
    (tmp_path / "b.jsonl").write_text("")
    assert fault(tmp_path).path == tmp_path / "b.jsonl" and "no rows" in fault(tmp_path).what
