"""The adapter store: folders of adapter files under the sha256 of their content, on a disk, a volume or object storage.

<root>/<sha256>/adapter_config.json …    never changed: other content is another name
<root>/<sha256>.json                     file -> sha256; written last, since an object store renames nothing: a folder
                                         without it is not there yet

Nothing is taken in unchecked, and nothing is handed out whose hash is not its name.
"""

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec

from rankwise.errors import AdapterError
from rankwise.files import OBJECT_STORES, cache_folder, data_folder, hash_folder, publish_folder
from rankwise.methods import SERVED
from rankwise.records import ModelFacts, content_hash
from rankwise.serve.adapterfiles import KNOWN, LEFT_OUT, WEIGHTS, read_config, require_texts, take_in
from rankwise.serve.adaptertensors import require_tensors

MOST_BYTES = 2_000_000_000
MAX_RANK = 512  # the largest that vLLM's --max-lora-rank takes
TAKEN = frozenset({*SERVED, "RANKWISE_BOTTLENECK"})  # PEFT's types, and that of our own bottleneck adapters
_HASH = re.compile(r"[0-9a-f]{64}")


def default_root() -> str:
    """$RANKWISE_ADAPTERS, else the folder adapters where data are kept."""
    return os.environ.get("RANKWISE_ADAPTERS") or str(data_folder() / "adapters")


class AdapterStore:
    """One store.

    Args:
        root: a folder or any fsspec URL, e.g. `s3://bucket/adapters`; None: $RANKWISE_ADAPTERS, else a folder of the
            user's data. A bucket is never made here.
        cache: where files of a remote store are kept; None: below Rankwise's cache.
        max_bytes: of the files of one adapter.
        max_rank: of a LoRA.

    Raises:
        AdapterError: the place cannot be opened.
    """

    left_out = LEFT_OUT  # of a folder that is put: not kept, and no part of its hash

    def __init__(
        self,
        root: str | None = None,
        *,
        cache: Path | None = None,
        max_bytes: int = MOST_BYTES,
        max_rank: int = MAX_RANK,
    ):
        self.root = (root or default_root()).rstrip("/")
        self.max_bytes, self.max_rank = max_bytes, max_rank
        local = "://" not in self.root or self.root.startswith("file://")
        self._local = Path(self.root.removeprefix("file://")).expanduser() if local else None
        self._cache = cache or cache_folder() / "adapters"
        with _reached(self.root):
            self._files, self._at = fsspec.core.url_to_fs(self.root)

    def put(self, folder: Path, base: ModelFacts) -> str:
        """Check an adapter's files and keep them; returns the sha256 that names them. Keeping them again does nothing.

        Args:
            base: shapes of the base that it was trained on.

        Raises:
            AdapterError: what is wrong with them, and nothing is kept; or the store cannot be reached.
        """
        with _staged(self._local or self._cache) as staged:
            take_in(folder, staged, self.max_bytes)
            require_texts(staged)
            config = read_config(staged, TAKEN, self.max_rank)
            require_tensors(staged / WEIGHTS, config, base, self.max_rank)
            hashes = hash_folder(staged)
            sha256 = content_hash(hashes)
            if self._local is not None:
                with _one_at_a_time(self._local, sha256):
                    if not _whole(self._local / sha256, sha256):
                        with publish_folder(self._local / sha256) as published:
                            shutil.copytree(staged, published, dirs_exist_ok=True)
            else:
                with _reached(self.root):
                    self._send(staged, sha256, hashes)
        return sha256

    def open(self, sha256: str) -> Path:
        """A local folder with these files; fetched into the cache where the store is remote. Its hash is checked.

        Raises:
            AdapterError: no such files, files that were changed since, or the store cannot be reached.
        """
        if not _HASH.fullmatch(sha256):
            raise AdapterError(f"{sha256!r} is no sha256")
        if self._local is None:
            return self._fetched(sha256)
        folder = self._local / sha256
        if not folder.is_dir():
            raise AdapterError(f"{self.root} holds no adapter {sha256}", fix="`rankwise tenants add` the run again")
        if not _whole(folder, sha256):
            raise AdapterError(f"the files of {folder} were changed since they were taken in", fix=_AGAIN)
        return folder

    def _send(self, staged: Path, sha256: str, hashes: dict[str, str]) -> None:
        manifest = f"{self._at}/{sha256}.json"
        self._files.invalidate_cache()
        if self._files.exists(manifest):
            return
        if self.root.partition("://")[0] not in OBJECT_STORES:
            self._files.makedirs(f"{self._at}/{sha256}", exist_ok=True)
        for name in hashes:
            self._files.put_file(str(staged / name), f"{self._at}/{sha256}/{name}")
        self._files.pipe_file(manifest, json.dumps(hashes).encode())

    def _fetched(self, sha256: str) -> Path:
        folder = self._cache / sha256
        with _one_at_a_time(self._cache, sha256):
            if not _whole(folder, sha256):
                with _reached(self.root), publish_folder(folder) as temporary:
                    self._get(sha256, temporary)
        return folder

    def _get(self, sha256: str, target: Path) -> None:
        self._files.invalidate_cache()
        try:
            names = json.loads(self._files.cat_file(f"{self._at}/{sha256}.json"))
        except FileNotFoundError:
            raise AdapterError(f"{self.root} holds no adapter {sha256}") from None
        if not set(names) <= KNOWN:
            raise AdapterError(f"{self.root}/{sha256}.json names files that no adapter has", fix=_AGAIN)
        if sum(int(self._files.size(f"{self._at}/{sha256}/{name}") or 0) for name in names) > self.max_bytes:
            raise AdapterError(f"{self.root}/{sha256} has more than {self.max_bytes / 1e6:,.0f} MB", fix=_AGAIN)
        for name in names:
            self._files.get_file(f"{self._at}/{sha256}/{name}", str(target / name))
        if not _whole(target, sha256):
            raise AdapterError(f"the files of {self.root}/{sha256} were changed since they were taken in", fix=_AGAIN)


_AGAIN = "take them out of the store and `rankwise tenants add` the run again"


def _whole(folder: Path, sha256: str) -> bool:
    return folder.is_dir() and content_hash(hash_folder(folder)) == sha256


@contextmanager
def _staged(beside: Path) -> Iterator[Path]:
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside, prefix=".taken-in.") as name:
        yield Path(name)


@contextmanager
def _one_at_a_time(folder: Path, sha256: str) -> Iterator[None]:
    """A folder that another process reads is not put in its place a second time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{sha256}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _reached(root: str) -> Iterator[None]:
    """What each store says in its own way when it cannot be reached, as one error."""
    try:
        yield
    except AdapterError:
        raise
    except Exception as error:
        missing = getattr(error.__cause__ or error, "name", None) if isinstance(error, ImportError) else None
        raise AdapterError(
            f"the adapter store {root} cannot be reached: {type(error).__name__}: {error}",
            expected="a folder or a URL that fsspec knows, which this machine may read",
            fix=f"pip install {missing}" if missing else "look at --adapters and at the credentials in the environment",
        ) from error
