"""Checkpoints copied to object storage, or to any place that fsspec reaches, so that another machine can go on.

<save_url>/run.json                 the hash of the plan
<save_url>/events.jsonl
<save_url>/checkpoint-N/...         manifest.json goes last, because an object store renames nothing: a folder
                                    without it is not a checkpoint

A bucket is never made here: a name that is misspelt is an error.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec

from rankwise.errors import JobError, RunError
from rankwise.files import OBJECT_STORES, publish_folder
from rankwise.records import Note
from rankwise.store import Run, now

LAST = "manifest.json"  # as train.checkpoints writes it, last of all
OF = "run.json"
OURS = re.compile(r"checkpoint-\d+/")


def require_protocol(url: str) -> None:
    """Raises JobError where fsspec does not know a protocol of `url`, or where the package behind it is missing.

    Nothing is asked of the place itself.
    """
    for part in url.split("::"):
        protocol = part.partition("://")[0]
        try:
            fsspec.get_filesystem_class(protocol)
        except ImportError as error:
            cause = error.__cause__ or error  # fsspec's own words do not say which import failed
            missing = isinstance(cause, ModuleNotFoundError) and cause.name
            package = missing.partition(".")[0] if missing else None
            raise JobError(
                f"train.save_url {url} cannot be opened: {cause}",
                expected=f"the package {package}" if package else f"the package behind {protocol}, whole",
                fix=f"pip install {package}" if package else "install again what the message names",
            ) from error
        except ValueError as error:
            raise JobError(
                f"train.save_url {url} cannot be opened: {error}",
                expected="a URL that fsspec knows: s3://bucket/run, gs://bucket/run, file:///mnt/run",
                fix=f"{protocol} is none of fsspec's protocols: name another",
            ) from error


class Mirror:
    """The copies of one run's checkpoints.

    A copy that fails is said and made up for at the next save: the run itself goes on.
    """

    def __init__(self, url: str, run: Run, plan_hash: str):
        """Raises JobError as `require_protocol` does; RunError where what is behind the protocol refuses the URL."""
        self.url, self.run, self.plan_hash = url.rstrip("/"), run, plan_hash
        self.has_folders = self.url.partition("://")[0] not in OBJECT_STORES
        require_protocol(self.url)
        with _reached(self.url):
            self.files, self.root = fsspec.core.url_to_fs(self.url)

    def begin(self, *, resume: bool) -> None:
        """Take the place for this run; events that only lie there are fetched.

        Raises:
            RunError: another run's checkpoints lie there, or this one's and it is not resumed; or it cannot be reached.
        """
        with _reached(self.url):
            held = self._held()
            if held is not None and held != self.plan_hash:
                raise RunError(f"{self.url} holds checkpoints of another plan", fix="give another train.save_url")
            if held is not None and not resume and self.steps():
                raise RunError(
                    f"{self.url} already holds checkpoints of this plan",
                    fix="go on from them with `rankwise train PLAN --out DIR --resume`, or give another train.save_url",
                )
            if held is None:
                self._write(OF, json.dumps({"plan_hash": self.plan_hash}).encode())
            if resume and not self.run.events_path.is_file() and self.files.exists(self._at("events.jsonl")):
                self.files.get_file(self._at("events.jsonl"), str(self.run.events_path))

    def steps(self) -> list[int]:
        """Steps whose copy is whole, ascending."""
        self.files.invalidate_cache()
        found = [Path(path).parent.name for path in self.files.glob(f"{self.root}/checkpoint-*/{LAST}")]
        return sorted(int(name.removeprefix("checkpoint-")) for name in found if name[11:].isdigit())

    def follow(self, folders: Sequence[Path]) -> Iterator[Note]:
        """Make the copies what the checkpoints are now: new, thinned, dropped."""
        try:
            for folder in folders:
                self._copy(folder)
            self._drop_all_but(folders)
            if self.run.events_path.is_file():
                self.files.put_file(str(self.run.events_path), self._at("events.jsonl"))
        except Exception as error:  # each store has exceptions of its own, and none of them may end a training
            yield Note(
                time=now(),
                text=f"checkpoints could not be copied to {self.url} ({type(error).__name__}: {error}); "
                "they lie in the run folder, and the next save tries again",
            )

    def fetch(self, folder: Path) -> None:
        """One copy into the run folder, in the place of what lies there. Raises RunError when it cannot be read."""
        with _reached(self.url), publish_folder(folder) as temporary:
            for path in self.files.find(self._at(folder.name)):
                relative = path.removeprefix(f"{self._at(folder.name)}/")
                (temporary / relative).parent.mkdir(parents=True, exist_ok=True)
                self.files.get_file(path, str(temporary / relative))

    def _copy(self, folder: Path) -> None:
        """Files whose hash the copy's manifest has are there already; without its manifest a copy is none."""
        manifest = (folder / LAST).read_bytes()
        before = self._read(f"{folder.name}/{LAST}")
        if before == manifest:
            return
        new, old = _hashes(manifest), _hashes(before)
        missing = [name for name in new if new[name] != old.get(name)]
        if before is not None and missing:
            self.files.rm_file(self._at(f"{folder.name}/{LAST}"))
        for name in missing:
            self._put(folder / name, f"{folder.name}/{name}")
        self._write(f"{folder.name}/{LAST}", manifest)

    def _drop_all_but(self, folders: Sequence[Path]) -> None:
        """What no kept checkpoint has goes, and what an interrupted copy left behind with it; manifests go first."""
        kept = {
            f"{folder.name}/{name}" for folder in folders for name in (LAST, *_hashes((folder / LAST).read_bytes()))
        }
        self.files.invalidate_cache()
        lying = (path.removeprefix(f"{self.root}/") for path in self.files.find(self.root))
        going = [name for name in lying if OURS.match(name) and name not in kept]
        for name in sorted(going, key=lambda name: (not name.endswith(f"/{LAST}"), name)):
            self.files.rm_file(self._at(name))
        emptied = {name.partition("/")[0] for name in going} - {folder.name for folder in folders}
        for name in sorted(emptied) if self.has_folders else ():
            self.files.rm(self._at(name), recursive=True)

    def _held(self) -> str | None:
        content = self._read(OF)
        return None if content is None else str(json.loads(content)["plan_hash"])

    def _read(self, name: str) -> bytes | None:
        self.files.invalidate_cache()
        return bytes(self.files.cat_file(self._at(name))) if self.files.exists(self._at(name)) else None

    def _write(self, name: str, content: bytes) -> None:
        self._make_folder_of(name)
        self.files.pipe_file(self._at(name), content)

    def _put(self, path: Path, name: str) -> None:
        self._make_folder_of(name)
        self.files.put_file(str(path), self._at(name))

    def _make_folder_of(self, name: str) -> None:
        if self.has_folders:
            self.files.makedirs(self._at(name).rsplit("/", 1)[0], exist_ok=True)

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}"


def _hashes(manifest: bytes | None) -> dict[str, str]:
    content = json.loads(manifest) if manifest else {}
    return {**content.get("weights", {}), **content.get("state", {})}


class _reached:
    """What a store says when it cannot be reached, as one error."""

    def __init__(self, url: str):
        self.url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, RunError):
            raise RunError(
                f"{self.url} cannot be reached: {type(error).__name__}: {error}",
                expected="a place that this machine may read and write",
                fix="look at the URL and at the credentials in the environment, or drop train.save_url",
            ) from error
