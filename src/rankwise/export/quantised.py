"""A weight as bitsandbytes held it while an adapter was trained over it: quantised and dequantised, rows at a time.

QLoRA and 8-bit LoRA train against the dequantised values, so an adapter is merged onto those: onto the 16-bit weights
the outputs would shift by the quantisation error, which is often larger than the adapter's own update (both norms are
told for every layer).

    NF4     blocks of 64 numbers over the flattened weight, each by its largest; the 4-bit codes of Dettmers et al.
            2023, arXiv 2305.14314. Double quantisation: those largest values, less their mean over the weight, in
            blocks of 256 to 8 bit.
    int8    each row by its largest value (Dettmers et al. 2022, arXiv 2208.07339).

The functions are bitsandbytes' own. Blocks and rows do not see each other, so the numbers are those of the whole
weight at once; the mean of the largest values is taken over all of them first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rankwise.export.changes import Apply, Shape, Tally
from rankwise.export.shards import Stored, step_rows

BLOCK = 64
NAMES = {"nf4": "NF4 with double quantisation, blocks of 64", "int8": "LLM.int8"}


@dataclass(frozen=True)
class Quantised:
    """Quantise and dequantise.

    Attributes:
        dtype: of the weights when they were quantised, and of the arithmetic; dequantised values are rounded to it.
        transposed: Conv1D's (in, out), which is quantised as (out, in).
    """

    kind: Literal["nf4", "int8"]
    dtype: torch.dtype
    transposed: bool = False

    @property
    def name(self) -> str:
        return f"dequantised {self.kind}"

    def fits(self, shape: Shape) -> str:
        return "" if len(shape) == 2 else "a quantised weight is a matrix"

    def begin(self, rows: Callable[[int, int], Tensor], weight: Stored, tally: Tally) -> Apply:
        tally.quantised = True
        if self.transposed:
            seen = self._dequantised_whole(rows, weight)
        elif self.kind == "int8":
            seen = self._rows_of_int8
        else:
            seen = self._nf4(rows, weight)

        def apply(chunk: Tensor, start: int) -> None:
            now = seen(chunk, start)
            tally.quantising += float(torch.linalg.norm(chunk.sub_(now)).square())
            chunk.copy_(now)

        return apply

    def _dequantised_whole(self, rows: Callable[[int, int], Tensor], weight: Stored) -> Callable[..., Tensor]:
        turned = rows(0, weight.rows).T.contiguous()
        if self.kind == "int8":
            found = self._rows_of_int8(turned, 0)
        else:
            codes, largest = _codes(turned.to(self.dtype))
            found = self._values(codes, _twice(largest), tuple(turned.shape))
        whole = found.T.contiguous()
        return lambda chunk, start: whole[start : start + len(chunk)]

    def _rows_of_int8(self, chunk: Tensor, start: int) -> Tensor:
        from bitsandbytes import functional

        codes, scales, _ = functional.int8_vectorwise_quant(chunk.to(self.dtype).to(torch.float16))
        found: Tensor = functional.int8_vectorwise_dequant(codes, scales).to(torch.float32)
        return found

    def _nf4(self, rows: Callable[[int, int], Tensor], weight: Stored) -> Callable[..., Tensor]:
        """Codes and largest values of the whole weight, 0.56 byte a number; values are made from them by rows."""
        step = _whole_blocks(weight)
        kept = [
            _codes(rows(start, min(start + step, weight.rows)).to(self.dtype)) for start in range(0, weight.rows, step)
        ]
        largest = _twice(torch.cat([part for _, part in kept]))
        codes = torch.cat([part.flatten() for part, _ in kept])

        def values(chunk: Tensor, start: int) -> Tensor:
            first, count = start * weight.width, chunk.numel()
            if first % BLOCK:  # rows that end within a block
                return self._values(codes, largest, weight.shape)[start : start + len(chunk)]
            blocks = -(-count // BLOCK)
            part = codes[first // 2 : (first + count + 1) // 2]
            return self._values(part, largest[first // BLOCK :][:blocks], tuple(chunk.shape))

        return values

    def _values(self, codes: Tensor, largest: Tensor, shape: Shape) -> Tensor:
        from bitsandbytes import functional

        state: Any = functional.QuantState(
            absmax=largest.contiguous(), shape=torch.Size(shape), dtype=self.dtype, blocksize=BLOCK, quant_type="nf4"
        )
        found: Tensor = functional.dequantize_4bit(codes.view(-1, 1), state).to(torch.float32)
        return found


def _whole_blocks(weight: Stored) -> int:
    """Rows of a step that end where a block ends; all of them where no smaller number does."""
    step = step_rows(weight)
    while step * weight.width % BLOCK and step < weight.rows:
        step += 1
    return min(step, weight.rows)


def _codes(part: Tensor) -> tuple[Tensor, Tensor]:
    """(packed codes, largest value of each block), as Params4bit has them before the second quantisation."""
    from bitsandbytes import functional

    codes, state = functional.quantize_4bit(part.contiguous(), blocksize=BLOCK, quant_type="nf4")
    return codes, state.absmax


def _twice(largest: Tensor) -> Tensor:
    """The largest values after they were quantised themselves (bitsandbytes.functional.quantize_4bit)."""
    from bitsandbytes import functional

    offset = largest.mean()
    codes, state = functional.quantize_blockwise(largest - offset, blocksize=256)
    found: Tensor = functional.dequantize_blockwise(codes, state)
    return found + offset
