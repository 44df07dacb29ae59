"""What a row says once it is ids: labels, end and begin tokens, special tokens, placeholders, the round trip."""

import re
from collections.abc import Iterator, Sequence

from rankwise.records.audit import AuditFinding
from rankwise.text.formats import Row
from rankwise.text.masks import IGNORE, Encoded
from rankwise.text.template import ChatText
from rankwise.train.audit.findings import finding

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
    thin = [e for e in encoded if e.supervised < THIN * len(e.ids)]
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
    endless = [e for e in encoded if any(e.ids[end - 1] not in stops for _, end in learned_runs(e))]
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


def texts_begin(rows: Sequence[Row], encoded: Sequence[Encoded], chat: ChatText) -> list[AuditFinding]:
    """Exactly one begin token, where the model has one of its own: some templates begin every turn with theirs."""
    begin = chat.bos_token_id
    if begin is None:
        return []
    within = _turns_begin_with(chat, begin)
    doubled = [e for e in encoded if e.ids[:2] == (begin, begin) or (not within and e.ids.count(begin) > 1)]
    documents_have_it = chat.encode_document("a")[0] == begin
    lacking = [e for e in encoded if documents_have_it and begin not in e.ids[:1]]
    token = chat.decode([begin], skip_special_tokens=False)
    return [
        *finding(
            "bos",
            "fault",
            doubled,
            len(rows),
            f"{len(doubled)} rows have the begin token {token!r} more than once",
            "write it in the template or let the tokenizer add it, not both; take it out of the texts",
        ),
        *finding(
            "bos",
            "warning",
            lacking,
            len(rows),
            f"{len(lacking)} rows begin without {token!r}, which the tokenizer puts before a document",
            "a model that was trained with it expects it: let the chat template write it",
        ),
    ]


def _turns_begin_with(chat: ChatText, begin: int) -> bool:
    if not chat.has_template:
        return False
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    return chat.encode_prompt(turns).count(begin) > 1


def special_tokens_in_texts(rows: Sequence[Row], chat: ChatText) -> list[AuditFinding]:
    """A special token that a text spells out becomes that token: it ends a turn, or begins one."""
    tokens = [t for t in chat.special_tokens.values() if len(t) > 2]
    found = [row for row in rows if any(t in text for text in _contents(row) for t in tokens)]
    return finding(
        "special tokens",
        "warning",
        found,
        len(rows),
        f"{len(found)} rows spell out a special token of the tokenizer, which is read as that token",
        "take it out of the text, or write it otherwise",
    )


def placeholders(rows: Sequence[Row]) -> list[AuditFinding]:
    """`{{name}}` that nobody has filled in would be learned as it stands."""
    found = [row for row in rows if any(PLACEHOLDER.search(text) for text in _contents(row))]
    return finding(
        "placeholders",
        "warning",
        found,
        len(rows),
        f"{len(found)} rows hold a placeholder in double braces, which would be learned as it stands",
        "fill it in, unless such text is what the model shall write",
    )


def _contents(row: Row) -> Iterator[str]:
    if row.text is not None:
        yield row.text
    for message in row.messages:
        if isinstance(message.get("content"), str):
            yield message["content"]


def round_trip(rows: Sequence[Row], encoded: Sequence[Encoded], chat: ChatText) -> list[AuditFinding]:
    """Ids decode to the text that the template wrote: else the model learns another text than the file has."""
    changed = []
    for row, ids in zip(rows, encoded, strict=True):
        written = row.text if row.text is not None else chat.render(row.messages)
        if written not in chat.decode(ids.ids, skip_special_tokens=False):
            changed.append(ids)
    return finding(
        "round trip",
        "warning",
        changed,
        len(rows),
        f"{len(changed)} rows are another text once they are decoded",
        "the tokenizer normalises (case, blanks, accents) or lacks characters: look at one with --show",
    )
