"""Adapter slots against popularity: how often the adapter of a request lies in the GPU's memory, and what a miss costs.

Requests are drawn by Zipf's law (share ~ rank^-s) and the slots hold the adapters used last, as vLLM's `max_loras` and
S-LoRA's pool do. Beside the transfer, a miss may have to wait for a slot: an adapter with an open conversation is not
dropped. Published (sgl-project/sglang#13349, Llama-3.1-8B, two H100, 8 slots, 4 requests/s of 2,048 tokens): time to
the first token 40 ms with 8 adapters, 6,278 ms with 16, most of it waiting.
"""

import math
from collections import OrderedDict
from functools import lru_cache

from rankwise.records import Interval, Slots

DAYS = 10
REQUESTS = 10_000  # of one simulated day; one more day fills the slots and is not counted
STUDENT = 2.262  # 97.5 % quantile of Student's t with DAYS - 1 degrees of freedom


@lru_cache(maxsize=1024)  # a plan asks two hundred times, for every candidate on every device, and gets a few answers
def simulate_slots(tenants: int, slots: int, zipf: float, *, seed: int = 0) -> tuple[float, Interval]:
    """Hit rate of `slots` adapters among `tenants`, and the interval in which the rate of a day lies (95 %)."""
    if tenants <= slots:
        return 1.0, (1.0, 1.0)
    import numpy as np  # here: most plans have one tenant, and are to start without it

    random = np.random.default_rng(seed)
    cache: OrderedDict[int, None] = OrderedDict()
    share = popularity(tenants, zipf)
    rates = [_hits(cache, slots, random.choice(tenants, REQUESTS, p=share).tolist()) for _ in range(DAYS + 1)][1:]
    mean, deviation = float(np.mean(rates)), float(np.std(rates, ddof=1))
    reach = STUDENT * deviation * math.sqrt(1 + 1 / DAYS)
    return mean, (max(0.0, mean - reach), min(1.0, mean + reach))


def popularity(tenants: int, zipf: float) -> list[float]:
    """Share of requests of each tenant, most popular first; `tenants` numbers that add up to 1."""
    weights = [rank**-zipf for rank in range(1, tenants + 1)]
    whole = math.fsum(weights)
    return [weight / whole for weight in weights]


def _hits(cache: OrderedDict[int, None], slots: int, requests: list[int]) -> float:
    """Share of the requests whose adapter is in the cache, which is left as they leave it."""
    hits = 0
    for tenant in requests:
        if tenant in cache:
            cache.move_to_end(tenant)
            hits += 1
        else:
            cache[tenant] = None
            if len(cache) > slots:
                cache.popitem(last=False)
    return hits / len(requests)


def active_tenants(tenants: int, concurrency: int, zipf: float) -> float:
    """Expected number of different tenants among `concurrency` conversations: sum of 1 - (1 - share)^concurrency."""
    return math.fsum(1 - (1 - share) ** concurrency for share in popularity(tenants, zipf))


def miss_seconds(
    adapter_bytes: int, host_bytes_per_second: float | None, disk_bytes_per_second: float | None = None
) -> float | None:
    """Transfer that a miss adds to the time to the first token: host to device, after the disk where a rate is given.

    It does not hold the waiting for a slot. None where the rate of the link is unknown.
    """
    if host_bytes_per_second is None:
        return None
    disk = 0.0 if disk_bytes_per_second is None else adapter_bytes / disk_bytes_per_second
    return adapter_bytes / host_bytes_per_second + disk


def estimate_slots(
    *,
    tenants: int,
    slots: int,
    zipf: float,
    concurrency: int,
    adapter_bytes: int,
    host_bytes_per_second: float | None,
    disk_bytes_per_second: float | None = None,
) -> Slots:
    """`slots` adapters in GPU memory for `tenants`.

    Args:
        adapter_bytes: of one adapter as it is copied to the device.
        host_bytes_per_second: of the link between host and device; None where it is unknown.
        disk_bytes_per_second: where adapters are read from the disk at a miss; None: they lie in the host's memory.
    """
    rate, interval = simulate_slots(tenants, slots, zipf)
    fits = tenants <= slots
    return Slots(
        slots=slots,
        zipf=zipf,
        hit_rate=rate,
        interval=interval,
        miss_seconds=0.0 if fits else miss_seconds(adapter_bytes, host_bytes_per_second, disk_bytes_per_second),
        active_tenants=active_tenants(tenants, concurrency, zipf),
    )
