"""Our merge against PEFT's merge_and_unload, bit for bit; what cannot be merged is refused and leaves nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rankwise.errors import ModelError, SpaceError
from rankwise.export import shards
from rankwise.export.merge import MERGE, fold, write_merge
from rankwise.export.mergeplan import Wanted
from rankwise.files import hash_folder, read_record
from rankwise.methods import AdapterOptions
from rankwise.model.attach import wrap
from rankwise.model.load import load_base
from rankwise.records import Merge, NewTokens
from tests.export.merging import adapter_of, difference, moved, peft_merged, state
from tests.tiny import tiny_gpt2, tiny_llama, tiny_llama_untied

SIZES = {"hidden": 64, "intermediate": 128}
EMBEDDING = "model.embed_tokens"
# Tuners without an operation of ours, that PEFT merges (tests/conformance/test_tuners.py has them all).
LAYERWISE = (
    *("adalora", "loha", "lokr", "hira", "gralora", "delora", "deft", "glora", "miss", "peanut", "vera", "pvera"),
    *("randlora", "vblora", "tinylora", "unilora", "fourierft", "c3a", "road", "oft", "boft", "hra", "supertuning"),
    *("trainable_tokens", "ln_tuning"),
)


def lora(**more: Any) -> LoraConfig:
    values = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | more
    return LoraConfig(**values)


CASES: dict[str, tuple[str, Any]] = {
    "lora": ("tied", lora()),
    "alpha 7": ("tied", lora(lora_alpha=7)),
    "rslora": ("tied", lora(use_rslora=True)),
    "dora": ("tied", lora(use_dora=True)),
    "patterns": ("tied", lora(rank_pattern={"q_proj": 2}, alpha_pattern={"k_proj": 3, "layers.1.mlp.up_proj": 5})),
    "token rows, tied": ("tied", lora(trainable_token_indices={EMBEDDING: [5, 6]})),
    "token rows": ("untied", lora(trainable_token_indices={EMBEDDING: [5, 6], "lm_head": [5, 6]})),
    "whole embedding, tied": ("tied", lora(modules_to_save=[EMBEDDING], ensure_weight_tying=True)),
    "whole embedding and head": ("untied", lora(modules_to_save=[EMBEDDING, "lm_head"])),
    "embedding and head": ("untied", lora(target_modules=["q_proj", "embed_tokens", "lm_head"])),
    "conv1d, biases": ("gpt2", lora(bias="all", fan_in_fan_out=True)),
    "conv1d, bias of B": ("gpt2", lora(lora_bias=True, fan_in_fan_out=True)),
    "ia3": ("tied", IA3Config(task_type="CAUSAL_LM")),
    "ia3, conv1d": ("gpt2", IA3Config(task_type="CAUSAL_LM", fan_in_fan_out=True)),
}
# Lengths of columns are summed row by row here and at once there: the last bits of fp32 differ.
NEARLY = {
    "dora, embedding": ("untied", lora(target_modules=["q_proj", "embed_tokens"], use_dora=True)),
    "dora, conv1d": ("gpt2", lora(use_dora=True, fan_in_fan_out=True)),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    made = {
        "tied": tiny_llama(root / "tied", **SIZES),
        "untied": tiny_llama_untied(root / "untied", **SIZES),
        "gpt2": tiny_gpt2(root / "gpt2", hidden=64),
    }
    model = AutoModelForCausalLM.from_pretrained(made["untied"], dtype=torch.bfloat16)
    shutil.copytree(made["untied"], root / "sharded", ignore=shutil.ignore_patterns("*.safetensors"))
    model.save_pretrained(root / "sharded", max_shard_size="60KB")
    return {**made, "sharded": root / "sharded"}


# -- the same numbers as PEFT ----------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_it_is_merge_and_unload_bit_for_bit(bases: dict[str, Path], tmp_path: Path, name: str, dtype: str) -> None:
    kind, config = CASES[name]
    adapter = adapter_of(bases[kind], tmp_path / "adapter", config)
    out = fold(bases[kind], adapter, tmp_path / "out", dtype=dtype, rounding="nearest")
    assert difference(state(out), peft_merged(bases[kind], adapter)) == (1.0, 0.0)
    assert difference(state(out), load_base(bases[kind], dtype="fp32"))[0] < 1.0


@pytest.mark.parametrize("name", NEARLY)
def test_lengths_of_columns_differ_in_the_last_bits(bases: dict[str, Path], tmp_path: Path, name: str) -> None:
    kind, config = NEARLY[name]
    adapter = adapter_of(bases[kind], tmp_path / "adapter", config)
    out = fold(bases[kind], adapter, tmp_path / "out", dtype="fp32")
    assert difference(state(out), peft_merged(bases[kind], adapter))[1] < 16  # steps of fp32
    as_bf16 = fold(bases[kind], adapter, tmp_path / "bf16", dtype="bf16", rounding="nearest")
    assert difference(state(as_bf16), peft_merged(bases[kind], adapter))[1] <= 2  # one step of bf16, at most


@pytest.mark.parametrize("method", LAYERWISE)
def test_other_tuners_merge_by_their_own_layers(bases: dict[str, Path], tmp_path: Path, method: str) -> None:
    adapter = tmp_path / "adapter"
    wrap(load_base(bases["tied"], dtype="fp32"), method, AdapterOptions(), seed=0).model.save_pretrained(adapter)
    file = adapter / "adapter_model.safetensors"
    torch.manual_seed(0)
    save_file({name: moved(t) for name, t in load_file(file).items()}, file, {"format": "pt"})
    out = fold(bases["tied"], adapter, tmp_path / "out", dtype="fp32")
    assert difference(state(out), peft_merged(bases["tied"], adapter)) == (1.0, 0.0)
    assert difference(state(out), load_base(bases["tied"], dtype="fp32"))[0] < 1.0


@pytest.mark.parametrize("bits", ["four_bit", "eight_bit"])
def test_a_quantised_base_is_dequantised_as_it_was_trained_on(
    bases: dict[str, Path], tmp_path: Path, bits: str
) -> None:
    """From bf16 weights, in bf16: what the forward pass of training saw."""
    adapter = adapter_of(bases["untied"], tmp_path / "adapter", lora())
    options: dict[str, Any] = {bits: True}
    fold(bases["untied"], adapter, tmp_path / "fp32", dtype="fp32", **options)
    assert difference(state(tmp_path / "fp32"), peft_merged(bases["untied"], adapter, **options)) == (1.0, 0.0)
    wanted = Wanted(quantised="nf4" if bits == "four_bit" else "int8", trained="bf16", stored="fp32")
    done = write_merge(bases["untied"], [adapter], tmp_path / "bf16", wanted)
    # int8 is made of fp16 and multiplied in int32: its values are exact in fp32, those of NF4 are rounded to bf16
    model: Any = load_base(bases["untied"], dtype="bf16" if bits == "four_bit" else "fp32", **options)
    seen = model.dequantize().state_dict()
    merged, plain = state(tmp_path / "bf16"), peft_merged(bases["untied"], adapter).state_dict()
    base = load_base(bases["untied"], dtype="fp32").state_dict()
    for name, tensor in merged.items():
        assert torch.allclose(tensor - plain[name], seen[name].float() - base[name], atol=1e-5), name
    told = {t.tensor: t for t in done.changed}
    q = "model.layers.0.self_attn.q_proj.weight"
    assert told[q].quantisation_error == pytest.approx(float((seen[q].float() - base[q]).norm()), rel=1e-3)
    assert told[q].delta_norm == pytest.approx(float((plain[q] - base[q]).norm()), rel=1e-3)
    assert "lm_head.weight" not in told or told["lm_head.weight"].quantisation_error is None


# -- the files -------------------------------------------------------------------------------------


def test_the_files_are_laid_out_as_the_base_is(bases: dict[str, Path], tmp_path: Path) -> None:
    base = bases["sharded"]
    adapter = adapter_of(base, tmp_path / "adapter", lora())
    out = fold(base, adapter, tmp_path / "out", dtype="bf16", rounding="nearest")
    assert difference(state(out), peft_merged(base, adapter)) == (1.0, 0.0)
    indices = [json.loads((f / "model.safetensors.index.json").read_text()) for f in (base, out)]
    assert indices[0]["weight_map"] == indices[1]["weight_map"] and len(set(indices[1]["weight_map"].values())) > 3
    assert indices[0]["metadata"]["total_size"] == indices[1]["metadata"]["total_size"]
    for file in base.glob("*.safetensors"):
        assert (out / file.name).stat().st_size == file.stat().st_size
        with safe_open(out / file.name, framework="pt") as opened:
            assert opened.metadata() == {"format": "pt"}


def test_tied_weights_stay_tied_and_untouched_tensors_are_the_same_bytes(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter = adapter_of(bases["tied"], tmp_path / "adapter", lora(target_modules=["q_proj"]))
    out = fold(bases["tied"], adapter, tmp_path / "out", dtype="bf16")
    before, after = (load_file(f / "model.safetensors") for f in (bases["tied"], out))
    assert "lm_head.weight" not in after and before.keys() == after.keys()
    changed = [name for name, tensor in after.items() if not torch.equal(tensor, before[name])]
    assert changed == [name for name in after if "q_proj" in name]
    done = read_record(out / MERGE, Merge)
    assert (len(done.changed), done.copied) == (len(changed), len(after) - len(changed))
    assert done.largest_tensor_bytes == before["model.embed_tokens.weight"].nbytes
    assert (out / "tokenizer.json").is_file() and (out / "chat_template.jinja").is_file()


def test_new_tokens_get_rows_and_the_vocabulary_grows(bases: dict[str, Path], tmp_path: Path) -> None:
    from rankwise.model.vocabulary import extend

    base, new = bases["untied"], NewTokens(ids=(320, 321), pieces=((5, 6), (7,)), rows=322)
    adapter = adapter_of(base, tmp_path / "adapter", lora(target_modules=["q_proj"]))
    write_merge(base, [adapter], tmp_path / "out", Wanted(new_tokens=new, trained="bf16"))
    expected = extend(load_base(base, dtype="bf16"), new)
    merged = state(tmp_path / "out")
    for name, module in (("model.embed_tokens", expected.get_input_embeddings()), ("lm_head", expected.lm_head)):
        assert torch.equal(merged[f"{name}.weight"], module.weight)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 322


# -- refused ---------------------------------------------------------------------------------------


def refused_of(base: Path, adapter: Path, out: Path, **more: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        fold(base, adapter, out, dtype="bf16", **more)
    assert not out.exists() and not list(out.parent.glob(f".{out.name}.*"))
    return caught.value


def test_wrong_shapes_and_missing_modules_are_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    wider = tiny_llama(tmp_path / "wider", hidden=128, intermediate=128)
    adapter = adapter_of(bases["tied"], tmp_path / "adapter", lora())
    error = refused_of(wider, adapter, tmp_path / "out")
    assert "down_proj.weight of this base, which is 128 x 128: its update is 64 x 128" in error.what
    error = refused_of(bases["gpt2"], adapter, tmp_path / "out")
    assert "does not fit this base" in error.what and "which the files of" in error.what
    deeper = adapter_of(tiny_llama(tmp_path / "deeper", layers=3, **SIZES), tmp_path / "third", lora())
    assert "layers.2" in refused_of(bases["tied"], deeper, tmp_path / "out").what


def test_an_adapter_that_is_not_finite_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_of(bases["tied"], tmp_path / "adapter", lora())
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    next(t for name, t in tensors.items() if "up_proj.lora_B" in name)[0] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    assert "up_proj.weight is not finite" in refused_of(bases["tied"], adapter, tmp_path / "out").what


def test_an_adapter_without_its_half_and_one_out_of_the_base_are_refused(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter = adapter_of(bases["tied"], tmp_path / "adapter", lora())
    settings = adapter / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"init_lora_weights": "pissa"}))
    assert "as a part of the base" in refused_of(bases["tied"], adapter, tmp_path / "out").what
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors.pop(next(name for name in tensors if "lora_B" in name))
    save_file(tensors, file, {"format": "pt"})
    assert "and no" in refused_of(bases["tied"], adapter, tmp_path / "out").what


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("prompt", "at every request"),
        ("p_tuning", "at every request"),
        ("poly", "task of each request"),
        ("lily", "router"),
        ("shadow", "beside the frozen one"),
        ("osf", "decomposition"),
        ("psoft", "decomposition"),
        ("beft", "no bias"),
    ],
)
def test_what_is_no_change_of_the_weights_is_refused(
    bases: dict[str, Path], tmp_path: Path, method: str, why: str
) -> None:
    adapter = tmp_path / "adapter"
    wrap(load_base(bases["tied"], dtype="fp32"), method, AdapterOptions(), seed=0).model.save_pretrained(adapter)
    assert why in refused_of(bases["tied"], adapter, tmp_path / "out").what


def test_a_disk_without_room_leaves_nothing(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = adapter_of(bases["tied"], tmp_path / "adapter", lora())
    before = hash_folder(bases["tied"])

    def full(file: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards.os, "posix_fallocate", full)
    with pytest.raises(SpaceError, match="is full"):
        fold(bases["tied"], adapter, tmp_path / "out", dtype="bf16")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    monkeypatch.setattr("rankwise.files.free_bytes", lambda folder: 1000)
    with pytest.raises(SpaceError, match="not enough disk for the merged model"):
        fold(bases["tied"], adapter, tmp_path / "out", dtype="bf16")
    assert hash_folder(bases["tied"]) == before


def test_a_base_that_is_cut_off_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_of(bases["tied"], tmp_path / "adapter", lora())
    cut = tmp_path / "cut"
    shutil.copytree(bases["tied"], cut)
    file = cut / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "is cut off" in refused_of(cut, adapter, tmp_path / "out").what
    file.write_bytes(b"\xff" * 40)
    assert "is damaged" in refused_of(cut, adapter, tmp_path / "out").what
