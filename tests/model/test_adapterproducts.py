"""The products that are read of an adapter, against PEFT's own `get_delta_weight`: each kind of LoRA, every scale."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rankwise.errors import ModelError
from rankwise.methods import METHODS, AdapterOptions
from rankwise.model.adapterproducts import PREFIX, AdapterFolder, live_products, scale_of
from rankwise.model.attach import attach, wrap
from rankwise.model.load import load_base
from rankwise.model.products import Product, singular_values
from rankwise.model.trained import publish_weights
from tests.tiny import tiny_config, tiny_gpt2, tiny_llama, tiny_llama_untied
from tests.training import toy_model

FAMILY = ("lora", "qlora", "lora-8bit", "rslora", "dora", "pissa")


def moved(model: Any) -> Any:
    """As after training: every trained tensor elsewhere."""
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def deltas(model: Any) -> dict[str, Tensor]:
    """Module -> what PEFT adds to its weight."""
    return {
        name.removeprefix(PREFIX): layer.get_delta_weight("default").detach().float()
        for name, layer in model.named_modules()
        if hasattr(layer, "get_delta_weight") and ("default" in layer.lora_A or "default" in layer.lora_embedding_A)
    }


def dense(product: Product) -> Tensor:
    whole = product.scale * product.b.float() @ product.a.float()
    return whole.T if product.transposed else whole


def same(products: Any, expected: dict[str, Tensor], atol: float = 1e-5) -> None:
    found = {p.module: p for p in products}
    assert found.keys() == expected.keys() and found
    for module, delta in expected.items():
        assert torch.allclose(dense(found[module]), delta.reshape(dense(found[module]).shape), atol=atol), module
        largest = torch.linalg.svdvals(delta.flatten(1).double())
        values = singular_values(found[module]).product.double()
        assert torch.allclose(values, largest[: len(values)], rtol=0, atol=1e-4 * float(largest[0]))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("toy"))


@pytest.mark.parametrize("method", FAMILY)
def test_files_and_the_model_in_training_give_what_peft_adds(method: str, model_folder: Path, tmp_path: Path) -> None:
    four, eight = method == "qlora", method == "lora-8bit"
    base = load_base(model_folder, dtype="fp32", four_bit=four, eight_bit=eight)
    model = attach(base, tiny_config(method, r=8, lora_alpha=20.0))
    before = deltas(model)
    model = moved(model)
    update = deltas(model)
    if method == "pissa":  # what was put in is no update: the base gave it away
        update = {module: after - before[module] for module, after in update.items()}
    same(live_products(model), update, atol=1e-4)
    publish_weights(model, tmp_path)
    same(AdapterFolder.open(tmp_path).products(), update, atol=1e-4)
    assert AdapterFolder.open(tmp_path).no_spectrum() is None
    assert bool(AdapterFolder.open(tmp_path).remarks()) == (method == "dora")


def test_lora_plus_is_lora_with_another_rate(model_folder: Path) -> None:
    model = moved(attach(load_base(model_folder, dtype="fp32"), tiny_config("lora", loraplus_lr_ratio=16.0)))
    same(live_products(model), deltas(model))


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_patterns_of_rank_and_alpha_are_those_of_peft(make: Callable[..., Path], tmp_path: Path) -> None:
    base = load_base(make(tmp_path / "base", dtype="fp32"), dtype="fp32")
    leaf = "c_proj" if make is tiny_gpt2 else "q_proj"
    patterns = {leaf: 3, r".*layers\.1\.self_attn\.v_proj": 5}
    more = {"rank_pattern": patterns, "alpha_pattern": {"v_proj": 7.0, leaf: 24.0}, "use_rslora": True}
    model = moved(wrap(base, "lora", AdapterOptions(8, 16.0, target_modules="all-linear", more=more), seed=0).model)
    publish_weights(model, tmp_path / "adapter")
    adapter = AdapterFolder.open(tmp_path / "adapter")
    same(adapter.products(), deltas(model))
    scales = {p.module: p.scale for p in adapter.products()}
    assert len(set(scales.values())) > 1
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_A"):
            assert scales[name.removeprefix(PREFIX)] == pytest.approx(layer.scaling["default"])
    same(live_products(model), deltas(model))


def test_an_alpha_pattern_is_matched_as_peft_matches_it() -> None:
    patterns = {"proj": 1.0, "q_proj": 2.0, r"layers\.0\..*": 3.0, "layers.1.mlp": 4.0}
    names = ["layers.0.q_proj", "layers.1.q_proj", "q_proj", "layers.1.mlp", "a.layers.1.mlp", "x_q_proj", "proj"]
    for name in names:
        key = peft.utils.other.get_pattern_key(patterns.keys(), name)
        config = {"alpha_pattern": patterns, "lora_alpha": 16}
        assert scale_of(config, name, 2) == patterns.get(key, 16) / 2


@pytest.mark.parametrize("make", [tiny_llama, tiny_llama_untied])
def test_embeddings_have_their_products(make: Callable[..., Path], tmp_path: Path) -> None:
    base = load_base(make(tmp_path / "base", dtype="fp32"), dtype="fp32")
    targets = ["embed_tokens", "q_proj", *(["lm_head"] if make is tiny_llama_untied else [])]
    model = moved(get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=targets)))
    model.save_pretrained(tmp_path / "adapter")
    same(AdapterFolder.open(tmp_path / "adapter").products(), deltas(model))
    same(live_products(model), deltas(model))


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow, self.line = nn.Conv2d(6, 8, 3), nn.Conv2d(8, 4, 1), nn.Conv1d(4, 5, 3)


def test_convolutions_are_flat_matrices(tmp_path: Path) -> None:
    targets = ["wide", "narrow", "line"]
    model = moved(get_peft_model(Convolutions(), LoraConfig(r=3, lora_alpha=9, target_modules=targets)))
    model.save_pretrained(tmp_path)
    same(AdapterFolder.open(tmp_path).products(), deltas(model))
    same(live_products(model), deltas(model))


def test_whole_modules_are_listed_and_are_no_products(model_folder: Path, tmp_path: Path) -> None:
    base = load_base(model_folder, dtype="fp32")
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["o_proj"]))
    model.save_pretrained(tmp_path)
    adapter = AdapterFolder.open(tmp_path)
    assert {name.split(".")[-2] for name in adapter.whole.values()} == {"o_proj"} and len(adapter.whole) == 2
    assert all(module.endswith("q_proj") for module in adapter.pairs)


def test_tensors_that_one_process_holds_in_part_are_taken_from_the_whole_state(model_folder: Path) -> None:
    model = moved(attach(load_base(model_folder, dtype="fp32"), tiny_config("lora")))
    state = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    expected = deltas(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    same(live_products(model, state), expected)


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(FAMILY) - {"full"}))
def test_methods_without_a_product_say_why(method: str, model_folder: Path, tmp_path: Path) -> None:
    changes = {"num_virtual_tokens": 4} if method in ("prompt", "prefix", "p_tuning") else {}
    model = attach(load_base(model_folder, dtype="fp32"), tiny_config(method, **changes))
    assert list(live_products(model)) == []
    model.save_pretrained(tmp_path)
    why = AdapterFolder.open(tmp_path).no_spectrum()
    assert why and len(why) > 40


@pytest.mark.parametrize("key", ["pissa", "olora"])
def test_a_product_that_began_as_a_part_of_the_base_is_no_update(key: str, model_folder: Path, tmp_path: Path) -> None:
    base = load_base(model_folder, dtype="fp32")
    get_peft_model(base, LoraConfig(r=4, init_lora_weights=key, target_modules=["q_proj"])).save_pretrained(tmp_path)
    assert key in (AdapterFolder.open(tmp_path).no_spectrum() or "")


def test_another_tuner_is_refused_by_name(model_folder: Path, tmp_path: Path) -> None:
    base = load_base(model_folder, dtype="fp32")
    get_peft_model(base, peft.LoHaConfig(r=4, target_modules=["q_proj"])).save_pretrained(tmp_path)
    adapter = AdapterFolder.open(tmp_path)
    assert adapter.method == "loha" and "LOHA" in (adapter.no_spectrum() or "")


@pytest.fixture
def adapter(model_folder: Path, tmp_path: Path) -> Path:
    attach(load_base(model_folder, dtype="fp32"), tiny_config("lora")).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_damaged_adapters_are_refused(adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({n: t for n, t in tensors.items() if not n.endswith("0.mlp.up_proj.lora_B.weight")}, file)
    with pytest.raises(ModelError, match=r"and no .*lora_B"):
        AdapterFolder.open(adapter)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ModelError, match="damaged"):
        AdapterFolder.open(adapter)
    file.rename(adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match="can run code"):
        AdapterFolder.open(adapter)
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match="damaged"):
        AdapterFolder.open(adapter)
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(ModelError, match=r"adapter_config\.json is missing"):
        AdapterFolder.open(adapter)


def test_the_configuration_is_read_as_it_is_written(adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    opened = AdapterFolder.open(adapter)
    assert opened.config == config and opened.method == "lora"
    shapes = opened.shapes()
    assert shapes["model.layers.0.mlp.up_proj"] == (128, 64) and len(shapes) == 14
