"""Rounding by chance: between the two neighbours, right in the mean, the same again, and undone by its mirror."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rankwise.export.merge import fold
from rankwise.export.rounding import Chance, nearest, rounded_as
from rankwise.model.load import load_base
from tests.export.merging import adapter_of, peft_merged, state
from tests.export.test_merge import SIZES, lora
from tests.tiny import tiny_llama_untied

HALF = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALF)
@given(value=st.floats(2**-13, 6e4, width=32), sign=st.sampled_from([-1, 1]), at=st.integers(0, 10**9))
def test_it_is_one_of_the_two_neighbours(dtype: torch.dtype, value: float, sign: int, at: int) -> None:
    exact = torch.full((3,), sign * value)
    kept = Chance().rounded(exact.clone(), dtype, "w", at)
    ulp = 2.0 ** (torch.frexp(exact.abs())[1] - 1).float() * torch.finfo(dtype).eps
    assert torch.isfinite(kept).all() and ((kept.float() - exact).abs() < ulp).all()


@pytest.mark.parametrize("dtype", HALF)
@given(bits=st.integers(1, 2**15 - 2**10 - 1))
def test_what_needs_no_rounding_stays(dtype: torch.dtype, bits: int) -> None:
    value = torch.tensor([bits], dtype=torch.int16).view(dtype)
    if torch.isfinite(value) and abs(float(value)) > 2**-14:
        assert torch.equal(Chance().rounded(value.float(), dtype, "w", 0), value)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.97])
def test_the_mean_is_what_was_rounded(dtype: torch.dtype, share: float) -> None:
    step = torch.finfo(dtype).eps
    kept = Chance().rounded(torch.full((400, 500), 1 + share * step), dtype, "w", 0).float()
    assert set(((kept - 1) / step).flatten().tolist()) == {0.0, 1.0}
    assert float((kept - 1).mean() / step) == pytest.approx(share, abs=0.005)


def test_it_depends_on_the_tensor_and_the_place_and_on_nothing_else() -> None:
    rows = torch.randn(300, 700, generator=torch.Generator().manual_seed(1))
    whole = Chance().rounded(rows.clone(), torch.bfloat16, "w", 0)
    parts = [Chance().rounded(rows[i : i + 7].clone(), torch.bfloat16, "w", i * 700) for i in range(0, 300, 7)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(Chance().rounded(rows.clone(), torch.bfloat16, "v", 0), whole)


def test_wider_numbers_are_cast_and_nearest_is_torch_s() -> None:
    rows = torch.randn(5, 7)
    assert torch.equal(Chance().rounded(rows.clone(), torch.float32, "w", 0), rows)
    assert rounded_as("nearest") is nearest and torch.equal(nearest(rows, torch.bfloat16, "w", 0), rows.bfloat16())


@given(size=st.floats(1e-6, 0.3), seed=st.integers(0, 1000))
def test_the_mirror_takes_it_back(size: float, seed: int) -> None:
    """Exactly, but where a number on the way has another step: over zero, or at a power of two (one number in 128)."""
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(64, 64, generator=g).bfloat16()
    update = size * torch.randn(64, 64, generator=g)
    merged = rounded_as("stochastic")(base.float() + update, torch.bfloat16, "w", 0)
    back = rounded_as("stochastic", back=True)(merged.float() - update, torch.bfloat16, "w", 0)
    same_step = torch.frexp(merged.float())[1] == torch.frexp(base.float())[1]
    same_step &= torch.frexp(base.float() + update)[1] == torch.frexp(base.float())[1]
    same_step &= (merged > 0) == (base > 0)
    assert float((back == base)[same_step].float().mean()) > 0.98


def test_a_small_update_survives_the_merge_and_not_rounding_to_the_nearest(tmp_path: Path) -> None:
    """What is left of the update along itself: all of it by chance, next to nothing to the nearest."""
    base = tiny_llama_untied(tmp_path / "base", **SIZES)
    adapter = adapter_of(base, tmp_path / "adapter", lora(lora_alpha=0.02))
    before = load_base(base, dtype="fp32").state_dict()
    exact = peft_merged(base, adapter).state_dict()
    names = [n for n in exact if not torch.equal(exact[n], before[n])]

    def left(rounding: str) -> float:
        merged = state(fold(base, adapter, tmp_path / rounding, dtype="bf16", rounding=rounding))  # type: ignore[arg-type]
        wanted = _joined([exact[n] - before[n] for n in names])
        got = _joined([merged[n].float() - before[n] for n in names])
        return float(got @ wanted / (wanted @ wanted))

    assert left("stochastic") == pytest.approx(1, abs=0.1)
    assert left("nearest") < 0.6


def _joined(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])
