"""Files into records: a parsed value and the line on which it stands, so that every later fault can be jumped to."""

import csv
import difflib
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from rankwise.errors import DataError
from rankwise.text.columnar import COLUMNAR, read_columnar
from rankwise.text.record import Record, shown
from rankwise.text.sources import ENDINGS, ending_of, files_of

__all__ = ["Record", "read_records", "shown", "stream_records"]

_BOM = b"\xef\xbb\xbf"
_LFS = b"version https://git-lfs.github.com/spec/"
_DECODER = json.JSONDecoder()
_JSON_IN_CSV = ("messages", "conversations", "history")


def read_records(source: Path) -> list[Record]:
    """Every record of a source, in order, all in memory. Raises as `stream_records`."""
    return list(stream_records(source))


def stream_records(source: Path) -> Iterator[Record]:
    """The records of a file, of a folder's files in the order of their names, or of a dataset of the Hub, in order.

    Files end in .jsonl, .json (one array), .csv (each of them also with .gz), .parquet or .arrow. Each is read as its
    records are asked for, except a .json array, which is held whole. Blank lines and a BOM are passed over. In parquet
    and arrow a record's line is its 1-based row.

    Raises:
        DataError: a file is missing, of another kind, not UTF-8, malformed or damaged, or without a record; a folder or
            dataset that `files_of` refuses.
    """
    for file in files_of(source):
        empty = True
        for record in _read_file(file):
            empty = False
            yield record
        if empty:
            raise DataError(file, None, "there are no rows in this file", expected="at least one row")


def _read_file(path: Path) -> Iterator[Record]:
    ending = ending_of(path)
    head = _head_of(path)
    if ending not in ENDINGS:
        raise _unsupported(path, ending)
    if head.startswith(_LFS):
        fix = "fetch the file itself: `git lfs pull`, or download it from the hub"
        raise DataError(path, 1, "this is a pointer of Git LFS, not the data", expected="the rows themselves", fix=fix)
    if ending in COLUMNAR:
        yield from read_columnar(path)
        return
    read = _READERS[ending.removesuffix(".gz")]
    if not ending.endswith(".gz"):
        with path.open("rb") as file:
            yield from read(path, file)
        return
    try:
        with gzip.open(path) as archive:
            try:
                yield from read(path, cast(BinaryIO, archive))
            except DataError:
                while archive.read(1 << 20):  # a damaged archive shows at its end, and explains the fault
                    pass
                raise
    except (EOFError, zlib.error, gzip.BadGzipFile) as fault:
        raise DataError(
            path,
            None,
            f"the gzip archive is damaged: {str(fault).rstrip('.')}",
            expected="what gzip has written, whole",
            fix="copy or download the file again; `gzip --test` tells whether it is whole",
        ) from None


def _unsupported(path: Path, ending: str) -> DataError:
    fix = "rename the file if it is one of these, or convert it to .jsonl (one JSON object a line)"
    if ending.endswith(".gz"):
        fix = "unpack it with gunzip"
    named = f"'{ending}' files are not read here" if ending else "the file name has no ending, so its kind is unknown"
    return DataError(path, None, named, expected="a file that ends in " + ", ".join(ENDINGS), fix=fix)


def _head_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(_LFS))
    except FileNotFoundError:
        raise DataError(path, None, "there is no such file", fix=_nearest(path)) from None
    except (OSError, ValueError) as fault:  # ValueError: a NUL in the name
        reason = getattr(fault, "strerror", None) or fault
        raise DataError(path, None, f"the file cannot be read: {reason}", expected="a readable file") from None


def _lines_of(path: Path, file: BinaryIO) -> Iterator[str]:
    """The lines of a file with their ends, split at line feeds alone: others may stand inside a JSON string."""
    for number, line in enumerate(file, start=1):
        if number == 1:
            line = line.removeprefix(_BOM)
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as fault:
            raise _not_utf8(path, number, line, fault) from None


def _not_utf8(path: Path, number: int, line: bytes, fault: UnicodeDecodeError) -> DataError:
    utf16 = number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff")
    kind = "it looks like UTF-16" if utf16 else f"byte 0x{line[fault.start]:02x}"
    fix = f"save the file as UTF-8, e.g. iconv -f {'UTF-16' if utf16 else 'CP1252'} -t UTF-8 '{path.name}'"
    return DataError(path, number, f"the text is not UTF-8 ({kind})", expected="UTF-8 text", fix=fix)


def _nearest(path: Path) -> str:
    try:
        beside = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"the folder '{path.parent}' cannot be opened either; check the path"
    near = difflib.get_close_matches(path.name, beside, n=1)
    return f"did you mean '{path.parent / near[0]}'?" if near else "check the path"


def _read_jsonl(path: Path, file: BinaryIO) -> Iterator[Record]:
    for number, line in enumerate(_lines_of(path, file), start=1):
        if line.strip():
            yield Record(path, number, _json_alone(path, number, line.removesuffix("\n")))


