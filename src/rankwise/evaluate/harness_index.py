"""Which tasks lm-evaluation-harness has, and in which of its folders. Its 13,000 files are read once for each version
of it, which takes half a minute, and remembered; after that, only the folders of the tasks that are asked are read.
"""

import difflib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from rankwise.errors import UsageError
from rankwise.files import cache_folder, write_text


class Place(NamedTuple):
    """Where a task, group or tag is defined.

    Attributes:
        folder: of its YAML file, below the harness's folder of tasks; None for a tag, which has no file.
        members: names that it holds.
    """

    folder: str | None
    members: list[str]


def task_manager(names: Sequence[str], folder: Path | None) -> Any:
    """The harness's TaskManager, with these names at least.

    Args:
        names: tasks, groups, tags, or YAML files.
        folder: more tasks; they take the place of the harness's own of the same name.

    Raises:
        UsageError: there is no such name, or no such folder.
    """
    from lm_eval.tasks import TaskManager

    unread: list[str] = []
    own: Mapping[str, Any] = {}
    if folder is not None:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder", expected="a folder with YAML files of tasks")
        with _skipped_files(unread):
            own = TaskManager(include_path=str(folder), include_defaults=False).task_index
    wanted = [name for name in names if name in own or not Path(name).is_file()]
    missing = _missing(wanted, {name: _members(entry) for name, entry in own.items()})
    known = remembered_index() if missing else {}
    for name in wanted:
        if name not in own and name not in known:
            raise _no_such_task(name, [*own, *known], unread)
    folders = [str(_tasks_folder() / path) for path in sorted(_folders(missing, known))]
    return TaskManager(include_path=[*folders, *([str(folder)] if folder else [])], include_defaults=False)


def remembered_index() -> dict[str, Place]:
    """Every name that the harness has of itself."""
    from lm_eval.tasks import TaskManager

    place = cache_folder() / "benchmarks" / f"tasks-{version('lm-eval')}.json"
    with suppress(OSError, ValueError, TypeError):
        return {name: Place(*said) for name, said in json.loads(place.read_text(encoding="utf-8")).items()}
    index = TaskManager().task_index
    found = {name: Place(_folder_of(entry), _members(entry)) for name, entry in index.items()}
    with suppress(OSError):  # a cache that cannot be written costs half a minute
        write_text(place, json.dumps(found))
    return found


def _tasks_folder() -> Path:
    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).parent


def _folder_of(entry: Any) -> str | None:
    return None if entry.yaml_path is None else str(Path(entry.yaml_path).parent.relative_to(_tasks_folder()))


def _members(entry: Any) -> list[str]:
    """Names that a group or a tag refers to; a group may also define tasks in its own file."""
    if entry.yaml_path is None:
        return sorted(entry.tags)
    listed = (entry.cfg or {}).get("task")
    names = (
        [m if isinstance(m, str) else m.get("task", m.get("group")) for m in listed if m]
        if isinstance(listed, list)
        else []
    )
    return [name for name in names if isinstance(name, str)]


def _missing(names: Sequence[str], own: Mapping[str, list[str]]) -> set[str]:
    """Names that are not in the folder of tasks, those in its groups among them."""
    missing, waiting, seen = set[str](), list(names), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in own:
            waiting += own[name]
        else:
            missing.add(name)
    return missing


def _folders(names: set[str], known: Mapping[str, Place]) -> set[str]:
    """Of these and of all that they hold; a name that nobody knows is a task that a group defines itself."""
    found, waiting, seen = set[str](), list(names), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in known:
            continue
        seen.add(name)
        place = known[name]
        waiting += place.members
        if place.folder is not None:
            found.add(place.folder)
    return found


def _no_such_task(name: str, names: Sequence[str], unread: Sequence[str]) -> UsageError:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "`lm-eval ls tasks` lists them"
    broken = f"; these files could not be read: {'; '.join(unread)}" if unread else ""
    return UsageError(
        f"there is no task {name!r} in lm-evaluation-harness or in the folder of tasks{broken}",
        expected="a task, a group or a tag by name, such as arc_easy or mmlu, or a YAML file",
        fix=hint,
    )


@contextmanager
def _skipped_files(into: list[str]) -> Iterator[None]:
    """The index leaves out a file that it cannot parse, and says so on its log alone."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if str(record.msg).startswith("Skip"):
                into.append(" ".join(record.getMessage().split()))

    log, listener = logging.getLogger("lm_eval.tasks._index"), Listener()
    level = log.level
    log.addHandler(listener)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(listener)
