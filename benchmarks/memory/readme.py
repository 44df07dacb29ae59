"""result.json -> README.md, with nothing else read."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.memory.compare import GRADES, STATISTICS, errors_of, grouped, summary, variants

BEYOND = 0.03
NAMES = {"A": "setup stated, statistic known", "B": "one or two settings inferred", "C": "rounded, or partly unknown"}
Rows = Sequence[Mapping[str, Any]]

HEAD = """# Memory: predicted against published measurements

Written by `make bench-memory` from `result.json`; do not edit. Every figure can be recomputed from its `rows`.

Each published run is said in options of `rankwise estimate` (rules in `rows.py` and `settings.py`; none looks at the
measured bytes), and priced by what `rankwise estimate --batch-file` calls. `peak_allocated` is compared with
`max_memory_allocated`, `peak_reserved` with `max_memory_reserved`, `peak_device` with nvidia-smi. **No constant is
fitted to a source**: the same code prices every row, and the intervals below are tested on each source by leaving it
out.

- Error is predicted / measured - 1. Of a measurement known only between two ends, to the nearer end, 0 inside.
- Quantiles are linear between closest ranks (numpy's default). "under" is the most negative error.
- Grades are the table's: A {A}; B {B}; C {C}.
- "own" says everything the row states. "contract only" leaves out `--stack` and `--autocast`, as a stranger would.
- "stated length" leaves out the rows whose source gives a cap and not a length: a prediction has to take the cap. All
  of PEFT's reserved rows are such (99th percentile over steps of dynamically padded batches, mean 210 tokens a row, the
  cap 768; the cache emptied every ten steps), so that their error says little about the prediction of reserved memory.
  fitcheck's runs have one fixed length and print reserved and process beside allocated: these test the allocator.
"""

HOW = """## How to run

    make bench-memory

builds `.venv` and `.venv-peers` (the other estimators pin what Rankwise does not), prices the full table
(`../shared/measured/finetuning.csv`) where it lies beside the repository, else `subset.csv`, and writes `result.json`
and this file. Traces are cached, so a second run takes seconds. With `--write-residuals` the module
`benchmarks.memory.bench` writes the intervals to `src/rankwise/estimate/residuals.toml` as well;
read the difference before you commit it. `python -m benchmarks.memory.cpu` measures the CPU section.
"""


def readme(result: Mapping[str, Any]) -> str:
    """The whole page."""
    rows = result["rows"]
    grade_a = [row for row in rows if row["grade"] == "A"]
    sections = [
        HEAD.format(**NAMES).strip(),
        f"Table: {result['table']}. Code: {result['commit']}. {_versions(result)}",
        "## Grade A and B",
        _mappings(rows),
        *_tables(rows, grade_a),
        _intervals(result),
        _peers(result),
        _fits(result),
        _cpu(result),
        _beyond(rows),
        _unmapped(result),
        HOW.strip(),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _versions(result: Mapping[str, Any]) -> str:
    return "Versions: " + ", ".join(f"{name} {at}" for name, at in result["versions"].items()) + "."


def table(heads: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; every column but the first is right-aligned."""
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (heads, rule, *lines))


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _numbers(of: Mapping[str, float]) -> list[str]:
    return [str(int(of["rows"])), *(percent(of[name]) for name in ("median", "p95", "under", "over"))]


COLUMNS = ("rows", "median", "p95", "under", "over")


def _mappings(rows: Rows) -> str:
    lines = [
        [f"{grade}, {statistic}, {words}", *_numbers(summary(errors))]
        for grade in GRADES
        for statistic in STATISTICS
        for words, _, chosen, error in variants(rows)
        if (errors := errors_of(chosen, grade, statistic, error))
    ]
    return table(("grade, statistic, mapping", *COLUMNS), lines)


def _tables(rows: Rows, grade_a: Rows) -> list[str]:
    by: list[tuple[str, Rows, Callable[[Mapping[str, Any]], str]]] = [
        ("By source and statistic, all grades", rows, lambda r: f"{r['source']}, {r['statistic']}, {r['grade']}"),
        ("By method and statistic, grade A", grade_a, lambda r: f"{r['method']}, {r['statistic']}"),
        ("By method and statistic, all grades", rows, lambda r: f"{r['method']}, {r['statistic']}"),
        ("By grade", rows, lambda r: str(r["grade"])),
        ("By statistic", rows, lambda r: str(r["statistic"])),
    ]
    found = []
    for title, of, key in by:
        lines = [[name, *_numbers(numbers)] for name, numbers in grouped(of, key).items()]
        found += [f"## {title}", table((title.split(",")[0].removeprefix("By "), *COLUMNS), lines)]
    return found


