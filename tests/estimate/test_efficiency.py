"""The fitted table: every device finds its shares, none is more than the peak, and intervals hold their number."""

from dataclasses import asdict, fields
from importlib.resources import files

import pytest

from rankwise.estimate.efficiency import (
    GENERATIONS,
    ON_CPU,
    Efficiency,
    _table,
    efficiency_of,
    efficiency_source,
    generation,
    relative_error,
)
from rankwise.observe.devices import observe_device
from rankwise.observe.gpus import known_gpus
from rankwise.records import Setup
from rankwise.records.job import Hardware
from tests import builders

CAPABILITY = {name: least for least, name in GENERATIONS} | {"turing": 7.5}
SHARES = [f.name for f in fields(Efficiency) if f.name not in ("launch", "step")]  # those are seconds


def setup(method: str, **changes: object) -> Setup:
    content = {"config": {"model_type": "llama"}, "method": method, "dtype": "bf16", "max_length": 8}
    return Setup.model_validate(content | {"per_device_train_batch_size": 1} | changes)


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        (7.0, "turing"),
        (7.5, "turing"),
        (8.0, "ampere"),
        (8.6, "ampere-graphics"),
        (8.9, "ada"),
        (9.0, "hopper"),
        (10.0, "blackwell"),
        (12.0, "blackwell"),
        (None, "other"),
    ],
)
def test_the_compute_capability_names_the_generation(capability: float | None, name: str) -> None:
    assert generation(builders.a100(compute_capability=capability)) == name


def test_every_row_of_the_table_is_a_generation_and_is_used() -> None:
    table = _table()["generation"]
    assert table and set(table) <= set(CAPABILITY)
    for name, own in table.items():
        found = asdict(efficiency_of(builders.a100(compute_capability=CAPABILITY[name])))
        assert own and all(found[key] == value for key, value in own.items())
        assert {k: v for k, v in found.items() if k not in own} == {
            k: v for k, v in _table()["every"].items() if k not in own
        }


def test_a_generation_that_was_not_seen_takes_those_of_all() -> None:
    unseen = [name for name in (*CAPABILITY, "other") if name not in _table()["generation"]]
    assert "other" in unseen
    for name in unseen:
        assert asdict(efficiency_of(builders.a100(compute_capability=CAPABILITY.get(name)))) == _table()["every"]


@pytest.mark.parametrize("gpu", [gpu["name"] for gpu in known_gpus()])
def test_shares_of_every_known_gpu_lie_between_nothing_and_all(gpu: str) -> None:
    found = efficiency_of(observe_device(Hardware(gpu=gpu)))
    assert all(0 < getattr(found, name) < 1 for name in SHARES)
    assert 1e-6 < found.launch < 1e-4  # seconds to launch a kernel
    assert 0 < found.step < 1.0


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_generation_that_was_not_seen_is_told_with_a_wider_interval(method: str) -> None:
    def width(capability: float | None) -> float:
        low, high = relative_error(builders.a100(compute_capability=capability), setup(method))
        assert 0 < low < 1 < high
        return high / low

    seen = {width(CAPABILITY[name]) for name in _table()["generation"]}
    assert len(seen) == 1
    assert width(None) > seen.pop()


def test_a_family_without_rows_of_its_own_has_the_interval_of_any() -> None:
    for seen, capability in (("seen", 8.0), ("unseen", None)):
        intervals = _table()["interval"][seen]
        for method, family in (("full", "full"), ("lora", "adapter"), ("dora", "adapter"), ("qlora", "quantised")):
            found = relative_error(builders.a100(compute_capability=capability), setup(method))
            assert found == tuple(intervals.get(family, intervals["any"]))


def test_sharding_has_the_interval_of_its_method() -> None:
    plain, sharded = (
        relative_error(builders.a100(count=8), setup("full", parallel=p, world_size=8)) for p in ("none", "fsdp")
    )
    assert plain == sharded


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_cpu_has_its_own_interval(method: str) -> None:
    assert relative_error(builders.laptop(), setup(method)) == ON_CPU == (0.5, 2.0)


def test_the_table_says_where_it_comes_from() -> None:
    said = efficiency_source()
    assert "published throughputs" in said and "sources" in said and "%" in said and "benchmarks/time" in said
    assert files("rankwise.estimate").joinpath("efficiencies.toml").read_text().startswith("# Shares of a GPU's peaks")
