"""Several adapters by weights, against PEFT's add_weighted_adapter where that is exact; and a merge taken back."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from peft.utils import merge_utils
from torch import Tensor

from rankwise.errors import ModelError, UsageError
from rankwise.export.blend import Blend
from rankwise.export.merge import fold, write_merge
from rankwise.export.mergeplan import Wanted
from rankwise.export.unmerge import undo
from rankwise.model.load import load_base
from tests.export.merging import adapter_of, difference, state
from tests.tiny import tiny_llama

WEIGHTS = (0.7, 0.4)
Q = "model.layers.0.self_attn.q_proj.weight"


def lora(**more: Any) -> LoraConfig:
    values = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | more
    return LoraConfig(**values)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base") / "base", hidden=64, intermediate=128)


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("adapters")
    other = lora(r=8, lora_alpha=4, target_modules=["q_proj", "up_proj"])
    return [adapter_of(base, root / "one", lora(), 1), adapter_of(base, root / "two", other, 2)]


def blended(base: Path, adapters: list[Path], out: Path, blend: Blend) -> dict[str, Tensor]:
    write_merge(base, adapters, out, Wanted(stored="fp32"), blend=blend)
    return state(out)


def deltas(base: Path, adapters: list[Path]) -> list[dict[str, Tensor]]:
    """Each adapter's update of every weight, by PEFT."""
    made = []
    for adapter in adapters:
        model: Any = PeftModel.from_pretrained(load_base(base, dtype="fp32"), adapter)
        layers = model.base_model.model.named_modules()
        made.append({f"{n}.weight": m.get_delta_weight("default") for n, m in layers if hasattr(m, "get_delta_weight")})
    return made


