"""Arms as tasks of a real Ray cluster of two CPUs on this machine."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankwise import api
from rankwise.errors import UsageError
from tests.training import toy_job, toy_model

ray = pytest.importorskip("ray")


@pytest.fixture
def cluster() -> Iterator[str]:
    """As many CPUs as an arm takes on this machine, and two at least."""
    ray.init(address="local", num_cpus=max(2, os.cpu_count() or 2), include_dashboard=False, log_to_driver=False)
    try:
        yield "auto"
    finally:
        ray.shutdown()


@pytest.mark.prove
def test_arms_work_on_a_cluster(cluster: str, tmp_path: Path) -> None:
    job = toy_job(tmp_path, toy_model(tmp_path / "model"))
    wanted = api.Wanted("base,lora:r=4", "flops", 4e9, 1, 1, ray=cluster)
    folder = api.prepare_comparison(job, wanted, tmp_path / "out")
    seen = [ahead.what for ahead in api.carry_out_comparison(folder, cluster)]
    assert any(what.startswith("lora-r=4-seed-0") for what in seen)
    assert {trial.arm for trial in folder.trials()} == {"base", "lora:r=4"}
    assert list(api.carry_out_comparison(folder, cluster)) == []


@pytest.mark.prove
def test_a_cluster_without_room_for_an_arm_is_refused() -> None:
    from rankwise.compare.on_ray import slots

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        with pytest.raises(UsageError, match="has what one arm takes"):
            slots("auto", {"GPU": 1.0})
    finally:
        ray.shutdown()
