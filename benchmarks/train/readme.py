"""result.json -> README.md, with nothing else read."""

from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.memory.bench import machine_in_words

# name, what it is, asked (must), wished (aim), is less better?
ASKED = (
    ("ratio_vs_trl_lesson", "useful tokens/s, times TRL at the lesson's settings", 3.5, 5.0, False),
    ("ratio_vs_trl_best", "useful tokens/s, times TRL at the best of the grid", 1.3, 2.0, False),
    ("fraction_of_matmul_rate", "useful FLOP/s, share of the bf16 rate of a 2048 x 2048 product", 0.35, 0.5, False),
    ("loss_gap", "difference of held-out loss, nats per token", 0.02, 0.02, True),
    ("overhead", "share of the time between two steps outside of forward, backward and update", 0.02, 0.02, True),
)

OTHERS = {"litgpt": "litgpt", "llamafactory": "LLaMA-Factory"}  # arm -> name; measured where they are installed
# What they do otherwise than TRL and ours.
DIFFERENT = (
    "litgpt and LLaMA-Factory get the same ids and masks, at the settings that result.json names. litgpt takes the",
    "mean of its micro-batches' mean losses, clips no gradients, and has one dropout mask for q, k and v;",
    "LLaMA-Factory pads rows to multiples of 8.",
    "",
)


def readme(result: Mapping[str, Any]) -> str:
    """The page."""
    data = result["data"]
    return "\n".join(
        [
            "# Training speed, side by side",
            "",
            "<!-- Made by `make bench-train` from result.json. -->",
            "",
            "One LoRA job (r = 16 on all linear layers, dropout 0.05, 16 rows a step, rate 2e-4) on the embedded",
            f"model: {data['rows']} rows of {data['source']}, {data['tokens']:,} tokens, {result['threads']} threads.",
            f"Every arm trains on the same rows and is judged on the same {data['held_out']} held-out ones. What the",
            "plan chose for ours stands in result.json, and so do all runs.",
            "",
            "| what | found | asked | aim |",
            "| --- | --- | --- | --- |",
            *(_asked(result["metrics"], *line) for line in ASKED),
            *(_beside(result["metrics"], arm) for arm in OTHERS if f"ratio_vs_{arm}" in result["metrics"]),
            "",
            "| arm | useful tokens/s, median | from, to | held-out loss |",
            "| --- | --- | --- | --- |",
            *(_arm(result, arm, name) for arm, name in _names(result).items()),
            "",
            *(DIFFERENT if any(r["arm"] in OTHERS and r["tokens_per_second"] for r in result["rows"]) else ()),
            "TRL's grid, one step each, without gradient checkpointing:",
            "",
            "| settings | useful tokens/s |",
            "| --- | --- |",
            *(f"| {r['arm']} | {_rate(r)} |" for r in result["grid"]),
            "",
            f"Padding of ours: {result['metrics']['padding']:.1%} of the tokens computed. Matmul:"
            f" {median(result['matmul_flops']) / 1e9:,.0f} GFLOP/s. TRL {result['versions'].get('trl')}, torch"
            f" {result['versions'].get('torch')}. Machine: {machine_in_words(result['machine'])}."
            f" Code: {result['commit']}.",
            "",
        ]
    )


def _names(result: Mapping[str, Any]) -> dict[str, str]:
    asked = {r["arm"] for r in result["rows"]}
    return {
        "ours": "rankwise, as the plan chooses",
        "trl best": f"TRL, {result['best']}",
        "trl lesson": "TRL, the lesson's settings",
        **{arm: name for arm, name in OTHERS.items() if arm in asked},
    }


def _asked(metrics: Mapping[str, float], name: str, what: str, must: float, aim: float, less: bool) -> str:
    found, sign = metrics[name], "at most" if less else "at least"
    mark = "" if (found <= must if less else found >= must) else " **missed**"
    return f"| {what} | {found:.3g}{mark} | {sign} {must:g} | {aim:g} |"


def _beside(metrics: Mapping[str, float], arm: str) -> str:
    return f"| useful tokens/s, times {OTHERS[arm]} | {metrics[f'ratio_vs_{arm}']:.3g} | | |"


def _arm(result: Mapping[str, Any], arm: str, name: str) -> str:
    rows = [r for r in result["rows"] if r["arm"] == arm]
    runs = [r for r in rows if r["tokens_per_second"]]
    if not runs:
        return f"| {name} | {rows[0]['error']} | | |"
    speeds = [r["tokens_per_second"] for r in runs]
    named = f"{name} {runs[0]['version']}" if arm in OTHERS else name
    loss = median(r["held_out"] for r in runs)
    return f"| {named} | {median(speeds):.0f} | {min(speeds):.0f} to {max(speeds):.0f} | {loss:.4f} |"


def _rate(row: Mapping[str, Any]) -> str:
    return row["error"] if row["tokens_per_second"] is None else f"{row['tokens_per_second']:.0f}"
