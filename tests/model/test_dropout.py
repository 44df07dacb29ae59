"""The quick dropout drops what it says, and gradients pass where values did."""

from pathlib import Path

import pytest
import torch
from torch import nn

from rankwise.model.attach import attach
from rankwise.model.dropout import QuickDropout
from rankwise.model.load import load_base
from tests.tiny import tiny_config
from tests.training import toy_model


@pytest.mark.parametrize("p", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_share_scale_and_gradient(p: float, dtype: torch.dtype) -> None:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        given = torch.randn(400, 501, dtype=dtype).add_(10).requires_grad_()
        out = QuickDropout(p)(given)
        out.sum().backward()
    kept = out != 0
    deviation = (p * (1 - p) / given.numel()) ** 0.5
    assert abs(1 - float(kept.float().mean()) - p) < 5 * deviation + 1 / 32768
    assert torch.equal(out[kept], (given * (1 / (1 - p)))[kept])
    assert given.grad is not None
    assert torch.equal(given.grad != 0, kept) and given.grad[kept].unique().numel() == 1
    by_column = 1 - kept.float().mean(dim=0)  # four numbers share a draw, and none of the four is favoured
    assert all(abs(float(by_column[i::4].mean()) - p) < 5 * (4 * p * (1 - p) / given.numel()) ** 0.5 for i in range(4))


def test_a_seed_repeats_it_and_evaluation_has_none() -> None:
    given, dropout = torch.ones(64, 33, dtype=torch.bfloat16), QuickDropout(0.3)
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        first = dropout(given)
        other = dropout(given)
        torch.manual_seed(1)
        again = dropout(given)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(dropout.eval()(given), given)


def test_fp32_is_torchs_own() -> None:
    given = torch.ones(64, 33)
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        ours = QuickDropout(0.3)(given)
        torch.manual_seed(1)
        assert torch.equal(ours, nn.Dropout(0.3)(given))


def test_adapters_have_it(tmp_path: Path) -> None:
    attached = attach(load_base(toy_model(tmp_path), dtype="bf16"), tiny_config(lora_dropout=0.2))
    found = [m for m in attached.modules() if isinstance(m, nn.Dropout)]
    assert len(found) == 14 and all(type(m) is QuickDropout and m.p == 0.2 and m.training for m in found)
