"""`rankwise tables`: the two tables and the claims of a published lesson, computed by the product's own verbs."""

from collections.abc import Callable, Collection
from typing import get_args

from rankwise.estimate.lesson.claims import claims_table
from rankwise.estimate.lesson.costtable import ROWS, cost_table
from rankwise.estimate.lesson.desk import COUNTS, GPUS, LARGE, MODELS, RECIPES, STEP, Desk, Options
from rankwise.estimate.lesson.memorytable import COUNTED, COUNTED_WORDS, memory_table
from rankwise.estimate.lesson.said import said_number
from rankwise.records import Estimate, Plan
from rankwise.records.tables import Part, Tables

PARTS: tuple[Part, ...] = get_args(Part)


def build_tables(
    estimate: Callable[[Options], Estimate],
    plan: Callable[[Options], Plan],
    *,
    parts: Collection[Part] = PARTS,
    gpu: str | None = None,
    more: Options | None = None,
    progress: Callable[[str, int, int], None],
) -> Tables:
    """Price what the parts need.

    Args:
        estimate: options of `rankwise estimate` -> Estimate.
        plan: keys of a job, dots written as double underscores -> Plan.
        gpu: one GPU by its name in the device table, in place of the three of the lesson; the claims keep theirs.
        more: options that hold for every estimate, such as a file of prices.

    Raises what an estimate or a plan raises.
    """
    table = Desk(estimate, plan, gpus=(gpu,) if gpu else GPUS, large=gpu or LARGE, more=more)
    lesson = table if gpu is None else Desk(estimate, plan, more=more)
    return Tables(
        memory=memory_table(table, progress) if "memory" in parts else (),
        cost=cost_table(table, progress) if "cost" in parts else (),
        claims=claims_table(lesson, progress) if "claims" in parts else (),
        assumptions=assumptions(table),
    )


def assumptions(desk: Desk) -> dict[str, str]:
    """What every row stands on, in words."""
    examples, epochs, price = (said_number(n) for n in ("examples", "epochs", "usd_per_hour"))
    month = said_number("usd_per_gb_month")
    return {
        "step": f"batch {STEP['batch']} x {STEP['seq_len']:,} tokens on each GPU, gradient checkpointing, "
        "PyTorch's own choice of attention kernel, today's loss path",
        "models": "; ".join(f"{size}: {name}" for size, name in MODELS.items()),
        "state": "weights, gradients and optimizer state of the whole model, without activations",
        "GPUs": f"the first of {', '.join(map(str, COUNTS))} on which the upper end of the interval fits; what an even "
        f"split of the state leaves no room for is not tried. Kinds: {', '.join(desk.gpus)}",
        f"recipe {COUNTED}": COUNTED_WORDS,
        **{f"recipe {way.name}": way.words for way in RECIPES},
        "cost": f"{examples:,.0f} examples x {epochs:g} epochs, packed into rows of {STEP['seq_len']:,} tokens without "
        f"padding, about {ROWS} rows a step over all GPUs, on the fewest {desk.large} that hold it; full fine-tuning "
        "as ZeRO-3",
        "price": f"{price:g} USD for an A100-hour is the lesson's, without date or provider, so that like is compared "
        f"with like; today's is that of `rankwise gpus`. Storage: {month:g} USD a GB-month is the lesson's, too",
        "sizes": "1 GB is 1e9 bytes; the lesson's 40 and 80 GB are what the card is called, capacity is what CUDA "
        "offers a process",
    }
