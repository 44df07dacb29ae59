"""The rows of a job, split and encoded in one place, so that training, evaluation and proof see the same ones."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rankwise.records import Job
from rankwise.records.job import OnLong
from rankwise.text.fitting import LengthReport, fit_length
from rankwise.text.formats import Row, read_rows
from rankwise.text.masks import IGNORE, Encoded
from rankwise.text.split import hold_out, last_held_out
from rankwise.text.template import ChatText
from rankwise.text.tokens import Progress, TokenRows, TokenStore, quiet, tokens_of

PROOF_ROWS = 8
READ_BACK = 1024  # held-out rows that are kept as messages, for their prompts; more are never asked


@dataclass(frozen=True)
class Dataset:
    """The rows of a job.

    Attributes:
        format: of the training rows.
        train, validation: encoded, none longer than allowed; read from the cache as they are asked for.
        replay, general: halves of `data.general`: one may be trained on, the other measures forgetting and never is.
        held_out: the rows behind `validation`, at most READ_BACK of them.
        lengths: what fitting the training rows has cost.
        longest: tokens of the longest training row as given.
        general_rows: rows of `data.general`.
        apart: training rows that are taken apart into several texts.
        cache_bytes: of the tokenised rows on disk.
    """

    format: str
    train: Sequence[Encoded]
    validation: Sequence[Encoded]
    replay: Sequence[Encoded]
    general: Sequence[Encoded]
    held_out: list[Row]
    lengths: LengthReport
    longest: int
    general_rows: int = 0
    apart: int = 0
    cache_bytes: int = 0

    def prompts(self) -> list[list[int]]:
        """Beginnings of a few held-out rows, up to the first labelled token: what an artifact is proven on."""
        found = []
        for row in self.validation[:PROOF_ROWS]:
            first = next(i for i, label in enumerate(row.labels) if label != IGNORE)
            found.append(list(row.ids[: max(first, 1)]))
        return found


def load_dataset(
    job: Job,
    chat: ChatText,
    *,
    general: Path | None,
    max_length: int | None,
    on_long: OnLong,
    seed: int,
    progress: Progress = quiet,
) -> Dataset:
    """Read, tokenise (once, see `tokens`), split and fit the job's rows. Raises DataError with file and line.

    Args:
        general: the general rows (`text.general.general_path`); None where there are none.
        max_length: tokens; None: the longest row's.
    """
    assert job.data.train is not None, "described data has no rows"
    given = _sound(job.data.train, chat, seed, progress)
    stores = [given]
    validation = job.data.validation
    if isinstance(validation, float):
        train, held = sides(given, validation, seed)
        held_out = _rows_of(given, held)
    else:
        stores.append(_sound(validation, chat, seed, progress))
        train, held = given.whole(), stores[-1].whole()
        held_out = list(islice(stores[-1].source_rows(), READ_BACK))
    longest = max(train.lengths)
    length = max_length or max(given.whole().lengths)
    replay, measured = None, None
    if general:
        stores.append(_sound(general, chat, seed, progress))
        replay, measured = sides(stores[-1], 0.5, seed)
    fitted, lengths = fit_length(train, length, on_long)
    return Dataset(
        format=given.format,
        train=fitted,
        validation=fit_length(held, length, on_long)[0],
        replay=fit_length(replay, length, on_long)[0] if replay else [],
        general=fit_length(measured, length, on_long)[0] if measured else [],
        held_out=held_out,
        lengths=lengths,
        longest=longest,
        general_rows=stores[-1].count if general else 0,
        apart=given.apart,
        cache_bytes=sum({store.folder: store.bytes for store in stores}.values()),
    )


def _sound(source: Path, chat: ChatText, seed: int, progress: Progress) -> TokenStore:
    store = tokens_of(source, chat, seed, progress)
    store.require_sound()
    return store


def sides(store: TokenStore, share: float, seed: int) -> tuple[TokenRows, TokenRows]:
    """(texts to train on, texts held out), as `hold_out` divides the rows they come from. Raises DataError."""
    keys = store.keys(seed)
    last = last_held_out(keys, share, str(store.paths[0]) if store.paths else str(store.source))
    rows = store.columns["rows"]
    train = array("q", (text for text, row in enumerate(rows) if keys[row] > last))
    held = array("q", (text for text, row in enumerate(rows) if keys[row] <= last))
    return TokenRows(store, train), TokenRows(store, held)


def _rows_of(store: TokenStore, texts: TokenRows) -> list[Row]:
    """The rows behind some texts, at most READ_BACK of them, read from the source again."""
    rows = store.columns["rows"]
    wanted = set(islice(dict.fromkeys(rows[text] for text in texts.texts), READ_BACK))
    last = max(wanted)
    found = enumerate(islice(store.source_rows(), last + 1))
    return [row for number, row in found if number in wanted]


def training_rows(job: Job, chat: ChatText, seed: int) -> Iterator[Row]:
    """The rows that are trained on, as messages, read from the source again one at a time. Raises DataError."""
    assert job.data.train is not None, "described data has no rows"
    store = tokens_of(job.data.train, chat, seed)
    if not isinstance(job.data.validation, float):
        yield from store.source_rows()
        return
    rows = store.columns["rows"]
    wanted = {rows[text] for text in sides(store, job.data.validation, seed)[0].texts}
    yield from (row for number, row in enumerate(store.source_rows()) if number in wanted)


def split_rows(job: Job, rows: list[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """(rows to train on, held-out rows) as `data.validation` says: a share of `rows`, or a file. Raises DataError."""
    share_or_path = job.data.validation
    if isinstance(share_or_path, float):
        return hold_out(rows, share_or_path, seed)
    return rows, read_rows(share_or_path).rows
