"""The rows of one step dealt to the processes, so that every one of them makes the same number of passes: under ZeRO-3
and FSDP a pass is something that all of them do together.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from rankwise.step import IGNORE, Batch

T = TypeVar("T")


def dealt(rows: Sequence[T], rank: int, world: int) -> list[T]:
    """Every `world`-th row. Of rows sorted by length, all processes so have similar ones at the same time."""
    return list(rows[rank::world])


def silent(batch: Batch) -> Batch:
    """The same pass with nothing supervised: its gradient is zero. For a process that has run out of rows."""
    return replace(batch, targets=torch.full_like(batch.targets, IGNORE), tokens=0, supervised=0)
