"""A tuned model against the untouched base or another run, by numbers and in conversation."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rankwise.api.actuals import aside, keep_evaluation_times
from rankwise.api.loading import always, inference_dtype, load_inputs, load_tuned, probes_of, require_finished, text_of
from rankwise.api.planning import plan_job
from rankwise.api.progress import Progress, quiet
from rankwise.errors import ModelError, RunError, UsageError
from rankwise.files import write_record
from rankwise.model.locate import locate
from rankwise.records import Evaluation, Gate, Job
from rankwise.store import Run
from rankwise.text.dataset import Dataset, training_rows
from rankwise.text.masks import Encoded
from rankwise.text.template import ChatText

if TYPE_CHECKING:
    from rankwise.evaluate.exam import Exam
    from rankwise.evaluate.gates import Requirement
    from rankwise.evaluate.judge import Judge


@dataclass(frozen=True)
class Asked:
    """What is asked beyond what the job says.

    Attributes:
        metrics: functions of the user's own, as FILE.py:FUNCTION.
        judge: another model that compares the answers.
    """

    metrics: tuple[str, ...] = ()
    judge: "Judge | None" = None


def judge_of(url: str | None, model: str | None, key_variable: str | None, rubric: Path | None) -> "Judge | None":
    """The judge that the options name; None where there is none. Raises UsageError."""
    if url is None and model is None and key_variable is None and rubric is None:
        return None
    if url is None or model is None:
        raise UsageError(
            "a judge needs both --judge URL and --judge-model NAME", fix="such as --judge http://localhost:8000/v1"
        )
    from rankwise.evaluate.judge import KEY_VARIABLE, RUBRIC, Judge

    if rubric is not None and not rubric.is_file():
        raise UsageError(f"--rubric: there is no file {rubric}")
    text = RUBRIC if rubric is None else rubric.read_text(encoding="utf-8")
    return Judge(url, model, key_variable or KEY_VARIABLE, text)


def evaluate(run: Run, progress: Progress = quiet, asked: Asked = Asked()) -> Evaluation:
    """Held-out loss, format, closed-book facts and general loss against the untouched base; added to evidence.json."""
    from rankwise.evaluate.evaluation import evaluate as evaluate_pair
    from rankwise.evaluate.pair import Pair
    from rankwise.model import attach, load  # noqa: F401  imported before the clock runs

    decided, began = require_finished(run).plan(), time.monotonic()
    config, chat, data = load_inputs(decided)
    exam = _exam(decided.job, chat, data, decided.split_seed, asked)
    pair = Pair(chat, *load_tuned(run, decided), progress)
    found = evaluate_pair(exam, pair, config.autocast)
    seconds = time.monotonic() - began - pair.spent.elsewhere_seconds
    write_record(run.evidence_path, run.evidence().model_copy(update={"evaluation": found}))
    with aside():
        keep_evaluation_times(run, decided, chat, data, pair.spent, seconds)
    return found


def evaluate_against(run: Run, other: Run, progress: Progress = quiet, asked: Asked = Asked()) -> Evaluation:
    """A run's model against another run's, on the first one's held-out rows and probes; added to its evidence.json.

    Raises:
        RunError: a run has not finished, or the other one reads text otherwise.
    """
    from rankwise.evaluate.evaluation import evaluate as evaluate_pair
    from rankwise.evaluate.pair import Pair

    decided, rival = require_finished(run).plan(), require_finished(other).plan()
    config, chat, data = load_inputs(decided)
    exam = _exam(decided.job, chat, data, decided.split_seed, asked)
    _, theirs, their_data = load_inputs(rival)
    if (theirs.tokenizer_hash, theirs.template_hash) != (chat.tokenizer_hash, chat.template_hash):
        raise RunError(
            f"{other.folder} reads text otherwise than {run.folder}: its tokenizer or its chat template is another one",
            expected="two runs with the same tokenizer and chat template, so that both read the same tokens",
            fix="evaluate each against its own base, and compare the two results",
        )
    tuned, _ = load_tuned(run, decided)
    held_against, _ = load_tuned(other, rival)
    pair = Pair(chat, tuned, lambda: always(held_against), progress)
    if leaked := _trained_on(data.validation, their_data.train):
        pair.notes.append(
            f"{other.folder} was trained on {leaked} of the {len(data.validation)} held-out rows, which favours it"
        )
    found = evaluate_pair(exam, pair, config.autocast, against=str(other.folder))
    evidence = run.evidence()
    others = [e for e in evidence.against if e.against != found.against]
    write_record(run.evidence_path, evidence.model_copy(update={"against": (*others, found)}))
    return found


def _trained_on(held_out: Sequence[Encoded], training: Sequence[Encoded]) -> int:
    """How many of the held-out texts another run was trained on, token by token."""
    wanted = {tuple(row.ids) for row in held_out}
    trained = {ids for row in training if (ids := tuple(row.ids)) in wanted}
    return sum(tuple(row.ids) in trained for row in held_out)


def evaluate_model(model: str, job: Job, progress: Progress = quiet, asked: Asked = Asked()) -> Evaluation:
    """A model that did not come from a run, against the base that the job names, on the job's held-out rows and
    probes.
    """
    from rankwise.evaluate.evaluation import evaluate as evaluate_pair
    from rankwise.evaluate.pair import Pair
    from rankwise.model.load import load_base

    folder = locate(model)
    decided = plan_job(job, brief=True)
    config, chat, data = load_inputs(decided)
    exam = _exam(job, chat, data, decided.split_seed, asked)
    _require_same_ids(folder, ChatText.from_folder(folder), exam, chat)
    base = load_base(decided.facts.model.path, dtype=inference_dtype(decided))
    tuned = load_base(folder, dtype=inference_dtype(decided))
    return evaluate_pair(exam, Pair(chat, tuned, lambda: always(base), progress), config.autocast)


def _exam(job: Job, chat: ChatText, data: Dataset, seed: int, asked: Asked) -> "Exam":
    """All files are read, and what is wrong with them is told, before a model is loaded."""
    from rankwise.evaluate.exam import set_exam

    training = training_rows(job, chat, seed)
    return set_exam(job, data, probes_of(job), training, metrics=asked.metrics, judge=asked.judge)


def _require_same_ids(folder: Path, own: ChatText, exam: "Exam", chat: ChatText) -> None:
    """A model is asked in the base's tokens: another vocabulary would read other text."""
    texts = [f"{e.prompt}\n{e.expected}" for e in exam.held_out[:32]] + [w.question for w in exam.wordings[:32]]
    for text in texts:
        if own.encode(text) != chat.encode(text):
            raise ModelError(
                f"{folder}: its tokenizer writes the job's rows as other tokens than the base's does",
                expected="a model that was tuned from the job's base, with its tokenizer",
                fix="name the base that it was tuned from as `model` in the job",
            )


def requirements(said: Sequence[str], metrics: Sequence[str] = ()) -> "list[Requirement]":
    """Conditions as they are written, read. Raises UsageError.

    Args:
        metrics: functions of the user's own, which may be named in them.
    """
    from rankwise.evaluate.exam import NAMES
    from rankwise.evaluate.gates import read_requirement

    own = {metric.rpartition(":")[2] for metric in metrics}
    names = NAMES | own | {f"{name}_facts" for name in own}
    return [read_requirement(text, names) for text in said]


def gates(required: "Sequence[Requirement]", found: Evaluation) -> list[Gate]:
    """Each requirement held against an evaluation."""
    from rankwise.evaluate.gates import gate

    return [gate(requirement, found) for requirement in required]


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
