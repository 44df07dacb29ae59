"""result.json -> README.md, with nothing else read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

CALLERS = {"ours": "Rankwise", "lora_r16": "always LoRA r16", "lesson": "the lesson's function"}
SHARES = {
    "agreement": "all cases",
    "agreement_decisive": "decisive cases",
    "agreement_held_out": "held-out sources",
    "agreement_decisive_held_out": "held-out sources, decisive cases",
    "agreement_tuned": "the other sources",
    "agreement_not_in_evidence": "sources that the planner's evidence does not cite",
}
FIGURES = {
    "agreement_mean_of_sources": "mean of the sources' agreements",
    "mean_regret_noise": "mean regret, in units of the noise",
    "mean_regret_noise_held_out": "the same, held-out sources",
    "thrift": "of the agreements, those where no winner trains less",
}

HEAD = """# Decisions: our call on published head-to-heads

Written by `make bench-decisions` from `result.json`; do not edit. `history.md` has the earlier runs.

Each case is a comparison that somebody published: the setup goes to `rankwise plan` through the public API, the scores
do not. The call is the plan's verdict; where an arm does without training (retrieval, prompting, nothing) and the plan
names that rung first, the call is the rung. `standing.py` says which arm stands for a call. The call **agrees** when
that arm ran within the case's budget and is not worse than the best such arm beyond the noise: 1.96 sqrt(2 p (1 - p) /
n) for an accuracy, else the gap that the case states, with its reason. A call that no arm stands for is a miss. A case
whose arms all tie is no test of anybody; **decisive** leaves those out.

Sources are held out as a whole by the hash of their names (`case.py`), before any rule of the planner was tuned to a
case. "The digest" in the files of cases is `../shared/reference/science.md`, which lies beside the repository. Some
sources are cited as evidence by the planner's own rules, so one line leaves them out.

Baselines: LoRA of rank 16 on all linear layers, whatever the question; and the function of the lesson
(`lesson.py`, transcribed with its faults), with its advice on ranks. Both gain from near-equivalents as we do.
"""

HOW = """## How to run

    make bench-decisions

decides every case of `cases/` (each setup is traced once and cached), and writes `result.json` and this file. A new
case is a new table in a file of its source; `case.py` says what it needs, and refuses a wrong `held_out`. Whoever
changes a rule reruns, adds a line to `history.md`, and explains each miss in `explained.toml`.
"""


def readme(result: Mapping[str, Any]) -> str:
    """The whole page."""
    rows = result["rows"]
    sections = [
        HEAD.strip(),
        f"Code: {result['commit']}.",
        "## Agreement (95 % Wilson interval)",
        _agreement(result["metrics"]),
        _paired(result["metrics"]),
        "## Cases",
        _cases(rows),
        _misses(rows, result["explained"]),
        "## Sources",
        _sources(result["sources"], rows),
        HOW,
    ]
    return "\n\n".join(section for section in sections if section).rstrip() + "\n"


def _table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    made = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    return "\n".join([*made, *(f"| {' | '.join(map(str, line))} |" for line in lines)])


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _agreement(metrics: Mapping[str, float]) -> str:
    lines: list[Sequence[object]] = [
        (title, *(_share(metrics, name + _end(caller)) for caller in CALLERS)) for name, title in SHARES.items()
    ]
    lines += [
        (title, *(_figure(metrics, name + _end(caller)) for caller in CALLERS)) for name, title in FIGURES.items()
    ]
    counts = (
        f"{metrics['cases']:g} cases of {metrics['sources']:g} sources; {metrics['cases_held_out']:g} cases are held "
        f"out, {metrics['cases_decisive']:g} are decisive."
    )
    return f"{counts}\n\n" + _table(("", *CALLERS.values()), lines)


def _end(caller: str) -> str:
    return "" if caller == "ours" else f"_{caller}"


def _share(metrics: Mapping[str, float], name: str) -> str:
    if name not in metrics:
        return "none"
    return f"{percent(metrics[name])} ({percent(metrics[f'{name}_low'])} to {percent(metrics[f'{name}_high'])})"


def _figure(metrics: Mapping[str, float], name: str) -> str:
    if name not in metrics:
        return "none"
    return f"{metrics[name]:.2f}" if "regret" in name else percent(metrics[name])


def _paired(metrics: Mapping[str, float]) -> str:
    lines = [
        (
            title,
            f"{metrics[f'only_ours_against_{name}']:g}",
            f"{metrics[f'only_{name}']:g}",
            f"{metrics[f'p_against_{name}']:.2g}",
        )
        for name, title in CALLERS.items()
        if name != "ours"
    ]
    return "Case by case, with the exact test of McNemar:\n\n" + _table(
        ("baseline", "only we agree", "only it agrees", "p"), lines
    )


def _cases(rows: Sequence[Row]) -> str:
    lines = [
        (
            f"{of['id']}{' *' if of['held_out'] else ''}",
            f"{of['best']} ({of['best_score']:g})" if of["decisive"] else "no winner",
            of["calls"]["ours"]["call"],
            of["calls"]["ours"]["arm"] or "none",
            _regret(of["calls"]["ours"]),
            *(_verdict(of["calls"][name]) for name in CALLERS),
        )
        for of in rows
    ]
    head = ("case", "best", "our call", "stands as", "regret (in noise)", "we", "LoRA r16", "lesson")
    legend = (
        "`*`: held out. Regret is in the metric's unit, in brackets in units of the noise. `+` agrees, `=` agrees but "
        "an arm that trains less ties, `-` does not."
    )
    return f"{legend}\n\n{_table(head, lines)}"


def _regret(call: Mapping[str, Any]) -> str:
    regret = "no arm" if call["regret"] is None else f"{call['regret']:.3g}"
    return f"{regret} ({call['regret_noise']:.1f})"


def _verdict(call: Mapping[str, Any]) -> str:
    if not call["agree"]:
        return "-"
    return "+" if call["thrift"] else "="


def _misses(rows: Sequence[Row], explained: Mapping[str, str]) -> str:
    missed = [(of["id"], of["calls"]["ours"]) for of in rows if not of["calls"]["ours"]["agree"]]
    if not missed:
        return ""
    lines = [(name, ours["call"], ours["why"], explained.get(name, "not explained yet")) for name, ours in missed]
    return "## Our misses\n\n" + _table(("case", "call", "figures", "why"), lines)


def _sources(sources: Sequence[Row], rows: Sequence[Row]) -> str:
    lines = []
    for source in sources:
        agreed = [of["calls"]["ours"]["agree"] for of in rows if of["source"] == source["id"]]
        lines.append(
            (
                f"[{source['title']}]({source['url']})",
                source["where"].replace("|", "/"),
                source["read"],
                source["evidence"] or "none",
                "yes" if source["held_out"] else "no",
                f"{sum(agreed)} of {len(agreed)}",
            )
        )
    legend = "read: text or data were read; abs: abstract or third-party notes; rec: recalled, not re-read."
    return f"{legend}\n\n" + _table(("source", "where", "status", "evidence of ours", "held out", "we agree"), lines)
