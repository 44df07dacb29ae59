"""Rows tokenised once and kept in the cache: data larger than memory is trained on, audited and counted from there.

A store is a folder below $RANKWISE_CACHE/tokens, named by a hash of all that its tokens follow from: the bytes of the
source's files and their paths, tokenizer, chat template, and the code of this package. It does not depend on any
length: what `max_length` and `on_long` make of a row is decided when it is looked at, so that plan, check, train and
eval share one. Only an index is held in memory, about 45 bytes a row; tokens are read when a row is asked for.

    ids.bin learned.bin   4 bytes and 1 byte a token: its id; is it labelled
    *.col                 columns of the index
    keys-SEED.col         8 bytes a source row, what decides whether it is held out; a digest at the end
    meta.json             format, files, faults, and the sha256 of all the others: a damaged store is made again
"""

import hashlib
import json
import logging
import os
import shutil
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from rankwise.errors import DataError, ModelError
from rankwise.files import cache_folder, folder_bytes, hash_file, publish_folder, remove_oldest, write_text
from rankwise.records import content_hash
from rankwise.text.formats import Row, stream_rows
from rankwise.text.hashes import cached_hash
from rankwise.text.locked import locked
from rankwise.text.masks import IGNORE, Encoded, LazyRows, encode_rows
from rankwise.text.sources import files_of, hash_source
from rankwise.text.split import split_key
from rankwise.text.template import ChatText

FAULTS_KEPT = 1000  # faulty rows of which the sentence is kept; all are counted
KEPT = 100  # stores; those that nobody has used for longest go
EVERY = 1000  # rows between two words of progress
# Columns: starts (n + 1 offsets in tokens), labelled tokens, line, number of the file, of the source row, of the text.
COLUMNS = {"starts": "q", "supervised": "q", "lines": "q", "files": "i", "rows": "q", "digests": "Q", "unprompted": "b"}
SOURCE = Path(__file__).parent
LOG = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


def quiet(what: str, done: int, total: int) -> None:
    """Says nothing."""


class TokenStore:
    """The encoded rows of one source.

    Attributes:
        format: that the rows are written in.
        count: rows of the source that are trained on, each in one or more texts.
        apart: of these, rows taken apart because the template rewrites earlier turns.
        refused, unstable: rows that are not trained on (the first FAULTS_KEPT of each), and how many there are.
        bytes: on disk.
    """

    def __init__(self, folder: Path, source: Path, meta: dict[str, Any]):
        self.folder, self.source = folder, source
        self.format: str = meta["format"]
        self.count: int = meta["count"]
        self.apart: int = meta["apart"]
        self.paths = [Path(path) for path in meta["paths"]]
        self.refused, self.unstable = (_faults(meta[kind]["first"]) for kind in ("refused", "unstable"))
        self.refused_count, self.unstable_count = (int(meta[kind]["count"]) for kind in ("refused", "unstable"))
        self.bytes = folder_bytes(folder)
        self.columns = {name: _column(folder / f"{name}.col", code) for name, code in COLUMNS.items()}
        self._ids = os.open(folder / "ids.bin", os.O_RDONLY)
        self._learned = os.open(folder / "learned.bin", os.O_RDONLY)

    def __del__(self) -> None:
        for name in ("_ids", "_learned"):
            if (opened := getattr(self, name, None)) is not None:
                os.close(opened)

    def __len__(self) -> int:
        """Texts."""
        return len(self.columns["supervised"])

    def tokens(self, text: int, start: int = 0, stop: int | None = None) -> Encoded:
        """Text number `text`, or the window [start, stop) of it; a later window's first label predicts nothing."""
        first = self.columns["starts"][text]
        end = self.columns["starts"][text + 1] if stop is None else first + stop
        first += start
        ids = array("i", os.pread(self._ids, 4 * (end - first), 4 * first))
        learned = os.pread(self._learned, end - first, first)
        labels = [token if yes else IGNORE for token, yes in zip(ids, learned, strict=True)]
        if start:
            labels[0] = IGNORE
        at = self.columns["lines"][text]
        path = self.paths[self.columns["files"][text]]
        return Encoded(tuple(ids), tuple(labels), at, path, bool(self.columns["unprompted"][text]))

    def keys(self, seed: int) -> "array[int]":
        """For each source row, in order, what decides under `seed` whether it is held out."""
        path = self.folder / f"keys-{seed}.col"
        found = _column(path, "Q") if path.is_file() and path.stat().st_size % 8 == 0 else array("Q")
        if len(found) != self.count + 1 or found.pop() != digest(found.tobytes()):
            found = array("Q", (split_key(row, seed) for row in self.source_rows()))
            _write_keys(path, found)
        return found

    def source_rows(self) -> Iterator[Row]:
        """The rows behind the texts, in order, read from the source again."""
        text, total = 0, len(self)
        lines, files, rows = (self.columns[name] for name in ("lines", "files", "rows"))
        for row in stream_rows(self.source, [])[1]:
            if text < total and row.line == lines[text] and row.path == self.paths[files[text]]:
                yield row
                number = rows[text]
                while text < total and rows[text] == number:
                    text += 1

    def whole(self) -> "TokenRows":
        """All texts."""
        return TokenRows(self, array("q", range(len(self))))

    def require_sound(self) -> None:
        """Raises the fault of the first row that cannot be trained on, where there is one."""
        for fault in (*self.refused, *self.unstable)[:1]:
            raise fault


