"""Tasks of lm-evaluation-harness (extra `eval`): found by name, loaded with their data, or refused with the reason."""

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rankwise.errors import BenchmarkError
from rankwise.evaluate.harness_index import task_manager
from rankwise.evaluate.harness_quiet import SEED, quiet_harness, seeded
from rankwise.files import cache_folder
from rankwise.records import BenchmarkFailure

INSTALL = "pip install 'rankwise[eval]' (in a checkout: pip install -c constraints.txt -e '.[eval]')"
OWN_DATA = "write a task over your own copy and give its folder with --tasks-path (docs/benchmarks.md)"


@dataclass(frozen=True)
class Asked:
    """Which tasks, and how.

    Attributes:
        tasks: tasks, groups and tags by name, or YAML files.
        folder: a folder with YAML files of more tasks.
        limit: documents of each task at most; None: all.
        num_fewshot: solved examples before each item; None: as each task says.
        batch_size: sequences in one forward pass.
        chat_template: render prompts by the tokenizer's chat template.
        seed: of the few-shot examples and of sampled answers.
    """

    tasks: tuple[str, ...]
    folder: Path | None = None
    limit: int | None = None
    num_fewshot: int | None = None
    batch_size: int = 1
    chat_template: bool = False
    seed: int = SEED


@dataclass(frozen=True)
class Loaded:
    """One name that was asked for.

    Attributes:
        content: lm-evaluation-harness's own `TaskDict`: tasks and groups.
        hashes: by task, sha256 of the items asked and of how they are asked and scored.
    """

    name: str
    content: Any
    hashes: dict[str, str]


def load_tasks(asked: Asked) -> tuple[list[Loaded], list[BenchmarkFailure]]:
    """What can be asked, and why the rest cannot: data that are not here, a task file with a fault.

    Raises:
        BenchmarkError: the extra `eval` is not installed.
        UsageError: no task has such a name, or the folder of tasks is none.
    """
    require_harness()
    loaded: list[Loaded] = []
    failed: list[BenchmarkFailure] = []
    with quiet_harness(), seeded(asked.seed):
        known = task_manager(asked.tasks, asked.folder)
        for name in asked.tasks:
            try:
                with _reading_data(asked.folder):
                    loaded.append(_load(known, name, asked))
            except Exception as error:  # a task may run code of its own, which raises what it likes
                failed.append(failure(name, "could not be loaded", error))
    return loaded, failed


def failure(task: str, what: str, error: Exception, warned: Sequence[str] = ()) -> BenchmarkFailure:
    """What a person can do about it; of an error that is not ours its kind and first line are told."""
    if isinstance(error, BenchmarkError):
        return BenchmarkFailure(task=task, what=error.what, expected=error.expected, fix=error.fix)
    said = (str(error).strip().splitlines() or [""])[0][:300]
    return BenchmarkFailure(
        task=task,
        what=" ".join([f"{task} {what}: {type(error).__name__}: {said}", *warned[:1]]),
        expected="a task that lm-evaluation-harness can run on a causal language model here",
        fix="mend the task's YAML file or code, or leave the task out",
    )


def raised(failed: BenchmarkFailure) -> BenchmarkError:
    """The same as an error, where it is all there is to tell."""
    return BenchmarkError(failed.what, expected=failed.expected, fix=failed.fix)


def require_harness() -> None:
    """Raises BenchmarkError with the command that installs the extra `eval`."""
    if importlib.util.find_spec("lm_eval") is None:
        raise BenchmarkError(
            "lm-evaluation-harness is not installed, so tasks such as mmlu or arc_easy cannot be run",
            expected="the package lm-eval, which the extra `eval` brings",
            fix=INSTALL,
        )


# -- with their data ---------------------------------------------------------------------------------


def _load(known: Any, name: str, asked: Asked) -> Loaded:
    content = known.load([name])
    for task_name, task in content["tasks"].items():
        _require_text_alone(task_name, task)
        _set_fewshot(task, asked.num_fewshot)
    hashes = {task_name: _hash(task, asked.limit) for task_name, task in content["tasks"].items()}
    return Loaded(name, content, hashes)


def _require_text_alone(name: str, task: Any) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise BenchmarkError(
            f"{name} runs code that the model writes", fix="run it with lm-evaluation-harness in a sandbox"
        )
    if getattr(task, "MULTIMODAL", False):
        raise BenchmarkError(f"{name} asks about images or sound", expected="a task on text alone")


def _set_fewshot(task: Any, wanted: int | None) -> None:
    """As `lm_eval.simple_evaluate` does it: a task that says 0 keeps 0."""
    own = task.get_config("num_fewshot")
    if wanted is not None and own != 0:
        task.set_config(key="num_fewshot", value=wanted)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)


def _hash(task: Any, limit: int | None) -> str:
    """Of the items, of where examples come from, and of the task's file but for the places of its data."""
    config = {k: v for k, v in task.dump_config().items() if k not in ("metadata", "dataset_kwargs")}
    examples = list(task.fewshot_docs() or []) if task.get_config("num_fewshot") else []
    digest = hashlib.sha256()
    for part in (config, *examples, *islice(task.eval_docs, limit)):
        digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()


@contextmanager
def _reading_data(folder: Path | None) -> Iterator[None]:
    """Inside, `datasets.load_dataset`, by which tasks get their data, finds files beside the tasks, keeps what it makes
    of them in our cache, and fails with the dataset's name and what to do.
    """
    import datasets
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as READERS  # csv, json, parquet, text, ...

    load = datasets.load_dataset

    def found(path: str, name: str | None = None, **options: Any) -> Any:
        if path in READERS:
            options = {"cache_dir": str(cache_folder() / "datasets"), **options}
            options["data_files"] = _beside(options.get("data_files"), folder)
        try:
            return load(path=path, name=name, **options)
        except Exception as error:
            raise _not_here(path, name, options.get("data_files"), error) from error

    datasets.load_dataset = found
    try:
        yield
    finally:
        datasets.load_dataset = load


def _beside(files: Any, folder: Path | None) -> Any:
    """A file that is not where the process works, but in the folder of tasks, is that one."""
    if isinstance(files, dict):
        return {split: _beside(named, folder) for split, named in files.items()}
    if isinstance(files, list):
        return [_beside(named, folder) for named in files]
    if isinstance(files, str) and folder is not None and not Path(files).exists() and (folder / files).exists():
        return str((folder / files).resolve())
    return files


def _not_here(path: str, name: str | None, files: Any, error: Exception) -> BenchmarkError:
    said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    if files is not None:
        return BenchmarkError(
            f"the data of the task could not be read as {path} ({files}): {said}",
            expected="files that are there, from the working folder or the folder of tasks, and whole",
            fix="mend dataset_kwargs.data_files in the task's YAML file",
        )
    if Path(path).exists():
        return BenchmarkError(f"the dataset {path} could not be read: {said}", fix="copy it again")
    whole = f"{path} ({name})" if name else path
    call = f"load_dataset({path!r}, {name!r})" if name else f"load_dataset({path!r})"
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    why = "HF_HUB_OFFLINE is set" if offline else said
    return BenchmarkError(
        f"the dataset {whole} is not on this machine and could not be fetched ({why})",
        expected="its copy in the cache of the Hugging Face hub, or a hub that can be reached",
        fix=f'where the hub can be reached, fetch it once: python -c "from datasets import load_dataset; {call}" '
        f"and take HF_HOME along; or {OWN_DATA}",
    )
