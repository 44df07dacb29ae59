"""Adapter slots and Zipf's law: against exact results and Che's approximation."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from rankwise.estimate.popularity import active_tenants, estimate_slots, miss_seconds, popularity, simulate_slots


def che(tenants: int, slots: int, zipf: float) -> float:
    """Hit rate of the least-recently-used order by Che, Tung and Wang 2002 (IEEE JSAC 20(7)): an adapter stays for the
    time t in which `slots` different ones are asked for.
    """
    share = np.array(popularity(tenants, zipf))
    stay = brentq(lambda t: np.sum(1 - np.exp(-share * t)) - slots, 1e-9, 1e9)
    return float(np.sum(share * (1 - np.exp(-share * stay))))


@pytest.mark.parametrize("zipf", [0.8, 1.0, 1.2])
@pytest.mark.parametrize(("tenants", "slots"), [(16, 8), (100, 8), (1000, 64)])
def test_the_hit_rate_is_within_2_points_of_ches_approximation(tenants: int, slots: int, zipf: float) -> None:
    rate, (low, high) = simulate_slots(tenants, slots, zipf)
    assert rate == pytest.approx(che(tenants, slots, zipf), abs=0.02)
    assert low < rate < high


@pytest.mark.parametrize(("tenants", "slots"), [(16, 8), (50, 5), (9, 8)])
def test_uniform_popularity_hits_as_often_as_slots_cover_tenants(tenants: int, slots: int) -> None:
    assert simulate_slots(tenants, slots, 0.0)[0] == pytest.approx(slots / tenants, abs=0.01)


def test_one_slot_hits_when_the_same_tenant_asks_twice() -> None:
    """Exactly: the sum of squared shares."""
    share = np.array(popularity(20, 1.0))
    assert simulate_slots(20, 1, 1.0)[0] == pytest.approx(float(np.sum(share**2)), abs=0.01)


@given(st.integers(1, 50), st.integers(0, 50), st.floats(0, 3))
def test_where_all_tenants_fit_none_misses(tenants: int, spare: int, zipf: float) -> None:
    assert simulate_slots(tenants, tenants + spare, zipf) == (1.0, (1.0, 1.0))


@settings(max_examples=8, deadline=None)
@given(st.integers(10, 40), st.integers(1, 8), st.floats(0, 2))
def test_more_slots_and_a_steeper_law_hit_more(tenants: int, slots: int, zipf: float) -> None:
    rate = simulate_slots(tenants, slots, zipf)[0]
    assert simulate_slots(tenants, slots + 1, zipf)[0] > rate - 0.005
    assert simulate_slots(tenants, slots, zipf + 0.5)[0] > rate - 0.005


def test_the_simulation_is_the_same_each_time_and_other_seeds_lie_in_its_interval() -> None:
    rate, (low, high) = simulate_slots(100, 8, 1.0)
    assert simulate_slots(100, 8, 1.0) == (rate, (low, high))
    assert all(low <= simulate_slots(100, 8, 1.0, seed=seed)[0] <= high for seed in range(1, 6))


def test_a_simulation_is_short() -> None:
    simulate_slots(100, 8, 1.0)
    began = time.process_time()
    simulate_slots(10_000, 64, 1.0)
    assert time.process_time() - began < 1.0  # 0.1 s when nothing else runs


def test_shares_follow_the_law_and_add_up() -> None:
    share = popularity(4, 1.0)
    assert share == pytest.approx(np.array([12, 6, 4, 3]) / 25)
    assert popularity(3, 0.0) == pytest.approx(np.full(3, 1 / 3))


def test_different_tenants_among_open_conversations() -> None:
    assert active_tenants(10, 1, 1.0) == pytest.approx(1.0)
    assert active_tenants(2, 2, 0.0) == pytest.approx(1.5)
    # sglang#13349: 16 adapters in turn and some 60 open conversations want all 16, and there are 8 slots
    assert active_tenants(16, 60, 0.0) > 15


def test_a_miss_costs_the_transfer_and_what_is_unknown_stays_unknown() -> None:
    assert miss_seconds(80_000_000, 25e9) == pytest.approx(0.0032)
    assert miss_seconds(80_000_000, 25e9, 2e9) == pytest.approx(0.0432)
    assert miss_seconds(80_000_000, None) is None is miss_seconds(80_000_000, None, 2e9)
    known = {"slots": 8, "zipf": 1.0, "concurrency": 4, "adapter_bytes": 10, "host_bytes_per_second": 1.0}
    assert estimate_slots(tenants=9, **known).miss_seconds == 10  # type: ignore[arg-type]
    assert estimate_slots(tenants=8, **known).miss_seconds == 0  # type: ignore[arg-type]
