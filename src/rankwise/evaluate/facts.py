"""What it knows and how sure it is: closed-book questions, in several wordings, answered and chosen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rankwise.evaluate.calibration import compare_calibration, reliability_bins
from rankwise.evaluate.closedbook import by_probe, picked, right_answers, shares, slices
from rankwise.evaluate.custom import compare_own
from rankwise.evaluate.exam import NO_PROBES, Exam
from rankwise.evaluate.knowledge import belief, choice_rows, normalised, token_f1
from rankwise.evaluate.measures import share_of
from rankwise.evaluate.pair import Found, Pair, each
from rankwise.evaluate.paired import compare_scores, compare_shares
from rankwise.evaluate.talk import length_right, refused_share, tendency
from rankwise.evaluate.workload import PROBE_TOKENS
from rankwise.model.generate import Said
from rankwise.records import Answer, Comparison, Reliability, Tendency
from rankwise.records.evidence import CONFIDENT
from rankwise.text.probes import Probe, Wording

Sides = tuple[list[bool], list[bool]]


@dataclass(frozen=True)
class Told:
    """Answers of both models to every wording, base's first.

    Attributes:
        right: they contain the expected words.
        given: number of wordings that are the questions as the probes give them; they stand first.
    """

    asked: Sequence[Wording]
    said: tuple[list[Said], list[Said]]
    texts: tuple[list[str], list[str]]
    right: Sides
    given: int
    source: str

    def scores(self, score: Callable[[str, str], float]) -> tuple[list[float], list[float]]:
        """Of the questions as given."""
        asked = self.asked[: self.given]
        return each(
            lambda side: [score(w.answer, text) for w, text in zip(asked, side[: self.given], strict=True)], self.texts
        )


def ask_facts(exam: Exam, pair: Pair, autocast: object) -> Found:
    """Facts by four measures, by wording, by choice; confidence; what the base knew and what is left of it."""
    if not exam.probes:
        pair.notes.append(NO_PROBES)
        return Found()
    asked = exam.wordings
    said = pair.answers("closed-book facts", [w.messages for w in asked], PROBE_TOKENS)
    texts = pair.texts(said)
    right = each(lambda side: right_answers(asked, side), texts)
    told = Told(
        asked, said, texts, right, len(exam.probes), f"greedy answers to {len(exam.probes)} closed-book questions"
    )
    found = Found(comparisons=[*_measures(told, exam), *_slices(told, exam), *_own(told, exam)])
    _choices([p for p in exam.probes if p.choices], pair, autocast, found)
    _confidence(told, found)
    found.tendencies += _tendencies(told)
    found.answers = _shown(told)
    return found


def _measures(told: Told, exam: Exam) -> list[Comparison]:
    seen = sum(exam.seen[: told.given])
    how = f"{told.source} ({seen} of them in the words of a training row), that contain the expected words"
    exact, same, f1 = (
        told.scores(lambda expected, said: float(expected.strip() == said.strip())),
        told.scores(lambda expected, said: float(normalised(expected, said))),
        told.scores(token_f1),
    )
    return [
        compare_shares("facts", *_given(told), how),
        compare_scores("facts_exact", *exact, f"{told.source}, equal to the expected answer letter for letter"),
        compare_scores("facts_normalised", *same, f"{told.source}, equal after SQuAD's normalisation"),
        compare_scores("facts_f1", *f1, f"{told.source}, SQuAD's F1 over words"),
    ]


def _given(told: Told) -> Sides:
    return each(lambda side: side[: told.given], told.right)


def _slices(told: Told, exam: Exam) -> list[Comparison]:
    """As `slices`. A probe counts once in each."""
    found = []
    for name, inside in slices(told.asked, exam.seen).items():
        sides = shares(told.asked, told.right[0], inside), shares(told.asked, told.right[1], inside)
        what = {
            "facts_seen": "in the words of a training row",
            "facts_unseen": "in words that no training row uses",
            "facts_reversed": "turned round",
        }[name]
        source = f"greedy answers to {sum(inside)} wordings of {len(sides[0])} questions, {what}"
        found.append(compare_scores(name, *sides, f"{source}, that contain the expected words"))
    return found


def _own(told: Told, exam: Exam) -> list[Comparison]:
    """The user's own metrics on the questions as given; answers to held-out rows are kept apart from these."""
    rows = zip(told.asked[: told.given], *(side[: told.given] for side in told.texts), strict=True)
    items = [(w.question, w.answer, base, tuned) for w, base, tuned in rows]
    found = [compare_own(metric, f"{metric.name}_facts", items, told.source) for metric in exam.metrics]
    return [c for c in found if c is not None]


