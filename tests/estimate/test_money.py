"""Money by hand, and what must hold whatever the numbers are."""

import math
import random
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.estimate.money import energy_kwh, estimate_money, expected_runs, failure_share, money_source
from rankwise.records import CostOptions, DeviceFacts, FlopsByPhase, Price, TimeEstimate

HOUR = 3600.0
seconds = st.floats(1.0, 1e7)
usd = st.floats(0.01, 100.0)
shares = st.floats(0.0, 0.95)


def timed(
    train: float | None = 10 * HOUR,
    interval: tuple[float, float] | None = (8 * HOUR, 13 * HOUR),
    load: float | None = 60.0,
) -> TimeEstimate:
    return TimeEstimate(
        flops_per_token=1.0,
        flops=FlopsByPhase(forward=1.0, backward=2.0, optimizer=0.0),
        tokens_per_second=None,
        step_seconds=None,
        load_seconds=load,
        train_seconds=train,
        interval=interval,
    )


def device(count: int = 2, price: Price | None = None, **changes: Any) -> DeviceFacts:
    content: dict[str, Any] = {
        "kind": "gpu",
        "name": "A100-80GB",
        "count": count,
        "cores": None,
        "memory_bytes": 80 << 30,
        "available_bytes": None,
        "bf16": True,
        "matmul_flops": {},
        "matmul_measured": False,
        "compute_capability": 8.0,
        "context_bytes": None,
        "watts": 400.0,
        "disk_free_bytes": None,
        "price": price,
        "source": "by hand",
    }
    return DeviceFacts(**(content | changes))


def priced(on_demand: float | None = 2.0, spot: float | None = 0.5) -> Price:
    return Price(usd_per_hour=on_demand, spot_usd_per_hour=spot, source="a list, 2026-11-01")


# -- by hand ---------------------------------------------------------------------------------------


def test_one_run_is_seconds_times_devices_times_price() -> None:
    found = estimate_money(timed(), device(price=priced()), CostOptions(failure_rate=0))
    assert found.usd_per_hour == 2.0 and found.train_usd == pytest.approx(40.0)  # 10 h x 2 GPUs x 2 USD
    assert found.interval == pytest.approx((32.0, 52.0))
    assert found.failures_usd == 0.0
    assert found.runs == (10, 20) and found.project_usd == pytest.approx(15 * 40.0)
    assert found.project_interval == pytest.approx((10 * 32.0, 20 * 52.0))
    spot = estimate_money(timed(), device(price=priced()), CostOptions(failure_rate=0, pricing="spot"))
    assert spot.usd_per_hour == 0.5 and spot.train_usd == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("options", "runs"),
    [({}, (10, 20)), ({"runs": 3}, (3, 3)), ({"sweep": 8}, (8, 9)), ({"runs": 30, "sweep": 4}, (4, 5))],
)
def test_how_many_runs(options: dict[str, int], runs: tuple[float, float]) -> None:
    asked = CostOptions(**options, failure_rate=0)
    assert expected_runs(asked) == runs
    found = estimate_money(timed(), device(price=priced()), asked)
    assert found.project_usd == pytest.approx(sum(runs) / 2 * 40.0)


def test_failures_without_checkpoints_lose_about_half_the_run() -> None:
    """p / (1 - p) restarts; each loses slightly less than half a run, as early deaths are the more frequent ones."""
    options = CostOptions(failure_rate=0.1)
    share = failure_share(timed(load=0.0), options, None)
    assert share == pytest.approx(0.1 / 0.9 / -math.log(0.9) - 1)
    assert 0.45 * 0.1 / 0.9 < share < 0.5 * 0.1 / 0.9
    loading = failure_share(timed(load=360.0), options, None)
    assert loading is not None and loading - share == pytest.approx(0.1 / 0.9 * 0.01)  # 360 s of 10 h a restart


def test_with_many_checkpoints_a_death_costs_half_an_interval_and_a_restart() -> None:
    options, deaths = CostOptions(failure_rate=0.1), -math.log(0.9)
    share = failure_share(timed(train=36_000.0, load=100.0), options, 36.0)
    assert share == pytest.approx(deaths * (18.0 + 100.0) / 36_000.0, rel=1e-3)


@pytest.mark.parametrize(("rate", "interval", "load"), [(0.1, None, 0.0), (0.5, None, 0.05), (0.5, 0.25, 0.02)])
def test_the_formula_is_what_a_simulation_gives(rate: float, interval: float | None, load: float) -> None:
    """A run of length 1 that dies at a constant hazard and goes on from its last checkpoint, 40,000 times."""
    draw, hazard, piece = random.Random(7), -math.log(1 - rate), interval or 1.0
    total, runs = 0.0, 40_000
    for _ in range(runs):
        done = 0.0
        while done < 1.0 - 1e-9:
            life = draw.expovariate(hazard)
            if life >= 1.0 - done:
                total, done = total + 1.0 - done, 1.0
            else:
                total += life + load
                done += math.floor(life / piece + 1e-12) * piece
    share = failure_share(timed(train=1.0, load=load), CostOptions(failure_rate=rate), interval)
    assert share == pytest.approx(total / runs - 1, abs=0.012)


