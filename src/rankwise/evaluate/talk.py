"""How it talks: greedy answers to held-out prompts, beside the rows' own answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from rankwise.evaluate.custom import compare_own
from rankwise.evaluate.exam import NO_CONVERSATION, NO_FORM, Exam
from rankwise.evaluate.judge import compare_judged, judged
from rankwise.evaluate.manner import NGRAM, loops, refuses, repetition
from rankwise.evaluate.measures import correlation_of, mean_of, ratio_of, share_of
from rankwise.evaluate.pair import Found, Pair, each
from rankwise.evaluate.paired import compare_scores, compare_shares
from rankwise.evaluate.style import Exchange, Form, same_answer
from rankwise.evaluate.workload import SPARE_TOKENS, wanted_tokens
from rankwise.model.generate import Said
from rankwise.records import Answer, Comparison, Tendency
from rankwise.records.diagnosis import Measurement


@dataclass(frozen=True)
class Replies:
    """Answers of both models to the same prompts, base's first.

    Attributes:
        wanted: tokens of the rows' own answers.
        source: what was asked, in words.
    """

    asked: Sequence[Exchange]
    said: tuple[list[Said], list[Said]]
    texts: tuple[list[str], list[str]]
    wanted: list[int]
    source: str

    @property
    def items(self) -> list[tuple[str, str, str, str]]:
        """(prompt, expected, base's answer, tuned model's answer)."""
        rows = zip(self.asked, *self.texts, strict=True)
        return [(e.prompt, e.expected, base, tuned) for e, base, tuned in rows]


def ask_held_out(exam: Exam, pair: Pair) -> Found:
    """Format, equality, refusals, repetition, lengths, the user's own metrics and the judge, on the same answers."""
    asked = exam.held_out
    if not asked:
        pair.notes.append(NO_CONVERSATION)
        return Found()
    wanted = wanted_tokens(asked, pair.chat)
    said = pair.answers("answers", [e.messages for e in asked], max(wanted) + SPARE_TOKENS)
    source = f"greedy answers to {len(asked)} held-out prompts"
    replies = Replies(asked, said, pair.texts(said), wanted, source)
    right = each(lambda side: [same_answer(e.expected, s) for e, s in zip(asked, side, strict=True)], replies.texts)
    formed = _formed(exam, pair, replies)
    found = Found()
    if formed:
        assert exam.form is not None
        found.comparisons.append(
            compare_shares("format", formed[0], formed[1], f"{source}, checked by {exam.form.source}")
        )
    equal = f"{source}, equal to the row's own answer"
    found.comparisons.append(compare_shares("exact_match", right[0], right[1], equal))
    found.comparisons += [*_manner(replies), *_own(exam, replies), *_judge(exam, pair, replies)]
    found.tendencies = _lengths(replies, right)
    found.answers = _shown(replies, formed or right)
    return found


def _formed(exam: Exam, pair: Pair, replies: Replies) -> tuple[list[bool], list[bool]] | None:
    """Which answers are well formed; None where nothing says what that is."""
    pair.notes += form_notes(exam.form, replies.asked)
    form = exam.form
    return each(lambda side: [form.follows(s) for s in side], replies.texts) if form else None


def form_notes(form: Form | None, asked: Sequence[Exchange]) -> list[str]:
    """What is wrong with measuring the format."""
    if form is None:
        return [NO_FORM]
    wrong = sum(not form.follows(e.expected) for e in asked)
    return [f"{wrong} of {len(asked)} held-out rows' own answers do not follow the format either"] if wrong else []


def _manner(replies: Replies) -> list[Comparison]:
    """Refusals where the row answers, repetition, loops, and answers that the limit cut off; less is better."""
    answering = [i for i, e in enumerate(replies.asked) if not refuses(e.expected)]
    found = []
    if answering:
        refused = each(lambda side: [refuses(side[i]) for i in answering], replies.texts)
        source = f"{replies.source}, of these the {len(answering)} whose own answer declines nothing; by their words"
        found.append(compare_shares("refusals", *refused, source, higher_is_better=False))
    rates = each(lambda side: [repetition(said.ids) for said in side], replies.said)
    looping = each(lambda side: [loops(said.ids) for said in side], replies.said)
    cut = each(lambda side: [not said.ended for said in side], replies.said)
    again = f"{replies.source}, share of {NGRAM}-grams of tokens that stood in the answer before"
    room = f"{replies.source}, at least {SPARE_TOKENS} tokens longer than any row's own"
    return [
        *found,
        compare_scores("repetition", *rates, again, higher_is_better=False),
        compare_shares("loops", *looping, f"{replies.source}, that end in a loop", higher_is_better=False),
        compare_shares("cut_off", *cut, f"{room}, that the limit cut off", higher_is_better=False),
    ]


def _own(exam: Exam, replies: Replies) -> list[Comparison]:
    found = [compare_own(metric, metric.name, replies.items, replies.source) for metric in exam.metrics]
    return [c for c in found if c is not None]


def _judge(exam: Exam, pair: Pair, replies: Replies) -> list[Comparison]:
    if exam.judge is None:
        return []
    with pair.spent.elsewhere():
        verdicts = judged(exam.judge, replies.items, pair.progress)
    if verdicts.failures:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in verdicts.failures.most_common(3))
        pair.notes.append(f"the judge's verdict on {sum(verdicts.failures.values())} answers is unknown: {reasons}")
    compared = compare_judged(exam.judge, verdicts, replies.source)
    return [compared] if compared else []


def _lengths(replies: Replies, right: Sequence[Sequence[bool]]) -> list[Tendency]:
    tokens = [[float(len(said.ids)) for said in side] for side in replies.said]
    wanted = [float(count) for count in replies.wanted]
    long, ratio = f"{replies.source}, tokens of an answer", f"{replies.source}, tokens over those of the rows' answers"
    return [
        tendency("answer_length", [mean_of(side, "tokens", long) for side in tokens]),
        tendency("length_ratio", [ratio_of(side, wanted, ratio) for side in tokens]),
        length_right("length_right", tokens, right, f"{replies.source}, tokens of an answer with being equal"),
    ]


def length_right(
    name: str, tokens: Sequence[Sequence[float]], right: Sequence[Sequence[bool]], source: str
) -> Tendency:
    """Do longer answers come out right more often, or less?"""
    sides = zip(tokens, right, strict=True)
    return tendency(name, [correlation_of(t, [float(r) for r in ok], source) for t, ok in sides])


def refused_share(name: str, texts: Sequence[Sequence[str]], source: str) -> Tendency:
    """The share of answers that decline, by their words."""
    return tendency(name, [share_of([refuses(text) for text in side], source) for side in texts])


def tendency(name: str, sides: Sequence[Measurement | None]) -> Tendency:
    base, tuned = sides
    return Tendency(name=name, base=base, tuned=tuned)


def _shown(replies: Replies, ok: Sequence[Sequence[bool]]) -> list[Answer]:
    return [
        Answer(
            kind="format",
            prompt=e.prompt,
            expected=e.expected,
            base=replies.texts[0][i],
            tuned=replies.texts[1][i],
            base_ok=ok[0][i],
            tuned_ok=ok[1][i],
        )
        for i, e in enumerate(replies.asked)
    ]
