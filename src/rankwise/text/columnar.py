"""Parquet and Arrow files -> records whose line is their 1-based row. pyarrow is loaded when such a file is read."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankwise.errors import DataError
from rankwise.text.record import Record, shown

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNAR = (".parquet", ".arrow")
_BATCH = 1024  # rows
_ARROW_FILE = b"ARROW1"
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"  # a message of no bytes

Reader = Callable[[Any], Any]


def read_columnar(path: Path) -> Iterator[Record]:
    """The rows of a .parquet or .arrow file (IPC stream or IPC file) as plain dicts.

    A column is a key of every row, null where the row has none. Inside a column, a member of a struct that is null is
    left out: Arrow gives every struct the members of all rows, so that a message without `tool_calls` has null there.
    Only the `content` of a turn stays null. Dates are ISO 8601 text, decimals floats; JSON columns are parsed.

    Raises:
        DataError: damaged, a column name given twice, or a column of what has no place in JSON (binary, images).
    """
    import pyarrow as pa

    row = 0
    readers: dict[str, Reader] = {}
    try:
        for batch in _parquet(path) if path.suffix.lower() == ".parquet" else _arrow(path):
            readers = readers or _readers(path, batch.schema)
            columns = [_values(path, row, batch.column(name), name, read) for name, read in readers.items()]
            for values in zip(*columns, strict=True):
                row += 1
                yield Record(path, row, dict(zip(readers, values, strict=True)))
    except (pa.ArrowException, OSError, ValueError) as fault:  # ValueError: a name that is not UTF-8
        raise _damaged(path, row, str(fault)) from None


def _parquet(path: Path) -> Iterator["pa.RecordBatch"]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(_BATCH, use_threads=False)


def _arrow(path: Path) -> Iterator["pa.RecordBatch"]:
    import pyarrow as pa

    with pa.OSFile(str(path)) as file:
        whole = file.read(len(_ARROW_FILE)) == _ARROW_FILE
        file.seek(0)
        if whole:
            opened = pa.ipc.open_file(file)
            for index in range(opened.num_record_batches):
                yield opened.get_batch(index)
            return
        yield from pa.ipc.open_stream(file)
        file.seek(max(0, file.size() - len(_STREAM_END)))
        if file.read() != _STREAM_END:  # a writer that died leaves whole batches, and rows are missing
            raise pa.ArrowInvalid("the stream has no end mark")


def _damaged(path: Path, row: int, why: str) -> DataError:
    first = shown(why.splitlines()[0] if why else "no reason given", 160).strip("'\"")
    return DataError(
        path,
        None,
        f"the file is damaged or not {path.suffix.lower()[1:]} (after row {row}): {first}",
        expected="a Parquet file" if path.suffix.lower() == ".parquet" else "an Arrow IPC stream or file",
        fix="copy or download it again, or write it again; a writer has to be closed",
    )


def _values(path: Path, before: int, column: "pa.Array", name: str, read: Reader) -> list[Any]:
    """The plain values of one batch's column; `before` rows came before it."""
    try:
        column.validate(full=True)
        return [read(value) for value in column.to_pylist()]
    except (ValueError, OverflowError, RecursionError, ImportError) as fault:
        raise DataError(
            path,
            None,
            f"column {name!r} cannot be read in the rows {before + 1} to {before + len(column)}: {shown(str(fault))}",
            expected="UTF-8 text, JSON that can be parsed, distinct member names",
            fix="write that column again",
        ) from None


def _readers(path: Path, schema: "pa.Schema") -> dict[str, Reader]:
    twice = [name for name in schema.names if schema.names.count(name) > 1]
    if twice:
        what = f"there are several columns named {twice[0]!r}"
        raise DataError(path, None, what, expected="distinct column names", fix="rename or drop one of them")
    return {field.name: _reader(path, field.name, field.type, field.type) for field in schema}


def _reader(path: Path, column: str, whole: "pa.DataType", type_: "pa.DataType") -> Reader:
    """What makes pyarrow's Python values of this type plain ones; `whole` is the type of the whole column."""
    from pyarrow import types

    if _is_plain(type_):
        return _same
    if types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_) or _is_list_view(type_):
        return _list_reader(_reader(path, column, whole, type_.value_type))
    if types.is_struct(type_):
        return _struct_reader({field.name: _reader(path, column, whole, field.type) for field in type_})
    if types.is_dictionary(type_) or types.is_run_end_encoded(type_):
        return _reader(path, column, whole, type_.value_type)
    if types.is_map(type_) and _is_text(type_.key_type):
        return _map_reader(_reader(path, column, whole, type_.item_type))
    if types.is_date(type_) or types.is_time(type_) or types.is_timestamp(type_):
        return _unless_null(lambda value: value.isoformat())
    if types.is_decimal(type_):
        return _unless_null(float)
    if getattr(type_, "extension_name", None) == "arrow.json":
        return _unless_null(json.loads)
    raise _unreadable(path, column, whole, type_)


def _is_plain(type_: "pa.DataType") -> bool:
    from pyarrow import types

    simple = types.is_null(type_) or types.is_boolean(type_) or types.is_integer(type_) or types.is_floating(type_)
    return simple or _is_text(type_)


def _is_text(type_: "pa.DataType") -> bool:
    from pyarrow import types

    return bool(types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_))


def _is_list_view(type_: "pa.DataType") -> bool:
    from pyarrow import types

    return bool(types.is_list_view(type_) or types.is_large_list_view(type_))


def _unreadable(path: Path, column: str, whole: "pa.DataType", type_: "pa.DataType") -> DataError:
    inside = "" if type_ == whole else f", in {shown(str(whole), 200)}"
    fix = f"write the file without it, e.g. table.drop_columns([{column!r}]) in pyarrow"
    if "binary" in str(type_):
        fix += ", or cast it to string if it is text; images and audio cannot be trained on here"
    return DataError(
        path,
        None,
        f"column {column!r} holds {type_}{inside}",
        expected="text, numbers, true or false, and lists, structs or maps of them",
        fix=fix,
    )


def _same(value: Any) -> Any:
    return value


def _unless_null(read: Reader) -> Reader:
    return lambda value: None if value is None else read(value)


def _list_reader(read: Reader) -> Reader:
    return _unless_null(lambda values: [read(value) for value in values])


def _map_reader(read: Reader) -> Reader:
    return _unless_null(lambda pairs: {key: read(value) for key, value in pairs})


def _struct_reader(readers: dict[str, Reader]) -> Reader:
    def members(struct: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in struct.items() if value is not None or _says_nothing(name, struct)}
        return {name: readers[name](value) for name, value in kept.items()}

    return _unless_null(members)


def _says_nothing(name: str, struct: dict[str, Any]) -> bool:
    """Is this the `content` of a turn? A turn that only calls tools has null there in JSON, too."""
    return name == "content" and struct.get("role") is not None