def test_energy_is_power_times_time_and_costs_only_with_a_rate() -> None:
    options = CostOptions(energy=True)
    found = estimate_money(timed(), device(price=priced()), options)
    assert found.energy_kwh == pytest.approx(8.0) and found.energy_usd is None  # 2 x 0.4 kW x 10 h
    paid = estimate_money(timed(), device(price=priced()), options, electricity_usd_per_kwh=0.25)
    assert paid.energy_usd == pytest.approx(2.0) and paid.project_usd == found.project_usd
    assert estimate_money(timed(), device(price=priced()), CostOptions()).energy_kwh is None
    assert energy_kwh(timed(), device(watts=None)) is None


def test_the_source_names_price_date_and_assumptions() -> None:
    said = money_source(device(price=priced()), CostOptions())
    assert "2 USD an hour on-demand" in said and "2026-11-01" in said and "10 to 20 runs" in said and "10 %" in said
    assert "no price of A100-80GB is known" in money_source(device(), CostOptions(runs=2))
    unknown = money_source(device(price=priced(spot=None)), CostOptions(pricing="spot", sweep=4))
    assert "no spot price" in unknown and "a sweep of 4 runs" in unknown


def test_it_needs_no_torch() -> None:
    code = "import sys, rankwise.estimate.money; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- whatever the numbers --------------------------------------------------------------------------


@given(seconds, usd, shares, st.floats(0.0, 1e4), st.none() | st.floats(0.001, 1.0), st.integers(1, 64))
def test_more_time_or_a_higher_price_never_costs_less(
    train: float, price: float, rate: float, load: float, part: float | None, count: int
) -> None:
    """With checkpoints after the same part of a run, as `save_steps` puts them."""

    def money(train: float, price: float) -> tuple[float, float]:
        found = estimate_money(
            timed(train, (train, train), load),
            device(count, priced(price)),
            CostOptions(failure_rate=rate),
            checkpoint_interval_seconds=None if part is None else part * train,
        )
        assert found.train_usd is not None and found.project_usd is not None
        return found.train_usd, found.project_usd

    run, project = money(train, price)
    assert money(train, price * 1.5) >= (run, project)
    longer, more = money(train * 1.5, price)
    assert longer > run and more >= project * (1 - 1e-9)


@given(seconds, usd, shares, st.floats(0.0, 1e4), st.none() | seconds, st.none() | st.integers(1, 50))
def test_a_project_is_at_least_its_runs_and_failures_cost_something(
    train: float, price: float, rate: float, load: float, interval: float | None, runs: int | None
) -> None:
    found = estimate_money(
        timed(train, (0.8 * train, 1.3 * train), load),
        device(1, priced(price)),
        CostOptions(failure_rate=rate, runs=runs),
        checkpoint_interval_seconds=interval,
    )
    assert found.train_usd is not None and found.failures_usd is not None and found.project_usd is not None
    assert found.runs is not None and found.project_interval is not None
    assert found.failures_usd >= 0
    assert found.project_usd >= found.train_usd * sum(found.runs) / 2 * (1 - 1e-12)
    assert found.project_interval[0] <= found.project_usd * (1 + 1e-12)
    assert found.project_usd <= found.project_interval[1] * (1 + 1e-12)


@given(seconds, st.floats(1e-9, 0.9), st.floats(0.0, 1e3), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_more_checkpoints_or_fewer_deaths_lose_less(
    train: float, rate: float, load: float, some: float, part: float
) -> None:
    time, options = timed(train, None, load), CostOptions(failure_rate=rate)
    seldom, often = (failure_share(time, options, train * some * times) for times in (1.0, part))
    assert seldom is not None and often is not None and often <= seldom * (1 + 1e-6) + 1e-12
    safer = failure_share(time, CostOptions(failure_rate=rate * part), train * some)
    assert safer is not None and safer <= seldom * (1 + 1e-6) + 1e-12


@given(
    st.none() | seconds,
    st.booleans(),
    st.none() | st.floats(0.0, 1e4),
    st.none() | usd,
    st.none() | st.floats(50, 1000),
    st.none() | usd,
    st.booleans(),
)
def test_unknown_in_unknown_out(
    train: float | None,
    bounded: bool,
    load: float | None,
    price: float | None,
    watts: float | None,
    electricity: float | None,
    energy: bool,
) -> None:
    ends = (train, train) if bounded and train is not None else None
    found = estimate_money(
        timed(train, ends, load),
        device(1, priced(price, None), watts=watts),
        CostOptions(energy=energy),
        electricity_usd_per_kwh=electricity,
    )
    known = train is not None and price is not None
    assert (found.train_usd is not None) == known and found.usd_per_hour == price
    assert (found.interval is not None) == (known and ends is not None)
    assert (found.failures_usd is not None) == (known and load is not None) == (found.project_usd is not None)
    assert (found.project_interval is not None) == (known and load is not None and ends is not None)
    assert (found.energy_kwh is not None) == (energy and train is not None and watts is not None)
    assert (found.energy_usd is not None) == (found.energy_kwh is not None and electricity is not None)
    assert estimate_money(timed(), device(1, None), CostOptions()).train_usd is None
    assert estimate_money(timed(), device(1, priced()), CostOptions(pricing="spot")).usd_per_hour == 0.5
