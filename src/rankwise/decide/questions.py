"""Not enough information: what is not known and would change the call if it were. Found by deciding again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rankwise.decide.flips import Call
from rankwise.records import Facts, Job

World = tuple[Job, Facts]
MOST = 2
LOW_LOSS, HIGH_LOSS = 0.1, 3.0  # nats per answer token: a base that nearly knows, and one that knows nothing


@dataclass(frozen=True)
class Unknown:
    """A question, and the worlds of its answers."""

    text: str
    answers: Sequence[World]


def questions(job: Job, facts: Facts, call: Callable[[Job, Facts], Call]) -> tuple[str, ...]:
    """At most two, those that change what is trained before those that change what is tried first."""
    here = call(job, facts)
    weighed = []
    for unknown in _unknowns(job, facts):
        others = [call(*world) for world in unknown.answers]
        weight = max((2 * (o.recipe != here.recipe) + (o.first != here.first) for o in others), default=0)
        if weight:
            told = "; ".join(dict.fromkeys(o.told(here) for o in others if o != here))
            weighed.append((weight, f"{unknown.text} The call could become: {told}."))
    weighed.sort(key=lambda pair: -pair[0])
    return tuple(text for _, text in weighed[:MOST])


def answered(job: Job, facts: Facts) -> Iterator[World]:
    """The worlds that `questions` looks at."""
    for unknown in _unknowns(job, facts):
        yield from unknown.answers


def _unknowns(job: Job, facts: Facts) -> Iterator[Unknown]:
    if job.goal == "unsure":
        yield Unknown(
            "Should the model answer differently (goal: instruction), or know something new (goal: knowledge)? "
            "`rankwise diagnose` measures it.",
            [(_with(job, goal=goal), facts) for goal in ("instruction", "knowledge")],
        )
    if job.data.base_loss is None and facts.diagnosis is None:
        yield Unknown(
            "How surprised is the base by the right answers (data.base_loss, nats per answer token)? "
            "`rankwise diagnose` measures it.",
            [(_with_data(job, base_loss=loss), facts) for loss in (LOW_LOSS, HIGH_LOSS)],
        )
    if job.goal != "instruction" and job.retrieval is None:
        yield Unknown(
            "Could answers be looked up at run time (retrieval: possible)?", [(_with(job, retrieval="possible"), facts)]
        )
    if job.data.domain is None and facts.data.supervised_tokens > 1e6:
        yield Unknown(
            "Is it code or math, far from everyday text (data.domain)?", [(_with_data(job, domain="code"), facts)]
        )


def _with(job: Job, **update: Any) -> Job:
    return job.model_copy(update=update)


def _with_data(job: Job, **update: Any) -> Job:
    return job.model_copy(update={"data": job.data.model_copy(update=update)})
