"""result.json -> README.md, with nothing else read."""

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from benchmarks.memory.bench import machine_in_words

# metric, what it is, what is asked, does the found number hold?
ASKED = (
    (
        "mixed_vs_base",
        "16 clients, 8 adapters mixed, over 16 clients on the base alone",
        "at least 0.75 (aim 0.9)",
        lambda found: found >= 0.75,
    ),
    (
        "mixed_vs_single",
        "16 clients, 8 adapters mixed, over one request at a time",
        "at least 1.5 (aim 3)",
        lambda found: found >= 1.5,
    ),
    ("mixed_vs_peft", "the same, over PEFT's static batch of 16 rows", "measured", None),
    ("mixed_vs_peft_uneven", "the same with answers of 8 to 96 tokens", "measured", None),
    ("load_seconds", "seconds until an adapter is loaded", "measured", None),
    (
        "gateway_p50_ms",
        "time inside the gateway, socket to submit and token to socket, ms, median of `gateway_requests` requests",
        "under 5",
        lambda found: found < 5,
    ),
    ("gateway_overhead", "the same as a share of the requests' time", "measured", None),
)
VLLM = {
    "base": "base, before any adapter is loaded",
    "base_beside": "base, beside 8 adapters",
    "mixed": "8 adapters mixed",
    "single": "one request at a time",
}
WAYS = {"bare": "straight to vLLM", "engine": "through our engine"}
ARMS = {
    "base": "engine, base alone, 16 clients",
    "mixed": "engine, 8 adapters mixed, 16 clients",
    "single": "engine, 8 adapters, one request at a time",
    "peft": "PEFT's static batch, 16 rows, 8 adapters",
    "mixed_uneven": "engine, mixed, answers of uneven length",
    "peft_uneven": "PEFT's static batch, answers of uneven length",
}


def readme(result: Mapping[str, Any]) -> str:
    """The page."""
    found = result["metrics"]
    return "\n".join(
        [
            "# Many adapters on one base",
            "",
            "<!-- Made by `make bench-serve` from result.json. -->",
            "",
            "The embedded model, LoRA of rank 8 on every linear layer, greedy answers, one thread; arms interleaved.",
            "How it works: [docs/serve-embedded.md](../../docs/serve-embedded.md).",
            "",
            "| what | found | asked |",
            "| --- | --- | --- |",
            *(_asked(found, *line) for line in ASKED if line[0] in found),
            "",
            "Tokens of answers a second, median of the rounds, least and most:",
            "",
            "| arm | tokens/s | least to most |",
            "| --- | --- | --- |",
            *(_arm(result, arm, what) for arm, what in ARMS.items()),
            "",
            *_vllm(found),
            f"torch {result['versions'].get('torch')}. Machine: {machine_in_words(result['machine'])}."
            f" Code: {result['commit']}.",
            "",
        ]
    )


def _vllm(found: Mapping[str, float]) -> list[str]:
    """The same table of vLLM, where it was there."""
    if not any(name.startswith("vllm_") for name in found):
        return ["vLLM was not installed (`make vllm`), so nothing is said of it.", ""]
    cells = {what: [f"{found[f'vllm_{way}_{case}_tokens_per_s']:.1f}" for way in WAYS] for case, what in VLLM.items()}
    for ratio, what in (("mixed_vs_base", "mixed over base"), ("mixed_vs_single", "mixed over one at a time")):
        cells[what] = [f"{found[f'vllm_{way}_{ratio}']:.2f}" for way in WAYS]
    return [
        "The same 16 clients on vLLM, tokens of answers a second, median of the rounds:",
        "",
        f"| case | {' | '.join(WAYS.values())} |",
        "| --- | --- | --- |",
        *(f"| {what} | {' | '.join(values)} |" for what, values in cells.items()),
        "",
        "vLLM is made for GPUs. Its build for CPUs keeps one core for its server and computes on the other, where a "
        "batch with adapters is not faster than one request. These figures show what the ways to it cost, not how fast "
        "it is.",
        "",
    ]


def _asked(found: Mapping[str, float], name: str, what: str, wanted: str, holds: Callable[[float], bool] | None) -> str:
    missed = "" if holds is None or holds(found[name]) else " **missed**"
    what = what.replace("`gateway_requests`", f"{found.get('gateway_requests', 0):,.0f}")
    return f"| {what} (`{name}`) | {found[name]:.2f}{missed} | {wanted} |"


def _arm(result: Mapping[str, Any], arm: str, what: str) -> str:
    rates = [row["tokens"] / row["seconds"] for row in result["rows"] if row.get("arm") == arm]
    return f"| {what} | {median(rates):.1f} | {min(rates):.1f} to {max(rates):.1f} |"
