"""The fair bake-off: arms planned, budgets dealt, every arm worked off in a process of its own, and what follows."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rankwise.api.arms_priced import Bill, bill_of, read_bill
from rankwise.api.checking import require_sound
from rankwise.api.planning import load_job, plan_job
from rankwise.api.progress import Progress, quiet
from rankwise.api.replaying import ensure_replay
from rankwise.api.training import refuse_unready
from rankwise.compare.arms import read_arms
from rankwise.compare.budget import Share, TooSmall, deal, learning_rates
from rankwise.compare.folder import Folder, final_name, new_folder, sweep_name
from rankwise.compare.measured import Measured
from rankwise.compare.processes import Local, Start, work_on
from rankwise.errors import Interrupted, JobError, RankwiseError, UsageError
from rankwise.observe.devices import gpus_here
from rankwise.records import Allowance, Arm, Bakeoff, Detectable, Job, MethodChoice, Outcome, Plan
from rankwise.records.bakeoff import BudgetUnit
from rankwise.store import write_record, write_text

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


@dataclass(frozen=True)
class Ahead:
    """How far a comparison is: so much of one piece of work, and the seconds that are left; None: not known."""

    arm: str
    what: str
    done: int
    total: int
    seconds_left: float | None


def prepare_comparison(
    job: Path,
    wanted: Wanted,
    out: Path | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress = quiet,
) -> Folder:
    """The folder of a comparison with its plan in it: arms planned, measured where the budget is time, and budgets
    dealt. One that was begun by the same call is gone on with as it was planned.

    Raises:
        UsageError: an unknown method, a budget that is too small or has no price.
        RunError: the folder holds something else. AnswerIsNo, PlanError: an arm cannot run here.
    """
    began = time.monotonic()
    arms = read_arms(wanted.methods)
    read = load_job(job, options or {})
    _require_sides(read, arms)
    require_sound(read, progress)
    ensure_replay(read, progress)
    plans = _plans(read, arms, progress)
    folder = Folder(out or new_folder(read.name or job.stem))
    with folder.lock():
        asked = _asked(read, arms, plans, wanted)
        folder.begin(asked, plans)
        if not folder.bakeoff_path.is_file():
            write_record(folder.bakeoff_path, _dealt(folder, asked, plans, wanted, began, progress))
    return folder


def _require_sides(job: Job, arms: tuple[Arm, ...]) -> None:
    """Raises UsageError where there is nothing to judge what is asked for."""
    if job.data.train is None:
        raise JobError("a comparison trains, and this job describes its data", fix="give data.train")
    if job.hardware.nodes > 1:
        raise JobError(
            f"hardware.nodes is {job.hardware.nodes}, and each arm is trained on one device",
            fix="leave it out; --ray takes the devices of a cluster",
        )
    if job.data.facts is None and (job.goal == "knowledge" or any(arm.kind == "retrieval" for arm in arms)):
        why = "retrieval is an arm" if job.goal != "knowledge" else "the goal is knowledge"
        raise JobError(
            f"{why}, and the job has no probes, so nothing would tell what a model knows",
            expected="data.facts: closed-book questions, one a line: question, answer, and choices if you like",
            fix="add data.facts, or --facts FILE",
        )


def _plans(job: Job, arms: tuple[Arm, ...], progress: Progress) -> dict[str, Plan]:
    """Of each arm; one that is not trained gets that of the first trained one, or of the job's own method."""
    found: dict[str, Plan] = {}
    for done, arm in enumerate(arms, 1):
        if arm.method is not None:
            found[arm.name] = _planned(job, arm.method, arm.name)
        progress("arms planned", done, len(arms))
    usual = next(iter(found.values()), None) or _planned(job, job.method, "the job")
    return {arm.name: found.get(arm.name, usual) for arm in arms}