def _intervals(result: Mapping[str, Any]) -> str:
    made = [
        [f"{r['statistic']}, {r['family']}", r["rows"], percent(r["low"]), percent(r["high"])]
        for r in result["intervals"]
    ]
    left = [
        [
            f"{r['source']}, {r['statistic']}",
            r["rows"],
            percent(r["covered"] / r["rows"]),
            percent(r["low"]),
            percent(r["high"]),
            r["rows_of_others"],
        ]
        for r in result["left_out"]
    ]
    return "\n\n".join(
        [
            "## Intervals",
            "2.5 % and 97.5 % quantiles of measured / predicted - 1 over grade A without rows whose length is a cap "
            "(grade B as well where a statistic has fewer than 20 such rows). A family of methods with fewer than 20 "
            "rows takes the interval of all (`any`): the quantiles of so few rows are nearly their extremes.",
            table(("statistic, family", "rows", "low", "high"), made),
            "Leave one source out: the intervals without a source, and the share of its rows inside them. low and high "
            "are of all families; a family's own interval is used where the others have 20 rows of it.",
            table(("source, statistic", "rows", "covered", "low", "high", "rows of the others"), left),
        ]
    )


def _peers(result: Mapping[str, Any]) -> str:
    peers = result["peers"]
    if not peers:
        return "## Other estimators\n\n`.venv-peers` was missing when this was written: run `make bench-memory`."
    lines = [
        [f"{name} {of['version']}", of["claims"], of["statistic"], of["rows"]]
        + [percent(of[key]) for key in ("median", "p95", "our_median", "our_p95")]
        for name, statistics in peers.items()
        for of in statistics
    ]
    text = (
        "Rows of grade A that both answer. Each is asked by its own installed code for the row's options as far as it "
        "has them (`adapters.py`), and compared with both the allocated and the device peak, whatever it claims to "
        "predict: the reader may take the reading that is kinder to it."
    )
    heads = ("estimator", "says that it predicts", "compared with", "rows", "median", "p95", "our median", "our p95")
    return f"## Other estimators\n\n{text}\n\n{table(heads, lines)}"


def _fits(result: Mapping[str, Any]) -> str:
    ran, failed = result["fits"]["ran"], result["fits"]["out_of_memory"]
    text = (
        f"Of {ran['rows']} runs that ended on a named GPU, {ran['right']} are said to fit it; of {failed['rows']} runs "
        f"that ran out of memory, {failed['right']} are said not to fit. A run fits when the upper end of its "
        "interval does. The replayed cache has no limit; a real allocator releases it when the card is full, which is "
        "why runs that filled a card are said not to fit."
    )
    lines = [
        [row["id"], row["model"], row["method"], row["gpu"] or "not stated", percent(row["share_of_capacity"])]
        for row in result["fits"]["wrong"]
    ]
    heads = ("wrong answers", "model", "method", "GPU", "predicted device peak / capacity")
    return f"## Fit or no fit\n\n{text}" + (f"\n\n{table(heads, lines)}" if lines else "")


def _cpu(result: Mapping[str, Any]) -> str:
    found = result["cpu"]
    if not found:
        return ""
    lines = [
        [
            row["id"],
            *(f"{row[key] / 1000000.0:.1f}" for key in ("predicted", "metered", "rss_growth")),
            percent(row["predicted_error"]),
            f"{row['rss_over_metered']:.2f}",
        ]
        for row in found["rows"]
    ]
    heads = ("MB", "predicted", "metered", "growth of resident memory", "error", "resident / metered")
    return (
        "## CPU\n\nThe embedded model on this CPU: traced, metered by torch's own allocation records over two real "
        f"steps, and the growth of the process (`cpu.py`, {found['made_at']}).\n\n{table(heads, lines)}"
    )


def _beyond(rows: Rows) -> str:
    """Rows beyond 3 %, the exact grade first; explanations are numbered once."""
    far = [row for row in rows if abs(row["error"]) > BEYOND]
    texts = list(dict.fromkeys(row["explanation"] for row in far))
    counts = Counter(row["explanation"] for row in far)
    legend = table(("explanation", "number", "rows"), [[text, at, counts[text]] for at, text in enumerate(texts, 1)])
    lines = [
        [
            row["id"],
            row["grade"],
            row["statistic"],
            row["options"]["model"],
            row["method"],
            f"{row['measured'] / 1000000000.0:.2f}",
            f"{row['predicted'] / 1000000000.0:.2f}",
            percent(row["error"]),
            texts.index(row["explanation"]) + 1,
        ]
        for row in sorted(far, key=lambda row: (row["grade"], row["statistic"], row["source"], row["id"]))
    ]
    heads = ("row", "grade", "statistic", "model", "method", "measured GB", "predicted GB", "error", "explanation")
    text = f"{len(far)} of {len(rows)} rows. What the settings explain is numbered; the rest is unexplained."
    return f"## Every row beyond 3 %\n\n{text}\n\n{legend}\n\n{table(heads, lines)}"


def _unmapped(result: Mapping[str, Any]) -> str:
    by_reason = Counter(row["reason"] for row in result["unmapped"])
    refused = Counter(row["reason"] for row in result["refused"])
    parts = [
        "## Rows that are not priced",
        f"{len(result['unmapped'])} rows of the table cannot be said in options (each with its reason in "
        "`result.json`):",
        table(("reason", "rows"), [list(item) for item in sorted(by_reason.items(), key=lambda i: (-i[1], i[0]))]),
    ]
    if refused:
        parts += [
            f"{len(result['refused'])} rows are said in options, and the command refuses them:",
            table(
                ("the command says", "rows"), [list(i) for i in sorted(refused.items(), key=lambda i: (-i[1], i[0]))]
            ),
        ]
    return "\n\n".join(parts)
