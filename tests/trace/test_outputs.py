"""Remembered results look as torch makes them."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from rankwise.trace import outputs
from rankwise.trace.outputs import PURE, aten, output
from rankwise.trace.run import run_step
from tests.trace.families import setup


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


BF16 = torch.bfloat16
CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (aten.add.Tensor, (meta(4, 6), meta(4, 6, dtype=BF16)), {}),
    (aten.add.Tensor, (meta(4, 6).t(), meta(4)), {}),
    (aten.add.Tensor, (meta(4, 6), 1.0), {"alpha": 2}),
    (aten.sub.Tensor, (meta(3, 1).expand(3, 5), meta(5)), {}),
    (aten.mul.Tensor, (meta(2, 3, dtype=BF16), 2.0), {}),
    (aten.mul.Tensor, (meta(2, 3, dtype=torch.int64), 2.0), {}),
    (aten.mul.Tensor, (meta(2, 3, dtype=torch.int64), 2), {}),
    (aten.mul.Tensor, (meta(2, 3, dtype=torch.int64), True), {}),
    (aten.mul.Scalar, (meta(2, 3), 2), {}),
    (aten.div.Tensor, (meta(2, 3, dtype=torch.int64), meta(3, dtype=torch.int64)), {}),
    (aten.neg.default, (meta(2, 3, 4).transpose(0, 2),), {}),
    (aten.pow.Tensor_Scalar, (meta(2, 3, dtype=BF16), 2), {}),
    (aten.rsqrt.default, (meta(2, 3),), {}),
    (aten.mean.dim, (meta(2, 3, 4), [-1], True), {}),
    (aten.mean.dim, (meta(2, 3, 4), [0]), {"dtype": torch.float64}),
    (aten.sum.dim_IntList, (meta(2, 3, dtype=BF16), [1], False), {"dtype": torch.float32}),
    (aten.linalg_vector_norm.default, (meta(7, 5, dtype=BF16), 2.0), {}),
    (aten.cat.default, ([meta(2, 3), meta(2, 5)], 1), {}),
    (aten.cat.default, ([meta(2, 3, dtype=BF16), meta(2, 3)],), {}),
]


def look(tensor: Tensor) -> tuple[Any, ...]:
    storage = tensor.untyped_storage().nbytes()
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.storage_offset(), storage


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[Any, Any]]:
    made: dict[Any, Any] = {}
    monkeypatch.setattr(outputs, "_made", made)
    yield made


def test_results_look_as_torch_makes_them(forgetful: dict[Any, Any]) -> None:
    plain = [look(func(*args, **kwargs)) for func, args, kwargs in CALLS]
    for _ in range(2):
        assert [look(output(func, args, kwargs)) for func, args, kwargs in CALLS] == plain
    assert len(forgetful) == len(CALLS)  # no two of them are taken for one
    assert {func for func, _, _ in CALLS} == PURE


def test_a_result_is_a_tensor_of_its_own(forgetful: dict[Any, Any]) -> None:
    a = meta(2, 3)
    one, other = (output(aten.neg.default, (a,), {}) for _ in range(2))
    assert len({t.untyped_storage()._cdata for t in (a, one, other)}) == 3


def test_what_a_key_cannot_hold_is_run(forgetful: dict[Any, Any]) -> None:
    host = torch.ones(())
    assert output(aten.mul.Tensor, (torch.ones(2), host), {}).tolist() == [1.0, 1.0]
    assert output(aten.mul.Tensor, (meta(2), host), {}).shape == (2,)
    a = meta(2, 3)
    assert output(aten.add_.Tensor, (a, 1.0), {}) is a
    assert forgetful == {}


@pytest.mark.parametrize("method", ["full", "dora", "qlora"])
def test_a_run_is_the_same_without_it(method: str, forgetful: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    of = setup("gemma2", method)
    found = run_step(of, 3)
    assert forgetful
    monkeypatch.setattr(outputs, "PURE", set())
    assert run_step(of, 3) == found