def _planned(job: Job, method: MethodChoice | None, name: str) -> Plan:
    """On one device, without looks at general ability, which is asked at the end instead."""
    forgetting = job.forgetting.model_copy(update={"watch_steps": 0, "action": "warn", "tasks": (), "tasks_path": None})
    hardware = job.hardware.model_copy(update={"count": 1})
    off: dict[str, None] = dict.fromkeys(("parallel", "deepspeed", "save_url", "report_to", "max_steps"))
    if job.method is not None and method is not None and job.method.name != method.name:
        off["learning_rate"] = None  # it was meant for another method
    train = job.train.model_copy(update=off)
    own = {"method": method, "forgetting": forgetting, "hardware": hardware, "train": train}
    decided = plan_job(job.model_copy(update=own), brief=True)
    try:
        refuse_unready(decided)
    except RankwiseError as error:
        error.what = f"{name}: {error.what}"
        raise
    return decided


def _asked(job: Job, arms: tuple[Arm, ...], plans: Mapping[str, Plan], wanted: Wanted) -> Bakeoff:
    """The comparison before anything is dealt out."""
    first = next(iter(plans.values()))
    seed = job.train.seed or 0
    return Bakeoff(
        job=job,
        job_hash=job.content_hash(),
        base_hash=first.base_hash,
        unit=wanted.unit,
        budget=wanted.budget,
        seeds=tuple(range(seed, seed + wanted.seeds)),
        allowances=tuple(_undealt(arm, plans[arm.name], wanted.rates) for arm in arms),
        detectable=(),
        notes=(),
    )


def _undealt(arm: Arm, plan: Plan, rates: int) -> Allowance:
    estimate, config = plan.chosen(), plan.verdict.config
    assert estimate is not None and config is not None
    trained = arm.kind == "trained"
    stored = estimate.storage.adapter_bytes
    return Allowance(
        arm=arm,
        config=config if trained else None,
        step_flops=None,
        step_seconds=estimate.time.step_seconds if trained else None,
        steps=0,
        sweep_steps=0,
        learning_rates=learning_rates(config.learning_rate, rates) if trained else (),
        flops=0.0,
        training_seconds=None,
        evaluation_seconds=None,
        interval=None,
        peak_memory=estimate.memory.peak_device if trained else None,
        stored_bytes=(plan.facts.model.weight_bytes if stored is None else stored) if trained else 0,
    )


def _dealt(
    folder: Folder, asked: Bakeoff, plans: Mapping[str, Plan], wanted: Wanted, began: float, progress: Progress
) -> Bakeoff:
    """The comparison with its budget dealt out."""
    first = next(iter(plans.values()))
    devices = _devices(first, wanted)
    if wanted.unit == "flops":
        bill = read_bill(asked, plans)
        budget = wanted.budget
    else:
        price = _seconds(first, wanted)
        bill = bill_of(asked, _measured(folder, asked, progress))
        budget = price - (time.monotonic() - began) - ENDING_SECONDS
    limit = EVALUATION_SHARE * budget * (1 if wanted.unit == "usd" else devices)
    most = bill.most_items(limit)
    asks = bill.asks(most)
    at_once = 1 if wanted.unit != "minutes" else devices
    try:
        shares = deal(budget, asks, seeds=wanted.seeds, rates=wanted.rates, devices=at_once)
    except TooSmall as error:
        raise _too_small(error, wanted, budget) from None
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


def _devices(plan: Plan, wanted: Wanted) -> int:
    """Arms that can be worked off at one time."""
    if wanted.ray is not None:
        _require_ray()
        from rankwise.compare.on_ray import slots

        return slots(wanted.ray, plan.facts.device.kind, plan.facts.device.cores)
    return max(1, len(gpus_here())) if plan.facts.device.kind == "gpu" else 1


def _require_ray() -> None:
    if find_spec("ray") is None:
        raise UsageError("--ray needs the package ray, which is not installed", fix="pip install 'rankwise[ray]'")


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


def _measured(folder: Folder, asked: Bakeoff, progress: Progress) -> dict[str, Measured]:
    """A few steps and answers of each trained arm, in a process of its own; without one, of the first arm."""
    trained = [a.arm.name for a in asked.allowances if a.arm.kind == "trained"]
    names = trained or [asked.allowances[0].arm.name]
    found: dict[str, Measured] = {}
    for arm, told in work_on(folder, names, 1, lambda arm, _: Local(folder, arm, flags=["--measure"])):
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


