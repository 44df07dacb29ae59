"""Keys and values of a batch whose rows come and go: one buffer a layer, written in place.

Rows are aligned at the right: the last column holds the newest token of each row, and what stands left of a row's own
tokens is masked. A new token takes one column, a leaving row is overwritten by the last one, and columns that no row
uses any more are given up at the left; nothing is copied at a step.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

ROOM = 128  # columns beyond those in use when a buffer is made: so many steps until it is made again


class RowsLayer(CacheLayerMixin):  # type: ignore[misc]
    """Of one attention layer: (rows, key-value heads, columns, head width), the part in use told by its RowsCache."""

    is_sliding = False

    def __init__(self, place: "Place") -> None:
        super().__init__()
        self.place = place

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = self._empty(key_states), self._empty(value_states)
        self.is_initialized = True

    def _empty(self, like: Tensor) -> Tensor:
        place = self.place
        return like.new_zeros(place.row_room, like.shape[1], place.column_room, like.shape[3])

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the new columns; return all those in use. `RowsCache.advance` moves on when all layers have."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        place, new = self.place, key_states.shape[-2]
        rows, end = key_states.shape[0], place.end + new
        self.keys[:rows, :, place.end : end] = key_states
        self.values[:rows, :, place.end : end] = value_states
        return self.keys[:rows, :, place.start : end], self.values[:rows, :, place.start : end]

    def remade(self, start: int, width: int, rows: int) -> None:
        """Into new buffers, of the sizes that the place tells now; what was at `start` comes to column 0."""
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = self._empty(old)
            new[:rows, :, :width] = old[:rows, :, start : start + width]
            setattr(self, name, new)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.place.width + query_length, 0

    def get_seq_length(self) -> int:
        return self.place.width

    def get_max_length(self) -> int:
        return -1


class Place:
    """Which part of the buffers is in use: `rows` rows, columns from `start` to `end`."""

    def __init__(self, row_room: int, column_room: int) -> None:
        self.rows, self.start, self.end = 0, 0, 0
        self.row_room, self.column_room = row_room, column_room

    @property
    def width(self) -> int:
        return self.end - self.start


class RowsCache(Cache):  # type: ignore[misc]
    """The cache that a model is handed; rows are told by their number, which changes when another leaves."""

    def __init__(self, layers: int) -> None:
        self.place = Place(0, 0)
        super().__init__(layers=[RowsLayer(self.place) for _ in range(layers)])

    @property
    def width(self) -> int:
        """Columns in use."""
        return self.place.width

    def reserve(self, rows: int, columns: int) -> None:
        """Room for `rows` rows and `columns` columns more than are in use."""
        place = self.place
        if rows <= place.row_room and place.end + columns <= place.column_room:
            return
        start, width = place.start, place.width
        while place.row_room < rows:
            place.row_room = max(1, 2 * place.row_room)
        place.column_room = width + columns + ROOM
        for layer in self.layers:
            if layer.is_initialized:
                layer.remade(start, width, place.rows)
        place.start, place.end = 0, width

    def begin(self, rows: int, columns: int) -> None:
        """For a new batch of rows without any column yet."""
        self.reserve(rows, columns)
        self.place.rows = rows

    def put(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Keys and values that no token made, in the next columns: (rows, heads, columns, width)."""
        self.layers[layer].update(keys, values)

    def advance(self, columns: int) -> None:
        """All layers have written so many columns."""
        self.place.end += columns

    def join(self, other: "RowsCache") -> None:
        """Take the rows of another cache behind one's own."""
        place, more, width = self.place, other.place.rows, other.width
        if place.rows == 0:
            place.start = place.end = 0
        short = width - place.width
        self.reserve(place.rows + more, max(short, 0) + 1)
        if short > 0:
            self._widen(short)
        for mine, its in zip(self.layers, other.layers, strict=True):
            if not its.is_initialized:
                continue
            if not mine.is_initialized:
                mine.lazy_initialization(its.keys, its.values)
            for to, source in ((mine.keys, its.keys), (mine.values, its.values)):
                rows = to[place.rows : place.rows + more]
                rows[:, :, place.start : place.end - width] = 0
                rows[:, :, place.end - width : place.end] = source[:more, :, other.place.start : other.place.end]
        place.rows += more

    def _widen(self, columns: int) -> None:
        """Masked columns at the left; zeros, because 0 times what is not finite would not be 0."""
        place = self.place
        taken = min(columns, place.start)
        place.start -= taken
        for layer in self.layers:
            if not layer.is_initialized:
                continue
            for buffer in (layer.keys, layer.values):
                used = buffer[: place.rows, :, place.start : place.end]
                if columns > taken:
                    shifted = used.clone()
                    buffer[: place.rows, :, place.start + columns - taken : place.end + columns - taken] = shifted
                buffer[: place.rows, :, place.start : place.start + columns] = 0
        place.end += columns - taken

    def leave(self, row: int) -> None:
        """Row `row` goes; the last row takes its number."""
        place = self.place
        place.rows -= 1
        if row == place.rows:
            return
        for layer in self.layers:
            if layer.is_initialized:
                for buffer in (layer.keys, layer.values):
                    buffer[row, :, place.start : place.end] = buffer[place.rows, :, place.start : place.end]

    def narrow(self, width: int) -> None:
        """Only the last `width` columns are used by any row that is left; with no row, memory is given back."""
        place = self.place
        if place.rows:
            place.start = place.end - width
            return
        place.start = place.end = place.row_room = place.column_room = 0
        for layer in self.layers:
            layer.keys = layer.values = None
            layer.is_initialized = False


def tokens_mask(lengths: list[int], width: int, device: torch.device) -> Tensor:
    """(rows, width) of 1 where a row of that many tokens, aligned at the right, has one."""
    columns = torch.arange(width, device=device)
    return (columns >= width - torch.tensor(lengths, device=device)[:, None]).long()