def test_linear_is_the_weighted_sum_as_peft_concatenates_it(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    ours = blended(base, adapters, tmp_path / "out", Blend("linear", WEIGHTS))
    model: Any = PeftModel.from_pretrained(load_base(base, dtype="fp32"), adapters[0], adapter_name="one")
    model.load_adapter(adapters[1], "two")
    model.add_weighted_adapter(["one", "two"], list(WEIGHTS), "both", combination_type="cat")
    model.set_adapter("both")
    share, most = difference(ours, model.merge_and_unload())
    assert most < 200 and share > 0.5  # the last bits of fp32: sums in another order


@pytest.mark.parametrize("density", [0.5, 0.1, 1.0])
def test_ties_is_pefts_on_the_updates(base: Path, adapters: list[Path], tmp_path: Path, density: float) -> None:
    ours = blended(base, adapters, tmp_path / "out", Blend("ties", WEIGHTS, density))
    before = load_base(base, dtype="fp32").state_dict()
    found = deltas(base, adapters)
    both = sorted(found[0].keys() & found[1].keys())
    assert len(both) == 4
    for name in both:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = merge_utils.ties([found[0][name], found[1][name]], torch.tensor(WEIGHTS), density)
        # a number at the edge of the density may fall either way
        near = (ours[name] - before[name] - expected).abs() < 1e-5
        assert float(near.float().mean()) > 0.999


def test_ties_svd_of_full_rank_is_the_same_adapter(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    """PEFT's own adapter of several, where its last step has no rank to cut."""
    same = [adapters[0], adapter_of(base, tmp_path / "third", lora(), 3)]
    ours = blended(base, same, tmp_path / "out", Blend("ties", WEIGHTS, 0.5))
    model: Any = PeftModel.from_pretrained(load_base(base, dtype="fp32"), same[0], adapter_name="one")
    model.load_adapter(same[1], "two")
    model.add_weighted_adapter(
        ["one", "two"], list(WEIGHTS), "both", combination_type="ties_svd", svd_rank=32, density=0.5
    )
    layer = model.base_model.model.model.layers[0].self_attn.k_proj
    name = Q.replace("q_proj", "k_proj")  # 32 x 64: its full rank is 32
    expected = load_base(base, dtype="fp32").state_dict()[name] + layer.get_delta_weight("both")
    near = (ours[name] - expected).abs() < 1e-3
    assert float(near.float().mean()) > 0.999


@pytest.mark.parametrize("how", ["dare_linear", "dare_ties"])
def test_dare_drops_by_its_seed_and_keeps_the_mean(base: Path, adapters: list[Path], tmp_path: Path, how: Any) -> None:
    runs = {
        n: blended(base, adapters, tmp_path / n, Blend(how, WEIGHTS, 0.5, s))
        for n, s in {"a": 0, "b": 0, "c": 1}.items()
    }
    assert all(torch.equal(t, runs["b"][name]) for name, t in runs["a"].items())
    assert not torch.equal(runs["a"][Q], runs["c"][Q])
    only = "model.layers.0.self_attn.k_proj.weight"  # one adapter changes it
    delta = runs["a"][only] - load_base(base, dtype="fp32").state_dict()[only]
    whole = deltas(base, adapters)[0][only]
    zero = delta.abs() < 1e-7
    assert 0.4 < float(zero.float().mean()) < 0.6
    if how == "dare_linear":
        assert torch.allclose(delta[~zero], (WEIGHTS[0] * whole / 0.5)[~zero], atol=1e-5)


def test_a_blend_that_cannot_be_meant_is_refused(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    for wrong in (("ties", WEIGHTS), ("ties", WEIGHTS, 0.0), ("linear", WEIGHTS, 0.5), ("slerp", WEIGHTS)):
        with pytest.raises(UsageError):
            Blend(*wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="2 weights for 1"):
        blended(base, adapters[:1], tmp_path / "out", Blend("linear", WEIGHTS))
    dora = adapter_of(base, tmp_path / "dora", lora(use_dora=True))
    with pytest.raises(ModelError, match="updates are B times A"):
        blended(base, [adapters[0], dora], tmp_path / "out", Blend("linear", WEIGHTS))
    assert not (tmp_path / "out").exists()


# -- taken back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantised", [None, "nf4"])
def test_undone_it_is_the_base_again(base: Path, adapters: list[Path], tmp_path: Path, quantised: Any) -> None:
    wanted = Wanted(quantised=quantised, trained="bf16")
    write_merge(base, adapters[:1], tmp_path / "merged", wanted)
    done = undo(base, adapters[0], tmp_path / "merged", tmp_path / "back", wanted)
    step = torch.finfo(torch.bfloat16).eps
    largest = max(float(t.abs().max()) for t in state(tmp_path / "merged").values())
    assert done.how == "undone" and done.undone_difference is not None and done.undone_equal is not None
    assert done.undone_difference <= step * largest and done.undone_equal > 0.5
    if quantised is None:
        back, before = state(tmp_path / "back"), load_base(base, dtype="bf16").state_dict()
        most = max(float((t.float() - before[n].float()).abs().max()) for n, t in back.items())
        assert most == pytest.approx(done.undone_difference, abs=1e-6)


def test_undone_in_fp32_the_last_bits_alone_differ(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    write_merge(base, adapters[:1], tmp_path / "merged", Wanted(stored="fp32"))
    done = undo(base, adapters[0], tmp_path / "merged", tmp_path / "back", Wanted())
    assert done.undone_difference is not None and done.undone_difference < 1e-5


def test_what_only_the_base_knows_comes_from_the_base(base: Path, tmp_path: Path) -> None:
    dora = adapter_of(base, tmp_path / "dora", lora(use_dora=True))
    fold(base, dora, tmp_path / "merged", dtype="bf16")
    done = undo(base, dora, tmp_path / "merged", tmp_path / "back", Wanted())
    assert (done.undone_difference, done.undone_equal) == (0.0, 1.0) and not done.changed


def test_another_folder_is_no_merge_of_it(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    other = tiny_llama(tmp_path / "other", hidden=32)
    with pytest.raises(ModelError, match="is no merge of this adapter"):
        undo(base, adapters[0], other, tmp_path / "back", Wanted())
    assert not (tmp_path / "back").exists()
