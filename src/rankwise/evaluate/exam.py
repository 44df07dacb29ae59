"""What an evaluation will ask, read and tried before a model is loaded: a fault in a file costs no time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rankwise.errors import UsageError
from rankwise.evaluate.custom import Metric, load_metric
from rankwise.evaluate.inferred import inferred_form
from rankwise.evaluate.judge import Judge
from rankwise.evaluate.knowledge import asked_otherwise, wording
from rankwise.evaluate.style import Exchange, Form, exchanges, form_of
from rankwise.evaluate.workload import MOST_ROWS
from rankwise.records import Job
from rankwise.text.dataset import Dataset
from rankwise.text.formats import Row
from rankwise.text.probes import Probe, Wording, wordings

# Names that comparisons and tendencies have of ours: a metric of the user's own must not hide one.
TALK = ("heldout_loss", "format", "exact_match", "refusals", "repetition", "loops", "cut_off", "judge")
KNOW = ("facts", "facts_exact", "facts_normalised", "facts_f1", "facts_seen", "facts_unseen", "facts_reversed")
SURE = ("facts_choice", "confident_wrong", "calibration_error", "calibration_error_choice", "general_loss")
LENGTH = ("answer_length", "length_ratio", "length_right", "refused_facts", "length_right_facts", "facts_kept")
# What is said of that which a job does not give.
NO_CONVERSATION = "no held-out conversation, so answers were not compared"
NO_FORM = "no `format` in the job, and the held-out answers share no form, so format adherence was not measured"
NO_PROBES = "no `data.facts` in the job, so what the model knows was not measured"
NO_GENERAL = "no `data.general` in the job, so forgetting was not measured"
NAMES = frozenset((*TALK, *KNOW, *SURE, *LENGTH))


@dataclass(frozen=True)
class Exam:
    """All that is asked.

    Attributes:
        held_out: held-out prompts with the rows' own answers, at most MOST_ROWS of them.
        form: what a well-formed answer is; None where the job does not say and the data shows none.
        wordings: every way in which the closed-book probes are asked.
        seen: of each, does a training row ask it in these words?
    """

    data: Dataset
    held_out: Sequence[Exchange]
    form: Form | None
    probes: Sequence[Probe]
    wordings: Sequence[Wording]
    seen: Sequence[bool]
    metrics: Sequence[Metric]
    judge: Judge | None


def set_exam(
    job: Job,
    data: Dataset,
    probes: Sequence[Probe],
    training: Iterable[Row],
    *,
    metrics: Sequence[str] = (),
    judge: Judge | None = None,
) -> Exam:
    """Read the format, load the user's functions and try both on the data's own answers.

    Args:
        training: rows that are trained on, gone through once, and only where there are probes.
        metrics: more functions than the job names, as FILE.py:FUNCTION.

    Raises:
        DataError: a schema, an expression or a function that fails.
        UsageError: a function that is not there, or has the name of a metric of ours.
    """
    given = exchanges(data.held_out)
    form = form_of(job.format) if job.format else inferred_form([e.expected for e in given])
    if form:
        for exchange in given:
            form.follows(exchange.expected)
    own = [load_metric(said) for said in dict.fromkeys((*job.eval.metrics, *metrics))]
    _check_names(own)
    for metric in own:
        for exchange in given[:1]:
            metric.score(exchange.prompt, exchange.expected, exchange.expected)
    asked = wordings(probes)
    return Exam(
        data=data,
        held_out=given[:MOST_ROWS],
        form=form,
        probes=probes,
        wordings=asked,
        seen=_seen(asked, training),
        metrics=own,
        judge=judge,
    )


def _check_names(metrics: Sequence[Metric]) -> None:
    """A metric makes two comparisons, one of its name and one of its name with `_facts`."""
    taken = set(NAMES)
    for metric in metrics:
        mine = {metric.name, f"{metric.name}_facts"}
        if mine & taken:
            raise UsageError(
                f"a metric of your own is named {metric.name}, and there is another metric of that name",
                expected="a name of its own",
                fix=f"rename the function in {metric.path.name}",
            )
        taken |= mine


def _seen(asked: Sequence[Wording], training: Iterable[Row]) -> list[bool]:
    wanted = {wording(w.question) for w in asked}
    if not wanted:
        return []
    trained = {
        said
        for row in training
        for message in row.messages
        if message["role"] == "user" and (said := wording(str(message.get("content")))) in wanted
    }
    return [not asked_otherwise(w.question, trained) for w in asked]
