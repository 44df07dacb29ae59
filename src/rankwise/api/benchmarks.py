"""Tasks of lm-evaluation-harness before and after: the untouched base and the tuned model on the same items."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankwise.api.loading import always, inference_dtype, load_tuned, require_finished
from rankwise.api.planning import plan_job
from rankwise.api.progress import Progress, quiet
from rankwise.errors import BenchmarkError, RunError
from rankwise.files import cache_folder, hash_file, read_record, write_record
from rankwise.methods import TUNERS
from rankwise.model.locate import locate
from rankwise.observe.model import observe_model
from rankwise.records import Benchmarks, BenchmarkScores, Job, Plan, content_hash
from rankwise.store import Run

if TYPE_CHECKING:
    from rankwise.evaluate.harness_tasks import Asked, Loaded

AsBase = Callable[[], AbstractContextManager[Any]]
Found = dict[str, BenchmarkScores]


def benchmark(run: Run, asked: "Asked", progress: Progress = quiet) -> Benchmarks:
    """Ask the base and the tuned model of a run; what is found is added to evidence.json.

    A task that cannot be run is told of in `failures`, and the others go on. What the base said is remembered.

    Raises:
        BenchmarkError: lm-evaluation-harness is not installed, or none of the tasks can be run.
        UsageError: no task has such a name.
    """
    decided, asking = require_finished(run).plan(), _Asking(asked, progress)
    tuned, as_base = load_tuned(run, decided)
    found = asking.before_and_after(decided, tuned, as_base)
    evidence = run.evidence()
    write_record(run.evidence_path, evidence.model_copy(update={"benchmarks": _added(evidence.benchmarks, found)}))
    return found


def benchmark_model(model: str, asked: "Asked", job: Job | None = None, progress: Progress = quiet) -> Benchmarks:
    """A model that did not come from a run: alone, or with a job beside the base that the job names. As `benchmark`."""
    from rankwise.model.load import load_base

    folder, asking = locate(model), _Asking(asked, progress)
    if job is None:
        dtype: Any = "bf16" if observe_model(model).dtype == "bf16" else "fp32"
        return asking.alone(load_base(folder, dtype=dtype), folder)
    decided = plan_job(job, brief=True)
    base, tuned = (load_base(f, dtype=inference_dtype(decided)) for f in (decided.facts.model.path, folder))
    return asking.before_and_after(decided, tuned, lambda: always(base))


class _Asking:
    """Tasks that were loaded, put to one model after the other. A task that fails is left out from there on.

    Raises:
        BenchmarkError, UsageError: as `benchmark`.
    """

    def __init__(self, asked: "Asked", progress: Progress) -> None:
        from rankwise.evaluate.harness_tasks import load_tasks

        self.began, self.asked, self.progress = time.monotonic(), asked, progress
        self.loaded, self.failed = load_tasks(asked)
        self._require_some()

    def alone(self, model: Any, folder: Path) -> Benchmarks:
        from rankwise.evaluate.harness import load_tokenizer

        return self._told(None, self._of(model, load_tokenizer(folder), self.loaded, "model"))

    def before_and_after(self, decided: Plan, tuned: Any, as_base: AsBase) -> Benchmarks:
        from rankwise.evaluate.harness import load_tokenizer

        job = decided.job
        tokenizer = load_tokenizer(decided.facts.model.path, job.data.named_tokens, job.chat_template)
        places = {one.name: _place(decided, one, self.asked) for one in self.loaded}
        before = {name: known for name, place in places.items() if place and (known := _remembered(place))}
        if unknown := [one for one in self.loaded if one.name not in before]:
            with as_base() as base:
                fresh = self._of(base, tokenizer, unknown, "base")
            for name, scores in fresh.items():
                _remember(places[name], scores)
            before |= fresh
        return self._told(before, self._of(tuned, tokenizer, self.loaded, "tuned"))

    def _of(self, model: Any, tokenizer: Any, tasks: Sequence["Loaded"], who: str) -> Found:
        from rankwise.evaluate.harness import score
        from rankwise.evaluate.harness_tasks import failure

        found: Found = {}
        for one in tasks:

            def told(name: str, done: int, total: int) -> None:
                self.progress(f"{name}, {who}", done, total)

            try:
                found[one.name] = score(model, tokenizer, one, self.asked, told)
            except Exception as error:  # what one task's code raises must not cost the results of the others
                self.failed.append(failure(one.name, f"could not be put to the {who} model", error))
        left_out = {one.name for one in tasks} - found.keys()
        self.loaded = [one for one in self.loaded if one.name not in left_out]
        self._require_some()
        return found

    def _require_some(self) -> None:
        if not self.loaded:
            first, *others = self.failed
            also = f"; neither can {', '.join(f.task for f in others)}" if others else ""
            raise BenchmarkError(f"{first.what}{also}", expected=first.expected, fix=first.fix)

    def _told(self, before: Found | None, after: Found) -> Benchmarks:
        from rankwise.evaluate.benchmarks import compared

        results = {
            (result.tuned.task, result.tuned.metric, result.tuned.filter): result  # a task may stand in two groups
            for name, scores in after.items()
            for result in compared(before[name].scores if before else None, scores.scores)
        }
        notes = [f"{name}: {note}" for name, scores in after.items() for note in scores.notes]
        return Benchmarks(
            results=tuple(results.values()),
            failures=tuple(self.failed),
            notes=tuple(notes),
            seconds=time.monotonic() - self.began,
        )


def _added(old: Benchmarks | None, new: Benchmarks) -> Benchmarks:
    """Results of tasks that were not asked again stay."""
    again = {result.tuned.task for result in new.results}
    kept = [result for result in old.results if result.tuned.task not in again] if old else []
    return new.model_copy(update={"results": (*kept, *new.results)})


# -- what bases said -----------------------------------------------------------------------------------


def _place(decided: Plan, one: "Loaded", asked: "Asked") -> Path | None:
    """Where a base's scores are kept: by all that they depend on. None where its weights have no hash."""
    facts, config = decided.facts, decided.verdict.config
    if facts.model.weights_hash is None or config is None:
        return None
    tokens = facts.new_tokens.model_dump(mode="json") if facts.new_tokens else None
    key = content_hash(
        {
            "base": [facts.model.weights_hash, facts.model.template_hash, tokens],
            "arithmetic": [inference_dtype(decided), TUNERS[config.method].base, asked.batch_size],
            "tasks": one.hashes,
            "asked": [asked.limit, asked.chat_template, asked.seed],
            "template": hash_file(template) if (template := decided.job.chat_template) else None,
            "versions": [version(package) for package in ("lm-eval", "transformers", "torch")],
        }
    )
    return cache_folder() / "benchmarks" / f"{key}.json"


def _remembered(place: Path) -> BenchmarkScores | None:
    """None where there is none, or one that cannot be read: it can be made again."""
    try:
        return read_record(place, BenchmarkScores)
    except RunError:
        return None


def _remember(place: Path | None, scores: BenchmarkScores) -> None:
    if place is not None:
        with suppress(OSError):  # a cache that cannot be written costs minutes, not the result
            write_record(place, scores)
