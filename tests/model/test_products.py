"""s B A by the thin QR route against the dense matrix; truncation against the dense truncation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.model.products import Product, condition, decompose, effective_rank, singular_values, truncated

SIDES = st.integers(1, 40)


def drawn(out: int, inside: int, rank: int, scale: float, seed: int) -> Product:
    draw = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rank, inside, generator=draw), torch.randn(out, rank, generator=draw)
    return Product("m", a, b * torch.logspace(0, -3, rank), scale)


def dense(product: Product) -> torch.Tensor:
    return product.scale * product.b.double() @ product.a.double()


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(1, 12), st.floats(1e-3, 1e3), st.integers(0, 10**6))
def test_singular_values_are_those_of_the_dense_matrix(
    out: int, inside: int, rank: int, scale: float, seed: int
) -> None:
    product = drawn(out, inside, rank, scale, seed)
    expected = torch.linalg.svdvals(dense(product))
    found = singular_values(product).product.double()
    assert len(found) == min(out, inside, rank) == product.rank
    assert torch.allclose(found, expected[: len(found)], rtol=0, atol=1e-4 * float(expected[0]))
    assert float(expected[len(found) :].sum()) <= 1e-9 * float(expected[0])  # the product has no others


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, st.integers(2, 12), st.floats(0.1, 10), st.integers(0, 10**6), st.data())
def test_truncation_is_the_dense_truncation(
    out: int, inside: int, rank: int, scale: float, seed: int, data: st.DataObject
) -> None:
    product = drawn(out, inside, rank, scale, seed)
    kept = data.draw(st.integers(1, rank))
    u, s, vh = torch.linalg.svd(dense(product), full_matrices=False)
    near = truncated(product, kept)
    assert near.scale == 1.0 and near.rank <= kept
    # Equal in error, not in every entry: where two singular values are close, another matrix is as near.
    best = float(s[kept:].norm())
    assert float((dense(near) - dense(product)).norm()) <= best + 1e-4 * float(s[0])
    if kept < len(s) and float(s[kept - 1] - s[kept]) > 0.1 * float(s[0]):
        assert torch.allclose(dense(near), u[:, :kept] * s[:kept] @ vh[:kept], atol=1e-3 * float(s[0]))


def test_the_values_of_the_factors_are_theirs() -> None:
    product = drawn(30, 20, 4, 2.0, 0)
    found = singular_values(product)
    assert torch.allclose(found.a, torch.linalg.svdvals(product.a), rtol=1e-4)
    assert torch.allclose(found.b, torch.linalg.svdvals(product.b), rtol=1e-3)


def test_it_leaves_the_number_of_threads_alone() -> None:
    before = torch.get_num_threads()
    singular_values(drawn(30, 20, 4, 2.0, 0))
    assert torch.get_num_threads() == before


def test_bf16_factors_are_computed_in_fp32() -> None:
    product = drawn(30, 20, 4, 2.0, 0)
    half = Product("m", product.a.bfloat16(), product.b.bfloat16(), 2.0)
    expected = torch.linalg.svdvals(dense(half))[:4]
    assert torch.allclose(singular_values(half).product.double(), expected, rtol=0, atol=1e-4 * float(expected[0]))


def test_directions_are_orthonormal_and_rebuild_the_matrix() -> None:
    product = drawn(25, 33, 5, 0.5, 1)
    u, s, v = decompose(product.scale * product.b, product.a.T)
    assert torch.allclose(u.T @ u, torch.eye(5), atol=1e-5) and torch.allclose(v.T @ v, torch.eye(5), atol=1e-5)
    assert torch.allclose((u * s @ v.T).double(), dense(product), atol=1e-4 * float(s[0]))


@pytest.mark.parametrize("count", [1, 3, 16])
def test_the_effective_rank_of_equal_energies_is_their_number(count: int) -> None:
    assert effective_rank(torch.full((count,), 0.3)) == pytest.approx(count)
    assert effective_rank(torch.cat([torch.ones(count), torch.zeros(4)])) == pytest.approx(count)


def test_the_effective_rank_of_two_energies_by_hand() -> None:
    expected = math.exp(-(0.9 * math.log(0.9) + 0.1 * math.log(0.1)))
    assert effective_rank(torch.tensor([9.0, 1.0])) == pytest.approx(expected)
    assert effective_rank(torch.zeros(3)) is None


def test_a_singular_factor_has_no_condition_number() -> None:
    assert condition(torch.tensor([4.0, 2.0, 1.0])) == 4.0
    assert condition(torch.tensor([4.0, 2.0, 0.0])) is None
    assert condition(torch.tensor([1.0, 1e-9])) is None
