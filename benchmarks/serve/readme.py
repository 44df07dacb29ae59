"""result.json -> README.md, with nothing else read."""

from collections.abc import Mapping
from statistics import median
from typing import Any

# metric, what it is, what is asked, the least that holds
ASKED = (
    (
        "mixed_vs_base",
        "16 clients, 8 adapters mixed, over 16 clients on the base alone",
        "at least 0.75 (aim 0.9)",
        0.75,
    ),
    ("mixed_vs_single", "16 clients, 8 adapters mixed, over one request at a time", "at least 1.5 (aim 3)", 1.5),
    ("mixed_vs_peft", "the same, over PEFT's static batch of 16 rows", "measured", None),
    ("mixed_vs_peft_uneven", "the same with answers of 8 to 96 tokens", "measured", None),
    ("load_seconds", "seconds until an adapter is loaded", "measured", None),
)
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
            f"torch {result['versions'].get('torch')}. Machine: {result['machine']}. Code: {result['commit']}.",
            "",
        ]
    )


def _asked(found: Mapping[str, float], name: str, what: str, wanted: str, least: float | None) -> str:
    missed = " **missed**" if least is not None and found[name] < least else ""
    return f"| {what} (`{name}`) | {found[name]:.2f}{missed} | {wanted} |"


def _arm(result: Mapping[str, Any], arm: str, what: str) -> str:
    rates = [row["tokens"] / row["seconds"] for row in result["rows"] if row["arm"] == arm]
    return f"| {what} | {median(rates):.1f} | {min(rates):.1f} to {max(rates):.1f} |"
