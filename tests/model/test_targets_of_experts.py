"""Which layers of a mixture of experts an adapter is put on."""

from pathlib import Path

import pytest

from rankwise.errors import UsageError
from rankwise.methods import AdapterOptions
from rankwise.model.attach import wrap
from rankwise.model.load import load_base
from tests.tiny import tiny_moe

ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
def test_all_linear_is_the_linear_layers_and_no_experts(tmp_path: Path, family: str) -> None:
    base = load_base(tiny_moe(tmp_path / "base", family), dtype="fp32")
    model = wrap(base, "lora", AdapterOptions(r=4, target_modules="all-linear"), seed=0).model
    named = (name for name, p in model.named_parameters() if p.requires_grad)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in named} == ATTENTION
    assert set(model.peft_config["default"].target_modules) == ATTENTION


def test_names_that_experts_share_with_other_layers_are_refused(tmp_path: Path) -> None:
    base = load_base(tiny_moe(tmp_path / "base", "deepseek_v3"), dtype="fp32")
    with pytest.raises(UsageError, match="put the adapter on the experts") as caught:
        wrap(base, "lora", AdapterOptions(r=4, target_modules="all-linear"), seed=0)
    assert "o_proj" in caught.value.fix and "gate_proj" not in caught.value.fix
