"""DeepSpeed's JSON as a run fills it, held against transformers' own filling."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

from rankwise.decide.sharding import deepspeed_config
from rankwise.train.engines.zero import filled, sized, without_auto
from tests.tiny import tiny_config
from tests.train.engines.two import needs_deepspeed


@needs_deepspeed
@pytest.mark.parametrize("parallel", ["zero2", "zero3"])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_auto_is_filled_as_transformers_fills_it(parallel: Any, dtype: Any) -> None:
    settings = deepspeed_config(parallel, "none")
    assert settings is not None
    config = tiny_config(
        "full", dtype=dtype, autocast=None, per_device_train_batch_size=2, gradient_accumulation_steps=3
    )
    theirs = HfTrainerDeepSpeedConfig(copy.deepcopy(settings))
    arguments = SimpleNamespace(
        world_size=4,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=3,
        max_grad_norm=config.max_grad_norm,
        learning_rate=config.learning_rate,
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        weight_decay=config.weight_decay,
        save_on_each_node=False,
        fp16=False,
        fp16_full_eval=False,
        bf16=dtype == "bf16",
        bf16_full_eval=False,
        get_warmup_steps=lambda steps: config.warmup_steps,
    )
    theirs.trainer_config_process(arguments)
    model = SimpleNamespace(config=SimpleNamespace(hidden_size=64))
    theirs.trainer_config_finalize(arguments, model, config.max_steps)
    ours = sized(filled(settings, config, world=4), hidden_size=64)
    assert {key: ours[key] for key in theirs.config} == theirs.config


def test_nothing_is_auto_where_deepspeed_reads_it() -> None:
    settings = deepspeed_config("zero3", "none")
    assert settings is not None
    made = filled(settings, tiny_config("full"), world=2)
    for said in (sized(made, 64), without_auto(made)):
        assert "auto" not in str(said)
