"""Verbs that look and think: nothing is trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from rankwise import api
from rankwise.api.progress import Progress, quiet
from rankwise.errors import RankwiseError
from rankwise.python.jobs import AnyJob, job_of
from rankwise.python.options import EstimateOptions, JobOptions
from rankwise.records import Audit, Diagnosis, Estimate, Plan
from rankwise.records.selfcheck import Environment, SelfCheck
from rankwise.records.tables import Tables


def plan(
    job: AnyJob = None, *, out: str | Path | None = None, progress: Progress = quiet, **options: Unpack[JobOptions]
) -> Plan:
    """The call: full fine-tuning, an adapter or none, with reasons, what was rejected, prices and flip points.

    Example: `rw.plan("job.yaml", gpu="A100-80GB", gpus=2).verdict.method`

    Args:
        job: a job file, a mapping with its keys, a Job, or None where the options say everything.
        out: a folder for plan.json and report.html; None: nothing is written.
        progress: told (what, done, total).
        options: those of `rankwise plan`, with underscores; they win over the job.

    Raises:
        JobError, UsageError: the job or an option cannot be meant.
        DataError, ModelError: its data or its model cannot be read. RunError: `out` is in use.
    """
    decided = api.plan_job(job_of(job, options), None if out is None else Path(out), progress)
    if out is not None:
        api.write_plan(decided, Path(out))
    return decided


def estimate(**options: Unpack[EstimateOptions]) -> Estimate:
    """One configuration priced: memory, time, money, storage and serving, each with its interval and source.

    Example: `rw.estimate(model="llama-3-8b", method="qlora", gpu="A100-80GB").memory.fits`

    Args:
        options: those of `rankwise estimate`, with underscores.

    Raises:
        UsageError: an option, a model or a combination that cannot be.
    """
    said: dict[str, Any] = dict(options)
    return api.estimate(**{name: str(v) if isinstance(v, Path) else v for name, v in said.items()})


def estimate_batch(entries: Sequence[Mapping[str, Any]], progress: Progress = quiet) -> list[Estimate | RankwiseError]:
    """Many configurations in one process, in their order; what is wrong with one stands in its place.

    Example: `rw.estimate_batch([{"model": "gpt2", "method": m} for m in ("full", "lora")])`

    Args:
        entries: options of `estimate`, and a free `id`.
        progress: told (what, done, total).
    """
    return [outcome for _, outcome in api.estimate_batch(entries, progress)]


def diagnose(
    job: AnyJob = None,
    *,
    rows: int = 64,
    out: str | Path | None = None,
    progress: Progress = quiet,
    **options: Unpack[JobOptions],
) -> Diagnosis:
    """Style or knowledge? The untouched base is asked on held-out rows; what was found is remembered.

    Example: `rw.diagnose("job.yaml").conclusion`

    Args:
        job: as `plan` takes it.
        rows: held-out rows that are asked at most.
        out: a folder for diagnosis.json and diagnosis.html.
        progress: told (what, done, total).
        options: those of `rankwise diagnose`.

    Raises:
        JobError: the data is only described. DataError, ModelError: it cannot be read, or there is no chat template.
    """
    asked = job_of(job, options if job is not None else {"goal": "unsure"} | dict(options))
    found = api.diagnose(asked, progress, rows)
    if out is not None:
        api.write_diagnosis(found, asked, Path(out))
    return found


def check(
    data: AnyJob, *, near: bool = True, show: int = 2, progress: Progress = quiet, **options: Unpack[JobOptions]
) -> Audit:
    """The data as training would see it: labels, lengths, duplicates, leaks, template; `.faults` is what is refused.

    Example: `rw.check("train.jsonl", model="embedded").faults`

    Args:
        data: a file of rows, or a job as `plan` takes it.
        near: look for near duplicates, too.
        show: rows that are decoded.
        progress: told (what, done, total).
        options: those of `rankwise check`.

    Raises:
        JobError: the job only describes its data. DataError: no row can be read. ModelError: no tokenizer.
    """
    if isinstance(data, str | Path):
        from rankwise.options import by_key

        return api.check(Path(data), by_key(options), progress, near=near, show=show)
    from rankwise.api.checking import check_job

    return check_job(job_of(data, options), progress, near=near, show=show)


def tables(
    only: Sequence[str] = (),
    *,
    gpu: str | None = None,
    prices: str | Path | None = None,
    out: str | Path | None = None,
    progress: Progress = quiet,
) -> Tables:
    """What fine-tuning needs and costs by size and method. The first call traces for minutes.

    Example: `rw.tables(["memory"], gpu="A100-80GB")`

    Args:
        only: some of memory, cost, claims; empty: all of them.
        gpu: one kind of GPU, in the place of three.
        prices: a file of your own prices.
        out: also a page, one HTML file.
        progress: told (what, done, total).

    Raises:
        UsageError: no such part, GPU or file of prices.
    """
    found = api.tables(only, gpu, None if prices is None else Path(prices), progress)
    if out is not None:
        api.write_tables(found, Path(out))
    return found


def doctor(
    *, gpu: bool = False, cpu: bool = False, out: str | Path | None = None, progress: Progress = quiet
) -> Environment | SelfCheck:
    """What a run would find on this machine; with `gpu` or `cpu` real steps, compared with the traces.

    Example: `rw.doctor().sound`

    Args:
        out: folder of the self-check's file; None: the cache folder.
        progress: told (what, done, total).

    Raises:
        RankwiseError: no GPU where one is asked for. ModelError: the embedded model is missing.
    """
    if not (gpu or cpu):
        return api.environment()
    found, _ = api.doctor(gpu=gpu, out=None if out is None else Path(out), progress=progress)
    return found


def models(name: str | None = None) -> list[dict[str, Any]] | dict[str, Any]:
    """The architectures known offline, or one of them in full. Example: `rw.models("llama-3-8b")["config"]`

    Raises:
        UsageError: an unknown name.
    """
    return api.models() if name is None else api.model(name)


def gpus(prices: str | Path | None = None) -> list[dict[str, Any]]:
    """The GPUs known by name, with prices and who says so. Example: `[g["name"] for g in rw.gpus()]`

    Raises:
        UsageError: the file of prices cannot be read.
    """
    return api.gpus(None if prices is None else Path(prices))
