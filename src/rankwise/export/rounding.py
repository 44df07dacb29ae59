"""fp32 to the 16 bits of a file so that small changes are kept: up or down by chance, each as likely as it is near.

A base in bf16 lies on bf16's grid, whose steps are 0.4 to 0.8 % of a number. An update of less than half a step is
taken back whole by rounding to the nearest, and so it goes with most of what a gentle run learned: after 16 steps of
LoRA on SmolLM2-135M at 1.1e-4 rounding to the nearest returned 83 % of the weights to the base's own value, and kept
42 % of the update along itself; adapter and merged model lay 0.045 nats apart. Rounded by chance the mean is the
update, errors of a row cancel, and they lay 0.00006 apart (evidence E37). Method: Gupta et al. 2015, arXiv 1502.02551.

The chance is pseudo-random, the same in every merge of a tensor, so that equal merges are equal files; and taken back
with the mirrored chance, an update leaves the very number that was there before.
"""

from collections.abc import Callable
from zlib import crc32

import torch
from torch import Tensor

from rankwise.records.merging import Rounding

# (fp32 rows, dtype of the result, name of their tensor, number of their first element in it) -> rows in that dtype;
# what it is given may be overwritten.
Rounded = Callable[[Tensor, torch.dtype, str, int], Tensor]
# Bits of an fp32 number that the other precision does not have. fp16's numbers below 6e-5 have fewer still: what is
# lost of them is rounded to the nearest.
LOST_BITS = {torch.bfloat16: 16, torch.float16: 13}
# Numbers that are used over and over: a core's cache holds them, and as a prime the count puts no two rows of a weight
# side by side on the same ones. They are evenly spaced, in an order by chance: drawn one by one, so few of them would
# lean to a side, and the mean of all updates with them (by 0.5 % in a test of ours).
DRAWN = 65_521


def nearest(rows: Tensor, dtype: torch.dtype, tensor: str, at: int) -> Tensor:
    """As PEFT and torch round."""
    return rows.to(dtype)


def rounded_as(rounding: Rounding, *, back: bool = False) -> Rounded:
    """Args: back, to take a change back that was rounded so."""
    return Chance(mirrored=back).rounded if rounding == "stochastic" else nearest


class Chance:
    """What is added below the last bit that is kept, before the rest is cut off.

    Args:
        mirrored: to take a change back that was rounded with it.
    """

    def __init__(self, *, mirrored: bool = False):
        order = torch.randperm(DRAWN, generator=torch.Generator().manual_seed(0))
        drawn = (order * (1 << 16) // DRAWN).to(torch.int32)
        self._drawn = (1 << 16) - 1 - drawn if mirrored else drawn

    def rounded(self, rows: Tensor, dtype: torch.dtype, tensor: str, at: int) -> Tensor:
        """`rows` in `dtype`; fp32 and wider as they are.

        Args:
            rows: fp32, finite, contiguous; overwritten. tensor: its name. at: number of its first element there.
        """
        if dtype not in LOST_BITS:
            return rows.to(dtype)
        lost = LOST_BITS[dtype]
        drawn = self._drawn >> (16 - lost)
        bits, done = rows.view(-1).view(torch.int32), 0
        start = (crc32(tensor.encode()) + at) % DRAWN
        while done < len(bits):
            part = bits[done : done + DRAWN - start]
            part += drawn[start : start + len(part)]
            done, start = done + len(part), 0
        bits.bitwise_and_(-1 << lost)
        return rows.to(dtype)
