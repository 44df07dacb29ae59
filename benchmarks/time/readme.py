"""result.json -> README.md, with nothing else read."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.time.compare import median

Rows = Sequence[Mapping[str, Any]]

HEAD = """# Time: predicted against published throughput

Written by `make bench-time` from `result.json`; do not edit. Every figure can be recomputed from its `rows`.

Each published run is said in options of `rankwise estimate` (rules in `rows.py`; none looks at the measured figure) and
its step is traced as `rankwise estimate` traces it. Seconds follow by a roofline whose efficiencies (shares of the
datasheet's peaks) are **fitted**: `fit.py` says how, and with which priors. **Out of sample** means that a row is
predicted with efficiencies fitted on the *other sources* alone, so that nothing of its source, software or machine was
seen. `rankwise estimate` uses the fit to all rows (`src/rankwise/estimate/efficiencies.toml`), and as its interval the
5 % and 95 % quantiles of the out-of-sample errors.

Error is predicted / measured - 1 of tokens per second over all devices. Grades as in `benchmarks/memory`.
"""

HOW = """## How to run

    make bench-time

traces every mapped row of `../shared/measured/finetuning.csv` where that lies beside the repository, else of
`subset.csv` (about 3 minutes on two idle cores; cached, seconds), fits 9 times (2 minutes), and writes `result.json`
and this file. `python -m benchmarks.time.bench --write-efficiencies` writes `efficiencies.toml` as well; read the
difference before you commit it. `make bench-time-embedded` runs the embedded job on this machine and writes
`embedded.json`, which the section above shows.
"""


def readme(result: Mapping[str, Any]) -> str:
    """The whole page."""
    rows = result["rows"]
    sections = [
        HEAD.strip(),
        f"Table: {result['table']}. Code: {result['commit']}.",
        "## Result",
        _metrics(result["metrics"]),
        "## By source, out of sample",
        _groups(rows, "source"),
        "## By device generation and method, out of sample",
        _groups(rows, "generation"),
        _groups(rows, "method"),
        _fit(result),
        _intervals(result),
        _peers(result["peers"]),
        _embedded(result["embedded"]),
        _worst(rows),
        _left_out(result),
        HOW,
    ]
    return "\n\n".join(section for section in sections if section).rstrip() + "\n"


def _table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    made = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    return "\n".join([*made, *(f"| {' | '.join(map(str, line))} |" for line in lines)])


def percent(value: float) -> str:
    return f"{100 * value:+.1f} %"


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _metrics(metrics: Mapping[str, float]) -> str:
    shares = [name for name in metrics if "error" in name or "medians" in name]
    lines = [(name, share(value) if name in shares else f"{value:g}") for name, value in metrics.items()]
    return _table(("metric", "value"), lines)


def _groups(rows: Rows, key: str) -> str:
    lines = []
    for name in sorted({row[key] for row in rows}):
        of = [row for row in rows if row[key] == name]
        errors = [row["error"] for row in of]
        lines.append(
            (
                name,
                len(of),
                share(median(map(abs, errors))),
                percent(median(errors)),
                f"{percent(min(errors))} to {percent(max(errors))}",
                share(median(abs(row["error_in_sample"]) for row in of)),
            )
        )
    head = (key, "rows", "median absolute error", "median error", "range", "in sample, median absolute")
    return _table(head, lines)


LIMIT = """`launch` and `step` are seconds of the host, for one kernel and for one micro-batch. A share at 0.97, the
limit of the fit, says that something is missing from the model: on Ada it is the large L2 cache, which serves the
small tensors of short batches."""


def _fit(result: Mapping[str, Any]) -> str:
    every, generations = result["fit"]["every"], result["fit"]["generation"]
    lines = [(name, *(f"{own.get(name, value):.3g}" for own in generations.values())) for name, value in every.items()]
    table = _table(("share of the peak", *generations), lines)
    return f"## Efficiencies, fitted on all rows\n\n{table}\n\n{LIMIT}"


def _intervals(result: Mapping[str, Any]) -> str:
    lines = [
        (name, kind, n, f"{low:.2f}", f"{high:.2f}")
        for name, families in result["intervals"].items()
        for kind, (low, high, n) in families.items()
    ]
    head = ("architecture", "family", "rows", "low", "high")
    return "## Interval of a duration: actual / predicted, 5 % to 95 %, out of sample\n\n" + _table(head, lines)


def _peers(peers: Rows) -> str:
    if not peers:
        return ""
    lines = [
        (
            f"{peer['name']} {peer['version'] or ''}".strip(),
            peer["rows"],
            share(peer["median_abs_error"]),
            percent(peer["median_error"]),
            percent(peer["worst"]),
            share(peer["ours_on_the_same_rows"]),
        )
        for peer in peers
    ]
    head = ("estimator", "rows it answers", "median absolute error", "median error", "worst", "ours on the same rows")
    claims = [f"- {peer['name']}: {peer['claims']}" for peer in peers if peer["claims"]]
    return "\n\n".join(
        [
            "## Other estimators, by their own code and defaults",
            _table(head, lines),
            "What they say of themselves, and what was read of their inputs, in `adapters.py`:\n\n" + "\n".join(claims),
        ]
    )


def _embedded(embedded: Mapping[str, Any] | None) -> str:
    if not embedded:
        return ""
    lines = [
        (
            row["quantity"],
            f"{row['predicted']:.1f} s",
            f"{row['interval'][0]:.1f} to {row['interval'][1]:.1f} s" if row.get("interval") else "none",
            f"{row['actual']:.1f} s",
            percent(row["error"]),
            "yes" if row["calibrated"] else "no",
        )
        for row in embedded["rows"]
    ]
    head = ("quantity", "predicted", "interval", "actual", "error", "calibrated")
    return (
        "## The embedded job on this machine\n\n"
        "`rankwise estimate --calibrate`, then plan, train, eval and merge of the clinic job; seconds by the clock.\n\n"
        + _table(head, lines)
    )


def _worst(rows: Rows) -> str:
    worst = sorted(rows, key=lambda row: -abs(row["error"]))[:12]
    lines = [
        (
            row["id"],
            f"{row['gpus']} x {row['gpu']}",
            row["method"],
            f"{row['measured']:,.0f}",
            f"{row['predicted']:,.0f}",
            percent(row["error"]),
            percent(row["error_in_sample"]),
        )
        for row in worst
    ]
    head = ("row", "devices", "method", "measured tokens/s", "predicted", "error", "in sample")
    return "## The worst rows, out of sample\n\n" + _table(head, lines)


def _left_out(result: Mapping[str, Any]) -> str:
    reasons = Counter(row["reason"] for row in [*result["unmapped"], *result["refused"]])
    lines = [(count, reason) for reason, count in reasons.most_common()]
    return "## Rows of grade A and B that are left out\n\n" + _table(("rows", "reason"), lines)
