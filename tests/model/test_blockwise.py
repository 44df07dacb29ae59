"""Attention by matrix products is scaled_dot_product_attention, and looks like it from outside."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from rankwise.model import blockwise
from rankwise.model.blockwise import attention, blockwise_attention, spans_of
from rankwise.model.load import load_base
from tests.training import toy_model


class Causal(torch.nn.Module):
    is_causal = True


def heads(rows: int, tokens: int, groups: int = 2, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    shapes = ((rows, 4, tokens, 16), (rows, groups, tokens, 16), (rows, groups, tokens, 16))
    return [torch.randn(shape, generator=draw).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("tokens", [5, 128, 300])
def test_it_is_causal_attention_with_its_gradients(tokens: int, groups: int) -> None:
    q, k, v = heads(2, tokens, groups)
    given = torch.randn(2, tokens, 4, 16, generator=torch.Generator().manual_seed(2))
    out, _ = attention(Causal(), q, k, v, None, position_ids=torch.arange(tokens)[None])
    out.backward(given)
    found = [out.detach(), *(t.grad.clone() for t in (q, k, v) if t.grad is not None)]
    q.grad = k.grad = v.grad = None
    plain = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)
    plain.backward(given)
    expected = [plain.detach(), *(t.grad for t in (q, k, v) if t.grad is not None)]
    assert len(found) == len(expected) == 4
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=2e-5)


def test_documents_are_computed_each_alone() -> None:
    lengths = [7, 130, 20]
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    q, k, v = heads(1, sum(lengths))
    out, _ = attention(Causal(), q, k, v, None, position_ids=positions)
    at = 0
    for n in lengths:
        part = [t[:, :, at : at + n] for t in (q, k, v)]
        alone, _ = attention(Causal(), *part, None, position_ids=torch.arange(n)[None])
        assert torch.equal(out[:, at : at + n], alone)
        at += n


def test_spans_begin_where_positions_do() -> None:
    ids = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]])
    assert spans_of(ids, 2) == [(0, 0, 3), (0, 3, 5), (0, 5, 6), (1, 0, 6)]
    assert spans_of(torch.arange(4)[None], 2) == [(0, 0, 4), (1, 0, 4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("blockwise"), dtype="fp32")


def test_a_model_has_its_own_attention_again_after_a_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    products = blockwise._CausalAttention
    monkeypatch.setattr(
        blockwise, "_CausalAttention", type("", (), {"apply": lambda *a: calls.append(1) or products.apply(*a)})
    )
    model = load_base(folder, dtype="fp32")
    ids = torch.tensor([list(range(5, 25))])
    plain = model(input_ids=ids).logits
    assert not calls
    with blockwise_attention(model):
        inside = model(input_ids=ids, use_cache=False).logits
    assert len(calls) == model.config.num_hidden_layers
    assert torch.allclose(plain, inside, atol=1e-4)
    assert torch.equal(model(input_ids=ids).logits, plain) and len(calls) == model.config.num_hidden_layers
    assert model.config._attn_implementation == "sdpa"


def test_padded_rows_need_no_mask(folder: Path) -> None:
    model = load_base(folder, dtype="fp32")
    short, long = [5, 6, 7, 8], list(range(10, 22))
    ids = torch.tensor([short + [2] * 8, long])
    mask = torch.tensor([[1] * 4 + [0] * 8, [1] * 12])
    with blockwise_attention(model), torch.no_grad():
        both = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    with torch.no_grad():
        alone = model(input_ids=torch.tensor([short])).logits
    assert torch.allclose(both[0, :4], alone[0], atol=1e-4)


def test_recomputed_activations_give_the_same_gradient(folder: Path) -> None:
    ids = torch.tensor([list(range(5, 45))])
    positions = torch.cat([torch.arange(25), torch.arange(15)])[None]

    def gradients(recompute: bool) -> torch.Tensor:
        model = load_base(folder, dtype="fp32").train()
        if recompute:
            model.activation_checkpointing_enable({"use_reentrant": False})
        with blockwise_attention(model):
            loss = model(input_ids=ids, position_ids=positions, use_cache=False).logits.square().mean()
            torch.autograd.backward(loss)
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    assert torch.allclose(gradients(True), gradients(False), atol=1e-6)


def test_fp32_weights_under_autocast_attend_in_bf16() -> None:
    """Rotary embeddings leave queries and keys fp32 and values bf16."""
    q, k, v = (
        t.to(dtype) for t, dtype in zip(heads(1, 40), (torch.float32, torch.float32, torch.bfloat16), strict=True)
    )
    leaves = [t.detach().requires_grad_() for t in (q, k, v)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, _ = attention(Causal(), *leaves, None, position_ids=torch.arange(40)[None])
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert [t.grad.dtype for t in leaves if t.grad is not None] == [t.dtype for t in leaves]
