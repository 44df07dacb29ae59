"""What other estimators of training time say about the same runs, each computed by its own installed code.

    python -m benchmarks.time.peers < rows.json

`predict` is called by the bench and starts this file as a program in the peers' virtualenv, which both benches share
(`benchmarks/memory/peers.txt`). Standard input is a JSON list of `{"id", "options", "config", "gpu", "params"}`:
options of `rankwise estimate` with underscores, the model's config.json as a mapping and its number of parameters (null
where they are not known), the GPU's name. Standard output is one JSON document:

    {"predictions": {id: {peer: tokens per second or null}},
     "peers": {peer: {"version", "claims", "null": {reason: count}}}}

Each peer gets every setting of the row that it has an input for. What it cannot express is refused with the reason.
Left out, because they predict no time from a description alone: fm-training-estimator (its regressors come untrained),
torch's RuntimeEstimator (asks the GPU for its peaks), crusoe-estimator (starts from a run that was timed), alloc (asks
its server), llm-flops (times parts of the backward pass, not the step).
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.memory.peers import ask, lay_out, program, version_of
from benchmarks.time.adapters import PEERS, Run

if TYPE_CHECKING:  # it stands on rankwise, which the peers' interpreter does not have
    from benchmarks.time.rows import Row

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 540


def predict(rows: "Sequence[Row]", python: Path) -> dict[str, Any]:
    """The peers' answers to the mapped rows.

    Args:
        python: the interpreter of the peers' virtualenv.

    Returns:
        answers: peer -> row id -> tokens per second over all devices, or None; versions, claims: by peer; refused:
        peer -> reason -> rows. Empty, with a note on standard error, where the interpreter is missing.

    Raises:
        RuntimeError: the peers' interpreter failed.
    """
    if not python.exists():
        sys.stderr.write(f"{python} is missing: the other estimators are left out (make bench-time builds it)\n")
        return {}
    asked = [_asked(row) for row in rows if row.options is not None]
    sys.stderr.write(f"{len(asked)} runs to the other estimators\n")
    command = [str(python), "-m", "benchmarks.time.peers"]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, cwd=ROOT, timeout=SECONDS)
    if done.returncode:
        raise RuntimeError(f"the other estimators failed: {done.stderr.strip()[-500:]}")
    said = json.loads(done.stdout)
    about = said["peers"]
    return {
        "answers": {peer: {id: those[peer] for id, those in said["predictions"].items()} for peer in about},
        "versions": {peer: of["version"] for peer, of in about.items()},
        "claims": {peer: of["claims"] for peer, of in about.items()},
        "refused": {peer: of["null"] for peer, of in about.items()},
    }


def _asked(row: "Row") -> dict[str, Any]:
    """A row as the peers' program reads it, with what our own reading of the model adds."""
    from rankwise.errors import RankwiseError
    from rankwise.estimate.traced import shapes_of
    from rankwise.observe.described import describe_model

    assert row.options is not None
    options = {key: value for key, value in row.options.items() if key != "config"}
    model = str(options["model"])
    if "/" not in model:  # a peer takes nothing but hub ids; `mosaicml MPT 7b` is called so there
        options["model"] = model.replace(" ", "/", 1).replace(" ", "-")
    config, params = None, None
    try:
        config = row.options.get("config") or describe_model(model).config
        params = shapes_of(config).total_params
    except RankwiseError as error:
        sys.stderr.write(f"{row.id}: {error.what}\n")
    return {"id": row.id, "options": options, "config": config, "gpu": options.get("gpu"), "params": params}


def answer(rows: list[dict[str, Any]], cache: Path) -> dict[str, Any]:
    """Every peer on every row; `cache` is the folder of the hub cache that the peers read."""
    predictions: dict[str, dict[str, float | None]] = {}
    reasons: dict[str, Counter[str]] = {peer: Counter() for peer in PEERS}
    for row in rows:
        said: dict[str, float | None] = dict.fromkeys(PEERS)
        predictions[row["id"]] = said
        run = None
        if row.get("config") and row.get("params"):
            folder = lay_out(cache, row["options"]["model"], row["config"])
            run = Run(row["options"], row["config"], row.get("gpu") or "", folder, row["params"])
        for name, peer in PEERS.items():
            said[name], reason = ask(peer.adapter, run) if run else (None, "no config at hand")
            if reason is not None:
                reasons[name][reason] += 1
    peers = {
        name: {"version": version_of(peer.package), "claims": peer.claims, "null": dict(reasons[name].most_common())}
        for name, peer in PEERS.items()
    }
    return {"predictions": predictions, "peers": peers}


if __name__ == "__main__":
    sys.exit(program(answer))
