"""The simulation of adapter affinity, and its table in the documentation."""

from pathlib import Path

from benchmarks.serve.affinity import SLOTS, ZIPF, hit_rate, table

from rankwise.estimate.popularity import simulate_slots

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serve-at-scale.md"


def test_one_replica_is_what_a_plan_computes() -> None:
    _, (low, high) = simulate_slots(100, SLOTS, ZIPF)
    assert low <= hit_rate(100, 1, affinity=False) <= high
    assert low <= hit_rate(100, 1, affinity=True) <= high


def test_replicas_add_slots_only_where_a_tenant_stays_on_one() -> None:
    one = hit_rate(100, 1, affinity=False)
    assert abs(hit_rate(100, 4, affinity=False) - one) < 0.01
    assert hit_rate(100, 4, affinity=True) > one + 0.25


def test_the_table_of_the_page_is_what_it_prints() -> None:
    assert table() in PAGE.read_text()
