"""The same rows in every kind of file that is read, and a hub cache as huggingface_hub lays it out."""

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def write_table(path: Path, table: pa.Table, *, stream: bool = True) -> Path:
    """A .parquet file, or an .arrow one as the datasets library writes it (a stream) or as an IPC file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return path
    with pa.OSFile(str(path), "wb") as file:
        writer = pa.ipc.new_stream(file, table.schema) if stream else pa.ipc.new_file(file, table.schema)
        with writer:
            writer.write_table(table, max_chunksize=2)
    return path


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], *, stream: bool = True) -> Path:
    """Rows as a file of the kind that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".parquet", ".arrow"):
        return write_table(path, pa.Table.from_pylist(list(rows)), stream=stream)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    array = ".json" in path.suffixes
    text = ("[" + ",\n".join(lines) + "]") if array else "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def said(*words: str) -> list[dict[str, str]]:
    return [{"prompt": f"say {word}", "completion": word} for word in words]


def cache_dataset(hub: Path, name: str, files: Mapping[str, bytes | Sequence[Mapping[str, Any]]]) -> Path:
    """A dataset in a hub cache as a download leaves it: refs, blobs by their hash, links to them in a snapshot.

    Args:
        hub: the folder `hub` of HF_HOME.
        files: bytes, or rows, by the path in the repository.
    """
    folder = hub / f"datasets--{name.replace('/', '--')}"
    commit = hashlib.sha1(name.encode()).hexdigest()
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "blobs").mkdir()
    snapshot = folder / "snapshots" / commit
    for path, content in files.items():
        link = snapshot / path
        link.parent.mkdir(parents=True, exist_ok=True)
        written = link.write_bytes(content) and link if isinstance(content, bytes) else write_rows(link, content)
        blob = folder / "blobs" / hashlib.sha256(written.read_bytes()).hexdigest()
        written.replace(blob)
        link.symlink_to(blob)
    return snapshot
