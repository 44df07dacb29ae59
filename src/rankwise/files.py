"""Files that are whole or absent: atomic writes, records, lines that several processes append, hashes, room on the
disk; and the user's folders for what can be made again and what cannot.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from rankwise.errors import RunError, SpaceError
from rankwise.records import Record

# Protocols whose folders are names alone. s3fs and its like would make the bucket when they are asked for a folder.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})

AnyRecord = TypeVar("AnyRecord", bound=Record)


def write_text(path: Path, text: str) -> None:
    """Write atomically: the file holds the old text or the new text, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp's 0600 would hide a report from a colleague
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def publish_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target`; on success it takes target's place, on failure nothing is left."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        temporary.chmod(0o755)  # readable by colleagues, as any folder one makes
        if target.exists():
            old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
            target.replace(old / target.name)
            try:
                temporary.replace(target)
            except BaseException:
                (old / target.name).replace(target)
                raise
            finally:
                shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def hash_file(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file below a folder, sorted."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hash_file(p) for p in files}


def folder_bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def link(path: Path, target: str) -> None:
    """A relative symbolic link, replaced in one step; nothing where the file system has none."""
    temporary = path.with_name(f".{path.name}.link")
    temporary.unlink(missing_ok=True)
    try:
        temporary.symlink_to(target)
    except OSError:
        return
    temporary.replace(path)


def free_bytes(folder: Path) -> int:
    """Of the disk that `folder` lies on, or would."""
    return shutil.disk_usage(_existing(folder)).free


def _existing(folder: Path) -> Path:
    return next(p for p in (folder, *folder.resolve().parents) if p.exists())


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise SpaceError when the disk of `folder` has fewer than `needed` bytes free."""
    free = free_bytes(folder)
    if free < needed:
        raise SpaceError(
            f"not enough disk for {what}: {needed / 1e6:,.0f} MB needed in {_existing(folder)}, "
            f"{free / 1e6:,.0f} MB free",
            fix="free some space, choose another folder with --out, or lower train.save_total_limit",
        )


def disk_was_full(error: BaseException, folder: Path) -> SpaceError | None:
    """What to say where `error` comes of a disk without room, which each library words in its own way; else None."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    written = any(sign in str(error) for sign in ("No space left on device", "PytorchStreamWriter failed writing"))
    if not (full or written):
        return None
    return SpaceError(
        f"the disk of {folder} is full: {free_bytes(folder) / 1e6:,.1f} MB free",
        expected="room for the next checkpoint and the events",
        fix="free some space and go on with --resume; what was whole before still is",
    )


def read_record(path: Path, kind: type[AnyRecord]) -> AnyRecord:
    """Read one record. Raises RunError when it is missing, damaged, or from a newer version of Rankwise."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} does not exist", expected=f"a {kind.__name__} written by rankwise") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is damaged: {error}", fix="restore it from a copy, or make it again") from None
    known = kind.model_fields["version"].default if "version" in kind.model_fields else None
    found = content.get("version") if isinstance(content, dict) else None
    if known is not None and isinstance(found, int) and found > known:
        raise RunError(
            f"{path} was written by a newer rankwise ({kind.__name__} version {found}, this one reads {known})",
            fix="upgrade rankwise",
        )
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(str(p) for p in first["loc"])
        raise RunError(f"{path} is not a valid {kind.__name__}: {at}: {first['msg']}") from None


def write_record(path: Path, record: Record) -> None:
    write_text(path, record.model_dump_json(indent=1, by_alias=True) + "\n")


def append_lines(path: Path, lines: Sequence[str]) -> None:
    """Add lines to a file, all or none, on disk before this returns.

    Two processes may append at one time: a lock makes the lines whole. A last line that a kill left half-written is
    ended first, so that it spoils no other.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _write_whole(file.fileno(), "".join(f"{line}\n" for line in lines).encode())


def _write_whole(file: int, text: bytes) -> None:
    """One line after the other, or the file as it was."""
    end = os.fstat(file).st_size
    if end and os.pread(file, 1, end - 1) != b"\n":
        text = b"\n" + text
    try:
        written = 0
        while written < len(text):
            written += os.write(file, text[written:])
        os.fsync(file)
    except BaseException:
        os.ftruncate(file, end)
        raise


def cannot_append(path: Path, error: OSError, what: str, variable: str) -> RunError | SpaceError:
    """The error for a file that a person may move or switch off by an environment variable."""
    kind = SpaceError if error.errno in (errno.ENOSPC, errno.EDQUOT) else RunError
    return kind(
        f"{what} {path} cannot be written: {error.strerror or error}",
        expected="a file that this user may append to",
        fix=f"mend it, name another file in {variable}, or set {variable}=off",
    )


def cache_folder() -> Path:
    """Where Rankwise keeps what can be made again: $RANKWISE_CACHE, else $XDG_CACHE_HOME/rankwise, else
    ~/.cache/rankwise.
    """
    if path := os.environ.get("RANKWISE_CACHE"):
        return Path(path)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rankwise"


def remove_oldest(stamps: Mapping[Path, Path], keep: int) -> list[Path]:
    """Remove all of these files and folders but the `keep` that were used last; what was removed.

    Several processes may tidy one cache at once: what another one has removed meanwhile is left out.

    Args:
        stamps: file or folder -> the path whose time of writing tells when it was used.
    """
    used = {path: at for path, stamp in stamps.items() if (at := written_at(stamp)) is not None}
    oldest = sorted(used, key=lambda path: used[path], reverse=True)[keep:]
    for path in oldest:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return oldest


def written_at(path: Path) -> float | None:
    """When a file was last written, in seconds since the epoch; None: it is not there."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def data_folder() -> Path:
    """Where Rankwise keeps what cannot be made again: $XDG_DATA_HOME/rankwise, else ~/.local/share/rankwise."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "rankwise"
