"""Observe a job, decide, write the decision down."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankwise.api.prices import own_prices, tariff_of
from rankwise.decide.choose import choose, require_known_targets
from rankwise.estimate.price import price
from rankwise.estimate.traced import shapes_of
from rankwise.jobfile import read_job
from rankwise.methods import METHODS
from rankwise.observe.catalogue import find_architecture
from rankwise.observe.data import observe_data
from rankwise.observe.devices import observe_device
from rankwise.observe.model import describe_facts, observe_model
from rankwise.records import Facts, Job, ModelFacts, Plan
from rankwise.report.page import plan_page
from rankwise.store import Run, write_text
from rankwise.text.template import ChatText

LONGEST = 8192  # tokens; rows beyond it are counted as too long unless the job says otherwise


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
    return read_job(job, options, METHODS)


def plan_job(job: Job, out: Path | None = None) -> Plan:
    """Observe what the job names, price every candidate, choose. `out`: where the run will be, for its free disk."""
    facts = observe(job, out)
    require_known_targets(job, facts)
    return choose(job, facts, price)


def observe(job: Job, out: Path | None = None) -> Facts:
    """Look at model, data and device once."""
    prices = own_prices(job.costs)
    device = observe_device(job.hardware, out, prices)
    model = model_of(job)
    chat = ChatText.from_folder(model.path) if job.data.train else None
    limit = min(model.max_position_embeddings or LONGEST, LONGEST)
    data = observe_data(job, chat, job.train.max_length or limit, job.train.on_long or "drop")
    return Facts(model=model, data=data, device=device, tariff=tariff_of(prices), job_hash=job.content_hash())


def model_of(job: Job) -> ModelFacts:
    """From its files; data that is only described can be planned for a model that is only described, too."""
    known = find_architecture(job.model)
    if known is None or job.data.train or Path(job.model).expanduser().is_dir():
        return observe_model(job.model)
    return describe_facts(
        job.model,
        known.config,
        shapes_of(known.config),
        license=known.license,
        source=f"architecture {known.name} of the catalogue: {known.source}",
    )


def write_plan(decided: Plan, out: Path | None) -> Path:
    """Write job.yaml, facts.json, plan.json and report.html; returns the folder (default runs/<name>-<hash of the
    job>).
    """
    run = Run(out or Path("runs") / f"{decided.job.name or 'job'}-{decided.job_hash[:8]}")
    run.begin(decided)
    write_text(run.report_path, plan_page(decided))
    return run.folder
