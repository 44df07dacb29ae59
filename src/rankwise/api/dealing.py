"""A comparison's budget dealt to its arms, by FLOPs or by seconds measured here."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rankwise.api.arms_priced import Bill, bill_of, read_bill
from rankwise.api.places import places
from rankwise.api.progress import Progress
from rankwise.compare.budget import Share, TooSmall, deal
from rankwise.compare.folder import Folder
from rankwise.compare.measured import Measured
from rankwise.compare.processes import work_on
from rankwise.errors import UsageError
from rankwise.records import Allowance, Bakeoff, Detectable, Plan
from rankwise.records.bakeoff import BudgetUnit

EVALUATION_SHARE = 0.5  # of the budget, at most: fewer items are asked before training gets less than the other half
ENDING_SECONDS = 10.0  # statistics and the page, kept back from a budget of time


@dataclass(frozen=True)
class Wanted:
    """What is compared, for how much.

    Attributes:
        methods: as `--methods` has them. rates: learning rates of each arm's sweep.
        ray: address of a Ray cluster; None: this machine.
    """

    methods: str
    unit: BudgetUnit
    budget: float
    seeds: int
    rates: int
    ray: str | None = None


def dealt(
    folder: Folder, asked: Bakeoff, plans: Mapping[str, Plan], wanted: Wanted, began: float, progress: Progress
) -> Bakeoff:
    """The comparison with its budget dealt out."""
    first = next(iter(plans.values()))
    devices, _ = places(folder, first, wanted.ray)
    if wanted.unit == "flops":
        bill = read_bill(asked, plans)
        budget = wanted.budget
    else:
        price = _seconds(first, wanted)
        bill = bill_of(asked, _measured(folder, asked, first, wanted.ray, progress))
        budget = price - (time.monotonic() - began) - ENDING_SECONDS
    at_once = devices if wanted.unit == "minutes" else 1  # FLOPs and money add up over devices
    most, shares = _shared(bill, EVALUATION_SHARE * budget * at_once, budget, wanted, at_once)
    return asked.model_copy(
        update={
            "most_items": most,
            "allowances": tuple(
                _allowance(a, shares[a.arm.name], bill, asked, most, plans[a.arm.name]) for a in asked.allowances
            ),
            "detectable": tuple(_detectable(asked, bill, most)),
            "notes": tuple(_notes(asked, bill, most, wanted, devices)),
        }
    )


def _shared(bill: Bill, limit: float, budget: float, wanted: Wanted, devices: int) -> tuple[int, dict[str, Share]]:
    """(items of each kind that are asked at most, what each arm gets): as many items as leave room for training."""
    for most in bill.sizes_within(limit):
        try:
            return most, deal(budget, bill.asks(most), seeds=wanted.seeds, rates=wanted.rates, devices=devices)
        except TooSmall as error:
            refused = error
    raise _too_small(refused, wanted, budget) from None


def _seconds(plan: Plan, wanted: Wanted) -> float:
    """Of a budget of time or money. Raises UsageError where the device has no price."""
    if wanted.unit == "minutes":
        return 60 * wanted.budget
    device = plan.facts.device
    hourly = device.price.at(plan.job.costs.pricing) if device.price else None
    if hourly is None:
        raise UsageError(
            f"--budget-cost needs the price of an hour, and {device.name} has none",
            expected="a GPU of `rankwise gpus`, or your own prices in costs.prices",
            fix="give --budget-minutes or --budget-flops instead",
        )
    return 3600 * wanted.budget / hourly


def _measured(folder: Folder, asked: Bakeoff, plan: Plan, ray: str | None, progress: Progress) -> dict[str, Measured]:
    """A few steps and answers of each trained arm, in a process of its own; without one, of the first arm."""
    trained = [a.arm.name for a in asked.allowances if a.arm.kind == "trained"]
    names = trained or [asked.allowances[0].arm.name]
    found: dict[str, Measured] = {}
    _, start = places(folder, plan, ray, flags=("--measure",))
    for arm, told in work_on(folder, names, 1, start):
        if told.measured is not None:
            found[arm] = told.measured
            progress("arms measured", len(found), len(names))
    return found


def _too_small(error: TooSmall, wanted: Wanted, given: float) -> UsageError:
    """In the unit that was asked in: what is taken off first comes on top."""
    option = {"flops": "--budget-flops", "minutes": "--budget-minutes", "usd": "--budget-cost"}[wanted.unit]
    if wanted.unit == "flops":
        needed = f"{error.needed * 1.005:.2e}"
    else:
        factor = wanted.budget / (given + ENDING_SECONDS) if wanted.unit == "usd" and given > 0 else 1 / 60
        least = wanted.budget + (error.needed - given) * factor
        needed = f"{least * 1.05:.2g}"
    runs = f"{wanted.seeds} seed{'s' * (wanted.seeds > 1)}"
    sweep = f" and {wanted.rates} runs of its sweep" if wanted.rates > 1 else ""
    return UsageError(
        f"{option} {wanted.budget:g} does not pay for one step of each arm in {runs}{sweep}, with their answers",
        expected=f"at least {option} {needed}",
        fix="raise it, or give fewer --methods, --seeds or rates (--lr-sweep)",
    )


def _allowance(asked: Allowance, share: Share, bill: Bill, bakeoff: Bakeoff, most: int, plan: Plan) -> Allowance:
    """What an arm may spend."""
    name, seeds = asked.arm.name, len(bakeoff.seeds)
    seconds = bill.step_seconds(name)
    training = share.total * seconds if seconds is not None else None
    answers = bill.answer_seconds(asked.arm, most)
    runs = seeds if asked.arm.kind == "trained" else 1
    answering = answers * runs if answers is not None else None
    low, high = bill.spread(name, plan)
    whole = training + answering if training is not None and answering is not None else None
    return asked.model_copy(
        update={
            "config": asked.config and asked.config.model_copy(update={"max_steps": share.steps}),
            "steps": share.steps,
            "odd_steps": share.odd_steps,
            "sweep_steps": share.sweep_steps,
            "step_seconds": seconds if asked.arm.kind == "trained" else None,
            "step_flops": bill.step_flops[name],
            "flops": share.total * (bill.step_flops[name] or 0.0),
            "training_seconds": training,
            "evaluation_seconds": answering,
            "interval": (whole * low, whole * high) if whole is not None else None,
        }
    )


def _detectable(asked: Bakeoff, bill: Bill, most: int) -> Iterator[Detectable]:
    """Of the metrics that are shares; how much rows differ in their loss is not known before."""
    from rankwise.compare.detect import Design, detectable  # here: they need scipy

    trained = sum(a.arm.kind == "trained" for a in asked.allowances)
    for metric, items in bill.items.items():
        design = Design(min(items, most), len(asked.seeds), len(asked.allowances), trained)
        found = detectable(metric, "share", design)
        if found is not None:
            yield found


def _notes(asked: Bakeoff, bill: Bill, most: int, wanted: Wanted, devices: int) -> Iterator[str]:
    yield f"looks and answers are {bill.source}"
    if most < bill.all_items:
        yield (
            f"at most {most} items of each kind are asked: with all {bill.all_items}, answers would take more than "
            f"{EVALUATION_SHARE:.0%} of the budget"
        )
    if asked.job.data.facts is None:
        yield "the job has no probes (data.facts), so nothing is said of what the models know"
    if asked.job.data.general is None:
        yield "the job has no data.general, so nothing is said of what the models forget"
    if devices > 1:
        yield f"{devices} arms are worked off at a time, each on a device of its own"
    batches = {a.arm.name: a.config.effective_batch for a in asked.allowances if a.config}
    if len(set(batches.values())) > 1:
        yield f"rows of a step differ: {', '.join(f'{name} {rows}' for name, rows in batches.items())}"
