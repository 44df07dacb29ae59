"""The adapter store: what is kept is what was put, and nothing that attacks a server is taken in."""

import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

from rankwise.errors import AdapterError
from rankwise.files import hash_folder
from rankwise.model.bottleneck import attach_bottleneck
from rankwise.observe.model import observe_model
from rankwise.serve.adapterstore import AdapterStore, default_root
from tests.serve.adapters import BASE, CONFIG, PREFIX, adapter, raw, tensors
from tests.tiny import tiny_llama
from tests.training import environment

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(params=["folder", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> AdapterStore:
    root = {
        "folder": str(tmp_path / "kept"),
        "file": f"file://{tmp_path}/kept",
        "memory": f"memory://{tmp_path.name}/kept",
    }[request.param]
    return AdapterStore(root, cache=tmp_path / "cache")


def local(tmp_path: Path, **limits: int) -> AdapterStore:
    return AdapterStore(str(tmp_path / "kept"), **limits)


def kept(tmp_path: Path) -> list[str]:
    """What a refused adapter leaves behind."""
    folder = tmp_path / "kept"
    return [path.name for path in folder.rglob("*")] if folder.exists() else []


def test_files_come_back_as_they_were_put_under_the_hash_of_their_content(store: AdapterStore, tmp_path: Path) -> None:
    made = adapter(tmp_path / "made")
    sha256 = store.put(made, BASE)
    assert store.put(made, BASE) == sha256
    assert hash_folder(store.open(sha256)) == hash_folder(made)
    (made / "README.md").write_text("# Another\n")
    assert store.put(made, BASE) != sha256


@pytest.mark.parametrize("sha256", ["0" * 64, "../made", "", "A" * 64, "0" * 63])
def test_what_is_not_there_is_refused(store: AdapterStore, sha256: str) -> None:
    with pytest.raises(AdapterError):
        store.open(sha256)


def test_files_that_were_changed_in_the_store_are_not_handed_out(tmp_path: Path) -> None:
    store = local(tmp_path)
    made = adapter(tmp_path / "made")
    sha256 = store.put(made, BASE)
    (tmp_path / "kept" / sha256 / "README.md").write_text("changed")
    with pytest.raises(AdapterError, match="changed since"):
        store.open(sha256)
    assert store.put(made, BASE) == sha256  # put again, it is mended
    assert hash_folder(store.open(sha256)) == hash_folder(made)


def test_a_damaged_copy_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    store = AdapterStore(f"memory://{tmp_path.name}/damaged", cache=tmp_path / "cache")
    sha256 = store.put(adapter(tmp_path / "made"), BASE)
    (store.open(sha256) / WEIGHTS).write_bytes(b"half")
    assert hash_folder(store.open(sha256)) == hash_folder(tmp_path / "made")


def test_a_bucket_that_was_tampered_with_is_not_believed(tmp_path: Path) -> None:
    import fsspec

    store = AdapterStore(f"memory://{tmp_path.name}/bucket", cache=tmp_path / "cache")
    sha256 = store.put(adapter(tmp_path / "made"), BASE)
    files, root = fsspec.core.url_to_fs(store.root)
    manifest = json.loads(files.cat_file(f"{root}/{sha256}.json"))
    files.pipe_file(f"{root}/{sha256}/{WEIGHTS}", b"other weights")
    with pytest.raises(AdapterError, match="changed since"):
        store.open(sha256)
    files.pipe_file(f"{root}/{sha256}.json", json.dumps({**manifest, "../../escaped": "0"}).encode())
    with pytest.raises(AdapterError, match="names files that no adapter has"):
        store.open(sha256)
    assert not list((tmp_path / "cache").glob("[0-9a-f]*"))


def test_a_store_that_cannot_be_reached_is_one_error(tmp_path: Path) -> None:
    for root in ("nonsense://x/y", "s3://bucket/adapters", f"http://127.0.0.1:1/{tmp_path.name}"):
        with pytest.raises(AdapterError, match="cannot be reached"):
            AdapterStore(root, cache=tmp_path / "cache").open("0" * 64)


def test_two_processes_put_one_adapter_at_once(tmp_path: Path) -> None:
    made = adapter(tmp_path / "made")
    code = (
        "import sys; from pathlib import Path\n"
        "from rankwise.serve.adapterstore import AdapterStore; from tests.serve.adapters import BASE\n"
        "for _ in range(20): print(AdapterStore(sys.argv[2]).put(Path(sys.argv[1]), BASE))"
    )
    given = {**environment(), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(made), str(tmp_path / "kept")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=given) for _ in range(2)]
    said = {line for process in both for line in process.communicate(timeout=120)[0].split()}
    assert len(said) == 1 and all(process.returncode == 0 for process in both)
    assert hash_folder(local(tmp_path).open(said.pop())) == hash_folder(made)


def test_real_adapters_of_peft_are_taken_in(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "base")
    base = observe_model(str(folder))
    asked: list[Any] = [
        LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
        LoraConfig(r=4, target_modules=["q_proj", "down_proj"], use_dora=True, use_rslora=True, task_type="CAUSAL_LM"),
        LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM"),
        LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=[1, 2], task_type="CAUSAL_LM"),
        IA3Config(task_type="CAUSAL_LM"),
        PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    ]
    for number, config in enumerate(asked):
        get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config).save_pretrained(tmp_path / f"{number}")
        assert local(tmp_path).put(tmp_path / f"{number}", base)
    attach_bottleneck(AutoModelForCausalLM.from_pretrained(folder), 4, "houlsby").save_pretrained(tmp_path / "ours")
    assert local(tmp_path).put(tmp_path / "ours", base)


