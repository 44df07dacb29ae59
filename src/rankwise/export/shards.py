"""Safetensors in and out without ever holding a file, or even a tensor, in memory.

A file is a length, a JSON header and the tensors' bytes (huggingface.co/docs/safetensors). Reading goes through
`preadv` into a buffer of ours, not through a mapped file, whose pages would count as memory of the process; writing
goes to a file that is allocated as a whole first, so that a full disk shows at once, by a thread of its own: rows are
computed while the rows before them are on their way to the disk.
"""

import errno
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from rankwise.errors import ModelError

TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
WIDTHS = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
# Numbers in one step: 4 MB of fp32, which with its product stays in a core's cache.
STEP = 1 << 20
# Results on their way to the disk.
WAITING = 3
COPIED = 64 << 20  # bytes in one copy_file_range


@dataclass(frozen=True)
class Stored:
    """A tensor of a safetensors file.

    Attributes:
        dtype: as safetensors names it. offset: of its first byte in the file.
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def width(self) -> int:
        """Numbers in a row; a row of a vector is one number."""
        return prod(self.shape[1:])

    @property
    def rows(self) -> int:
        return self.shape[0] if self.shape else 1

    @property
    def bytes(self) -> int:
        return prod(self.shape) * width_of(self.dtype)

    @property
    def is_float(self) -> bool:
        return self.dtype in TORCH_DTYPES


def width_of(dtype: str) -> int:
    """Bytes of one number."""
    return WIDTHS.get(dtype, 1)


def read_header(file: Path) -> tuple[list[Stored], dict[str, str]]:
    """(tensors in the order of their bytes, metadata). Raises ModelError where the header is damaged."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > file.stat().st_size:
                raise ValueError(f"its header would be {length:,} bytes")
            content = json.loads(opened.read(length))
        metadata = content.pop("__metadata__", None) or {}
        found = [
            Stored(name, file, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
            for name, entry in content.items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file} is damaged: {error}", fix="copy or download it again") from None
    found.sort(key=lambda t: t.offset)
    if found and file.stat().st_size < found[-1].offset + found[-1].bytes:
        raise ModelError(f"{file} is cut off: {found[-1].name} is not whole", fix="copy or download it again")
    return found, metadata


def step_rows(tensor: Stored) -> int:
    """Rows of a step: about STEP numbers, and a whole number of 64-number blocks wherever the width allows it."""
    rows = max(1, STEP // max(1, tensor.width))
    return rows - rows % 64 if rows >= 64 else rows


class Reader:
    """Rows of stored tensors. Files stay open until it is closed."""

    def __init__(self) -> None:
        self._files: dict[Path, int] = {}

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for handle in self._files.values():
            os.close(handle)
        self._files.clear()

    def handle(self, file: Path) -> int:
        if file not in self._files:
            self._files[file] = os.open(file, os.O_RDONLY)
        return self._files[file]

    def rows(self, tensor: Stored, start: int, stop: int) -> Tensor:
        """Rows as they are stored: a new tensor of shape (stop - start, ...)."""
        shape = (stop - start, *tensor.shape[1:]) if tensor.shape else ()
        found = torch.empty(shape, dtype=TORCH_DTYPES[tensor.dtype])
        into = _bytes(found)
        at = tensor.offset + start * tensor.width * width_of(tensor.dtype)
        handle, done = self.handle(tensor.file), 0
        while done < len(into):
            read = os.preadv(handle, [into[done:]], at + done)
            if read == 0:
                raise ModelError(f"{tensor.file} ends within {tensor.name}", fix="copy or download it again")
            done += read
        return found

    def whole(self, tensor: Stored) -> Tensor:
        return self.rows(tensor, 0, tensor.rows)


class Writer:
    """One file after the other, written behind the caller's back; all is on disk when the context ends."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._waiting: list[Future[None]] = []
        self._file = -1

    def begin(self, path: Path, tensors: Iterable[Stored], metadata: Mapping[str, str]) -> dict[str, int]:
        """A file for these tensors (name, dtype, shape), in this order; returns name -> offset. Raises OSError."""
        header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
        at, starts = 0, {}
        for tensor in tensors:
            header[tensor.name] = {
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "data_offsets": [at, at + tensor.bytes],
            }
            starts[tensor.name] = at
            at += tensor.bytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8, as the format asks
        head = len(text).to_bytes(8, "little") + text
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        if at:
            os.posix_fallocate(self._file, 0, len(head) + at)
        os.pwrite(self._file, head, 0)
        return {name: len(head) + start for name, start in starts.items()}

    def put(self, offset: int, rows: Tensor) -> None:
        """Write `rows`, which the caller does not change any more."""
        self._add(_write, self._file, rows, offset)

    def copy(self, source: int, at: int, offset: int, count: int) -> None:
        """`count` bytes of an open file from `at` on."""
        self._add(_copy, source, at, self._file, offset, count)

    def end(self) -> None:
        """The file is whole: to the disk with it, while the next is computed."""
        self._add(_finish, self._file)
        self._file = -1

    def _add(self, work: Any, *arguments: Any) -> None:
        while len(self._waiting) >= WAITING:
            self._waiting.pop(0).result()
        self._waiting.append(self._thread.submit(work, *arguments))

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Wait for everything. Raises OSError of what could not be written; after another error nothing is."""
        try:
            if error is None:
                for waiting in self._waiting:
                    waiting.result()
        finally:
            self._thread.shutdown(cancel_futures=True)
            if self._file >= 0:
                os.close(self._file)


def _bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy().data)


def _write(file: int, rows: Tensor, offset: int) -> None:
    left = _bytes(rows)
    while left:
        written = os.pwrite(file, left, offset)
        left, offset = left[written:], offset + written


def _copy(source: int, at: int, target: int, offset: int, count: int) -> None:
    while count:
        try:
            moved = os.copy_file_range(source, target, min(count, COPIED), at, offset)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            moved = os.pwrite(target, os.pread(source, min(count, STEP), at), offset)  # between two file systems
        if moved == 0:
            raise OSError(f"a file of the base ended {count} bytes early")
        at, offset, count = at + moved, offset + moved, count - moved


def _finish(file: int) -> None:
    os.fsync(file)
    os.close(file)
