"""What the Tab key offers for runs, jobs, models and tenants. Where nothing here fits, the shell offers files."""

from pathlib import Path

import typer


def run_folders(incomplete: str) -> list[str]:
    """Names below runs/, or paths where `runs/` is being typed."""
    return [path if incomplete.startswith("runs/") else path.removeprefix("runs/") for path in _runs()]


def runs_or_models(incomplete: str) -> list[str]:
    from rankwise.options import model_names

    return [*run_folders(incomplete), *model_names()]


def compared_or_run(incomplete: str) -> list[str]:
    """As `run_folders`, and comparisons in the same way."""
    found = sorted(
        {str(p.parent) for name in ("asked.json", "comparison.json") for p in Path("comparisons").glob(f"*/{name}")}
    )
    whole = incomplete.startswith("comparisons/")
    return [*run_folders(incomplete), *(path if whole else path.removeprefix("comparisons/") for path in found)]


def job_files(incomplete: str) -> list[str]:
    """YAML files of the folder that is being typed."""
    folder = incomplete.rpartition("/")[0]
    found = sorted(Path(folder or ".").glob("*.y*ml"))
    return [str(path) for path in found if path.suffix in (".yaml", ".yml")]


def plans(incomplete: str) -> list[str]:
    return [f"{path}/plan.json" for path in _runs()]


def to_train(incomplete: str) -> list[str]:
    """Jobs, plans and runs, by their paths."""
    return [*job_files(incomplete), *_runs(), *plans(incomplete)]


def model_names(incomplete: str) -> list[str]:
    from rankwise import options

    return list(options.model_names())


def gpu_names(incomplete: str) -> list[str]:
    from rankwise import options

    return list(options.gpu_names())


def tenant_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Of the registry that the line names, or the default one; pressing Tab makes none."""
    from rankwise import api
    from rankwise.errors import RankwiseError

    try:
        return list(api.tenant_names(ctx.params.get("registry")))
    except (RankwiseError, ModuleNotFoundError):  # the command itself says what is wrong
        return []


def _runs() -> list[str]:
    from rankwise.store import list_runs

    return [str(run.folder) for run in reversed(list_runs(Path("runs")))]