def _choices(probes: Sequence[Probe], pair: Pair, autocast: object, found: Found) -> None:
    if not probes:
        return
    rows = [row for p in probes for row in choice_rows(p, pair.chat)]
    losses = each(lambda side: by_probe(probes, side), pair.losses("multiple choice", rows, autocast))
    right = each(lambda side: picked(probes, side), losses)
    count = len(probes[0].choices)
    source = f"choice of lowest cross-entropy per token among {count}, {len(probes)} questions (chance {1 / count:.0%})"
    found.comparisons.append(compare_shares("facts_choice", *right, source))
    sure = each(lambda side: [_believed(p, own) for p, own in zip(probes, side, strict=True)], losses)
    likely = f"{len(probes)} questions, probability of the likeliest choice among the choices, against being right"
    found.comparisons.append(compare_calibration("calibration_error_choice", *sure, likely))
    bins = each(reliability_bins, sure)
    found.reliability.append(Reliability(kind="choices", base=bins[0], tuned=bins[1]))


def _believed(probe: Probe, losses: Sequence[tuple[float, int]]) -> tuple[float, bool]:
    best, probability = belief([nats for nats, _ in losses])
    return probability, probe.choices[best] == probe.answer


def _confidence(told: Told, found: Found) -> None:
    """Probability of the answers given against being right; a model that said nothing to a question has none."""
    right = _given(told)
    sure = each(lambda side: [said.probability for said in side[: told.given]], told.said)
    both_sides = (list(zip(sure[0], right[0], strict=True)), list(zip(sure[1], right[1], strict=True)))
    wrong = each(lambda side: [s is not None and s >= CONFIDENT and not r for s, r in side], both_sides)
    words = f"{told.source}, wrong with a mean probability of {CONFIDENT:.0%} or more for its own tokens"
    found.comparisons.append(compare_shares("confident_wrong", *wrong, words, higher_is_better=False))
    spoken = [i for i in range(told.given) if None not in (sure[0][i], sure[1][i])]
    if not spoken:
        return
    pairs = each(lambda side: [(s, r) for i in spoken for s, r in side[i : i + 1] if s is not None], both_sides)
    source = f"{told.source}, geometric mean probability of the tokens said against being right"
    found.comparisons.append(compare_calibration("calibration_error", *pairs, source))
    bins = each(reliability_bins, pairs)
    found.reliability.append(Reliability(kind="answers", base=bins[0], tuned=bins[1]))


def _tendencies(told: Told) -> list[Tendency]:
    base, tuned = _given(told)
    tokens = [[float(len(said.ids)) for said in side[: told.given]] for side in told.said]
    texts = [side[: told.given] for side in told.texts]
    known = [t for b, t in zip(base, tuned, strict=True) if b]
    kept = share_of(known, f"of the {len(known)} questions that the base answers right") if known else None
    return [
        tendency("facts_kept", [None, kept]),
        refused_share("refused_facts", texts, f"{told.source}, that decline, by their words"),
        length_right("length_right_facts", tokens, [base, tuned], f"{told.source}, tokens with being right"),
    ]


def _shown(told: Told) -> list[Answer]:
    return [
        Answer(
            kind=w.kind,
            prompt=w.question,
            expected=w.answer,
            base=told.texts[0][i],
            tuned=told.texts[1][i],
            base_ok=told.right[0][i],
            tuned_ok=told.right[1][i],
            base_sure=told.said[0][i].probability,
            tuned_sure=told.said[1][i].probability,
        )
        for i, w in enumerate(told.asked)
    ]
