"""The whole evaluation: held-out loss, how it talks, what it knows, general loss."""

import time

from rankwise.evaluate.exam import NO_GENERAL, Exam
from rankwise.evaluate.facts import ask_facts
from rankwise.evaluate.pair import Found, Pair
from rankwise.evaluate.paired import compare_losses
from rankwise.evaluate.talk import ask_held_out
from rankwise.model.likelihood import Autocast
from rankwise.records import Evaluation


def evaluate(exam: Exam, pair: Pair, autocast: Autocast, against: str | None = None) -> Evaluation:
    """Everything that the exam asks; what it does not ask is noted, never counted as zero.

    Args:
        against: the run whose model stands in the base's place; None: the untouched base.
    """
    began = time.monotonic()
    parts = [
        _heldout(exam, pair, autocast),
        ask_held_out(exam, pair),
        ask_facts(exam, pair, autocast),
        _general(exam, pair, autocast),
    ]
    return Evaluation(
        comparisons=tuple(c for part in parts for c in part.comparisons),
        answers=tuple(a for part in parts for a in part.answers),
        reliability=tuple(r for part in parts for r in part.reliability),
        tendencies=tuple(t for part in parts for t in part.tendencies),
        against=against,
        seconds=time.monotonic() - began,
        notes=tuple(pair.notes),
    )


def _heldout(exam: Exam, pair: Pair, autocast: Autocast) -> Found:
    rows = exam.data.validation
    losses = pair.losses("held-out loss", rows, autocast)
    source = f"cross-entropy of {len(rows)} held-out rows' answers"
    return Found([compare_losses("heldout_loss", *losses, source)])


def _general(exam: Exam, pair: Pair, autocast: Autocast) -> Found:
    rows = exam.data.general
    if not rows:
        pair.notes.append(NO_GENERAL)
        return Found()
    losses = pair.losses("general loss", rows, autocast)
    source = f"cross-entropy of the answers of {len(rows)} general rows that were not trained on"
    return Found([compare_losses("general_loss", *losses, source)])