def carry_out_comparison(folder: Folder, ray: str | None = None) -> Iterator[Ahead]:
    """Work off every arm that is not finished; yields how far it is.

    Raises:
        Interrupted: stopped on request; the same call goes on. RankwiseError: what an arm failed at.
    """
    with folder.lock():
        bakeoff = folder.bakeoff()
        ahead = _Clock(folder, bakeoff)
        names = [a.arm.name for a in bakeoff.allowances if not _finished(folder, bakeoff, a)]
        devices, start = _places(folder, ray)
        try:
            for arm, told in work_on(folder, names, devices, start):
                yield ahead.seen(arm, told.what, told.done, told.total)
        except KeyboardInterrupt:
            raise Interrupted("stopped by Ctrl-C", fix=_how_to_go_on(folder)) from None
        except Interrupted as error:
            raise Interrupted(error.what, fix=_how_to_go_on(folder)) from None


def _how_to_go_on(folder: Folder) -> str:
    return f"the same command with --out {folder.path} goes on; what is finished is not done again"


def _places(folder: Folder, ray: str | None) -> tuple[int, Start]:
    """(arms at a time, how one is started)"""
    plan = folder.plan(folder.bakeoff().allowances[0].arm.name)
    device = plan.facts.device
    if ray is not None:
        _require_ray()
        from rankwise.compare.on_ray import OnRay, slots

        count = slots(ray, device.kind, device.cores)
        return count, lambda arm, _: OnRay(folder, arm, ray, device.kind, device.cores)
    if device.kind == "cpu":
        return 1, lambda arm, _: Local(folder, arm)
    count = max(1, len(gpus_here()))
    return count, lambda arm, number: Local(folder, arm, gpu=str(number) if count > 1 else None)


def _finished(folder: Folder, bakeoff: Bakeoff, allowance: Allowance) -> bool:
    seeds = bakeoff.seeds if allowance.arm.kind == "trained" else bakeoff.seeds[:1]
    return all(folder.trial(final_name(allowance.arm, seed)) is not None for seed in seeds)


class _Clock:
    """The seconds that are left, from what each run was planned to take."""

    def __init__(self, folder: Folder, bakeoff: Bakeoff):
        self.expected: dict[str, float | None] = {}
        for allowance in bakeoff.allowances:
            self.expected |= _expected(bakeoff, allowance)
        self.done = {name for name in self.expected if folder.trial(name) is not None}
        self.folder, self.name, self.part = folder, "", 0.0

    def seen(self, arm: str, what: str, done: int, total: int) -> Ahead:
        name = what.partition(", ")[0]
        if name != self.name and self.name in self.expected:
            self.done.add(self.name)
        self.name = name
        self.part = done / total if total and name == what else 1.0
        return Ahead(arm, what, done, total, self._left())

    def _left(self) -> float | None:
        left = 0.0
        for name, seconds in self.expected.items():
            if seconds is None:
                return None
            if name not in self.done:
                left += seconds * (1 - self.part) if name == self.name else seconds
        return left


def _expected(bakeoff: Bakeoff, allowance: Allowance) -> dict[str, float | None]:
    """Run -> planned seconds; None: not known."""
    arm, step, seeds = allowance.arm, allowance.step_seconds, bakeoff.seeds
    if arm.kind != "trained":
        return {final_name(arm, seeds[0]): allowance.evaluation_seconds}
    found: dict[str, float | None] = {}
    if len(allowance.learning_rates) > 1:
        for rate in allowance.learning_rates:
            found[sweep_name(arm, rate)] = None if step is None else allowance.sweep_steps * step
    answers = allowance.evaluation_seconds
    for seed in seeds:
        known = step is not None and answers is not None
        found[final_name(arm, seed)] = allowance.steps * step + answers / len(seeds) if known else None  # type: ignore[operator]
    return found


def conclude_comparison(folder: Folder) -> Outcome:
    """What the finished trials show; writes outcome.json and report.html."""
    bakeoff, trials = folder.bakeoff(), folder.trials()
    from rankwise.compare.conclude import conclude  # here: it needs scipy
    from rankwise.report.compare_page import compare_page

    plan = folder.plan(bakeoff.allowances[0].arm.name)
    price = plan.facts.device.price
    outcome = conclude(bakeoff, trials, price.at(plan.job.costs.pricing) if price else None)
    write_record(folder.outcome_path, outcome)
    write_text(folder.report_path, compare_page(bakeoff, trials, outcome, folder=folder.path))
    return outcome
