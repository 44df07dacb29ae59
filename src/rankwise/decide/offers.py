"""The call's recipe, and full fine-tuning, LoRA and QLoRA beside it, on hardware that could be rented."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rankwise.decide.bound import least_bytes
from rankwise.decide.configure import Rung
from rankwise.decide.ladder import candidate_of
from rankwise.decide.priced import Priced
from rankwise.decide.recipes import BY_NAME, Recipe
from rankwise.records import Candidate, DeviceFacts, Estimate, Facts, Job, Offer
from rankwise.records.setup import Parallel

COUNTS = (1, 2, 4, 8)
FEW_COUNTS = (1, 8)  # of a recipe that is not the call
ROOMY = 0.85  # of a device's memory: states that fill more leave no room for activations
LOOKED_AT = ("lora", "qlora", "full")
# (job, facts of the plan, candidates with the devices to rent) -> estimates, with steps traced as on the plan's kind of
# device.
PriceElsewhere = Callable[[Job, Facts, Sequence[tuple[Candidate, DeviceFacts]]], list[Estimate]]


@dataclass(frozen=True)
class Market:
    """What could be rented: devices one by one with their prices, and the function that prices candidates there."""

    devices: Sequence[DeviceFacts]
    price: PriceElsewhere


def offers(job: Job, facts: Facts, winner: Priced | None, market: Market | None) -> tuple[Offer, ...]:
    """The cheapest and the quickest of the call's recipe, the cheapest of the others; cheapest first.

    Without a winner the cheapest of whatever would run comes first: the nearest thing that could be done.
    """
    if market is None or (winner is not None and facts.device.kind == "cpu"):
        return ()  # who trains on a CPU has not asked for a GPU
    names = _names(job, winner)
    found: list[Offer] = []
    for name in names:
        every = [o for o in _of_recipe(job, facts, BY_NAME[name], winner, market) if o.usd is not None]
        if not every:
            continue
        cheapest = min(every, key=lambda o: o.usd or 0.0)
        found.append(cheapest.model_copy(update={"why": f"cheapest that fits {name}"}))
        quickest = min(every, key=lambda o: o.train_seconds or 0.0)
        if name == names[0] and quickest != cheapest:
            found.append(quickest.model_copy(update={"why": f"quickest that fits {name}"}))
    return tuple(sorted(found, key=lambda o: o.usd or 0.0))


def first_bids(job: Job, facts: Facts, winner: Priced | None, market: Market | None) -> list[tuple[Candidate, Facts]]:
    """What `offers` prices first, as it is traced: on the plan's kind of GPU."""
    if market is None or facts.device.kind == "cpu":
        return []
    found = []
    for recipe in (BY_NAME[name] for name in _names(job, winner)):
        for bid in _bids(recipe, winner, market):
            if bid.next_candidate(job, facts, recipe, winner):
                device = facts.device.model_copy(update={"count": bid.rented.count})
                found.append((bid.candidate, facts.model_copy(update={"device": device})))
    return found


def _names(job: Job, winner: Priced | None) -> list[str]:
    """Recipes that are looked at, the call's first."""
    names = [winner.candidate.recipe] if winner else []
    looked_at = LOOKED_AT if job.method is None else (job.method.name,)  # the usual recipe of a method bears its name
    return names + [name for name in looked_at if name not in names]


def _bids(recipe: Recipe, winner: Priced | None, market: Market) -> list["_Bid"]:
    counts = COUNTS if winner is not None and winner.recipe is recipe else FEW_COUNTS
    return [_Bid(device, _ways(counts, recipe)) for device in market.devices]


def _ways(counts: Sequence[int], recipe: Recipe) -> Iterator[tuple[int, Parallel]]:
    """Growing numbers of devices, each with a whole copy on every device before one that is split."""
    for count in counts:
        if count == 1:
            yield 1, "none"
            continue
        for parallel in ("ddp", "fsdp"):
            if parallel in recipe.shards:
                yield count, parallel


def _of_recipe(job: Job, facts: Facts, recipe: Recipe, winner: Priced | None, market: Market) -> list[Offer]:
    """On each device that could be rented, the fewest on which it fits; what is to be traced is traced together."""
    waiting = _bids(recipe, winner, market)
    found = []
    while bids := [bid for bid in waiting if bid.next_candidate(job, facts, recipe, winner)]:
        estimates = market.price(job, facts, [(bid.candidate, bid.rented) for bid in bids])
        for bid, estimate in zip(bids, estimates, strict=True):
            if estimate.memory.fits:
                found.append(_told(bid.candidate, estimate, bid.rented))
                bid.ways = iter(())
        waiting = bids
    return found


class _Bid:
    """One kind of device, tried in growing numbers."""

    def __init__(self, device: DeviceFacts, ways: Iterator[tuple[int, Parallel]]) -> None:
        self.device, self.ways = device, ways

    def next_candidate(self, job: Job, facts: Facts, recipe: Recipe, winner: Priced | None) -> bool:
        """The next way in which the states leave room for activations; False when there is none."""
        for count, parallel in self.ways:
            self.rented = self.device.model_copy(update={"count": count})
            there = facts.model_copy(update={"device": self.rented})
            self.candidate = candidate_of(job, there, recipe, _rung(parallel, recipe, winner))
            if least_bytes(there, self.candidate) <= ROOMY * (self.device.memory_bytes or 0):
                return True
        return False


def _rung(parallel: Parallel, recipe: Recipe, winner: Priced | None) -> Rung:
    """That of the call for its own recipe, else the leanest."""
    if winner is None or winner.recipe is not recipe:
        return Rung(parallel=parallel, micro_batch=1, gradient_checkpointing=True)
    config = winner.candidate.config
    return Rung(
        parallel=parallel,
        micro_batch=config.per_device_train_batch_size,
        gradient_checkpointing=config.gradient_checkpointing,
        rank=config.r,
    )


def _told(candidate: Candidate, estimate: Estimate, device: DeviceFacts) -> Offer:
    return Offer(
        gpu=device.name,
        count=device.count,
        candidate=candidate.id,
        method=candidate.method,
        parallel=candidate.parallel,
        peak_device=estimate.memory.peak_device,
        capacity=estimate.memory.room,
        train_seconds=estimate.time.train_seconds,
        usd=estimate.money.train_usd,
        usd_interval=estimate.money.interval,
        why="",
        source=device.price.source if device.price else "no price is known",
    )