class TokenRows(LazyRows):
    """Some texts of a store, or windows of them, each read when it is asked for.

    Attributes:
        lengths, supervised: of each, tokens and labelled tokens.
        digests: of each, 8 bytes of a hash of its ids (of the whole text's, where it is cut).
    """

    def __init__(
        self,
        store: TokenStore,
        texts: "array[int]",
        windows: "tuple[array[int], array[int], array[int]] | None" = None,
    ):
        """`windows`: for each text, start, stop and labelled tokens; None: whole."""
        self.store, self.texts = store, texts
        starts, labelled = store.columns["starts"], store.columns["supervised"]
        if windows is None:
            self._starts: array[int] | None = None
            self.lengths = array("q", (starts[t + 1] - starts[t] for t in texts))
            self.supervised = array("q", (labelled[t] for t in texts))
        else:
            self._starts, stops, self.supervised = windows
            self.lengths = array("q", (b - a for a, b in zip(self._starts, stops, strict=True)))

    @property
    def digests(self) -> "array[int]":
        return array("Q", (self.store.columns["digests"][t] for t in self.texts))

    def __len__(self) -> int:
        return len(self.texts)

    def read(self, index: int) -> Encoded:
        text = self.texts[index]
        if self._starts is None:
            return self.store.tokens(text)
        start = self._starts[index]
        return self.store.tokens(text, start, start + self.lengths[index])

    def cut(self, rows: "array[int]", starts: "array[int]", stops: "array[int]", labelled: "array[int]") -> "TokenRows":
        """Windows of these (whole) texts: their numbers here, and where each begins and ends."""
        return TokenRows(self.store, array("q", (self.texts[i] for i in rows)), (starts, stops, labelled))


def tokens_of(source: Path, chat: ChatText, seed: int, progress: Progress = quiet) -> TokenStore:
    """The store of a source, made now unless it is there and sound.

    Args:
        seed: for which the keys of the split are written along.

    Raises:
        DataError: a file cannot be read as rows of one format, or not one row can be trained on.
        ModelError: the model has no chat template, and the rows are conversations.
    """
    source = Path(source)
    paths = [str(path) for path in files_of(source)]
    made_of = [hash_source(source, cached_hash), paths, chat.tokenizer_hash, chat.template_hash, chat.stop_token_ids]
    folder = cache_folder() / "tokens" / content_hash([*made_of, sys.byteorder, _code()])[:32]
    with locked(folder):
        found = _sound(folder)
        if found is None:
            _make(source, chat, seed, folder, progress)
            found = _sound(folder)
            assert found is not None, "just made"
            _forget_old(folder.parent)
        (folder / "meta.json").touch()
        return _opened(folder, source, found)


def _forget_old(stores: Path) -> None:
    """Leave the KEPT that were used last; who has one open goes on reading it."""
    for folder in remove_oldest({meta.parent: meta for meta in stores.glob("*/meta.json")}, KEPT):
        folder.with_name(f".{folder.name}.lock").unlink(missing_ok=True)


def forget_below(folder: Path) -> None:
    """Remove what is kept of files in a folder that is about to go: nobody will ask for it again."""
    for meta in (cache_folder() / "tokens").glob("*/meta.json"):
        try:
            told = json.loads(meta.read_text(encoding="utf-8"))
            files = [*told["paths"], *(fault[0] for kind in ("refused", "unstable") for fault in told[kind]["first"])]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if any(Path(file).is_relative_to(folder) for file in files):
            shutil.rmtree(meta.parent, ignore_errors=True)
            meta.parent.with_name(f".{meta.parent.name}.lock").unlink(missing_ok=True)


@lru_cache(maxsize=8)
def _opened(folder: Path, source: Path, stamp: str) -> TokenStore:
    """`stamp` changes with the files, so that a store that was made again is opened again."""
    return TokenStore(folder, source, json.loads((folder / "meta.json").read_text(encoding="utf-8")))


