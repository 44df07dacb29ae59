"""Verbs that merge, prove, write for others, and serve."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from rankwise import api
from rankwise.api.launching import Launchable
from rankwise.api.progress import Progress, quiet
from rankwise.errors import UsageError
from rankwise.launch.order import Wishes
from rankwise.python.jobs import AnyRun, run_of
from rankwise.records import (
    Artifact,
    Exported,
    Verification,
)
from rankwise.records.export import EngineFit
from rankwise.records.merging import Rounding
from rankwise.store import Run

Form = Literal["peft", "transformers", "gguf"]


def merge(
    run: AnyRun | Sequence[AnyRun],
    out: str | Path | None = None,
    *,
    weights: Sequence[float] = (),
    how: str = "linear",
    density: float | None = None,
    seed: int = 0,
    rounding: Rounding = "stochastic",
    progress: Progress = quiet,
) -> Path:
    """Fold the adapter into its base; returns the folder, which plain transformers loads. `verify` proves it.

    Example: `rw.merge("runs/first"); rw.merge(["runs/a", "runs/b"], "blend", weights=[0.7, 0.3])`

    Args:
        run: a run, or several that are blended into `out`.
        out: folder of the model; None: RUN/model.
        weights, how, density, seed: of a blend, as `rankwise merge` has them.
        rounding: of changed weights to 16 bits; "nearest" gives PEFT's bits and loses small changes.
        progress: told (what, done, total).

    Raises:
        RunError: not finished, `out` is in use, or a method that cannot be merged. SpaceError: no room.
        UsageError: a blend without `out`.
    """
    folder = None if out is None else Path(out)
    if isinstance(run, str | Path | Run):
        return api.merge(run_of(run), folder, progress, rounding=rounding)
    if folder is None:
        raise UsageError("a merge of several runs needs a folder to write to", fix="give out")
    runs = [run_of(r) for r in run]
    api.merge_weighted(runs, folder, weights, how, density, seed, progress, rounding=rounding)
    return folder


def verify(run: AnyRun) -> tuple[Verification, Artifact | None]:
    """Prove the saved files; (what was checked, the artifact: None where a check failed).

    Example: `proof, artifact = rw.verify("runs/first")`

    Raises:
        RunError: not finished. ModelError: its base is not here.
    """
    return api.verify(run_of(run))


def export(
    run: AnyRun,
    to: Form,
    out: str | Path | None = None,
    *,
    precision: Literal["bf16", "f16", "q8_0"] = "bf16",
    progress: Progress = quiet,
) -> Exported:
    """Write a proven artifact as others load it. Example: `rw.export("runs/first", "peft", "clinic-adapter")`

    Args:
        to: the form. out: its folder; None: RUN/export/FORM.
        precision: of the matrices in a GGUF file.
        progress: told (what, done, total).

    Raises:
        AnswerIsNo: there is no proven artifact of this form. RunError: `out` is in use. SpaceError: no room.
    """
    return api.export(run_of(run), to, None if out is None else Path(out), precision=precision, progress=progress)


def push(
    run: AnyRun,
    repo: str,
    *,
    shape: Form | None = None,
    public: bool = False,
    precision: Literal["bf16", "f16", "q8_0"] = "bf16",
    progress: Progress = quiet,
) -> Exported:
    """As `export`, to a repository of the Hugging Face hub. Example: `rw.push("runs/first", "org/clinic")`

    Args:
        repo: ORG/NAME. shape: what to push; None: the adapter, else the model.
        public: make the repository public. precision: of the matrices in a GGUF file.
        progress: told (what, done, total).

    Raises:
        HubError: no token, not reachable, or refused. AnswerIsNo: as `export`.
    """
    opened = run_of(run)
    form: Form = shape or ("peft" if opened.adapter.is_dir() else "transformers")
    return api.push(opened, repo, form, private=not public, precision=precision, progress=progress)


def check_engine(run: AnyRun, engine: Literal["vllm", "ollama"]) -> EngineFit:
    """Would an engine load what the run published? Example: `rw.check_engine("runs/first", "vllm").loads`

    Raises:
        UsageError: no such engine. RunError: the run has published nothing.
    """
    return api.check_engine(run_of(run), engine)


def serve(
    *, ready: Callable[[dict[str, Any]], None] = print, limits: dict[str, Any] | None = None, **options: Any
) -> None:
    """Serve tenants' adapters behind OpenAI's API until SIGINT or SIGTERM. Example: `rw.serve(model="embedded")`

    Args:
        ready: called with the address once requests are answered.
        limits: numbers of the gateway, such as max_open and request_seconds.
        options: model, engine, engine_url, engine_python, registry, adapters, host, port, slots, memory_gb, zipf,
            max_batch, max_length, dtype, device, four_bit, threads; as `rankwise serve` has them.

    Raises:
        UsageError: options that exclude each other, or one that is none. ModelError: the base cannot be loaded.
    """
    try:
        asked = api.Serving(limits=limits or {}, **options)
    except TypeError as error:
        raise UsageError(str(error), fix="`rankwise serve --help` lists the options") from None
    api.serve(asked, ready)


def launch(
    plan: AnyRun,
    on: Literal["slurm", "skypilot", "kubernetes", "ray"],
    out: str | Path | None = None,
    *,
    shared: str | None = None,
    package: str | None = None,
    image: str | None = None,
    hours: float | None = None,
    accelerator: str | None = None,
) -> Launchable:
    """Write the files that start a plan elsewhere. Example: `rw.launch("runs/first", "slurm").start`

    Args:
        plan: a plan.json, or the folder that holds it.
        out: folder of the files. shared, package, image, hours, accelerator: as `rankwise launch` has them.

    Raises:
        PlanError: the plan is stale, or `on` cannot carry it out. UsageError: a wish that `on` cannot take.
    """
    wishes = Wishes(shared=shared, package=package, image=image, hours=hours, accelerator=accelerator)
    target = plan.folder if isinstance(plan, Run) else Path(plan)
    return api.launch(target, on, None if out is None else Path(out), wishes)
