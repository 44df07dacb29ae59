"""DeepSpeed's JSON and FSDP's settings: they say what the candidate is, and the libraries know every key."""

import json
from pathlib import Path
from typing import get_args

import pytest

from rankwise.decide.configure import Rung
from rankwise.decide.ladder import candidate_of
from rankwise.decide.recipes import BY_NAME
from rankwise.decide.sharding import deepspeed_config, fsdp_config
from rankwise.records.setup import Offload, Parallel
from tests import builders
from tests.decide import worlds

PARALLEL, OFFLOAD = get_args(Parallel), get_args(Offload)


@pytest.mark.parametrize("offload", OFFLOAD)
@pytest.mark.parametrize("parallel", PARALLEL)
def test_a_way_of_spreading_has_the_settings_of_one_launcher(parallel: Parallel, offload: Offload) -> None:
    zero, fsdp = deepspeed_config(parallel, offload), fsdp_config(parallel, offload)
    assert (zero is not None) == parallel.startswith("zero")
    assert (fsdp is not None) == (parallel == "fsdp")
    assert json.loads(json.dumps([zero, fsdp])) == [zero, fsdp]


@pytest.mark.parametrize(("parallel", "stage"), [("zero2", 2), ("zero3", 3)])
def test_deepspeed_is_told_its_stage_and_what_it_may_move_to_the_host(parallel: Parallel, stage: int) -> None:
    sections = {offload: (deepspeed_config(parallel, offload) or {})["zero_optimization"] for offload in OFFLOAD}
    assert {zero["stage"] for zero in sections.values()} == {stage}
    assert [("offload_optimizer" in sections[o]) for o in ("none", "optimizer", "all")] == [False, True, True]
    assert [("offload_param" in sections[o]) for o in ("none", "optimizer", "all")] == [False, False, stage == 3]


def test_what_the_trainer_fills_in_is_left_to_it() -> None:
    auto = {key for key, value in (deepspeed_config("zero3", "none") or {}).items() if value == "auto"}
    assert auto == {
        "gradient_clipping",
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "gradient_accumulation_steps",
    }


def test_the_trainer_hands_every_setting_of_fsdp_to_accelerate(tmp_path: Path) -> None:
    from accelerate import FullyShardedDataParallelPlugin
    from transformers import TrainingArguments

    said = fsdp_config("fsdp", "all") or {}
    handed = TrainingArguments(str(tmp_path), fsdp=True, fsdp_config=dict(said)).fsdp_plugin_args
    assert {key: handed.get(key, handed.get(f"fsdp_{key}")) for key in said} == said
    plugin = FullyShardedDataParallelPlugin(**handed)
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True and plugin.cpu_offload is not False


@pytest.mark.parametrize("parallel", PARALLEL)
def test_a_candidate_carries_the_settings_of_its_way(parallel: Parallel) -> None:
    facts = worlds.world(device=worlds.card(count=1 if parallel == "none" else 2))
    config = candidate_of(builders.job(), facts, BY_NAME["full"], Rung(parallel=parallel)).config
    assert config.deepspeed == deepspeed_config(parallel, "none")
    assert config.fsdp_config == fsdp_config(parallel, "none")
