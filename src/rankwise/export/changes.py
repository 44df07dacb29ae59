"""What a merge does to one stored tensor, some rows at a time, in fp32.

    LoRA         W + s B A                                   (Hu et al. 2021, arXiv 2106.09685)
    rsLoRA       s = alpha / sqrt(r)                         (Kalajdzievski 2023, arXiv 2312.03732)
    DoRA         m (W + s B A) / |W + s B A|                 (Liu et al. 2024, arXiv 2402.09353), by row of W
    IA3          l W, by row or by column                    (Liu et al. 2022, arXiv 2205.05638)
    rows         a token's row takes the place of another    (PEFT, trainable_token_indices)

Each names the shape that it fits, which planning holds against the files before anything is written; `begin` reads
what it needs of the adapter, and what it returns changes rows in place. Nothing else of the adapter is in memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from rankwise.export.shards import Reader, Stored, read_header, step_rows
from rankwise.records import NewTokens

Shape = tuple[int, ...]


@dataclass
class Tally:
    """Sums of squares that are taken on the way, for the words about a merge: of the delta, of what quantising lost."""

    delta: float = 0.0
    quantising: float = 0.0
    quantised: bool = False


# (rows in fp32, number of the first) -> changed in place.
Apply = Callable[[Tensor, int], None]


class Change(Protocol):
    """One operation of a plan."""

    @property
    def name(self) -> str:
        """In the record of a merge."""

    def fits(self, shape: Shape) -> str:
        """Why it cannot be applied to a weight of this shape; empty where it can."""

    def begin(self, rows: Callable[[int, int], Tensor], weight: Stored, tally: Tally) -> Apply:
        """Args: rows, fp32 rows of the weight as they are before this change, by (start, stop)."""


def tensors_of(file: Path, names: Sequence[str]) -> list[Tensor]:
    """In fp32, read into memory of ours: a mapped file would count as memory as long as it is open."""
    stored = _header(file, file.stat().st_mtime_ns)
    with Reader() as reader:
        return [reader.whole(stored[name]).to(torch.float32) for name in names]


@lru_cache(maxsize=16)
def _header(file: Path, written: int) -> dict[str, Stored]:
    """Read once and not for each of the hundreds of products of an adapter, unless the file is `written` anew."""
    return {tensor.name: tensor for tensor in read_header(file)[0]}


@dataclass(frozen=True)
class Product:
    """The factors of s B A as the weight is stored: left (rows, r), right (r, width); with one more dimension in front
    where a weight is one matrix for each expert (`experts.py`).

    Attributes:
        shape: of the weight that it fits.
    """

    file: Path
    a: str
    b: str
    scale: float
    transposed: bool
    shape: Shape

    def factors(self) -> tuple[Tensor, Tensor]:
        a, b = (t.flatten(1) for t in tensors_of(self.file, (self.a, self.b)))
        return (a.T.contiguous(), b.T.contiguous()) if self.transposed else (b, a)


@dataclass(frozen=True)
class LowRank:
    """W + scale * left @ right."""

    product: Product
    name: str = "s B A"

    def fits(self, shape: Shape) -> str:
        return _fits(self.product.shape, shape)

    def begin(self, rows: Callable[[int, int], Tensor], weight: Stored, tally: Tally) -> Apply:
        left, right = self.product.factors()
        scale = self.product.scale
        tally.delta += scale**2 * _squared_norm(left, right)

        def apply(chunk: Tensor, start: int) -> None:
            stop = start + len(chunk)
            if left.dim() == 3:
                chunk.baddbmm_(left[start:stop], right[start:stop], alpha=scale)
            else:
                chunk.view(len(chunk), -1).addmm_(left[start:stop], right, alpha=scale)

        return apply


def rows_of(left: Tensor, right: Tensor, start: int, stop: int) -> Tensor:
    """Rows (of experts, where there are such) of the product of two factors."""
    return left[start:stop] @ (right[start:stop] if right.dim() == 3 else right)


def _squared_norm(left: Tensor, right: Tensor) -> float:
    """|L R|^2 = trace of (L^T L)(R R^T): without the product itself."""
    return float(((left.mT @ left).double() * (right @ right.mT).double()).sum())


@dataclass(frozen=True)
class Dora:
    """m (W + s B A) / |W + s B A|, where lengths are of rows of W, or of its columns where it is stored transposed.

    Attributes:
        magnitude: name of m in the adapter's file.
    """

    product: Product
    magnitude: str
    length: int
    name: str = "m (W + s B A) / |W + s B A|"

    def fits(self, shape: Shape) -> str:
        side = 1 if self.product.transposed else 0
        if not _fits(self.product.shape, shape) and shape[side] != self.length:
            return f"its lengths are {self.length}, and the weight has {shape[side]}"
        return _fits(self.product.shape, shape)

    def begin(self, rows: Callable[[int, int], Tensor], weight: Stored, tally: Tally) -> Apply:
        left, right = self.product.factors()
        (m,) = tensors_of(self.product.file, (self.magnitude,))
        m, scale = m.flatten(), self.product.scale
        columns = self._column_lengths(rows, weight, left, right) if self.product.transposed else None

        def apply(chunk: Tensor, start: int) -> None:
            before = chunk.clone()
            chunk.addmm_(left[start : start + len(chunk)], right, alpha=scale)
            if columns is None:
                chunk *= (m[start : start + len(chunk)] / torch.linalg.norm(chunk, dim=1))[:, None]
            else:
                chunk *= m / columns
            tally.delta += float(torch.linalg.norm(before.sub_(chunk)).square())

        return apply

    def _column_lengths(
        self, rows: Callable[[int, int], Tensor], weight: Stored, left: Tensor, right: Tensor
    ) -> Tensor:
        squares = torch.zeros(weight.width)
        for start in range(0, weight.rows, step := step_rows(weight)):
            chunk = rows(start, min(start + step, weight.rows))
            chunk.addmm_(left[start : start + len(chunk)], right, alpha=self.product.scale)
            squares += chunk.square().sum(dim=0)
        return squares.sqrt_()


@dataclass(frozen=True)
class Scaled:
    """The weight times a learned vector, by row (`along` 0) or by column (1); `inverse` divides by it."""

    file: Path
    vector: str
    length: int
    along: int
    inverse: bool = False
    name: str = "l W"

    def fits(self, shape: Shape) -> str:
        if len(shape) > self.along and shape[self.along] == self.length:
            return ""
        return f"its {self.length} scales do not fit"

    def begin(self, rows: Callable[[int, int], Tensor], weight: Stored, tally: Tally) -> Apply:
        (vector,) = tensors_of(self.file, (self.vector,))
        vector = vector.flatten().reciprocal() if self.inverse else vector.flatten()

        def apply(chunk: Tensor, start: int) -> None:
            before = chunk.clone()
            if self.along == 1:
                chunk *= vector
            else:
                chunk *= vector[start : start + len(chunk)].view(-1, *[1] * (chunk.dim() - 1))
            tally.delta += float(torch.linalg.norm(before.sub_(chunk)).square())

        return apply


@dataclass(frozen=True)
class Added:
    """A bias and `scale` times the adapter's own (PEFT, lora_bias)."""

    file: Path
    vector: str
    length: int
    scale: float
    name: str = "bias"

    def fits(self, shape: Shape) -> str:
        return _fits((self.length,), shape)

    def begin(self, rows: Callable[[int, int], Tensor], weight: Stored, tally: Tally) -> Apply:
        (vector,) = tensors_of(self.file, (self.vector,))

        def apply(chunk: Tensor, start: int) -> None:
            chunk.add_(vector[start : start + len(chunk)], alpha=self.scale)

        return apply


