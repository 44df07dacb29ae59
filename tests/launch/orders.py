"""Plans and orders to launch, built by hand: no file of theirs is looked at."""

from functools import cache
from pathlib import Path
from typing import Any

from rankwise.launch.order import Order, Wishes, order
from rankwise.records import Estimate, Plan
from tests.builders import a100, data_facts, facts, job, plan, sha, tiny

PLAN = Path("/clinic/plan.json")
SHARED = "/scratch/me"
BYTES = 3_000_000_000  # of the files that the run reads


@cache
def planned(nodes: int, count: int) -> Plan:
    """A plan for `nodes` x `count` A100. Whether this version's `train` carries it out is not what is tested here."""
    hardware = {"gpu": "A100-80GB", "count": count, "nodes": nodes}
    made = plan(job(hardware=hardware), facts(tiny(), data_facts(20_000, 512), a100(count=nodes * count)))
    verdict = made.verdict.model_copy(update={"executable": True})
    candidates = tuple(_priced(estimate) for estimate in made.candidates)
    fixed = {"verdict": verdict, "candidates": candidates, "job_hash": sha("a"), "rankwise_version": "0.1.0"}
    return made.model_copy(update=fixed)


def _priced(estimate: Estimate) -> Estimate:
    """With figures that stay what they are when estimates get better."""
    time = {"interval": (9_000.0, 20_000.0), "step_seconds": 40.0}
    storage = {"run_bytes": 5_000_000_000, "write_seconds": 50.0}
    return estimate.model_copy(
        update={
            "time": estimate.time.model_copy(update=time),
            "storage": estimate.storage.model_copy(update=storage),
        }
    )


def changed(made: Plan, **job_keys: Any) -> Plan:
    """The same call for a job with other keys."""
    return made.model_copy(update={"job": made.job.model_copy(update=job_keys)})


def single(**wishes: Any) -> Order:
    return order(planned(1, 1), PLAN, "A100-80GB", BYTES, Wishes(**wishes))


def double(**wishes: Any) -> Order:
    return order(planned(2, 4), PLAN, "A100-80GB", BYTES, Wishes(**wishes))


def hub(nodes: int = 1) -> Order:
    """Of a base and of data that every node downloads."""
    made = planned(nodes, 1 if nodes == 1 else 4)
    data = made.job.data.model_copy(update={"train": Path("org/rows:train"), "general": None, "facts": None})
    return order(changed(made, model="org/base-1b", data=data), PLAN, "A100-80GB", BYTES, Wishes(shared=SHARED))
