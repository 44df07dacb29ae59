"""What a job may go on from."""

from pathlib import Path

import pytest
from peft import LoraConfig

from rankwise.errors import ModelError
from rankwise.observe.model import observe_model
from rankwise.observe.parents import observe_adapter
from tests.export.merging import adapter_of
from tests.tiny import tiny_moe


def test_an_adapter_of_experts_is_refused_and_one_of_layers_is_not(tmp_path: Path) -> None:
    base = tiny_moe(tmp_path / "base", "mixtral")
    facts = observe_model(str(base))
    layers = adapter_of(base, tmp_path / "layers", LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    assert observe_adapter(layers, facts)[0].target_modules == ("q_proj",)
    experts = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], target_parameters=["experts.gate_up_proj"])
    with pytest.raises(ModelError, match="target_parameters"):
        observe_adapter(adapter_of(base, tmp_path / "experts", experts), facts)
