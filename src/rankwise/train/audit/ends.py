"""What a row says once it is ids: labels, end and begin tokens, special tokens, placeholders, the round trip."""

import re
from collections.abc import Iterator, Sequence

from rankwise.records.audit import AuditFinding
from rankwise.text.fitting import lengths_of, supervised_of
from rankwise.text.formats import Row
from rankwise.text.leftout import left_out
from rankwise.text.masks import IGNORE, Encoded
from rankwise.text.template import ChatText
from rankwise.train.audit.findings import Spots, finding
from rankwise.train.audit.reading import Encodings

ENDED = 0.99  # of the rows must teach the model to stop
PLACEHOLDER = re.compile(r"\{\{\s*\w+\s*\}\}")
THIN = 0.01  # supervised share of a row below which something is odd


def learned_runs(row: Encoded) -> Iterator[tuple[int, int]]:
    """[start, end) of each unbroken stretch of labels."""
    start = None
    for index, label in enumerate((*row.labels, IGNORE)):
        if label != IGNORE and start is None:
            start = index
        elif label == IGNORE and start is not None:
            yield start, index
            start = None


def thin_rows(encoded: Sequence[Encoded]) -> list[AuditFinding]:
    """Rows of which hardly anything is learned."""
    pairs = zip(supervised_of(encoded), lengths_of(encoded), strict=True)
    thin = Spots(encoded[number] for number, (labels, tokens) in enumerate(pairs) if labels < THIN * tokens)
    return finding(
        "supervised",
        "warning",
        thin,
        len(encoded),
        f"{len(thin)} rows have labels on less than {THIN:.0%} of their tokens",
        "look at one with --show; long prompts with short answers train slowly",
    )


def answers_end(encoded: Sequence[Encoded], chat: ChatText) -> list[AuditFinding]:
    """Every learned answer ends in a token on which generation stops, and that token is learned."""
    stops = set(chat.stop_token_ids)
    endless = Spots(e for e in encoded if any(e.ids[end - 1] not in stops for _, end in learned_runs(e)))
    share = 1 - len(endless) / max(1, len(encoded))
    names = ", ".join(repr(chat.decode([stop], skip_special_tokens=False)) for stop in chat.stop_token_ids)
    return finding(
        "eos",
        "fault" if share < ENDED else "warning",
        endless,
        len(encoded),
        f"{len(endless)} rows do not teach the model to stop: an answer ends without {names} "
        f"({share:.1%} of the rows have it, {ENDED:.0%} are needed)",
        "let the chat template write the end token after each answer, or name the token that it writes as eos_token in "
        "the model's generation_config.json",
    )


def texts_begin(encoded: Sequence[Encoded], chat: ChatText) -> list[AuditFinding]:
    """Exactly one begin token, where the model has one of its own: some templates begin every turn with theirs."""
    begin = chat.bos_token_id
    if begin is None:
        return []
    within = _turns_begin_with(chat, begin)
    doubled = Spots(e for e in encoded if e.ids[:2] == (begin, begin) or (not within and e.ids.count(begin) > 1))
    documents_have_it = chat.encode_document("a")[0] == begin
    lacking = Spots(e for e in encoded if documents_have_it and begin not in e.ids[:1])
    token = chat.decode([begin], skip_special_tokens=False)
    return [
        *finding(
            "bos",
            "fault",
            doubled,
            len(encoded),
            f"{len(doubled)} rows have the begin token {token!r} more than once",
            "write it in the template or let the tokenizer add it, not both; take it out of the texts",
        ),
        *finding(
            "bos",
            "warning",
            lacking,
            len(encoded),
            f"{len(lacking)} rows begin without {token!r}, which the tokenizer puts before a document",
            "a model that was trained with it expects it: let the chat template write it",
        ),
    ]


def _turns_begin_with(chat: ChatText, begin: int) -> bool:
    if not chat.has_template:
        return False
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    return chat.encode_prompt(turns).count(begin) > 1


def special_tokens_in_texts(sides: Sequence[Encodings], chat: ChatText) -> list[AuditFinding]:
    """A special token that a text spells out becomes that token: it ends a turn, or begins one."""
    tokens = [t for t in chat.special_tokens.values() if len(t) > 2]
    found = Spots(
        row for side in sides for row in side.rows if any(t in text for text in _contents(row) for t in tokens)
    )
    return finding(
        "special tokens",
        "warning",
        found,
        sum(len(side.rows) for side in sides),
        f"{len(found)} rows spell out a special token of the tokenizer, which is read as that token",
        "take it out of the text, or write it otherwise",
    )


def placeholders(sides: Sequence[Encodings]) -> list[AuditFinding]:
    """`{{name}}` that nobody has filled in would be learned as it stands."""
    found = Spots(
        row for side in sides for row in side.rows if any(PLACEHOLDER.search(text) for text in _contents(row))
    )
    return finding(
        "placeholders",
        "warning",
        found,
        sum(len(side.rows) for side in sides),
        f"{len(found)} rows hold a placeholder in double braces, which would be learned as it stands",
        "fill it in, unless such text is what the model shall write",
    )


def _contents(row: Row) -> Iterator[str]:
    if row.text is not None:
        yield row.text
    for message in row.messages:
        if isinstance(message.get("content"), str):
            yield message["content"]


def round_trip(sides: Sequence[Encodings], chat: ChatText) -> list[AuditFinding]:
    """Ids decode to the text that the template wrote: else the model learns another text than the file has."""
    return finding(
        "round trip",
        "warning",
        changed := Spots(row for side in sides for row, texts in side.pairs() if _changed(row, texts[-1], chat)),
        sum(len(side.rows) for side in sides),
        f"{len(changed)} rows are another text once they are decoded",
        "the tokenizer normalises (case, blanks, accents) or lacks characters: look at one with --show",
    )


def _changed(row: Row, last: Encoded, chat: ChatText) -> bool:
    written = row.text
    if written is None:
        talk = row.messages if row.messages[-1]["role"] == "assistant" else row.messages[: _answered(row)]
        written = chat.render(talk, given=row.given)
    return written not in chat.decode(last.ids, skip_special_tokens=False)


def _answered(row: Row) -> int:
    """Messages up to the last learned answer."""
    learned = [i for i, m in enumerate(row.messages) if m["role"] == "assistant" and m.get("weight") != 0]
    return learned[-1] + 1


def left_out_by_template(sides: Sequence[Encodings], chat: ChatText) -> list[AuditFinding]:
    """Calls, reasoning, tools or turns that the template passes over in silence."""
    lost: dict[str, None] = {}

    def rows_with_loss() -> Iterator[Row]:
        for row in (row for side in sides for row in side.rows):
            if names := left_out(row, chat):
                lost.update(dict.fromkeys(names))
                yield row

    found = Spots(rows_with_loss())
    return finding(
        "left out",
        "fault",
        found,
        sum(len(side.rows) for side in sides),
        f"{len(found)} rows say what the chat template does not write: {', '.join(lost)}",
        "give a template that writes it as chat_template in the job, or take it out of the rows",
    )


def begun_otherwise(encoded: Sequence[Encoded]) -> list[AuditFinding]:
    """Answers that begin otherwise than the template's generation prompt does, so that inference asks for others."""
    found = Spots(e for e in encoded if e.unprompted)
    return finding(
        "prompt",
        "warning",
        found,
        len(encoded),
        f"{len(found)} rows have answers that begin otherwise than the template's generation prompt (a thought that "
        "it opens and the row does not have, for example): at inference the model will be asked for something else",
        "give the rows their reasoning_content, or a template whose generation prompt fits as chat_template",
    )
