"""Rows into ids, with every row that cannot be read or learned kept as a fault in place of ending the audit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rankwise.errors import DataError, ModelError
from rankwise.text.formats import Row
from rankwise.text.masks import Encoded, encode_row
from rankwise.text.template import ChatText

Progress = Callable[[str, int, int], None]


@dataclass
class Encodings:
    """Rows with their ids; `refused` are rows of which nothing is learned, `unstable` those whose text cannot be cut
    into turns.
    """

    rows: list[Row] = field(default_factory=list)
    encoded: list[Encoded] = field(default_factory=list)
    refused: list[DataError] = field(default_factory=list)
    unstable: list[tuple[Row, ModelError]] = field(default_factory=list)


def encode(rows: Sequence[Row], chat: ChatText, progress: Progress) -> Encodings:
    """Every row that can be encoded.

    Raises:
        ModelError: the model has no chat template, and the rows are conversations.
    """
    found = Encodings()
    for number, row in enumerate(rows, 1):
        try:
            encoded = encode_row(row, chat)
        except DataError as fault:
            found.refused.append(fault)
        except ModelError as fault:
            if not chat.has_template:
                raise
            found.unstable.append((row, fault))
        else:
            found.rows.append(row)
            found.encoded.append(encoded)
        if number % 1000 == 0 or number == len(rows):
            progress("rows encoded", number, len(rows))
    return found
