"""From a plan to the files that start it elsewhere."""

from dataclasses import dataclass
from pathlib import Path

from rankwise.api.training import refuse_stale, refuse_unready
from rankwise.errors import RunError, UnknownGpuError
from rankwise.files import folder_bytes, read_record, write_text
from rankwise.launch.order import Order, Wishes, local_files, order
from rankwise.launch.targets import TARGETS
from rankwise.observe.gpus import match_gpu
from rankwise.records import Plan


@dataclass(frozen=True)
class Launchable:
    """What was written.

    Attributes:
        files: in the order in which one reads them.
        start: the command that starts it.
        notes: what has to be so for it to work, one sentence each.
    """

    files: tuple[Path, ...]
    start: str
    notes: tuple[str, ...]


NOTHING_SAID = Wishes()


def launch(target: Path, on: str, out: Path | None = None, wishes: Wishes = NOTHING_SAID) -> Launchable:
    """Write the files that start a plan on `on`, one of launch.targets.TARGETS; nothing is started.

    Args:
        target: plan.json, or the folder that holds it.
        out: folder of the files; None: launch/<name of the run>-<on>.

    Raises:
        PlanError: the plan is stale, or `on` cannot carry it out. AnswerIsNo: it has no call.
        UsageError: a wish that `on` cannot take.
        RunError: no plan there, or a file of that name and another content.
    """
    path = target / "plan.json" if target.is_dir() else target
    plan = read_record(path, Plan)
    refuse_unready(plan)
    refuse_stale(plan, path)
    wanted = order(plan, path, _gpu(plan), sum(map(_bytes, local_files(plan.job))), wishes)
    made = TARGETS[on](wanted)
    folder = out or Path("launch") / f"{wanted.run}-{on}"
    _write(folder, made.texts)
    notes = (*made.notes, *_of_every_target(wanted))
    return Launchable(tuple(folder / name for name in made.texts), made.start.format(folder=folder), notes)


def _gpu(plan: Plan) -> str | None:
    """The plan's GPU by our table's name, where it was seen by its driver's name, too."""
    if plan.facts.device.kind == "cpu":
        return None
    try:
        return str(match_gpu(plan.facts.device.name)["name"])
    except UnknownGpuError:
        return None


def _bytes(path: Path) -> int:
    return folder_bytes(path) if path.is_dir() else path.stat().st_size


def _write(folder: Path, texts: dict[str, str]) -> None:
    """All or nothing: what a person has edited is not written over."""
    for name, text in texts.items():
        there = folder / name
        if there.exists() and there.read_text(encoding="utf-8", errors="replace") != text:
            raise RunError(
                f"{there} is there already, with another content",
                expected="a folder without it, or the same file",
                fix="remove it, or choose another --out",
            )
    for name, text in texts.items():
        write_text(folder / name, text)


def _of_every_target(wanted: Order) -> list[str]:
    limit = "none" if wanted.limit_seconds is None else f"{wanted.limit_seconds / 3600:.2f} h"
    notes = [
        f"wall clock: {limit} ({wanted.limit_source}); a run that it stops has saved, and goes on when it starts again",
        f"installed there: {', '.join(wanted.requirements)}; --package names another, such as a wheel's address",
    ]
    if wanted.save_url:
        notes.append(
            f"checkpoints are copied to {wanted.save_url}, whose credentials the nodes have by their environment"
        )
    if wanted.gpu is None:
        notes.append("the plan is for this machine's CPU: nodes of another kind refuse it as stale")
    return notes
