"""All checks on the rows of a job."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rankwise.errors import DataError
from rankwise.records.audit import Audit, AuditFinding, Checked, Piece, Place, Spread, TrainedView
from rankwise.records.job import OnLong
from rankwise.text.fitting import lengths_of, supervised_of, windows_of
from rankwise.text.lengths import histogram
from rankwise.text.masks import IGNORE, Encoded, LazyRows
from rankwise.text.probes import Probe
from rankwise.text.template import ChatText
from rankwise.train.audit.copies import (
    MOST_COMPARED,
    held_out_and_trained,
    nearly_repeated,
    probes_in_training_words,
    repeated,
)
from rankwise.train.audit.ends import (
    answers_end,
    begun_otherwise,
    left_out_by_template,
    placeholders,
    round_trip,
    special_tokens_in_texts,
    texts_begin,
    thin_rows,
)
from rankwise.train.audit.findings import Spots, finding
from rankwise.train.audit.reading import Encodings, Progress


@dataclass(frozen=True)
class Material:
    """The rows of a job.

    Attributes:
        format: of the training rows.
        training, held_out: as they are split; what cannot be read of a file that both come from is with the first.
        probes: closed-book questions.
    """

    format: str
    training: Encodings
    held_out: Encodings
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
        show: rows to decode; a row that is too long is one more, where there is one.

    Raises:
        DataError: no row can be read.
        ModelError: the model has no chat template, and the rows are conversations.
    """
    training, held_out = sides = material.training, material.held_out
    encoded = Joined(sides)
    refused = Spots([*training.refused, *held_out.refused], sum(side.refused_count for side in sides))
    unstable = Spots([*training.unstable, *held_out.unstable], sum(side.unstable_count for side in sides))
    if not encoded:
        raise next(fault for side in sides for fault in (*side.refused, *side.unstable))
    lengths, labels = lengths_of(encoded), supervised_of(encoded)
    length = max_length or max(lengths)
    rows = sum(len(side.rows) for side in sides)
    seen = rows + len(refused) + len(unstable)
    findings = [
        *_unread(refused, sides, seen),
        *_unstable(unstable, sides, seen),
        *left_out_by_template(sides, chat),
        *_apart(sides, rows),
        *begun_otherwise(encoded),
        *thin_rows(encoded),
        *answers_end(encoded, chat),
        *texts_begin(encoded, chat),
        *special_tokens_in_texts(sides, chat),
        *placeholders(sides),
        *round_trip(sides, chat),
        *_too_long(encoded, length, on_long),
        *repeated(training.encoded),
        *(nearly_repeated(training.rows, progress) if near else ()),
        *held_out_and_trained(training.encoded, held_out.encoded),
        *probes_in_training_words(training.rows, material.probes, len(material.probes)),
    ]
    shares = [count / tokens for count, tokens in zip(labels, lengths, strict=True)]
    return Audit(
        model=model,
        format=material.format,
        rows=seen,
        tokens=sum(lengths),
        supervised_tokens=sum(labels),
        max_length=length,
        on_long=on_long,
        lengths=_spread(lengths, "tokens"),
        supervised_share=_spread(shares, "share of a row's tokens"),
        length_histogram=histogram(lengths),
        checked=_checked(seen, rows, len(training.rows), len(held_out.rows), len(material.probes), near),
        findings=tuple(findings),
        views=tuple(_view(e, chat, length, on_long) for e in _shown(encoded, show, length)),
    )


class Joined(LazyRows):
    """The texts of several sides, one after the other; each is read when it is asked for."""

    def __init__(self, sides: Sequence[Encodings]):
        self.parts = [side.encoded for side in sides]
        self.lengths = [tokens for part in self.parts for tokens in lengths_of(part)]
        self.supervised = [count for part in self.parts for count in supervised_of(part)]

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, index: int) -> Encoded:
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)


def _unread(refused: Spots, sides: Sequence[Encodings], seen: int) -> list[AuditFinding]:
    said = next((f": {_sentence(fault)}" for side in sides for fault in side.refused), "")
    return finding(
        "rows", "fault", refused, seen, f"{len(refused)} rows cannot be learned from, the first{said}", "mend or remove"
    )


def _sentence(fault: DataError) -> str:
    return fault.what.removeprefix(f"{fault.path}:{fault.line}: ")


def _unstable(unstable: Spots, sides: Sequence[Encodings], seen: int) -> list[AuditFinding]:
    fix = next((fault.fix for side in sides for fault in side.unstable), "")
    text = f"of {len(unstable)} rows the template writes the turns before an answer otherwise once the answer is there"
    return finding("template", "fault", unstable, seen, text, fix)


def _apart(sides: Sequence[Encodings], rows: int) -> list[AuditFinding]:
    apart = Spots(row for side in sides if max(side.texts, default=1) > 1 for row, texts in side.pairs() if texts[1:])
    texts = sum(len(side.encoded) for side in sides)
    return finding(
        "template",
        "warning",
        apart,
        rows,
        f"{len(apart)} conversations are trained as several texts ({texts:,} of {rows:,} rows), since the template "
        "rewrites earlier turns as a conversation goes on; each answer is learned after what inference shows before it",
        "earlier turns are read again for each answer, which takes time; a template that only appends does not need it",
    )


