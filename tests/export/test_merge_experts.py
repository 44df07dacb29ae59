"""Experts: a layer's as one parameter in transformers, one by one or together in files; against PEFT's merge, bit for
bit.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.utils import merge_utils
from safetensors.torch import load_file, save_file

from rankwise.errors import ModelError
from rankwise.export.blend import Blend
from rankwise.export.merge import MERGE, fold, write_merge
from rankwise.export.mergeplan import Wanted
from rankwise.export.unmerge import undo
from rankwise.files import read_record
from rankwise.model.load import load_base
from rankwise.records import Merge, MergedTensor
from tests.export.merging import adapter_of, difference, peft_merged, state
from tests.tiny import EXPERTS, tiny_llama, tiny_moe

BOTH = ["experts.gate_up_proj", "experts.down_proj"]
# Families, by how their files hold experts: one by one (w1, w2, w3; gate, up, down), together, together and turned.
FAMILIES = ("mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss", "llama4_text")


def lora(**more: Any) -> LoraConfig:
    values = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": ["o_proj"]} | more
    return LoraConfig(**{"target_parameters": BOTH} | values)


# (family, adapter): every way to hold experts, and every way to scale an update once.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in FAMILIES},
    "alpha 7": ("mixtral", {"lora_alpha": 7}),
    "rslora, turned": ("gpt_oss", {"use_rslora": True}),
    "down alone": ("qwen3_moe", {"target_parameters": ["experts.down_proj"], "target_modules": []}),
    "patterns and router": (
        "mixtral",
        {
            "target_parameters": [*BOTH, "gate.weight"],
            "rank_pattern": {r".*\.down_proj": 2},
            "alpha_pattern": {r".*\.gate_up_proj": 3},
        },
    ),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {name: tiny_moe(root / name, name) for name in FAMILIES}


# -- the same numbers as PEFT ----------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_experts_are_merged_bit_for_bit(bases: dict[str, Path], tmp_path: Path, name: str) -> None:
    family, asked = CASES[name]
    adapter = adapter_of(bases[family], tmp_path / "adapter", lora(**asked))
    expected = peft_merged(bases[family], adapter)
    for dtype in ("fp32", "bf16"):
        merged = state(fold(bases[family], adapter, tmp_path / dtype, dtype=dtype, rounding="nearest"))
        assert difference(merged, expected) == (1.0, 0.0)
    assert difference(merged, load_base(bases[family], dtype="fp32"))[0] < 0.9


def test_the_files_are_those_that_peft_would_save(bases: dict[str, Path], tmp_path: Path) -> None:
    """Names and shapes too: experts lie one by one again, as the base's do."""
    adapter = adapter_of(bases["mixtral"], tmp_path / "adapter", lora())
    fold(bases["mixtral"], adapter, tmp_path / "ours", dtype="bf16", rounding="nearest")
    peft_merged(bases["mixtral"], adapter).to(torch.bfloat16).save_pretrained(tmp_path / "theirs")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert ours.keys() == theirs.keys() and "model.layers.1.block_sparse_moe.experts.3.w2.weight" in ours
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_base_that_was_saved_fused_gets_the_same_numbers(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_of(bases["mixtral"], tmp_path / "adapter", lora())
    fused = tmp_path / "fused"
    load_base(bases["mixtral"], dtype="bf16").save_pretrained(fused, save_original_format=False)
    assert "model.layers.0.mlp.experts.down_proj" in load_file(fused / "model.safetensors")
    merged = state(fold(fused, adapter, tmp_path / "out", dtype="bf16", rounding="nearest"))
    assert difference(merged, peft_merged(bases["mixtral"], adapter)) == (1.0, 0.0)


def test_an_adapter_of_expert_layers_of_an_earlier_transformers_is_merged(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    """There every expert was a linear layer of its own, with the names that files still have."""
    adapter = adapter_of(bases["mixtral"], tmp_path / "adapter", lora(target_parameters=None))
    file, tensors = adapter / "adapter_model.safetensors", {}
    torch.manual_seed(1)
    for layer in range(2):
        for expert in range(EXPERTS):
            for name, (out, into) in {"w1": (96, 64), "w2": (64, 96), "w3": (96, 64)}.items():
                stem = f"base_model.model.model.layers.{layer}.block_sparse_moe.experts.{expert}.{name}"
                tensors[f"{stem}.lora_A.weight"] = torch.randn(4, into)
                tensors[f"{stem}.lora_B.weight"] = torch.randn(out, 4)
    save_file(tensors, file, {"format": "pt"})
    settings = adapter / "adapter_config.json"
    targets = {"target_modules": ["w1", "w2", "w3"], "target_parameters": None}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | targets))
    merged = state(fold(bases["mixtral"], adapter, tmp_path / "out", dtype="fp32"))
    share, most = difference(merged, peft_merged(bases["mixtral"], adapter))
    assert share > 0.9 and most < 16  # PEFT adds zeros in between, and so sums in another order: last bits of fp32


# -- what is said, several, and back ---------------------------------------------------------------


