"""The figures of one matrix against its dense decomposition; bounds hold where only a part of it is known."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from rankwise.model.products import Product, effective_rank
from rankwise.watch import spectrum
from rankwise.watch.directions import Base, Directions, strongest
from rankwise.watch.spectra import KEPT
from rankwise.watch.spectrum import difference_spectrum, model_spectra, product_spectrum, rank_bounds, whole_spectrum


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def of(matrix: torch.Tensor) -> Directions:
    left, values, right = strongest(matrix, KEPT)
    return Directions(left, values, right, float(matrix.norm()))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(1, 8), st.floats(0.01, 100), st.integers(0, 10**6))
def test_a_product_has_the_figures_of_the_dense_matrix(
    out: int, inside: int, rank: int, scale: float, seed: int
) -> None:
    a, b, base = drawn(rank, inside, seed=seed), drawn(out, rank, seed=seed + 1), drawn(out, inside, seed=seed + 2)
    seen = product_spectrum(Product("m", a, b, scale), of(base))
    change = scale * b.double() @ a.double()
    squares = torch.linalg.svdvals(change) ** 2
    assert seen.norm == pytest.approx(float(change.norm()), rel=1e-4)
    assert seen.norm_ratio == pytest.approx(float(change.norm() / base.norm()), rel=1e-4)
    assert seen.first_energy == pytest.approx(float(squares[0] / squares.sum()), abs=1e-4)
    assert seen.effective_rank == pytest.approx(effective_rank(squares), rel=1e-3)
    assert seen.rank == min(out, inside, rank) and seen.effective_rank <= seen.rank + 1e-6
    assert seen.condition_a == pytest.approx(float(torch.linalg.cond(a)), rel=1e-2)
    assert seen.condition_b == pytest.approx(float(torch.linalg.cond(b)), rel=1e-2)


def test_an_update_of_zero_has_a_norm_and_no_spectrum() -> None:
    seen = product_spectrum(Product("m", drawn(4, 20), torch.zeros(30, 4), 2.0), of(drawn(30, 20)))
    assert (seen.norm, seen.norm_ratio, seen.intruders, seen.rank) == (0.0, 0.0, 0, 4)
    assert seen.effective_rank is seen.first_energy is seen.condition_b is None
    assert seen.condition_a is not None


def test_without_the_base_what_needs_it_is_unknown() -> None:
    seen = product_spectrum(Product("m", drawn(4, 20), drawn(30, 4), 2.0), None)
    assert seen.norm_ratio is seen.intruders is None and seen.effective_rank is not None


@pytest.mark.parametrize("shape", [(40, 60), (60, 40)])
def test_a_difference_is_decomposed_whole_where_it_is_small(shape: tuple[int, int]) -> None:
    base = drawn(*shape)
    change = 0.1 * drawn(shape[0], 3, seed=1) @ drawn(3, shape[1], seed=2)
    seen = difference_spectrum("m", base + change, base, of(base))
    squares = torch.linalg.svdvals((base + change - base).double()) ** 2
    assert seen.effective_rank == pytest.approx(effective_rank(squares), rel=1e-3) and seen.effective_rank < 3.01
    assert seen.effective_rank_interval is None and seen.rank == 40
    assert seen.first_energy == pytest.approx(float(squares[0] / squares.sum()), abs=1e-4)
    assert seen.norm_ratio == pytest.approx(float(change.norm() / base.norm()), rel=1e-3)
    assert seen.condition_a is seen.condition_b is None


@settings(max_examples=50, deadline=None)
@given(st.integers(3, 40), st.floats(0.5, 0.999), st.integers(1, 20))
def test_bounds_of_a_partly_known_effective_rank_hold(side: int, decay: float, known: int) -> None:
    squares = decay ** torch.arange(side).double()
    known = min(known, side)
    low, high = rank_bounds(squares[:known], float(squares.sum()), side)
    exact = effective_rank(squares)
    assert exact is not None and low * (1 - 1e-5) <= exact <= high * (1 + 1e-5)


def test_a_large_difference_is_bounded_and_the_bounds_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum, "EXACT", 100)
    base = drawn(150, 200)
    u, v = torch.linalg.qr(drawn(150, 150, seed=1)).Q, torch.linalg.qr(drawn(200, 150, seed=2)).Q
    values = 0.95 ** torch.arange(150)
    seen = difference_spectrum("m", base + u * values @ v.T, base, of(base))
    exact = effective_rank(values.double() ** 2)
    assert seen.effective_rank_interval is not None and exact is not None
    low, high = seen.effective_rank_interval
    assert low <= exact * 1.001 and exact <= high * 1.001 and seen.effective_rank == pytest.approx((low * high) ** 0.5)
    assert high / low < 1.1
    assert seen.first_energy == pytest.approx(float(values[0] ** 2 / (values**2).sum()), rel=1e-2)


def test_a_model_that_did_not_change_is_dead(tmp_path: Path) -> None:
    weights = {"layers.0.q.weight": drawn(20, 30), "norm.weight": drawn(20), "embed.weight": drawn(50, 20)}
    save_file(weights, tmp_path / "model.safetensors")
    base = Base(tmp_path)
    seen = dict(model_spectra(base, base, lambda *_: None))
    assert seen.keys() == {"layers.0.q", "embed"}  # a vector has no spectrum
    assert all(found is not None and found.norm == 0 and found.effective_rank is None for found in seen.values())


def test_rows_that_were_added_behind_are_left_out(tmp_path: Path) -> None:
    save_file({"embed.weight": drawn(50, 20)}, tmp_path / "model.safetensors")
    base = Base(tmp_path)
    longer = torch.cat([base.tensor("embed.weight"), drawn(3, 20, seed=5)])
    seen = whole_spectrum("embed", longer, base)
    assert seen is not None and seen.norm == 0 and seen.rank == 20
    assert whole_spectrum("embed", drawn(50, 21), base) is None and whole_spectrum("other", longer, base) is None
