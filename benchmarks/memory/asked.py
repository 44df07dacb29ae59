"""The other estimators' answers (`peers.py`) beside ours, on the rows that both answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.memory.compare import error_of, quantile
from benchmarks.memory.predict import key_of

# A peer may mean either; the reader takes the one that is kinder to it.
READINGS = ("allocated", "device")


def compared(peers: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Peer -> one entry for each statistic: rows, its median and p95 of the absolute error, and ours on those rows."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, about in peers.get("peers", {}).items():
        for statistic in READINGS:
            theirs, ours = [], []
            for pair in pairs:
                said = peers["predictions"].get(key_of(pair["options"]), {}).get(name)
                if said is not None and pair["grade"] == "A" and pair["statistic"] == statistic:
                    theirs.append(abs(error_of(said, pair["low"], pair["high"])))
                    ours.append(abs(pair["error"]))
            if theirs:
                found.setdefault(name, []).append(
                    {"version": about["version"], "claims": about["statistic"], "statistic": statistic}
                    | {"rows": len(theirs), "median": quantile(theirs, 0.5), "p95": quantile(theirs, 0.95)}
                    | {"our_median": quantile(ours, 0.5), "our_p95": quantile(ours, 0.95)}
                    | {"refused": about["null"]}
                )
    return found
