"""Offers: each fits when it is priced again, the cheapest comes first, copies that do not fit are split."""

from functools import cache
from typing import Any

import pytest

from rankwise.api.planning import load_job, observe
from rankwise.decide.offers import Market, offers
from rankwise.estimate.tracers import tracers
from rankwise.records import Facts, Job, Offer
from tests import builders
from tests.builders import job
from tests.decide import worlds

GB = builders.GB


def price_there(wanted: Job, seen: Facts, asked: Any) -> Any:
    from rankwise.estimate.price import price_elsewhere

    with tracers(0):
        return price_elsewhere(wanted, seen, asked)


def rented(name: str, memory: int, usd: float | None, speed: float = 1.0) -> Any:
    price = None if usd is None else builders.Price(usd_per_hour=usd, spot_usd_per_hour=None, source="by hand")
    card = builders.a100(name=name, memory_bytes=memory, price=price)
    rates = {kind: speed * rate for kind, rate in card.matmul_flops.items()}
    return card.model_copy(update={"matmul_flops": rates, "bandwidth": speed * (card.bandwidth or 0)})


MARKET = Market(
    [
        rented("small", int(0.5 * GB), 0.01),
        rented("cheap", 2 * GB, 0.5),
        rented("quick", 4 * GB, 9.0, speed=8),
        rented("unpriced", 4 * GB, None),
    ],
    price_there,
)


@cache
def offered() -> tuple[Offer, ...]:
    winner = worlds.called(job(), worlds.world()).winner
    return offers(job(), worlds.world(), winner, MARKET)


def test_the_cheapest_come_first_and_nothing_without_a_price_or_a_fit() -> None:
    found = offered()
    assert found and [o.usd for o in found] == sorted(o.usd or 0 for o in found)
    assert {o.gpu for o in found} <= {"cheap", "quick"}
    assert all(o.why and o.source and o.usd_interval and o.train_seconds for o in found)


def test_the_quickest_of_the_call_is_offered_where_it_is_another_one() -> None:
    whys = {o.why: o.gpu for o in offered()}
    assert whys["cheapest that fits lora"] == "cheap" and whys["quickest that fits lora"] == "quick"


def test_every_offer_fits_when_it_is_priced_again() -> None:
    for offer in offered():
        assert offer.peak_device < offer.capacity
        device = next(d for d in MARKET.devices if d.name == offer.gpu).model_copy(update={"count": offer.count})
        seen = worlds.world(device=device)
        again = {p.id: p for o in worlds.climbed(job(method=offer.method), seen) for p in o.priced}
        best = [p for p in again.values() if p.estimate.memory.fits]
        assert best, f"nothing of {offer.method} fits {offer.gpu}"


def test_no_market_no_offers_and_a_cpu_with_a_verdict_wants_none() -> None:
    winner = worlds.called(job(), worlds.world()).winner
    assert offers(job(), worlds.world(), winner, None) == ()
    assert offers(job(), worlds.world(device=builders.laptop()), winner, MARKET) == ()
    assert offers(job(), worlds.world(device=builders.laptop(memory_bytes=10**6)), None, MARKET)


@pytest.mark.parametrize("method", [None, "lora", "full", "dora", "prompt"])
def test_where_nothing_runs_something_is_offered_of_what_may_be_taken(method: str | None) -> None:
    wanted, seen = job(method=method), worlds.world(device=worlds.card(10**6))
    plan = builders.plan(wanted, seen, MARKET)
    assert plan.verdict.method == "none" and plan.offers
    assert method is None or {o.method for o in plan.offers} == {method}


def test_what_does_not_fit_one_device_is_split_over_several() -> None:
    wanted = load_job(
        None,
        {"model": "llama-3-70b", "goal": "instruction", "hardware.gpu": "A100-80GB", "data.examples": 50_000},
    )
    seen = observe(wanted)
    market = Market([builders.a100()], price_there)
    found = {o.method: o for o in offers(wanted, seen, None, market)}
    assert found["lora"].count > 1 and found["lora"].parallel == "fsdp"
    assert found["qlora"].count == 1 and found["qlora"].parallel == "none"