def test_an_adapter_that_brings_weights_of_the_base_is_refused(tmp_path: Path) -> None:
    """PEFT would load them into the base that other tenants stand on."""
    folder = tiny_llama(tmp_path / "base")
    config = LoraConfig(r=4, target_modules=["embed_tokens", "v_proj"], task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config).save_pretrained(tmp_path / "saved")
    with pytest.raises(AdapterError, match="overwrite what all tenants share"):
        local(tmp_path).put(tmp_path / "saved", observe_model(str(folder)))
    smuggled = {**tensors(), "base_model.model.model.embed_tokens.weight": np.ones((BASE.vocab_size, BASE.hidden_size))}
    with pytest.raises(AdapterError, match="overwrite what all tenants share"):
        local(tmp_path).put(adapter(tmp_path / "smuggled", smuggled), BASE)


# -- attacks ---------------------------------------------------------------------------------------


def refused(tmp_path: Path, words: str, spoil: Callable[[Path], object], **config: Any) -> None:
    """An adapter that `spoil` made bad is refused with these words, and nothing of it is kept."""
    made = adapter(tmp_path / "made", **config)
    spoil(made)
    with pytest.raises(AdapterError, match=words):
        local(tmp_path).put(made, BASE)
    assert kept(tmp_path) == []


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {os.environ['RANKWISE_BOMB']}",)


@pytest.mark.parametrize("form", ["torch", "old torch", "pickle", "zip"])
@pytest.mark.parametrize("name", ["adapter_model.bin", "extra.pt", "training_args.bin", "x.pkl", WEIGHTS])
def test_a_pickle_is_refused_by_its_name_and_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, name: str
) -> None:
    monkeypatch.setenv("RANKWISE_BOMB", str(tmp_path / "exploded"))

    def spoil(made: Path) -> None:
        if form.endswith("torch"):
            torch.save({"x": Bomb()}, made / name, _use_new_zipfile_serialization=form == "torch")
        elif form == "pickle":
            (made / name).write_bytes(pickle.dumps(Bomb()))
        else:
            with zipfile.ZipFile(made / name, "w") as archive:
                archive.writestr("data.pkl", pickle.dumps(Bomb()))

    refused(tmp_path, "pickle", spoil)
    assert not (tmp_path / "exploded").exists()


