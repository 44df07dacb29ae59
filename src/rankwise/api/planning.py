"""Observe a job, decide, write the decision down."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rankwise.api.diagnoses import remembered
from rankwise.api.observing import observe
from rankwise.api.prices import own_prices
from rankwise.api.progress import Progress, quiet
from rankwise.decide.choose import choose, require_sound_method
from rankwise.decide.offers import Market
from rankwise.decide.packing import require_packable
from rankwise.decide.recipes import PLANNED_METHODS
from rankwise.errors import DataError, ModelError
from rankwise.estimate.price import price_all, price_elsewhere, trace_ahead
from rankwise.estimate.tracers import tracers
from rankwise.files import write_text
from rankwise.jobfile import read_job
from rankwise.observe.devices import observe_device
from rankwise.observe.gpus import known_gpus
from rankwise.records import Candidate, Diagnosis, Estimate, Facts, Job, Plan
from rankwise.records.job import Hardware
from rankwise.report.page import plan_page
from rankwise.store import Run

USUALLY_PRICED = 60  # candidates, those of flips and questions among them: what a bar is drawn against
LOG = logging.getLogger(__name__)


def plan(job: Path | None = None, **options: Any) -> Plan:
    """Decide how to do a job.

    Args:
        job: a job file; None when the options say everything.
        options: job keys, dots written as double underscores (`hardware__count=2`); they win over the file.

    Raises:
        JobError, DataError, ModelError: the job, its data or its model cannot be read.
    """
    return plan_job(load_job(job, {k.replace("__", "."): v for k, v in options.items()}))


def load_job(job: Path | None, options: Mapping[str, Any]) -> Job:
    """A job from a file, from options by dotted key, or both. Raises JobError."""
    return read_job(job, options, PLANNED_METHODS)


def plan_job(job: Job, out: Path | None = None, progress: Progress = quiet, *, brief: bool = False) -> Plan:
    """Observe what the job names, price every candidate, choose.

    A job that is `unsure` of its goal has its base asked first (`diagnose`), which takes minutes the first time.

    Args:
        out: where the run will be, for its free disk.
        progress: told (what, done, total).
        brief: the verdict with its reasons alone, without flips, questions, offers and what is never the verdict.
    """
    with tracers(busy=True):
        facts = observe(job, out, progress)
        facts = facts.model_copy(update={"diagnosis": _diagnosis(job, facts, progress)})
        require_sound_method(job, facts)
        require_packable(job, facts)
        priced = 0

        def price(job: Job, facts: Facts, candidates: Sequence[Candidate]) -> list[Estimate]:
            nonlocal priced
            estimates = price_all(job, facts, candidates)
            priced += len(estimates)
            progress("ways priced", priced, max(USUALLY_PRICED, priced + 1))
            return estimates

        decided = choose(job, facts, price, None if brief else _market(job), brief=brief, announce=trace_ahead)
    progress("ways priced", priced, priced)
    return decided


@contextmanager
def ready_to_plan() -> Iterator[None]:
    """Inside, the processes that trace are kept from one plan to the next: starting them takes as long as a plan. For
    one thread at a time.
    """
    with tracers(busy=True):
        yield


def _diagnosis(job: Job, facts: Facts, progress: Progress) -> Diagnosis | None:
    """What is remembered of this base on this data; measured now where the goal hangs on it and the files are here."""
    known = remembered(job, facts)
    if known is not None or job.goal != "unsure" or job.data.train is None or facts.model.folder is None:
        return known
    from rankwise.api.diagnosing import diagnose  # here: most plans ask nobody, and are to start without it

    try:
        return diagnose(job, progress)
    except (DataError, ModelError) as error:
        LOG.warning("the goal is not known, and the base could not be asked: %s", error.what)
        return None


def _market(job: Job) -> Market:
    """The GPUs that have a price, and bf16 arithmetic: the others would be traced anew, in fp32."""
    prices = own_prices(job.costs)
    named = [observe_device(Hardware(gpu=gpu["name"]), None, prices) for gpu in known_gpus()]
    return Market([d for d in named if d.bf16 and d.price and d.price.at(job.costs.pricing)], price_elsewhere)


def write_plan(decided: Plan, out: Path | None) -> Path:
    """Write job.yaml, facts.json, plan.json and report.html; returns the folder (default runs/<name>-<hash of the
    job>).
    """
    run = Run(out or Path("runs") / f"{decided.job.name or 'job'}-{decided.job_hash[:8]}")
    run.begin(decided)
    write_text(run.report_path, plan_page(decided))
    return run.folder