def updated(done: Merge) -> list[MergedTensor]:
    """Without those whose precision alone was changed."""
    return [tensor for tensor in done.changed if tensor.changes]


def test_the_norm_of_every_update_is_told(bases: dict[str, Path], tmp_path: Path) -> None:
    """Of each expert where files hold them apart, of all at once where they do not."""
    for family, tensor in (
        ("mixtral", "model.layers.0.block_sparse_moe.experts.2.w3.weight"),
        ("gpt_oss", "model.layers.0.mlp.experts.gate_up_proj"),
    ):
        base = bases[family]
        adapter = adapter_of(base, tmp_path / f"{family}-adapter", lora())
        out = fold(base, adapter, tmp_path / family, dtype="fp32")
        told = {t.tensor: t.delta_norm for t in updated(read_record(out / MERGE, Merge))}
        before, after = (load_file(f / "model.safetensors")[tensor].float() for f in (base, out))
        assert told[tensor] == pytest.approx(float((after - before).norm()), rel=1e-3)
        assert not any("embed" in name or "router" in name or ".gate." in name for name in told)


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss"])
@pytest.mark.parametrize("how", ["linear", "ties"])
def test_several_are_blended_on_the_updates(bases: dict[str, Path], tmp_path: Path, family: str, how: Any) -> None:
    base = bases[family]
    adapters = [adapter_of(base, tmp_path / str(n), lora(r=r), n) for n, r in ((1, 4), (2, 2))]
    density = 0.5 if how == "ties" else None
    write_merge(base, adapters, tmp_path / "out", Wanted(stored="fp32"), blend=Blend(how, (0.7, 0.4), density))
    merged, before = state(tmp_path / "out"), load_base(base, dtype="fp32").state_dict()
    deltas = [{n: t - before[n] for n, t in peft_merged(base, a).state_dict().items()} for a in adapters]
    for name in (n for n in merged if n.endswith(("experts.down_proj", "experts.gate_up_proj"))):
        found = merged[name] - before[name]
        if how == "linear":
            assert torch.allclose(found, 0.7 * deltas[0][name] + 0.4 * deltas[1][name], atol=1e-5)
        elif family == "gpt_oss":  # cut to what is largest in the tensor as it is stored
            expected = merge_utils.ties([d[name] for d in deltas], torch.tensor((0.7, 0.4)), 0.5)
            assert float(((found - expected).abs() < 1e-5).float().mean()) > 0.999
        assert float(found.norm()) > 0.1


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
def test_undone_they_are_the_base_again(bases: dict[str, Path], tmp_path: Path, family: str) -> None:
    adapter = adapter_of(bases[family], tmp_path / "adapter", lora())
    fold(bases[family], adapter, tmp_path / "merged", dtype="fp32")
    done = undo(bases[family], adapter, tmp_path / "merged", tmp_path / "back", Wanted())
    assert done.undone_difference is not None and done.undone_difference < 1e-5
    merged = read_record(tmp_path / "merged" / MERGE, Merge)
    assert {t.tensor for t in updated(done)} == {t.tensor for t in updated(merged)}


# -- refused ---------------------------------------------------------------------------------------


def refused_of(base: Path, adapter: Path, out: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        fold(base, adapter, out, dtype="bf16")
    assert not out.exists() and not list(out.parent.glob(f".{out.name}.*"))
    return caught.value


def test_what_does_not_fit_is_refused_before_anything_is_written(bases: dict[str, Path], tmp_path: Path) -> None:
    base, out = bases["mixtral"], tmp_path / "out"
    adapter = adapter_of(base, tmp_path / "adapter", lora())
    dense = tiny_llama(tmp_path / "dense", hidden=64)
    assert "mlp.experts" in (error := refused_of(dense, adapter, out)).what and "does not fit this base" in error.what
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = "base_model.model.model.layers.0.mlp.experts.lora_B.weight"
    save_file({**tensors, name: tensors[name][:-1].contiguous()}, file, {"format": "pt"})
    error = refused_of(base, adapter, out)
    assert "does not fit model.layers.0.mlp.experts.down_proj of this base, which is 4 x 64 x 96" in error.what


def test_a_base_without_its_experts_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    """One expert is lost, or all are held in another form: MXFP4, as gpt-oss is published."""
    adapters = {name: adapter_of(bases[name], tmp_path / name, lora()) for name in ("mixtral", "gpt_oss")}
    for family, change, why in (
        ("mixtral", {"model.layers.1.block_sparse_moe.experts.2.w2.weight": ""}, "3 of the 4 experts"),
        ("gpt_oss", {"model.layers.0.mlp.experts.down_proj": "model.layers.0.mlp.experts.down_proj_blocks"}, "do not"),
    ):
        changed = tmp_path / f"changed-{family}"
        shutil.copytree(bases[family], changed)
        tensors = load_file(changed / "model.safetensors")
        kept = {change.get(name, name): tensor for name, tensor in tensors.items() if change.get(name, name)}
        save_file(kept, changed / "model.safetensors", {"format": "pt"})
        assert why in refused_of(changed, adapters[family], tmp_path / "out").what
