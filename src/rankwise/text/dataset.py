"""The rows of a job, split and encoded in one place, so that training, evaluation and proof see the same ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rankwise.records import Job
from rankwise.records.job import OnLong
from rankwise.text.formats import Row, read_rows
from rankwise.text.masks import IGNORE, Encoded, LengthReport, encode_rows, fit_length
from rankwise.text.split import hold_out
from rankwise.text.template import ChatText

PROOF_ROWS = 8


@dataclass(frozen=True)
class Dataset:
    """The rows of a job.

    Attributes:
        format: of the training rows.
        train, validation: encoded, none longer than allowed.
        replay, general: halves of `data.general`: one may be trained on, the other measures forgetting and never is.
        held_out: the rows behind `validation`.
        lengths: what fitting the training rows has cost.
        longest: tokens of the longest training row as given.
    """

    format: str
    train: list[Encoded]
    validation: list[Encoded]
    replay: list[Encoded]
    general: list[Encoded]
    held_out: list[Row]
    lengths: LengthReport
    longest: int

    def prompts(self) -> list[list[int]]:
        """Beginnings of a few held-out rows, up to the first labelled token: what an artifact is proven on."""
        found = []
        for row in self.validation[:PROOF_ROWS]:
            first = next(i for i, label in enumerate(row.labels) if label != IGNORE)
            found.append(list(row.ids[: max(first, 1)]))
        return found


def load_dataset(
    job: Job, chat: ChatText, *, general: Path | None, max_length: int, on_long: OnLong, seed: int
) -> Dataset:
    """Read, split, encode and fit the job's rows. Raises DataError with file and line.

    Args:
        general: the general rows (`text.general.general_path`); None where there are none.
    """
    assert job.data.train is not None, "described data has no rows"
    given = read_rows(job.data.train)
    rows, held_out = split_rows(job, given.rows, seed)
    replay: list[Row] = []
    measured: list[Row] = []
    if general:
        replay, measured = hold_out(read_rows(general).rows, 0.5, seed)
    encoded = [one for row in rows for one in encode_rows(row, chat)]
    train, lengths = fit_length(encoded, max_length, on_long)
    return Dataset(
        format=given.format,
        train=train,
        validation=_fitting(held_out, chat, max_length, on_long),
        replay=_fitting(replay, chat, max_length, on_long),
        general=_fitting(measured, chat, max_length, on_long),
        held_out=held_out,
        lengths=lengths,
        longest=max(len(e.ids) for e in encoded),
    )


def split_rows(job: Job, rows: list[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """(rows to train on, held-out rows) as `data.validation` says: a share of `rows`, or a file. Raises DataError."""
    share_or_path = job.data.validation
    if isinstance(share_or_path, float):
        return hold_out(rows, share_or_path, seed)
    return rows, read_rows(share_or_path).rows


def _fitting(rows: Sequence[Row], chat: ChatText, max_length: int, on_long: OnLong) -> list[Encoded]:
    if not rows:
        return []
    return fit_length([one for row in rows for one in encode_rows(row, chat)], max_length, on_long)[0]
