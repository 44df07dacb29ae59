"""Why a prediction lies off a measurement, as far as a row's settings tell. Keyed by settings, never by a row's id."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.memory.compare import CAP

UNEXPLAINED = "unexplained"
Row = Mapping[str, Any]


def _sharded(row: Row) -> bool:
    return row["options"].get("parallel") in ("fsdp", "zero3", "zero2")


def _experts(row: Row) -> bool:
    return bool(re.search(r"mixtral|moe|8x", row["options"]["model"], re.IGNORECASE))


def _over(row: Row) -> bool:
    return bool(row["error"] > 0)


def _fills_card(row: Row) -> bool:
    return row["statistic"] != "allocated" and bool(row["capacity"]) and row["predicted"] > 0.9 * row["capacity"]


# The first that holds is the explanation.
RULES: list[tuple[Callable[[Row], bool], str]] = [
    (
        lambda r: CAP in r["note"] and _over(r) and r["statistic"] == "reserved",
        "the length is a cap and the figure a high quantile or a maximum over shorter batches; the prediction is of a "
        "batch at the cap",
    ),
    (
        lambda r: CAP in r["note"] and _over(r),
        "the length is a cap: the batches that were measured are shorter than the one that is priced",
    ),
    (
        lambda r: CAP in r["note"] and r["statistic"] != "allocated",
        "lengths vary from batch to batch: the cache keeps blocks of every size (fragmentation), and the prediction "
        "has one length",
    ),
    (
        lambda r: r["method"] == "gptq-lora" and _experts(r) and r["statistic"] == "allocated" and _over(r),
        "GPTQ: scales for groups of 128 weights are priced; this mixture's published checkpoint has one scale a column",
    ),
    (
        lambda r: r["options"].get("loss") == "chunked" and _sharded(r) and not _over(r),
        "litgpt under FSDP: the figure hardly grows with the batch and is near whole weights on one GPU, likely from "
        "before they are sharded; the step alone is priced",
    ),
    (
        lambda r: _fills_card(r) and _over(r),
        "close to the card's memory: the real allocator releases its cache when the card is full, and the prediction "
        "knows no such limit",
    ),
    (
        lambda r: r["statistic"] == "device" and _sharded(r),
        "sharded: blocks used on the communication stream are freed late, and NCCL's buffers vary",
    ),
    (
        lambda r: r["statistic"] in ("device", "reserved") and _experts(r),
        "mixture of experts: how many tokens an expert gets varies from step to step, and the cache keeps every size",
    ),
    (
        lambda r: r["statistic"] in ("device", "reserved") and not _over(r),
        "the cache holds more than one steady step replayed from an empty one: loading, evaluation and the order of "
        "frees leave blocks behind",
    ),
    (lambda r: bool(re.match(r"qwen/qwen-", r["options"]["model"].lower())), "Qwen-1, priced as a Qwen2 of its shape"),
    (lambda r: r["grade"] == "C", "grade C: rounded, or the setup is partly unknown"),
    (lambda r: "loss not stated" in r["note"], "the loss path is not stated; today's is priced"),
    (lambda r: "optimizer not stated" in r["note"], "the optimizer is not stated; AdamW is priced"),
    (lambda r: "attn" not in r["options"], "the attention kernel is not stated; sdpa is priced"),
]


def explanation(row: Row) -> str:
    """The sentence for one row, `unexplained` where no rule holds."""
    return next((text for holds, text in RULES if holds(row)), UNEXPLAINED)