def test_links_folders_pipes_and_unknown_names_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("{}")
    ways: dict[str, Callable[[Path], object]] = {
        "no link": lambda made: (made / "tokenizer.json").symlink_to(secret),
        "is no file of an adapter": lambda made: (made / "sub").mkdir(),
        "no plain file": lambda made: os.mkfifo(made / "tokenizer.json"),
        "'run.py' is no file": lambda made: (made / "run.py").write_text("print()"),
        r"'\.hidden' is no file": lambda made: (made / ".hidden").write_text(""),
    }
    for number, (words, spoil) in enumerate(ways.items()):
        refused(tmp_path / str(number), words, spoil)
    linked = tmp_path / "linked"
    linked.symlink_to(adapter(tmp_path / "real"))
    with pytest.raises(AdapterError, match="is no folder"):
        local(tmp_path).put(linked, BASE)


def test_an_adapter_beyond_the_limits_of_size_and_rank_is_refused(tmp_path: Path) -> None:
    made = adapter(tmp_path / "made")
    with pytest.raises(AdapterError, match="larger than"):
        local(tmp_path, max_bytes=1000).put(made, BASE)
    with pytest.raises(AdapterError, match="rank 4"):
        local(tmp_path, max_rank=2).put(made, BASE)
    wide = adapter(tmp_path / "wide", tensors(r=16))  # a config that says 4, and tensors of rank 16
    with pytest.raises(AdapterError, match="does not fit"):
        local(tmp_path, max_rank=8).put(wide, BASE)
    assert kept(tmp_path) == []


def test_a_sparse_file_of_a_terabyte_fills_no_disk(tmp_path: Path) -> None:
    made = adapter(tmp_path / "made")
    with (made / WEIGHTS).open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(AdapterError, match="larger than 5 MB"):
        local(tmp_path, max_bytes=5_000_000).put(made, BASE)
    assert kept(tmp_path) == []


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HEADERS: dict[str, tuple[Any, bytes, int | None]] = {
    "a length beyond the file": ({"x": ENTRY}, bytes(8), 1 << 40),
    "a length of all bits": ({"x": ENTRY}, bytes(8), (1 << 64) - 1),
    "an empty header": ("", b"", 0),
    "offsets that overlap": ({"x": ENTRY, "y": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12), None),
    "two tensors of the same bytes": ({"x": ENTRY, "y": ENTRY}, bytes(8), None),
    "a gap": ({"x": ENTRY, "y": {**ENTRY, "data_offsets": [16, 24]}}, bytes(24), None),
    "an end outside the file": ({"x": {**ENTRY, "shape": [20], "data_offsets": [0, 80]}}, bytes(8), None),
    "bytes after the last tensor": ({"x": ENTRY}, bytes(80), None),
    "a shape of another size": ({"x": {**ENTRY, "shape": [3]}}, bytes(8), None),
    "a shape that overflows": ({"x": {**ENTRY, "shape": [1 << 62, 1 << 62]}}, bytes(8), None),
    "a negative offset": ({"x": {**ENTRY, "data_offsets": [-8, 0]}}, bytes(8), None),
    "an offset that is text": ({"x": {**ENTRY, "data_offsets": ["0", "8"]}}, bytes(8), None),
    "no JSON": ("{" * 64, b"", None),
    "JSON that is deep": ("[" * 100_000, b"", None),
    "a list": ("[1, 2]", b"", None),
    "a key twice": ('{"x":' + json.dumps(ENTRY) + ',"x":' + json.dumps(ENTRY) + "}", bytes(8), None),
    "an unknown type": ({"x": {**ENTRY, "dtype": "Q9"}}, bytes(8), None),
    "whole numbers": ({"x": {**ENTRY, "dtype": "I32"}}, bytes(8), None),
    "no tensors": ({}, b"", None),
    "a name that is a path": ({"../../x": ENTRY}, bytes(8), None),
}


NAMED = {"whole numbers", "a name that is a path"}  # told by the tensor's name


@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_lie_are_refused(tmp_path: Path, case: str) -> None:
    header, body, length = HEADERS[case]
    refused(
        tmp_path,
        WEIGHTS if case not in NAMED else "dtype|no tensor",
        lambda made: raw(made / WEIGHTS, header, body, length),
    )


def test_a_header_that_would_take_memory_is_not_read(tmp_path: Path) -> None:
    refused(tmp_path, "says its header has", lambda made: raw(made / WEIGHTS, "x" * 17_000_000))


