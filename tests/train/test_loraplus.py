"""LoRA+: B learns at a rate of its own, through checkpoints too."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rankwise.errors import JobError
from rankwise.records import Step
from rankwise.store import Run
from tests.training import carry_out, losses, published, toy_model, toy_run, trained, weights

METHOD = {"name": "lora", "r": 4, "loraplus_lr_ratio": 16.0}
ONE_STEP = {"max_steps": 1, "learning_rate": 1e-4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


def moved_b(run: Run) -> float:
    """Largest entry of any B, all of which start at zero; Adam's first step moves each by about its rate."""
    tensors = load_file(run.adapter / "adapter_model.safetensors")
    return max(float(t.abs().max()) for name, t in tensors.items() if "lora_B" in name)


def test_b_moves_as_many_times_further(model: Path, tmp_path: Path) -> None:
    plain: Any = {"name": "lora", "r": 4}
    one = moved_b(trained(tmp_path / "plain", model, plain, train=ONE_STEP))
    other = moved_b(trained(tmp_path / "plus", model, METHOD, train=ONE_STEP))
    assert one == pytest.approx(1e-4, rel=0.01) and other == pytest.approx(16e-4, rel=0.01)


def test_the_rates_go_through_a_checkpoint_bit_for_bit(model: Path, tmp_path: Path) -> None:
    rates = {"learning_rate": 1e-3, "lr_scheduler_type": "cosine"}
    whole = trained(tmp_path / "whole", model, METHOD, train=rates)
    broken = toy_run(tmp_path / "broken", model, METHOD, train=rates)
    carry_out(broken, stop_after=3)
    state = torch.load(broken.checkpoints / "checkpoint-3" / "optimizer.pt", weights_only=True)
    told = [e.learning_rate for e in whole.events() if isinstance(e, Step)]
    rates_then = [group["lr"] for group in state["param_groups"] if group["params"]]
    assert rates_then == pytest.approx([told[3], 16 * told[3]])
    carry_out(broken, resume=True)
    assert losses(broken.events()) == losses(whole.events())
    assert weights(published(broken)) == weights(published(whole))


@pytest.mark.parametrize("method", [{"name": "ia3", "loraplus_lr_ratio": 16.0}, {**METHOD, "loraplus_lr_ratio": 0.5}])
def test_it_is_refused_by_name_where_it_makes_no_sense(model: Path, tmp_path: Path, method: dict[str, Any]) -> None:
    with pytest.raises(JobError, match="loraplus_lr_ratio"):
        toy_run(tmp_path, model, method)
