"""How far measured peaks lie from predicted ones: the quantiles that `estimate` publishes as its interval.

measured / predicted - 1 over rows whose length is not a cap: there alone is the step that was measured the one that was
priced. Of a statistic, the rows of grade A; where there are fewer than `ENOUGH` of them, those of grade B as well. By
family (full; adapter: over a 16-bit base; quantised; sharded: ZeRO and FSDP), or over all where a family has fewer than
`ENOUGH`.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.memory.compare import CAP, STATISTICS, quantile
from rankwise.estimate.memory import family

ENOUGH = 12
LOW, HIGH = 0.025, 0.975
RESIDUALS = Path(__file__).resolve().parents[2] / "src" / "rankwise" / "estimate" / "residuals.toml"
Rows = Sequence[Mapping[str, Any]]
Interval = tuple[float, float, int]


def exact(rows: Rows) -> list[Mapping[str, Any]]:
    """The rows that an interval may rest on."""
    found: list[Mapping[str, Any]] = []
    for statistic in STATISTICS:
        of = [r for r in rows if r["statistic"] == statistic and CAP not in r["note"]]
        best = [r for r in of if r["grade"] == "A"]
        found += best if len(best) >= ENOUGH else [r for r in of if r["grade"] in ("A", "B")]
    return found


def intervals(rows: Rows) -> dict[tuple[str, str], Interval]:
    """(statistic, family or `any`) -> low, high, number of rows; a family only where it has enough."""
    found = {}
    for statistic in STATISTICS:
        residuals: dict[str, list[float]] = {"any": []}
        for row in rows:
            if row["statistic"] == statistic:
                residual = row["measured"] / row["predicted"] - 1
                residuals["any"].append(residual)
                residuals.setdefault(_family(row), []).append(residual)
        for name, values in sorted(residuals.items()):
            if values and (name == "any" or len(values) >= ENOUGH):
                found[statistic, name] = (quantile(values, LOW), quantile(values, HIGH), len(values))
    return found


def left_out(rows: Rows) -> list[dict[str, Any]]:
    """Every source against the intervals of the others: how many of its rows they cover."""
    found = []
    for statistic in STATISTICS:
        of = [row for row in rows if row["statistic"] == statistic]
        for source in sorted({row["source"] for row in of}):
            others = intervals([row for row in of if row["source"] != source])
            own = [row for row in of if row["source"] == source]
            covered = [row for row in own if (at := _interval(others, row)) and _inside(row, at)]
            if others:
                low, high, count = others[statistic, "any"]
                found.append(
                    {"source": source, "statistic": statistic, "rows": len(own), "covered": len(covered)}
                    | {"low": low, "high": high, "rows_of_others": count}
                )
    return found


def _interval(found: Mapping[tuple[str, str], Interval], row: Mapping[str, Any]) -> Interval | None:
    own = found.get((row["statistic"], _family(row)))
    return own or found.get((row["statistic"], "any"))


def _family(row: Mapping[str, Any]) -> str:
    return family(row["method"], (row.get("options") or {}).get("parallel", "none"))


def _inside(row: Mapping[str, Any], at: Interval) -> bool:
    """A bracketed measurement is covered where any part of it is."""
    predicted = row["predicted"]
    return bool(row["low"] <= predicted * (1 + at[1]) and row["high"] >= predicted * (1 + at[0]))


def write(rows: Rows, table: str, path: Path = RESIDUALS) -> None:
    """Put the intervals of a GPU into residuals.toml, each holding the prediction; other rows stay."""
    text = path.read_text(encoding="utf-8")
    head = text.split("[[residual]]")[0]
    kept = [row for row in tomllib.loads(text)["residual"] if row["device"] != "gpu"]
    made = [
        {
            "device": "gpu",
            "statistic": statistic,
            "family": name,
            "low": min(0.0, round(low, 4)),
            "high": max(0.0, round(high, 4)),
            "n": n,
        }
        | {"source": _source(statistic, name, table)}
        for (statistic, name), (low, high, n) in intervals(exact(rows)).items()
    ]
    path.write_text(head + "\n".join(map(_entry, [*made, *kept])), encoding="utf-8")


def _source(statistic: str, name: str, table: str) -> str:
    over = "all methods" if name == "any" else f"{name} methods"
    return (
        f"2.5 % and 97.5 % quantiles of measured over predicted {statistic} peaks of {over}, published runs of grade A "
        f"whose lengths are stated ({table}; benchmarks/memory)"
    )


def _entry(row: Mapping[str, Any]) -> str:
    lines = [f"{key} = {_value(value)}" for key, value in row.items()]
    return "[[residual]]\n" + "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
