"""What other memory estimators say about the same runs, each computed by its own installed code.

    python -m benchmarks.memory.peers < rows.json

Runs in a virtualenv of its own (`peers.txt`), because the peers pin what Rankwise does not. Standard input is a JSON
list of `{"id", "options", "config", "gpu"}`: options of `rankwise estimate` with underscores, the model's config.json
as a mapping (null where it is not known), the GPU's name. Standard output is one JSON document:

    {"predictions": {id: {peer: bytes or null}}, "peers": {peer: {"version", "statistic", "null": {reason: count}}}}

Each peer gets the options it has that are nearest to the row's: method, quantization and sharding must be expressible,
or the answer is null with the reason; settings the peer does not know (checkpointing, sequence length, the loss) are
left out, as its user would leave them. A peer that takes a model by hub id finds the row's config.json in a local hub
cache made for the run; nothing is fetched. Two peers can only ask the network, and there the request itself, never a
formula, is answered from the same file: ftuneai's `_fetch_json` and accelerate's `verify_on_hub`.
"""

import contextlib
import io
import json
import logging
import os
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.memory.adapters import PEERS
from benchmarks.memory.case import Case, RefusedError

REVISION = "0" * 40
Asked = TypeVar("Asked", bound=Case)


def lay_out(root: Path, name: str, config: Mapping[str, Any]) -> str:
    """Put a config.json where a hub cache keeps it; returns its folder."""
    cached = root / f"models--{name.replace('/', '--')}"
    folder = cached / "snapshots" / REVISION
    folder.mkdir(parents=True, exist_ok=True)
    (cached / "refs").mkdir(exist_ok=True)
    (cached / "refs" / "main").write_text(REVISION, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(dict(config)), encoding="utf-8")
    return str(folder)


def ask(adapter: Callable[[Asked], float], case: Asked) -> tuple[float | None, str | None]:
    """(the peer's number, None), or (None, why not). A peer's own exception is its refusal."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return adapter(case), None
    except RefusedError as error:
        return None, str(error)
    except ModuleNotFoundError as error:
        return None, f"not installed: {error.name}"
    except (Exception, SystemExit) as error:
        first = str(error).strip().splitlines() or [""]
        return None, f"{type(error).__name__}: {re.sub(r'/[^ ]*', '…', first[0])[:100]}"


def answer(rows: list[dict[str, Any]], cache: Path) -> dict[str, Any]:
    """Every peer on every row; `cache` is the folder of the hub cache that the peers read."""
    predictions: dict[str, dict[str, float | None]] = {}
    reasons: dict[str, Counter[str]] = {peer: Counter() for peer in PEERS}
    # Row by row of one model, so that what a peer holds of it is built once.
    for row in sorted(rows, key=lambda row: str(row["options"]["model"])):
        said: dict[str, float | None] = dict.fromkeys(PEERS)
        predictions[row["id"]] = said
        case = None
        if row.get("config"):
            folder = lay_out(cache, row["options"]["model"], row["config"])
            case = Case(row["options"], row["config"], row.get("gpu") or "", folder)
        for peer in PEERS:
            said[peer], reason = ask(PEERS[peer][1], case) if case else (None, "no config at hand")
            if reason is not None:
                reasons[peer][reason] += 1
    peers = {
        peer: {"version": version_of(peer), "statistic": PEERS[peer][0], "null": dict(reasons[peer].most_common())}
        for peer in PEERS
    }
    return {"predictions": {row["id"]: predictions[row["id"]] for row in rows}, "peers": peers}


def version_of(peer: str) -> str | None:
    """The installed version; None where the peer is not installed."""
    try:
        return version(peer)
    except PackageNotFoundError:
        return None


def program(answer: Callable[[list[dict[str, Any]], Path], dict[str, Any]]) -> int:
    """Rows from standard input, answers to standard output."""
    rows = json.load(sys.stdin)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as cache:
        # Read by the hub libraries at import, so before any peer is imported.
        os.environ |= {"HF_HUB_CACHE": cache, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        json.dump(answer(rows, Path(cache)), sys.stdout, indent=1)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(program(answer))