@dataclass(frozen=True)
class TokenRows:
    """Rows of single tokens, trained alone."""

    file: Path
    tensor: str
    ids: tuple[int, ...]
    width: int
    name: str = "rows of tokens"

    def fits(self, shape: Shape) -> str:
        if len(shape) != 2 or shape[1] != self.width:
            return f"its rows are {self.width} wide"
        return f"it trains the row of token {max(self.ids)}" if max(self.ids) >= shape[0] else ""

    def begin(self, rows: Callable[[int, int], Tensor], weight: Stored, tally: Tally) -> Apply:
        (found,) = tensors_of(self.file, (self.tensor,))
        return _set_rows(dict(zip(self.ids, found, strict=True)))


@dataclass(frozen=True)
class NewRows:
    """Rows for new tokens: the mean of the rows of their pieces, as `rankwise.model.vocabulary.extend` makes them.

    Attributes:
        source: the base's own tensor, which may have fewer rows.
    """

    new: NewTokens
    source: Stored
    dtype: torch.dtype
    name: str = "new rows"

    def fits(self, shape: Shape) -> str:
        return "" if len(shape) == 2 and shape[0] >= max(self.new.ids) + 1 else "it has no room for the new tokens"

    def begin(self, rows: Callable[[int, int], Tensor], weight: Stored, tally: Tally) -> Apply:
        had, made = self.source.rows, {}
        for token, pieces in zip(self.new.ids, self.new.pieces, strict=True):
            known = [piece for piece in pieces if piece < had]
            mean = torch.cat([rows(p, p + 1) for p in known]).mean(dim=0) if known else self._mean_of_all(rows)
            made[token] = mean.to(self.dtype).float()
        return _set_rows(made)

    def _mean_of_all(self, rows: Callable[[int, int], Tensor]) -> Tensor:
        total = torch.zeros(self.source.width, dtype=torch.float64)
        for start in range(0, self.source.rows, step := step_rows(self.source)):
            total += rows(start, min(start + step, self.source.rows)).sum(dim=0)
        return (total / self.source.rows).float()


def _set_rows(known: dict[int, Tensor]) -> Apply:
    def apply(chunk: Tensor, start: int) -> None:
        for token, row in known.items():
            if start <= token < start + len(chunk):
                chunk[token - start] = row

    return apply


def whole_rows(reader: Reader, weight: Stored) -> Callable[[int, int], Tensor]:
    """Rows of a stored tensor in fp32; those past its end are zero."""

    def rows(start: int, stop: int) -> Tensor:
        found = reader.rows(weight, min(start, weight.rows), min(stop, weight.rows)).to(torch.float32)
        missing = stop - max(start, weight.rows)
        return torch.cat([found, torch.zeros(missing, *weight.shape[1:])]) if missing > 0 else found

    return rows


def _fits(expected: Shape, found: Shape) -> str:
    return "" if expected == found else f"its update is {_by(expected)}"


def _by(shape: Shape) -> str:
    return " x ".join(str(n) for n in shape)
