"""result.json -> README.md, with nothing else read."""

from collections.abc import Mapping
from typing import Any

from benchmarks.memory.bench import machine_in_words
from benchmarks.watch.spectrum import MOST_BYTES, MOST_SECONDS

SLICES = ("general text", "general answers", "general rows", "general questions")
# metric, what it is, what is asked, does the found number hold?
ASKED = (
    ("overhead", "all looks, share of a run of half an hour", "under 0.05", lambda m: m["overhead"] < 0.05),
    (
        "bad_nats",
        "rank 1, rate 1e-3, no replay: rise of the loss on rows that the base wrote, at its end, nats",
        "red, and stopped (at step `bad_stopped_at`)",
        lambda m: "bad_stopped_at" in m,
    ),
    (
        "rolled_back_red",
        "the same, rolled back: are the weights that are published red?",
        "0, and gone back (to step `bad_rolled_back_to`)",
        lambda m: m["rolled_back_red"] == 0 and "bad_rolled_back_to" in m,
    ),
    (
        "replay_saves",
        "the same with replay: share of that rise that is spared",
        "at least 0.8",
        lambda m: m["replay_saves"] >= 0.8,
    ),
    (
        "spectrum_seconds",
        "spectra of an adapter of r = 64 on all modules of Llama-3-8B's shapes, the adapter alone, seconds",
        f"under {MOST_SECONDS:g}",
        lambda m: m["spectrum_seconds"] < MOST_SECONDS,
    ),
    (
        "spectrum_peak_bytes",
        "the same, peak memory of the process, bytes",
        f"under {MOST_BYTES:g}",
        lambda m: m["spectrum_peak_bytes"] < MOST_BYTES,
    ),
    ("planned_red", "what the plan chooses: is any look red?", "0", lambda m: m["planned_red"] == 0),
)


def readme(result: Mapping[str, Any]) -> str:
    """The page."""
    data, metrics = result["data"], result["metrics"]
    return "\n".join(
        [
            "# The forgetting watch",
            "",
            "<!-- Made by `make bench-watch` from result.json. -->",
            "",
            f"One format task (answers as JSON) on the embedded model: {data['rows']} rows of {data['source']}, "
            f"{data['held_out']} held out.",
            "Every run goes through the product. Levels and limits: [docs/watch.md](../../docs/watch.md).",
            "",
            "| what | found | asked |",
            "| --- | --- | --- |",
            *(_asked(metrics, *line) for line in ASKED),
            "",
            "Last look of each run; a slice's difference from the base with its 95 % interval and level:",
            "",
            f"| run | what was trained | steps | {' | '.join(SLICES)} | published | held-out loss |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            *(_arm(row) for row in result["rows"]),
            "",
            "![rise of general loss by step](steps.svg)",
            "",
            "![what was learned against what was forgotten](frontier.svg)",
            "",
            "Thresholds of this base:",
            "",
            "| slice | base | amber | red | why |",
            "| --- | --- | --- | --- | --- |",
            *(_threshold(t) for t in result["rows"][2]["forgetting"]["thresholds"]),
            "",
            "Spectra, each in a process of its own on two threads, imports included:",
            "",
            "| what | matrices | seconds | for all layers, s | CPU seconds | peak, MB |",
            "| --- | --- | --- | --- | --- | --- |",
            *(_spectra(row) for row in result["spectra"]),
            "",
            f"A look takes {metrics['look_seconds']:.1f} s here; all runs took {metrics['seconds']:.0f} s.",
            f"torch {result['versions'].get('torch')}. Machine: {machine_in_words(result['machine'])}."
            f" Code: {result['commit']}.",
            "",
        ]
    )


def _asked(metrics: Mapping[str, float], name: str, what: str, wanted: str, holds: Any) -> str:
    mark = "" if holds(metrics) else " **missed**"
    for other in ("bad_stopped_at", "bad_rolled_back_to"):
        wanted = wanted.replace(f"`{other}`", f"{metrics[other]:.0f}" if other in metrics else "none")
    return f"| {what} | {metrics[name]:.3g}{mark} | {wanted} |"


def _arm(row: Mapping[str, Any]) -> str:
    config, last, found = row["config"], row["looks"][-1], row["forgetting"]
    parts = {part["name"]: part for part in last["slices"]}
    loss = next((p["task_loss"] for p in found["frontier"] if p["step"] == found["step"]), None)
    replay = f", replay {config['replay_share']:.0%}" if config["replay_share"] else ""
    scale = f", alpha {config['lora_alpha']:g}" if "lora_alpha" in config else ""
    what = f"{config['method']} r = {config.get('r')}{scale}, rate {config['learning_rate']:g}{replay}"
    return (
        f"| {row['arm']} | {what} | {row['steps'][-1]['step']} of {config['max_steps']} "
        f"| {' | '.join(_part(parts[name]) for name in SLICES)} "
        f"| step {found['step']}, {found['level']} | {'' if loss is None else f'{loss:.4f}'} |"
    )


def _part(part: Mapping[str, Any]) -> str:
    low, high = part["interval"]
    return f"{part['difference']:+.3f} ({low:+.3f} to {high:+.3f}), {part['level']}"


def _spectra(row: Mapping[str, Any]) -> str:
    return (
        f"| {row['what']} ({row['model']}, r = {row['rank']}) | {row['matrices']} | {row['seconds']:.1f} "
        f"| {row['seconds_all_layers']:.0f} | {row['cpu_seconds']:.1f} | {row['peak_bytes'] / 1e6:.0f} |"
    )


def _threshold(limit: Mapping[str, Any]) -> str:
    amber = "where chance ends" if limit["amber"] is None else f"{limit['amber']:+.3f}"
    red = "" if limit["red"] is None else f"{limit['red']:+.3f}"
    return f"| {limit['slice']} | {limit['baseline']:.3f} {limit['unit']} | {amber} | {red} | {limit['source']} |"
