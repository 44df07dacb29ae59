"""A tuned model against the untouched base, by numbers and in conversation."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from rankwise.api.actuals import aside, keep_evaluation_times
from rankwise.api.loading import always, inference_dtype, load_inputs, load_tuned, probes_of, require_finished, text_of
from rankwise.api.planning import plan_job
from rankwise.api.progress import Progress, quiet
from rankwise.model.locate import locate
from rankwise.records import Evaluation, Job
from rankwise.store import Run, write_record
from rankwise.text.dataset import Dataset
from rankwise.text.template import ChatText


def evaluate(run: Run, progress: Progress = quiet) -> Evaluation:
    """Held-out loss, format, closed-book facts and general loss against the untouched base; added to evidence.json."""
    from rankwise.model import attach, load  # noqa: F401  imported before the clock runs

    decided, began = require_finished(run).plan(), time.monotonic()
    config, chat, data = load_inputs(decided)
    tuned, as_base = load_tuned(run, decided)
    found, spent = _evaluate(decided.job, chat, data, tuned, as_base, config.autocast, progress)
    seconds = time.monotonic() - began
    write_record(run.evidence_path, run.evidence().model_copy(update={"evaluation": found}))
    with aside():
        keep_evaluation_times(run, decided, chat, data, spent, seconds)
    return found


def evaluate_model(model: str, job: Job, progress: Progress = quiet) -> Evaluation:
    """A model that did not come from a run, against the base that the job names, on the job's held-out rows and
    probes.
    """
    from rankwise.model.load import load_base

    decided = plan_job(job, brief=True)
    config, chat, data = load_inputs(decided)
    base = load_base(decided.facts.model.path, dtype=inference_dtype(decided))
    tuned = load_base(locate(model), dtype=inference_dtype(decided))
    return _evaluate(job, chat, data, tuned, lambda: always(base), config.autocast, progress)[0]


def _evaluate(
    job: Job,
    chat: ChatText,
    data: Dataset,
    tuned: Any,
    as_base: Callable[[], AbstractContextManager[Any]],
    autocast: str | None,
    progress: Progress,
) -> tuple[Evaluation, Any]:
    """The evaluation, and what it asked of the models with the seconds of it (`evaluate.workload.Spent`)."""
    from rankwise.evaluate.pair import Pair, evaluate

    pair = Pair(chat, tuned, as_base, progress)
    return evaluate(job, data, probes_of(job), pair, autocast), pair.spent


def chat(run: Run, *, base: bool = False) -> Callable[[list[dict[str, str]], int], Iterator[str]]:
    """Load a run's model (or its untouched base) and return a function: (messages, max_new_tokens) -> pieces of the
    answer.
    """
    from rankwise.model.generate import stream

    decided = require_finished(run).plan()
    text = text_of(decided)
    tuned, as_base = load_tuned(run, decided)

    def reply(messages: list[dict[str, str]], max_new_tokens: int) -> Iterator[str]:
        with as_base() if base else always(tuned) as model:
            yield from stream(model, text, messages, max_new_tokens)

    return reply
