"""The processes of one run and what they tell each other: numbers summed, decisions agreed on, objects of the first
one. One process alone talks to nobody.

torchrun, `srun` and Ray Train all say who a process is by the same variables: RANK, WORLD_SIZE, LOCAL_RANK,
MASTER_ADDR, MASTER_PORT (docs.pytorch.org/docs/stable/elastic/run.html).
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from rankwise.errors import TrainingError

T = TypeVar("T")
NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# How long one process waits for another in a collective: rank 0 may write a large checkpoint meanwhile. One that dies
# is noticed at once by torchrun, and by gloo.
PATIENCE = timedelta(hours=2)


def world_size() -> int:
    """Processes of this run, by WORLD_SIZE; 1 where nobody started several."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def rank() -> int:
    """This process among them, by RANK; 0 where nobody started several."""
    return int(os.environ.get("RANK") or 0) if world_size() > 1 else 0


@dataclass(frozen=True)
class Group:
    """All processes of a run.

    Attributes:
        rank: of this process; 0 alone writes files and events.
        world: how many there are.
        device: of this process.
        own: was the process group made here? Ray Train, for one, makes it before our code runs, and ends it after.
    """

    rank: int
    world: int
    device: torch.device
    own: bool = False

    @classmethod
    def join(cls, cpu: bool) -> "Group":
        """Meet the others; returns when all are there.

        Raises:
            TrainingError: WORLD_SIZE without the other variables, or fewer GPUs here than processes.
        """
        world = world_size()
        if world == 1:
            return cls(0, 1, torch.device("cpu" if cpu else "cuda"))
        if missing := [name for name in NEEDED if not os.environ.get(name)]:
            raise TrainingError(
                f"WORLD_SIZE is {world}, and {', '.join(missing)} is not set",
                expected=f"{', '.join(NEEDED)} beside WORLD_SIZE, as torchrun sets them",
                fix="start the run with `rankwise train`, or the worker with torchrun",
            )
        device = torch.device("cpu") if cpu else _own_gpu(int(os.environ["LOCAL_RANK"]))
        # gloo beside NCCL: objects and decisions are small and live in the host's memory.
        own = not dist.is_initialized()
        if own:
            dist.init_process_group("gloo" if cpu else "cpu:gloo,cuda:nccl", timeout=PATIENCE)
        return cls(dist.get_rank(), dist.get_world_size(), device, own)

    @property
    def first(self) -> bool:
        """Is this the one that writes?"""
        return self.rank == 0

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes, in its place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def sums(self, numbers: Sequence[int]) -> list[int]:
        """Each number's sum over all processes."""
        return [int(n) for n in self.summed(torch.tensor(numbers, dtype=torch.int64))]

    def highest(self, number: int) -> int:
        """The highest number that any process says: how they agree on a decision."""
        if self.world == 1:
            return number
        said = torch.tensor(number, dtype=torch.int64)
        dist.all_reduce(said, op=dist.ReduceOp.MAX)
        return int(said)

    def gathered(self, own: T) -> list[T]:
        """What each process has, by rank."""
        if self.world == 1:
            return [own]
        said: list[Any] = [None] * self.world
        dist.all_gather_object(said, own)
        return said

    def from_first(self, own: T) -> T:
        """What the first process has; what the others give is ignored."""
        if self.world == 1:
            return own
        said: list[Any] = [own]
        dist.broadcast_object_list(said, src=0)
        return said[0]  # type: ignore[no-any-return]

    def meet(self) -> None:
        """Wait until all are here."""
        if self.world > 1:
            dist.barrier()

    def leave(self) -> None:
        """Once nothing is left to say."""
        if self.own:
            with suppress(Exception):  # a peer that has ended already is no fault of this one
                dist.destroy_process_group()


def _own_gpu(local_rank: int) -> torch.device:
    if local_rank >= torch.cuda.device_count():
        raise TrainingError(
            f"process {local_rank} of this machine has no GPU: {torch.cuda.device_count()} are visible",
            expected="one GPU for each process",
            fix="set hardware.count to the GPUs of one machine, or show more of them (CUDA_VISIBLE_DEVICES)",
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
