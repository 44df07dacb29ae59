"""result.json -> README.md, with nothing else read."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

NAMES = {"copy": "the base's files copied", "ours": "rankwise", "peft": "PEFT, `merge_and_unload` in bf16"}
MUST_TIME, AIM_TIME = 1.5, 1.2


def readme(result: Mapping[str, Any]) -> str:
    """The page."""
    metrics, machine = result["metrics"], result["machine"]
    return "\n".join(
        [
            "# Merging",
            "",
            "<!-- Made by `make bench-merge` from result.json. -->",
            "",
            f"A LoRA adapter of rank 16 on all linear layers, merged into a random checkpoint of Mistral-7B's shapes "
            f"with {result['layers']} layers (bf16) and into the embedded model. Each merge runs in a process of its "
            "own, over files that the page cache does not hold, and ends when its files are on disk (fsync). Memory "
            "is what the process took beside the interpreter and its imports (VmHWM); time begins when they are done.",
            "",
            "| model | what | seconds, median | runs | peak memory | written |",
            "| --- | --- | --- | --- | --- | --- |",
            *_rows(result["rows"]),
            "",
            "| what | found | asked |",
            "| --- | --- | --- |",
            *_asked(metrics),
            "",
            f"Machine: {_said(machine)}. Versions: {_said(result['versions'])}. Commit {result['commit']}.",
            "",
        ]
    )


def _rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    made = []
    for model in dict.fromkeys(r["model"] for r in rows):
        for arm, name in NAMES.items():
            own = [r for r in rows if (r["model"], r["arm"]) == (model, arm)]
            fine = [r for r in own if "error" not in r]
            if own and not fine:
                made.append(f"| {model} | {name} | {own[0]['error'].replace('|', ' ')} | 0 of {len(own)} | | |")
            elif fine:
                peak = max(r["peak_bytes"] - r["imports_bytes"] for r in fine) / 1e6
                seconds = median(r["seconds"] for r in fine)
                written = f"{fine[0]['written_bytes'] / 1e9:.2f} GB"
                made.append(f"| {model} | {name} | {seconds:.1f} | {len(fine)} | {peak:,.0f} MB | {written} |")
    return made


def _asked(metrics: Mapping[str, float]) -> list[str]:
    made = []
    for before, model in (("", "7B shapes"), ("embedded_", "embedded model")):
        if f"{before}time_vs_copy" not in metrics:
            continue
        ratio, over = metrics[f"{before}time_vs_copy"], metrics[f"{before}peak_mb_over_limit"]
        met = "met" if ratio <= MUST_TIME else "**missed**"
        aim = "met" if ratio <= AIM_TIME else f"missed by {ratio - AIM_TIME:.2f}"
        made.append(
            f"| {model}: time over copying | {ratio:.2f} | at most {MUST_TIME} ({met}), aim {AIM_TIME} ({aim}) |"
        )
        said = f"at most 0 ({'met' if over <= 0 else '**missed**'})"
        made.append(f"| {model}: peak memory over 4 x the largest tensor + 300 MB | {over:,.0f} MB | {said} |")
        if f"{before}time_vs_peft" in metrics:
            made.append(f"| {model}: time over PEFT's | {metrics[f'{before}time_vs_peft']:.2f} | |")
    return made


def _said(known: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in known.items()) if isinstance(known, Mapping) else str(known)