def test_an_empty_or_cut_file_is_refused(tmp_path: Path) -> None:
    for size in (0, 3, 8, 100):
        refused(tmp_path / str(size), "header|damaged", lambda made, n=size: os.truncate(made / WEIGHTS, n))  # type: ignore[misc]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, "bf16"])
def test_a_single_number_that_is_none_is_found(tmp_path: Path, value: float, kind: Any) -> None:
    from safetensors.torch import save_file

    values = {n: torch.tensor(t) for n, t in tensors().items()}
    values = {
        n: t.to(torch.bfloat16) if kind == "bf16" else torch.tensor(t.numpy().astype(kind)) for n, t in values.items()
    }
    made = adapter(tmp_path / "made")
    save_file(values, made / WEIGHTS)
    assert local(tmp_path).put(made, BASE)  # large and small numbers are no fault
    list(values.values())[-1].view(-1)[-1] = value
    save_file(values, made / WEIGHTS)
    with pytest.raises(AdapterError, match="NaN or infinity"):
        local(tmp_path).put(made, BASE)


def test_an_adapter_of_another_base_does_not_fit(tmp_path: Path) -> None:
    wrong: dict[str, dict[str, np.ndarray]] = {
        "another width": {n: np.ones((s.shape[0] * 2, s.shape[1]), np.float32) for n, s in tensors().items()},
        "more layers": {f"{PREFIX}.99.self_attn.q_proj.lora_A.weight": np.ones((4, 4), np.float32)},
        "A without B": {n: t for n, t in tensors().items() if "lora_A" in n},
        "a module that is not there": {n.replace("q_proj", "qkv_proj"): t for n, t in tensors().items()},
        "a tensor of the base": {f"{PREFIX}.0.self_attn.q_proj.weight": np.ones((32, 32), np.float32)},
        "three dimensions": {n: t[None] for n, t in tensors().items()},
        "nothing in it": {n: t[:0] for n, t in tensors().items()},
    }
    for number, values in enumerate(wrong.values()):
        made = adapter(tmp_path / str(number), values)
        with pytest.raises(AdapterError):
            local(tmp_path).put(made, BASE)
    assert kept(tmp_path) == []


CONFIGS: dict[str, dict[str, Any]] = {
    "imports a module by name": {"megatron_config": {"x": 1}, "megatron_core": "os"},
    "asks to import": {"auto_mapping": {"parent_library": "antigravity", "base_model_class": "x"}},
    "the base that all tenants share": {"layer_replication": [[0, 2]]},
    "biases of the base": {"bias": "all"},
    "rewrites the base's weights": {"init_lora_weights": "pissa"},
    "and these, too": {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}},
    "a method of nobody": {"peft_type": "XLORA"},
    "no method": {"peft_type": None},
    "a method that is a list": {"peft_type": ["LORA"]},
    "rank 0": {"r": 0},
    "rank true": {"r": True},
    "rank in words": {"r": "8"},
    "a large rank for one module": {"rank_pattern": {"q_proj": 100_000}},
    "ranks that are a list": {"rank_pattern": [8]},
    "an alpha that is none": {"lora_alpha": "1e999"},
    "an infinite alpha": {"alpha_pattern": {"q_proj": float("inf")}},
    "a pattern without end": {"target_modules": "(a+)+" * 1000},
    "modules that are numbers": {"modules_to_save": [1]},
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configurations_that_reach_beyond_the_adapter_are_refused(tmp_path: Path, case: str) -> None:
    refused(tmp_path, "adapter_config.json", lambda made: None, **CONFIGS[case])


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, "\ud800", '"LORA"'])
def test_a_configuration_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    content = text.encode("utf-8", "surrogatepass")
    refused(tmp_path, "adapter_config.json", lambda made: (made / "adapter_config.json").write_bytes(content))


def test_the_plain_configuration_is_taken_in(tmp_path: Path) -> None:
    assert CONFIG["peft_type"] == "LORA" and local(tmp_path).put(adapter(tmp_path / "made"), BASE)


def test_the_default_lies_in_the_users_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANKWISE_ADAPTERS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_root() == "/data/rankwise/adapters"
    monkeypatch.setenv("RANKWISE_ADAPTERS", "s3://bucket/adapters")
    assert default_root() == "s3://bucket/adapters"
