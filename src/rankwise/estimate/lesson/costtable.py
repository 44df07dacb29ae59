"""The lesson's cost table, computed: 50,000 examples x 3 epochs, at a stated length of the examples."""

import math
from collections.abc import Callable
from typing import Literal

from rankwise.estimate.lesson.desk import MODELS, STEP, Desk, Recipe, recipe
from rankwise.estimate.lesson.said import said_cost, said_number
from rankwise.records import Estimate
from rankwise.records.base import Interval
from rankwise.records.tables import CostRow, SaidCost

SIZES = ("7B", "13B", "70B")
RECIPE_NAMES = ("ZeRO-3", "LoRA", "QLoRA")
TOKENS = (512, 2048)
# Rows of one optimizer step over all GPUs, as in the lesson's decision function.
ROWS = 32


def cost_table(desk: Desk, progress: Callable[[str, int, int], None]) -> tuple[CostRow, ...]:
    """Rows by size, method and length. Raises what an estimate raises."""
    rows: list[CostRow] = []
    for size in SIZES:
        for name in RECIPE_NAMES:
            for tokens in TOKENS:
                rows.append(cost_row(desk, size, recipe(name), tokens))
                progress("cost", len(rows), len(SIZES) * len(RECIPE_NAMES) * len(TOKENS))
    return tuple(rows)


def cost_row(desk: Desk, size: str, way: Recipe, tokens: int) -> CostRow:
    """One method on the fewest GPUs that it fits on; examples are packed into rows of STEP's length."""
    model = MODELS[size]
    found, gpus = _cheapest(desk, model, way, tokens)
    seconds = found.time.train_seconds if found else None
    said = said_cost(size, way.method)
    comparable = desk.large.startswith("A100")
    at_said = _usd(seconds, gpus, said_number("usd_per_hour")) if comparable else None
    span = _span(found, gpus, said_number("usd_per_hour")) if comparable else None
    lora = None if way.method == "lora" else cost_row(desk, size, recipe("LoRA"), tokens).gpu_hours
    hours = _usd(seconds, gpus, 1.0)
    return CostRow(
        size=size,
        model=model,
        method=way.method,
        recipe=way.name,
        tokens_per_example=tokens,
        gpu=desk.large,
        gpus=gpus,
        parallel=None if gpus is None else way.single if gpus == 1 else way.several,
        train_seconds=seconds,
        interval=found.time.interval if found else None,
        gpu_hours=hours,
        usd_at_said_price=at_said,
        usd_at_said_price_interval=span,
        usd_per_hour=found.money.usd_per_hour if found else None,
        usd=found.money.train_usd if found else None,
        usd_interval=found.money.interval if found else None,
        times_lora=1.0 if way.method == "lora" else hours / lora if hours is not None and lora else None,
        said=said,
        against_said=_against(span, said),
        source=f"{found.sources['time']}; {found.sources['money']}" if found else "unknown: it does not fit",
    )


def _cheapest(desk: Desk, model: str, way: Recipe, tokens: int) -> tuple[Estimate | None, int | None]:
    """The run on the fewest GPUs, with accumulation that makes ROWS rows a step. The second forward pass of a step
    finds gradients in memory, so that what fits is asked again.
    """
    fit, _ = desk.fewest(model, way, desk.large, grad_accum=2)
    if fit.gpus is None:
        return None, None
    return desk.priced(model, way, desk.large, fit.gpus, **packed(tokens, fit.gpus)), fit.gpus


def packed(tokens: int, gpus: int) -> dict[str, float]:
    """Options of the run: the lesson's examples as full rows, so that tokens alone set the time."""
    return {
        "examples": math.ceil(said_number("examples") * tokens / STEP["seq_len"]),
        "epochs": said_number("epochs"),
        "grad_accum": max(1, ROWS // gpus),
    }


def _usd(seconds: float | None, gpus: int | None, per_hour: float) -> float | None:
    return None if seconds is None or gpus is None else seconds / 3600 * gpus * per_hour


def _span(found: Estimate | None, gpus: int | None, per_hour: float) -> Interval | None:
    if found is None or gpus is None or found.time.interval is None:
        return None
    low, high = found.time.interval
    return low / 3600 * gpus * per_hour, high / 3600 * gpus * per_hour


def _against(span: Interval | None, said: SaidCost | None) -> Literal["lower", "overlaps", "higher"] | None:
    if span is None or said is None:
        return None
    if span[1] < said.usd[0]:
        return "lower"
    return "higher" if span[0] > said.usd[1] else "overlaps"
