"""All checks on the rows of a job."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

from rankwise.errors import DataError
from rankwise.records.audit import Audit, AuditFinding, Checked, Piece, Place, Spread, TrainedView
from rankwise.records.job import OnLong
from rankwise.text.formats import Row
from rankwise.text.lengths import histogram
from rankwise.text.masks import IGNORE, Encoded, fit_length
from rankwise.text.probes import Probe
from rankwise.text.template import ChatText
from rankwise.train.audit.copies import held_out_and_trained, nearly_repeated, probes_in_training_words, repeated
from rankwise.train.audit.ends import (
    answers_end,
    placeholders,
    round_trip,
    special_tokens_in_texts,
    texts_begin,
    thin_rows,
)
from rankwise.train.audit.findings import finding
from rankwise.train.audit.reading import Encodings, Progress, encode


@dataclass(frozen=True)
class Material:
    """The rows of a job.

    Attributes:
        format: of the training rows.
        training, held_out: as they are split.
        unread: rows that are none of this format.
        probes: closed-book questions.
    """

    format: str
    training: Sequence[Row]
    held_out: Sequence[Row]
    unread: Sequence[DataError]
    probes: Sequence[Probe]


def audit(
    material: Material,
    chat: ChatText,
    *,
    model: str,
    max_length: int | None,
    on_long: OnLong,
    progress: Progress,
    near: bool = True,
    show: int = 2,
) -> Audit:
    """Look at every row.

    Args:
        max_length: tokens; None: the longest row, so that none is too long.
        near: look for near duplicates, which takes about a millisecond a row.
        show: rows to decode.

    Raises:
        DataError: no row can be read.
        ModelError: the model has no chat template, and the rows are conversations.
    """
    training = encode(material.training, chat, progress)
    held_out = encode(material.held_out, chat, progress)
    rows, encoded = [*training.rows, *held_out.rows], [*training.encoded, *held_out.encoded]
    refused = [*material.unread, *training.refused, *held_out.refused]
    if not encoded:
        raise refused[0] if refused else training.unstable[0][1]
    lengths = [len(e.ids) for e in encoded]
    length = max_length or max(lengths)
    seen = len(encoded) + len(refused) + len(training.unstable) + len(held_out.unstable)
    findings = [
        *_unread(refused, seen),
        *_unstable(training, held_out, seen),
        *thin_rows(encoded),
        *answers_end(encoded, chat),
        *texts_begin(rows, encoded, chat),
        *special_tokens_in_texts(rows, chat),
        *placeholders(rows),
        *round_trip(rows, encoded, chat),
        *_too_long(encoded, length, on_long),
        *repeated(training.encoded),
        *(nearly_repeated(training.rows, progress) if near else ()),
        *held_out_and_trained(training.encoded, held_out.encoded),
        *probes_in_training_words(material.training, material.probes, len(material.probes)),
    ]
    shares = [e.supervised / len(e.ids) for e in encoded]
    return Audit(
        model=model,
        format=material.format,
        rows=seen,
        tokens=sum(lengths),
        supervised_tokens=sum(e.supervised for e in encoded),
        max_length=length,
        on_long=on_long,
        lengths=_spread(lengths, "tokens"),
        supervised_share=_spread(shares, "share of a row's tokens"),
        length_histogram=histogram(lengths),
        checked=_checked(seen, len(encoded), len(training.encoded), len(held_out.encoded), len(material.probes), near),
        findings=tuple(findings),
        views=tuple(_view(e, chat) for e in _typical(encoded, show)),
    )


def _unread(refused: Sequence[DataError], seen: int) -> list[AuditFinding]:
    said = f": {_sentence(refused[0])}" if refused else ""
    return finding(
        "rows", "fault", refused, seen, f"{len(refused)} rows cannot be learned from, the first{said}", "mend or remove"
    )


def _sentence(fault: DataError) -> str:
    return fault.what.removeprefix(f"{fault.path}:{fault.line}: ")


def _unstable(training: Encodings, held_out: Encodings, seen: int) -> list[AuditFinding]:
    unstable = [*training.unstable, *held_out.unstable]
    fix = unstable[0][1].fix if unstable else ""
    text = (
        f"{len(unstable)} rows have several turns, and the template rewrites earlier turns as the conversation goes on"
    )
    return finding("template", "fault", [row for row, _ in unstable], seen, text, fix)


def _too_long(encoded: Sequence[Encoded], length: int, on_long: OnLong) -> list[AuditFinding]:
    long = [e for e in encoded if len(e.ids) > length]
    if not long:
        return []
    text = f"{len(long)} rows are longer than {length:,} tokens (the longest has {max(len(e.ids) for e in long):,})"
    if on_long == "error":
        fix = "raise train.max_length, or set train.on_long to drop, truncate or split"
        return finding("length", "fault", long, len(encoded), f"{text}, and on_long is error", fix)
    try:
        _, report = fit_length(encoded, length, on_long)
    except DataError as fault:
        return finding("length", "fault", long, len(encoded), f"{text}, and none is left", fault.fix or "")
    lost = f"{report.lost_supervised_tokens:,} of {sum(e.supervised for e in encoded):,} answer tokens are lost"
    text = f"{text}; on_long is {on_long}: {report.dropped_rows:,} rows and {lost}"
    return finding("length", "answered", long, len(encoded), text, "raise train.max_length to keep them")


def _checked(seen: int, encoded: int, training: int, held_out: int, probes: int, near: bool) -> tuple[Checked, ...]:
    amounts = {
        "rows": (seen, "rows"),
        "template": (seen, "rows"),
        "supervised": (encoded, "rows"),
        "eos": (encoded, "rows"),
        "bos": (encoded, "rows"),
        "special tokens": (encoded, "rows"),
        "placeholders": (encoded, "rows"),
        "round trip": (encoded, "rows"),
        "length": (encoded, "rows"),
        "duplicates": (training, "rows"),
        "near duplicates": (training if near else 0, "rows"),
        "overlap": (held_out, "held-out rows"),
        "probes": (probes, "probes"),
    }
    return tuple(Checked(check=name, amount=amount, unit=unit) for name, (amount, unit) in amounts.items())


def _spread(values: Sequence[float], unit: str) -> Spread:
    cuts = quantiles(values, n=20, method="inclusive") if len(values) > 1 else [values[0]] * 19
    return Spread(least=min(values), p5=cuts[0], median=cuts[9], p95=cuts[18], most=max(values), unit=unit)


def _typical(encoded: Sequence[Encoded], count: int) -> list[Encoded]:
    """Rows of middle length, spread over the file: neither the first ones nor the odd ones."""
    if count < 1:
        return []
    middle = sorted(encoded, key=lambda e: len(e.ids))[len(encoded) // 4 : max(1, 3 * len(encoded) // 4) + 1]
    step = max(1, len(middle) // count)
    return sorted(middle[step // 2 :: step][:count], key=lambda e: e.line)


def _view(row: Encoded, chat: ChatText) -> TrainedView:
    pieces, start = [], 0
    for index in range(1, len(row.ids) + 1):
        whole = index == len(row.ids)
        if whole or (row.labels[index] == IGNORE) != (row.labels[start] == IGNORE):
            text = chat.decode(row.ids[start:index], skip_special_tokens=False)
            pieces.append(Piece(text=text, trained=row.labels[start] != IGNORE))
            start = index
    place = Place(path=row.path, line=row.line)
    return TrainedView(place=place, tokens=len(row.ids), pieces=tuple(pieces))