def _read_array(path: Path, file: BinaryIO) -> Iterator[Record]:
    text = "".join(_lines_of(path, file))
    line, seen, at = 1, 0, _skip_blank(text, 0)
    if at == len(text):
        return
    if text[at] != "[":
        raise DataError(
            path,
            text.count("\n", 0, at) + 1,
            f"the file starts with {shown(text[at])}, so it is not a JSON array",
            expected="one array of rows: [{...}, {...}]",
            fix="name the file .jsonl if each line is a row; otherwise keep the list of rows alone",
        )
    at = _skip_blank(text, at + 1)
    while text[at : at + 1] != "]":
        line, seen = line + text.count("\n", seen, at), at
        value, end = _json_at(path, 1, text, at)
        yield Record(path, line, value)
        at = _skip_blank(text, end)
        if text[at : at + 1] == ",":
            at = _skip_blank(text, at + 1)
        elif text[at : at + 1] != "]":
            raise _malformed(path, 1, text, at, "expected ',' or ']' after a row")
    after = _skip_blank(text, at + 1)
    if after < len(text):
        raise _malformed(path, 1, text, after, "something follows the array")


def _skip_blank(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _json_alone(path: Path, line: int, text: str) -> Any:
    value, end = _json_at(path, line, text, _skip_blank(text, 0))
    if text[end:].strip():
        raise _malformed(path, line, text, _skip_blank(text, end), "something follows the value")
    return value


def _json_at(path: Path, first_line: int, text: str, at: int) -> tuple[Any, int]:
    """The JSON value that starts at character `at`, and where it ends; `first_line` is the line on which `text` starts.

    Raises:
        DataError: malformed, nested too deeply, a number too long, or half of a surrogate pair.
    """
    try:
        value, end = _DECODER.raw_decode(text, at)
        if "\\u" in text[at:end]:  # only an escape can bring in half a pair, which no tokenizer can encode
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as fault:
        raise _malformed(path, first_line, text, fault.pos, fault.msg) from None
    except RecursionError:
        raise _malformed(path, first_line, text, at, "nested too deeply to be a row") from None
    except UnicodeEncodeError:
        raise _malformed(path, first_line, text, at, "half of a surrogate pair (\\ud800-\\udfff)") from None
    except ValueError:
        raise _malformed(path, first_line, text, at, "a number of too many digits") from None
    return value, end


def _malformed(path: Path, first_line: int, text: str, at: int, what: str) -> DataError:
    line = first_line + text.count("\n", 0, at)
    column = at - text.rfind("\n", 0, at)
    fix = ""
    if ending_of(path).startswith(".jsonl") and text.lstrip().startswith("["):
        fix = "if the file is one JSON array, name it .json"
    return DataError(
        path,
        line,
        f"malformed JSON at column {column}: {what}",
        expected="valid JSON",
        fix=fix or "mend the line, or write the file again with a JSON library",
    )


def _read_csv(path: Path, file: BinaryIO) -> Iterator[Record]:
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # documents are longer than csv's 131,072 characters
    try:
        yield from _csv_rows(path, csv.reader(_csv_lines(path, file), strict=True))
    finally:
        csv.field_size_limit(limit)


def _csv_lines(path: Path, file: BinaryIO) -> Iterator[str]:
    """Lines with their ends; old files end them in a carriage return alone."""
    for line in _lines_of(path, file):
        yield from io.StringIO(line, newline="") if "\r" in line else (line,)


def _csv_rows(path: Path, reader: Any) -> Iterator[Record]:
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            if header and cells:
                yield Record(path, line, _csv_record(path, line, header, cells))
            elif cells:
                header = _csv_header(path, line, cells)
            line = reader.line_num + 1
    except csv.Error as fault:
        fix = 'write a quote inside a field twice ("") and close every field that opens with one'
        raise DataError(path, line, f"malformed CSV: {fault}", expected="comma-separated fields", fix=fix) from None


def _csv_header(path: Path, line: int, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if "" in names or len(set(names)) < len(names):
        what = f"the header has an empty or repeated column name: {shown(names)}"
        raise DataError(path, line, what, expected="a first line of distinct column names")
    return names


def _csv_record(path: Path, line: int, header: list[str], cells: list[str]) -> dict[str, Any]:
    if len(cells) != len(header):
        what = f"the row has {len(cells)} fields, the header {len(header)}"
        fix = "put fields that hold a comma or a line break in quotes"
        raise DataError(path, line, what, expected=f"{len(header)} fields a row", fix=fix)
    record: dict[str, Any] = dict(zip(header, cells, strict=True))
    for name in _JSON_IN_CSV:  # a list has no other way into a CSV field
        if record.get(name):
            record[name] = _json_alone(path, line, record[name])
    return record


_READERS: dict[str, Callable[[Path, BinaryIO], Iterator[Record]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_array,
    ".csv": _read_csv,
}