def _sound(folder: Path) -> str | None:
    """A stamp of the store's files, or None where there is no store or a damaged one."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        stats = {name: (folder / name).stat() for name in meta["sha256"]}
        stamp = content_hash({name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()})
        if _hashes(folder, stamp) == meta["sha256"]:
            return stamp
        LOG.warning("the tokenised rows in %s are damaged, and made again", folder)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        LOG.warning("the tokenised rows in %s cannot be read, and are made again", folder)
    return None


@lru_cache(maxsize=32)
def _hashes(folder: Path, stamp: str) -> dict[str, str]:
    """Read once a process, not at every opening: a second for each gigabyte."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return {name: hash_file(folder / name) for name in meta["sha256"]}


def _make(source: Path, chat: ChatText, seed: int, folder: Path, progress: Progress) -> None:
    with publish_folder(folder) as made:
        writer = _Writer(made)
        rows = done = 0
        unread: list[DataError] = []
        name, given = stream_rows(source, unread)
        for row in given:
            writer.fault("refused", unread)
            done += 1
            try:
                writer.add(row, encode_rows(row, chat), seed)
                rows += 1
            except DataError as fault:
                writer.fault("refused", [fault])
            except ModelError as fault:
                if not chat.has_template:
                    raise
                said = DataError(row.path, row.line, fault.what, expected=fault.expected, fix=fault.fix)
                writer.fault("unstable", [said])
            if done % EVERY == 0:
                progress("rows tokenised", done, done + 1)
        writer.fault("refused", unread)
        writer.close(name, seed)
    progress("rows tokenised", done, done)


class _Writer:
    """Writes one store, row by row."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.ids, self.learned = (folder / "ids.bin").open("wb"), (folder / "learned.bin").open("wb")
        self.columns = {name: array(code) for name, code in COLUMNS.items()}
        self.columns["starts"].append(0)
        self.keys = array("Q")
        self.paths: dict[Path, int] = {}
        self.apart = 0
        self.faults: dict[str, Any] = {kind: {"count": 0, "first": []} for kind in ("refused", "unstable")}

    def add(self, row: Row, texts: Sequence[Encoded], seed: int) -> None:
        columns = self.columns
        for text in texts:
            ids = array("i", text.ids).tobytes()
            self.ids.write(ids)
            self.learned.write(bytes(label != IGNORE for label in text.labels))
            columns["starts"].append(columns["starts"][-1] + len(text.ids))
            columns["supervised"].append(text.supervised)
            columns["lines"].append(row.line)
            columns["files"].append(self.paths.setdefault(row.path, len(self.paths)))
            columns["rows"].append(len(self.keys))
            columns["digests"].append(digest(ids))
            columns["unprompted"].append(text.unprompted)
        self.apart += len(texts) > 1
        self.keys.append(split_key(row, seed))

    def fault(self, kind: str, faults: list[DataError]) -> None:
        """Count them, keep the first ones, and empty the list."""
        kept = self.faults[kind]
        for fault in faults:
            kept["count"] += 1
            if len(kept["first"]) < FAULTS_KEPT:
                where = f"{fault.path}:{fault.line}: "
                said = [str(fault.path), fault.line, fault.what.removeprefix(where), fault.expected, fault.fix]
                kept["first"].append(said)
        faults.clear()

    def close(self, name: str, seed: int) -> None:
        self.ids.close()
        self.learned.close()
        for column, values in self.columns.items():
            _write_column(self.folder / f"{column}.col", values)
        hashed = {path.name: hash_file(path) for path in sorted(self.folder.iterdir())}
        _write_keys(self.folder / f"keys-{seed}.col", self.keys)
        meta = {
            "format": name,
            "count": len(self.keys),
            "apart": self.apart,
            "paths": [str(path) for path in self.paths],
            **self.faults,
            "sha256": hashed,
        }
        write_text(self.folder / "meta.json", json.dumps(meta))


def _faults(stored: list[list[Any]]) -> list[DataError]:
    return [DataError(Path(p), line, what, expected=expected, fix=fix) for p, line, what, expected, fix in stored]


def _column(path: Path, code: str) -> "array[int]":
    values: array[int] = array(code)
    values.frombytes(path.read_bytes())
    return values


def _write_column(path: Path, values: "array[int]") -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(values.tobytes())
    temporary.replace(path)


def _write_keys(path: Path, keys: "array[int]") -> None:
    """With a digest of them at the end: they come later than the hashes of meta.json."""
    _write_column(path, keys + array("Q", [digest(keys.tobytes())]))


def digest(data: bytes) -> int:
    """8 bytes of a hash."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


@cache
def _code() -> str:
    """Of the sources that tokens follow from: another version makes its own."""
    return content_hash([hash_file(path) for path in sorted(SOURCE.glob("*.py"))])
