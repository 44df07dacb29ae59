"""sha256 of large files, remembered by (path, size, time of change) so that planning twice does not read them twice."""

import json
from pathlib import Path

from rankwise.files import cache_folder, hash_file, write_text

KEPT = 500  # entries; the oldest go


def cached_hash(path: Path) -> str:
    """sha256 of a file's bytes, read only if the file changed since it was last read."""
    real = path.resolve()
    stat = real.stat()
    key = f"{real}|{stat.st_size}|{stat.st_mtime_ns}"
    store = cache_folder() / "hashes.json"
    known = _read(store)
    if key not in known:
        known = {**_read(store), key: hash_file(real)}
        write_text(store, json.dumps(dict(list(known.items())[-KEPT:]), indent=0) + "\n")
    return known[key]


def _read(store: Path) -> dict[str, str]:
    """What is remembered; nothing when the file is missing or damaged, since it can be made again."""
    try:
        known = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
