"""A planned comparison carried out, each arm in a process of its own, and what follows from it."""

import logging
from collections.abc import Generator
from dataclasses import dataclass

from rankwise.api.comparisons import report_comparison
from rankwise.api.places import places
from rankwise.compare.evidence import remember
from rankwise.compare.folder import Folder, final_name, sweep_name
from rankwise.compare.processes import work_on
from rankwise.errors import Interrupted, RankwiseError
from rankwise.files import write_record
from rankwise.records import Allowance, Bakeoff, Outcome

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ahead:
    """How far a comparison is: so much of one piece of work, and the seconds that are left; None: not known."""

    arm: str
    what: str
    done: int
    total: int
    seconds_left: float | None


def carry_out_comparison(folder: Folder, ray: str | None = None) -> Generator[Ahead, None, None]:
    """Work off every arm that is not finished; yields how far it is.

    Raises:
        Interrupted: stopped on request; the same call goes on. RankwiseError: what an arm failed at.
    """
    with folder.lock():
        bakeoff = folder.bakeoff()
        ahead = _Clock(folder, bakeoff)
        names = [a.arm.name for a in bakeoff.allowances if not _finished(folder, bakeoff, a)]
        devices, start = places(folder, folder.plan(bakeoff.allowances[0].arm.name), ray)
        try:
            for arm, told in work_on(folder, names, devices, start):
                yield ahead.seen(arm, told.what, told.done, told.total)
        except KeyboardInterrupt:
            raise Interrupted("stopped by Ctrl-C", fix=how_to_go_on(folder)) from None
        except Interrupted as error:
            raise Interrupted(error.what, fix=how_to_go_on(folder)) from None


def how_to_go_on(folder: Folder) -> str:
    """What to do after a stop."""
    return f"the same command with --out {folder.path} goes on; what is finished is not done again"


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
    whole = None if step is None or answers is None else allowance.steps * step + answers / len(seeds)
    return found | {final_name(arm, seed): whole for seed in seeds}


def conclude_comparison(folder: Folder) -> Outcome:
    """What the finished trials show; writes outcome.json and report.html, and keeps it as evidence for later plans."""
    from rankwise.compare.conclude import conclude  # here: it needs scipy

    bakeoff = folder.bakeoff()
    plan = folder.plan(bakeoff.allowances[0].arm.name)
    price = plan.facts.device.price
    outcome = conclude(bakeoff, folder.trials(), price.at(plan.job.costs.pricing) if price else None)
    write_record(folder.outcome_path, outcome)
    report_comparison(folder)
    try:
        remember(bakeoff, outcome, folder.path)
    except RankwiseError as error:  # what was found stays found
        LOG.warning("later plans will not know of this comparison: %s", error.what)
    return outcome
