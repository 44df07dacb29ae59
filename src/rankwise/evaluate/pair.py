"""The tuned model and the untouched base it came from, judged on the same held-out rows, probes and general rows."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from rankwise.evaluate.knowledge import choice_rows, chosen, states
from rankwise.evaluate.paired import compare_losses, compare_shares
from rankwise.evaluate.style import Exchange, exchanges, format_rule, same_answer
from rankwise.evaluate.workload import MOST_ROWS, PROBE_TOKENS, SPARE_TOKENS, Spent, question
from rankwise.model.generate import answer_ids
from rankwise.model.likelihood import row_losses
from rankwise.records import Answer, Comparison, Evaluation, Job
from rankwise.text.dataset import Dataset
from rankwise.text.masks import Encoded
from rankwise.text.probes import Probe
from rankwise.text.template import ChatText

Progress = Callable[[str, int, int], None]


@dataclass
class Pair:
    """Two models that may be one: `as_base` switches to the untouched base and back.

    Attributes:
        tuned: the trained model.
        as_base: context manager that yields the untouched base.
        progress: told (what, done, total).
        spent: what was asked, and how long it took.
    """

    chat: ChatText
    tuned: Any
    as_base: Callable[[], AbstractContextManager[Any]]
    progress: Progress
    notes: list[str] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)

    def both(self, what: str, ask: Callable[[Any, Progress], Any]) -> tuple[Any, Any]:
        """(base's, tuned's) outcome of `ask(model, progress)`."""
        with self.as_base() as base:
            before = ask(base, lambda _, done, total: self.progress(f"{what}, base", done, total))
        return before, ask(self.tuned, lambda _, done, total: self.progress(f"{what}, tuned", done, total))

    def answers(self, what: str, conversations: Sequence[Any], tokens: int) -> tuple[list[str], list[str]]:
        prompts = [self.chat.encode_prompt(c) for c in conversations]

        def ask(model: Any, progress: Progress) -> list[str]:
            done = 0

            def on_batch(count: int) -> None:
                nonlocal done
                done += count
                progress(what, done, len(conversations))

            began = time.monotonic()
            said = answer_ids(model, self.chat, conversations, tokens, on_batch=on_batch)
            self.spent.answered(prompts, said, tokens, time.monotonic() - began)
            return [self.chat.decode(ids) for ids in said]

        return self.both(what, ask)

    def losses(self, what: str, rows: Sequence[Encoded], autocast: Any) -> tuple[Any, Any]:
        def ask(model: Any, progress: Progress) -> list[tuple[float, int]]:
            began = time.monotonic()
            found = []
            for i in range(0, len(rows), 16):
                found += row_losses(model, rows[i : i + 16], autocast)
                progress(what, len(found), len(rows))
            self.spent.scored(rows, time.monotonic() - began)
            return found

        return self.both(what, ask)


def evaluate(job: Job, data: Dataset, probes: Sequence[Probe], pair: Pair, autocast: Any) -> Evaluation:
    """Everything the job's files allow to be asked; what cannot be asked is noted, never counted as zero."""
    began = time.monotonic()
    comparisons = [_heldout(data, pair, autocast)]
    answers: list[Answer] = []
    for part in (_style(job, data, pair), _facts(probes, pair, autocast), _general(data, pair, autocast)):
        comparisons += part[0]
        answers += part[1]
    return Evaluation(
        comparisons=tuple(comparisons),
        answers=tuple(answers),
        seconds=time.monotonic() - began,
        notes=tuple(pair.notes),
    )


def _heldout(data: Dataset, pair: Pair, autocast: Any) -> Comparison:
    losses = pair.losses("held-out loss", data.validation, autocast)
    return compare_losses("heldout_loss", *losses, f"cross-entropy of {len(data.validation)} held-out rows' answers")


def _style(job: Job, data: Dataset, pair: Pair) -> tuple[list[Comparison], list[Answer]]:
    asked = exchanges(data.held_out)[:MOST_ROWS]
    if not asked:
        pair.notes.append("no held-out conversation, so answers were not compared")
        return [], []
    room = max(len(pair.chat.encode(e.expected)) for e in asked) + SPARE_TOKENS
    said = pair.answers("answers", [e.messages for e in asked], room)
    right = [[same_answer(e.expected, s) for e, s in zip(asked, side, strict=True)] for side in said]
    source = f"greedy answers to {len(asked)} held-out prompts"
    comparisons = [compare_shares("exact_match", right[0], right[1], f"{source}, equal to the row's own answer")]
    if job.format is None:
        pair.notes.append("no `format` in the job, so format adherence was not measured")
        return comparisons, _shown(asked, said, right)
    rule = format_rule(job.format)
    formed = [[rule(s) for s in side] for side in said]
    kind = "JSON schema" if job.format.json_schema else "regular expression"
    comparisons.insert(0, compare_shares("format", formed[0], formed[1], f"{source}, checked by the {kind}"))
    return comparisons, _shown(asked, said, formed)


def _shown(asked: Sequence[Exchange], said: Sequence[list[str]], ok: Sequence[list[bool]]) -> list[Answer]:
    return [
        Answer(
            kind="format",
            prompt=e.prompt,
            expected=e.expected,
            base=said[0][i],
            tuned=said[1][i],
            base_ok=ok[0][i],
            tuned_ok=ok[1][i],
        )
        for i, e in enumerate(asked)
    ]


def _facts(probes: Sequence[Probe], pair: Pair, autocast: Any) -> tuple[list[Comparison], list[Answer]]:
    if not probes:
        pair.notes.append("no `data.facts` in the job, so what the model knows was not measured")
        return [], []
    conversations = [question(p) for p in probes]
    said = pair.answers("closed-book facts", conversations, PROBE_TOKENS)
    right = [[states(p.answer, s) for p, s in zip(probes, side, strict=True)] for side in said]
    source = f"greedy answers to {len(probes)} closed-book questions that contain the expected words"
    comparisons = [compare_shares("facts", right[0], right[1], source)]
    asked = [p for p in probes if p.choices]
    if asked:
        comparisons.append(_choices(asked, pair, autocast))
    answers = [
        Answer(
            kind="fact",
            prompt=p.question,
            expected=p.answer,
            base=said[0][i],
            tuned=said[1][i],
            base_ok=right[0][i],
            tuned_ok=right[1][i],
        )
        for i, p in enumerate(probes)
    ]
    return comparisons, answers


def _choices(probes: Sequence[Probe], pair: Pair, autocast: Any) -> Comparison:
    rows = [row for p in probes for row in choice_rows(p, pair.chat)]
    sides = []
    for losses in pair.losses("multiple choice", rows, autocast):
        scored = iter(losses)
        sides.append([chosen(p, [next(scored) for _ in p.choices]) == p.answer for p in probes])
    count = len(probes[0].choices)
    source = f"choice of lowest cross-entropy per token among {count}, {len(probes)} questions (chance {1 / count:.0%})"
    return compare_shares("facts_choice", sides[0], sides[1], source)


def _general(data: Dataset, pair: Pair, autocast: Any) -> tuple[list[Comparison], list[Answer]]:
    if not data.general:
        pair.notes.append("no `data.general` in the job, so forgetting was not measured")
        return [], []
    losses = pair.losses("general loss", data.general, autocast)
    source = f"cross-entropy of the answers of {len(data.general)} general rows that were not trained on"
    return [compare_losses("general_loss", *losses, source)], []
