"""How often an adapter already lies in a slot, with requests sent anywhere and with each key kept on one replica.

    python -m benchmarks.serve.affinity

A simulation, of no time: requests by Zipf's law as in `rankwise.estimate.popularity`, slots that hold what was used
last, a replica for each request drawn at random or by the hash of its tenant. Ten days of 10,000 requests after a first
one that fills the slots and is not counted.
"""

import hashlib
import sys
from collections import OrderedDict

import numpy as np

from rankwise.estimate.popularity import DAYS, REQUESTS, popularity

SLOTS = 8
ZIPF = 1.0
TENANTS = (20, 100, 1000)
REPLICAS = (1, 2, 4, 8)


def hit_rate(tenants: int, replicas: int, *, affinity: bool, seed: int = 0) -> float:
    """Share of requests whose adapter is loaded where they arrive."""
    random = np.random.default_rng(seed)
    slots: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(replicas)]
    home = [int.from_bytes(hashlib.sha256(str(t).encode()).digest()[:8], "big") % replicas for t in range(tenants)]
    hits, shares = 0, popularity(tenants, ZIPF)
    for day in range(DAYS + 1):
        asked = random.choice(tenants, REQUESTS, p=shares).tolist()
        anywhere = random.integers(replicas, size=REQUESTS).tolist()
        for tenant, drawn in zip(asked, anywhere, strict=True):
            found = _use(slots[home[tenant] if affinity else drawn], tenant)
            hits += found and day > 0
    return hits / (DAYS * REQUESTS)


def _use(loaded: OrderedDict[int, None], tenant: int) -> bool:
    if tenant in loaded:
        loaded.move_to_end(tenant)
        return True
    loaded[tenant] = None
    if len(loaded) > SLOTS:
        loaded.popitem(last=False)
    return False


def table() -> str:
    """In Markdown."""
    lines = ["| tenants | replicas | sent anywhere | kept by key |", "| --- | --- | --- | --- |"]
    for tenants in TENANTS:
        for replicas in REPLICAS:
            rates = [hit_rate(tenants, replicas, affinity=affinity) for affinity in (False, True)]
            lines.append(f"| {tenants:,} | {replicas} | {rates[0]:.0%} | {rates[1]:.0%} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