def _too_long(encoded: Sequence[Encoded], length: int, on_long: OnLong) -> list[AuditFinding]:
    lengths = lengths_of(encoded)
    long = Spots(encoded[number] for number, tokens in enumerate(lengths) if tokens > length)
    if not long:
        return []
    text = f"{len(long)} rows are longer than {length:,} tokens (the longest has {max(lengths):,})"
    if on_long == "error":
        fix = "raise train.max_length, or set train.on_long to drop, truncate or split"
        return finding("length", "fault", long, len(encoded), f"{text}, and on_long is error", fix)
    try:
        _, report = windows_of(encoded, length, on_long)
    except DataError as fault:
        return finding("length", "fault", long, len(encoded), f"{text}, and none is left", fault.fix or "")
    lost = f"{report.lost_supervised_tokens:,} of {sum(supervised_of(encoded)):,} answer tokens are lost"
    text = f"{text}; on_long is {on_long}: {report.dropped_rows:,} rows and {lost}"
    return finding("length", "answered", long, len(encoded), text, "raise train.max_length to keep them")


def _checked(seen: int, encoded: int, training: int, held_out: int, probes: int, near: bool) -> tuple[Checked, ...]:
    amounts = {
        "rows": (seen, "rows"),
        "template": (seen, "rows"),
        "left out": (encoded, "rows"),
        "prompt": (encoded, "rows"),
        "supervised": (encoded, "rows"),
        "eos": (encoded, "rows"),
        "bos": (encoded, "rows"),
        "special tokens": (encoded, "rows"),
        "placeholders": (encoded, "rows"),
        "round trip": (encoded, "rows"),
        "length": (encoded, "rows"),
        "duplicates": (training, "rows"),
        "near duplicates": (min(training, MOST_COMPARED) if near else 0, "rows"),
        "overlap": (held_out, "held-out rows"),
        "probes": (probes, "probes"),
    }
    return tuple(Checked(check=name, amount=amount, unit=unit) for name, (amount, unit) in amounts.items())


def _spread(values: Sequence[float], unit: str) -> Spread:
    least, p5, median, p95, most = (float(cut) for cut in np.quantile(values, (0, 0.05, 0.5, 0.95, 1)))
    return Spread(least=least, p5=p5, median=median, p95=p95, most=most, unit=unit)


def _typical(encoded: Sequence[Encoded], count: int) -> list[Encoded]:
    """Rows of middle length, spread over the file: neither the first ones nor the odd ones."""
    if count < 1:
        return []
    lengths = lengths_of(encoded)
    by_length = sorted(range(len(encoded)), key=lambda number: lengths[number])
    middle = by_length[len(encoded) // 4 : max(1, 3 * len(encoded) // 4) + 1]
    step = max(1, len(middle) // count)
    return sorted((encoded[number] for number in middle[step // 2 :: step][:count]), key=lambda e: e.line)


def _shown(encoded: Sequence[Encoded], count: int, length: int) -> list[Encoded]:
    """Typical rows, and the first one that is too long: what becomes of it has to be seen, too."""
    long = next((number for number, tokens in enumerate(lengths_of(encoded)) if tokens > length), None)
    typical = _typical(encoded, count)
    if count < 1 or long is None or encoded[long] in typical:
        return typical
    return [*typical, encoded[long]]


def _view(row: Encoded, chat: ChatText, length: int, on_long: OnLong) -> TrainedView:
    kept, pieces, start = _kept(row, length, on_long), [], 0
    for index in range(1, len(row.ids) + 1):
        whole = index == len(row.ids)
        if whole or _fate(row, kept, index) != _fate(row, kept, start):
            text = chat.decode(row.ids[start:index], skip_special_tokens=False)
            trained, lost = _fate(row, kept, start)
            pieces.append(Piece(text=text, trained=trained, lost=lost))
            start = index
    place = Place(path=row.path, line=row.line)
    return TrainedView(place=place, tokens=len(row.ids), pieces=tuple(pieces))


def _fate(row: Encoded, kept: Sequence[range], index: int) -> tuple[bool, bool]:
    """(is the token learned, is it lost?) The first token of a later window has nothing before it to learn it from."""
    window = next((w for w in kept if index in w), None)
    learned = window is not None and row.labels[index] != IGNORE and (index > window.start or index == 0)
    return learned, window is None


def _kept(row: Encoded, length: int, on_long: OnLong) -> list[range]:
    """The tokens that are left of a row."""
    try:
        (_, starts, stops, _), _ = windows_of([row], length, on_long)
    except DataError:  # nothing is left, or no row may be so long
        return []
    return [range(start, stop) for start, stop in zip(starts, stops, strict=True)]
