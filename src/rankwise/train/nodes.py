"""Which machine of a run this one is, by torchrun's own variables; and the wait of the others for the first one's run
folder. Torch-free: the face asks before anything is started.
"""

import os
import time
from dataclasses import dataclass

from rankwise.errors import PlanError, RunError
from rankwise.files import read_record
from rankwise.records import Plan
from rankwise.records.job import Hardware
from rankwise.store import Run

WAIT_SECONDS = 600.0  # for the first node: it looks at the data and hashes the base before it makes the folder
VARIABLES = "PET_NNODES, PET_NODE_RANK, PET_NPROC_PER_NODE, PET_MASTER_ADDR and PET_MASTER_PORT"


@dataclass(frozen=True)
class Nodes:
    """The machines of a run, and which of them this is; 0 makes the run folder."""

    count: int
    rank: int


def nodes_of(hardware: Hardware) -> Nodes:
    """What PET_NNODES and PET_NODE_RANK say, held against the plan.

    Raises:
        PlanError: they contradict the plan, or a plan for several nodes is started without them.
    """
    said, each = os.environ.get("PET_NNODES"), os.environ.get("PET_NPROC_PER_NODE")
    if said is None and hardware.nodes == 1:
        return Nodes(1, 0)
    if said is None:
        raise PlanError(
            f"this plan is for {hardware.nodes} nodes, and nothing says which of them this is",
            expected=f"{VARIABLES}, as torchrun reads them",
            fix="start `rankwise train PLAN --out DIR` on every node with them, over a DIR that all nodes see",
        )
    count = _number("PET_NNODES", said.rpartition(":")[2])
    if count != hardware.nodes:
        raise PlanError(f"PET_NNODES is {said}, and this plan is for {hardware.nodes} nodes", fix="plan with --nodes")
    if each is not None and each.isdigit() and int(each) != hardware.count:
        raise PlanError(
            f"PET_NPROC_PER_NODE is {each}, and this plan is for {hardware.count} devices on each node",
            fix="plan with --gpus",
        )
    if count == 1:
        return Nodes(1, 0)
    rank = os.environ.get("PET_NODE_RANK")
    if rank is None:
        raise PlanError(
            f"PET_NNODES is {count}, and PET_NODE_RANK is not set",
            expected=f"0 to {count - 1}; node 0 makes the run folder",
        )
    return Nodes(count, _number("PET_NODE_RANK", rank))


def _number(name: str, said: str) -> int:
    if not said.isdigit():
        raise PlanError(f"{name} is {said!r}", expected="a whole number")
    return int(said)


def wait_for_folder(run: Run, wanted: Plan | None, seconds: float = WAIT_SECONDS) -> Run:
    """A run folder that node 0 has made from the same plan.

    Raises:
        RunError: none after `seconds`, or one of another plan.
    """
    end = time.monotonic() + seconds
    while not run.plan_path.is_file():
        if time.monotonic() > end:
            raise RunError(
                f"node 0 has not made {run.folder} in {seconds:.0f} s",
                expected="a folder that all nodes see, such as one on NFS",
                fix="see what node 0 says; start all nodes within that time and with the same --out",
            )
        time.sleep(0.5)
    found = read_record(run.plan_path, Plan)
    if wanted is not None and found.content_hash() != wanted.content_hash():
        raise RunError(
            f"{run.folder} is the run of another plan",
            fix="give every node the same plan.json and an --out of its own for each run",
        )
    return run
