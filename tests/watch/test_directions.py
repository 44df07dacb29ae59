"""Directions of a base, kept by the hash of its file; intruders that are planted, and none where none is."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rankwise.errors import ModelError
from rankwise.model.products import Product
from rankwise.watch.directions import SMALL, Base, Directions, far, intruders, strongest
from rankwise.watch.spectra import EPSILON, KEPT, LOOKED
from tests.tiny import tiny_gpt2, tiny_llama


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "directions"


def orthonormal(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))).Q


def weight(rows: int, columns: int) -> torch.Tensor:
    """A matrix whose singular values fall by a tenth each."""
    side = min(rows, columns)
    values = 10 * 0.9 ** torch.arange(side)
    return orthonormal(rows, side, 0) * values @ orthonormal(columns, side, 1).T


def of(matrix: torch.Tensor) -> Directions:
    left, values, right = strongest(matrix, KEPT)
    return Directions(left, values, right, float(matrix.norm()))


def counted(matrix: torch.Tensor, base: torch.Tensor) -> int:
    """The paper's algorithm 1, by two full decompositions."""
    tuned, _, _ = torch.linalg.svd(matrix)
    known, _, _ = torch.linalg.svd(base)
    known = known[:, : min(base.shape)]
    return int(((tuned[:, :LOOKED].T @ known).abs().amax(dim=1) < EPSILON).sum())


def outside(base: torch.Tensor, columns: int, seed: int) -> torch.Tensor:
    """Directions that lie far from each of the base's: equal parts of many of them."""
    left, _, _ = torch.linalg.svd(base, full_matrices=False)
    mixed = left @ orthonormal(left.shape[1], columns, seed)
    assert float((mixed.T @ left).abs().max()) < EPSILON
    return mixed


@pytest.mark.parametrize("shape", [(60, 70), (70, 60), (150, 120), (120, 150)])
@pytest.mark.parametrize("planted", [0, 1, 3])
def test_planted_intruders_are_counted_as_the_paper_counts_them(shape: tuple[int, int], planted: int) -> None:
    base = weight(*shape)
    b = 30 * outside(base, 4, 2)[:, :planted]
    a = orthonormal(shape[1], 4, 3).T[:planted]
    if not planted:
        b, a = 0.1 * outside(base, 4, 2), orthonormal(shape[1], 4, 3).T
    product = Product("m", a, b / 2, 2.0)
    assert counted(base + b @ a, base) == planted
    assert intruders(product, of(base)) == planted


def test_a_direction_of_the_base_made_stronger_is_no_intruder() -> None:
    base = weight(150, 120)
    u, _, vh = torch.linalg.svd(base, full_matrices=False)
    product = Product("m", vh[2:3], 50 * u[:, 2:3], 1.0)
    assert intruders(product, of(base)) == 0 == counted(base + 50 * u[:, 2:3] @ vh[2:3], base)


def test_small_matrices_are_known_whole_and_large_ones_by_their_strongest() -> None:
    small, large = weight(SMALL, 200), weight(SMALL + 1, 200)
    assert strongest(small, KEPT)[0].shape == (SMALL, SMALL)
    left, values, right = strongest(large, KEPT)
    assert (left.shape, values.shape, right.shape) == ((SMALL + 1, KEPT), (KEPT,), (200, KEPT))
    exact = torch.linalg.svdvals(large)[:KEPT]
    assert torch.allclose(values, exact, rtol=1e-3)
    assert torch.equal(left, strongest(large, KEPT)[0])  # by random numbers of its own


def test_looking_leaves_torchs_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    strongest(weight(SMALL + 1, 200), KEPT)
    assert torch.equal(before, torch.get_rng_state())


def test_far_is_far_from_all() -> None:
    known = torch.eye(8)[:, :3]
    near, apart = torch.eye(8)[:, 1:2], torch.eye(8)[:, 5:6]
    assert (far(near, known), far(apart, known), far(torch.cat([near, apart, -near], 1), known)) == (0, 1, 1)


def test_directions_are_computed_once_a_base_whatever_its_folder(tmp_path: Path, cache: Path) -> None:
    folder = tiny_llama(tmp_path / "one")
    name = "model.layers.0.mlp.up_proj.weight"
    first = Base(folder)
    assert not first.has_directions(name)
    found = first.directions(name)
    assert first.has_directions(name)
    (kept,) = cache.rglob("*.safetensors")
    stamp = kept.stat().st_mtime_ns
    shutil.copytree(folder, tmp_path / "two")
    again = Base(tmp_path / "two").directions(name)
    assert kept.stat().st_mtime_ns == stamp and list(cache.rglob("*.safetensors")) == [kept]
    assert torch.equal(found.left, again.left) and found.norm == again.norm
    whole = load_file(folder / "model.safetensors")[name].float()
    assert found.norm == pytest.approx(float(whole.norm()), rel=1e-5)
    assert torch.allclose(found.left * found.values @ found.right.T, whole, atol=0.01)


def test_other_weights_have_other_directions(tmp_path: Path, cache: Path) -> None:
    folder = tiny_llama(tmp_path / "one")
    name = "model.layers.0.mlp.up_proj.weight"
    first = Base(folder).directions(name)
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = tensors[name] + 1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    second = Base(folder).directions(name)
    assert second.norm != first.norm and len(list(cache.rglob("*.safetensors"))) == 2


def test_a_transposed_weight_has_its_sides_changed(tmp_path: Path) -> None:
    base = Base(tiny_gpt2(tmp_path / "gpt2"))
    name = base.find("transformer.h.0.attn.c_attn")
    assert name is not None and base.flat_shape(name) == (32, 96)
    plain, turned = base.directions(name), base.directions(name, transposed=True)
    assert plain.left.shape[0] == 32 and turned.left.shape[0] == 96
    assert torch.equal(plain.left, turned.right) and torch.equal(plain.right, turned.left)


def test_weights_are_found_with_and_without_the_prefix_of_their_class(tmp_path: Path) -> None:
    save_file({"h.0.attn.c_attn.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    assert Base(tmp_path).find("transformer.h.0.attn.c_attn") == "h.0.attn.c_attn.weight"
    longer = tmp_path / "longer"
    longer.mkdir()
    save_file({"language_model.model.layers.0.q.weight": torch.ones(2, 2)}, longer / "model.safetensors")
    assert Base(longer).find("model.layers.0.q") == "language_model.model.layers.0.q.weight"
    assert Base(longer).find("model.layers.1.q") is None


def test_integers_are_no_weights_and_damage_is_told(tmp_path: Path) -> None:
    save_file(
        {"q.weight": torch.ones(2, 2, dtype=torch.uint8), "k.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors"
    )
    assert list(Base(tmp_path).shapes) == ["k.weight"]
    (tmp_path / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="damaged"):
        Base(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights in safetensors"):
        Base(tmp_path)
