"""result.json -> README.md, with nothing else read."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.memory.bench import machine_in_words

PLOTS = {
    "X2": ("x2-facts.svg", "bits stored against bits asked"),
    "X3": ("x3-forgetting.svg", "what was learned against what was forgotten, a line a seed"),
    "X4": ("x4-replay.svg", "forgetting by share of replay"),
    "X6": ("x6-alpha.svg", "loss by rate, rank and alpha"),
    "X8": ("x8-cuts.svg", "quality by directions kept"),
}
NOT_COUNTED = "**A smoke run (QUICK=1): nothing of it counts.**"


def readme(result: Mapping[str, Any]) -> str:
    """The page."""
    lines = [
        "# The lesson's claims, tested",
        "",
        "<!-- Made by `make bench-lesson` from result.json. -->",
        "",
        *([] if result["counted"] else [NOT_COUNTED, ""]),
        "Eight claims of the usual lesson on full fine-tuning and PEFT, as experiments that could have come out",
        "otherwise. In plain words, and what follows: [docs/lesson-tested.md](../../docs/lesson-tested.md). Format and",
        "forgetting run on the embedded model (SmolLM2-135M-Instruct), facts and the grid of rates on a model of 0.34M",
        "parameters that is pretrained in the run.",
        "",
        _how(result),
        "",
        *_table(_overview(result["experiments"])),
        "",
    ]
    for name, found in result["experiments"].items():
        lines += _experiment(name, found)
    return "\n".join([*lines, *_foot(result)])


def _how(result: Mapping[str, Any]) -> str:
    said, sizes = result["predictions"], result["sizes"]
    text = f"[predictions.toml](predictions.toml), written {said['written']}, sha256 `{said['sha256'][:16]}`"
    return (
        f"Predictions and rules stood before the run: {text}. {sizes['seeds']} seeds; rates by held-out loss, mean "
        "over seeds (of memorised facts by what is stored); test items play no part in it. A number is confirmed or "
        "refuted when its whole 95 % interval over paired seeds lies on that side of its limit (with few seeds it is "
        "wide), or, where a number is exact but for its seed, when every seed does; else nothing can be told. Eight "
        "claims are judged without a correction for their number."
    )


def _overview(experiments: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"": name, "claim": found["claim"], "foreseen": found["expected"], "outcome": f"**{found['outcome']}**"}
        for name, found in experiments.items()
    ]


def _experiment(name: str, found: Mapping[str, Any]) -> list[str]:
    lines = [f"## {name}: {found['title']}", "", f"Predicted: {found['predicted']}", ""]
    if found["missing"]:
        count = len(found["missing"])
        return [*lines, f"Not run: {count} pieces of work are missing, the first of them `{found['missing'][0]}`.", ""]
    lines += _table([_test(test) for test in found["tests"].values()])
    lines += ["", *_table([_plain(row) for row in found["table"]]), ""]
    if name in PLOTS:
        file, said = PLOTS[name]
        lines += [f"![{said}]({file})", ""]
    return lines


def _test(test: Mapping[str, Any]) -> dict[str, Any]:
    mark = "" if test["headline"] else " (beside it)"
    return {
        "number": test["says"] + mark,
        "by seed": ", ".join(shown(value) for value in test["values"]),
        "mean, 95 % interval": with_interval(test),
        "confirmed if": " and ".join(test["confirmed_if"]),
        "refuted if": " or ".join(test["refuted_if"]),
        "outcome": test["outcome"],
    }


def with_interval(test: Mapping[str, Any]) -> str:
    """Mean, interval and unit of a number that was judged."""
    if not test["values"]:
        return "not measured"
    middle = shown(sum(test["values"]) / len(test["values"]))
    if test["interval"] is None:
        return f"{middle} {test['unit']}"
    low, high = (shown(end) for end in test["interval"])
    return f"{middle} ({low} to {high}) {test['unit']}"


def shown(value: Any) -> str:
    """A number with three digits that mean something."""
    if value is None:
        return ""
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 and abs(value) < 1e7 else f"{value:.3g}"


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table without the points of its plot."""
    return {key: shown(value) for key, value in row.items() if not isinstance(value, list)}


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"| {' | '.join('---' for _ in names)} |"]
    return lines + [f"| {' | '.join(str(row[name]) for name in names)} |" for row in rows]


def _foot(result: Mapping[str, Any]) -> list[str]:
    seconds = sum(row["seconds"] for row in result["rows"])
    kept = sum(row["predictions"] == result["predictions"]["sha256"] for row in result["rows"])
    torch = result["versions"].get("torch")
    return [
        f"{len(result['rows'])} pieces of work, {seconds / 60:.0f} minutes on one thread; {kept} of them were done "
        "under this text of the predictions.",
        f"torch {torch}. Machine: {machine_in_words(result['machine'])}. Code: {result['commit']}.",
        "",
    ]
