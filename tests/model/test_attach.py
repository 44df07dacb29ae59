"""What trains, how many numbers that is, and that the base stays what it was."""

from pathlib import Path

import pytest
import torch

from rankwise.errors import ModelError, UsageError
from rankwise.methods.lora import lora_params
from rankwise.model import load
from rankwise.model.attach import attach, load_adapter, total_params, trainable_params, untouched
from rankwise.model.likelihood import final_logits
from rankwise.model.load import load_base
from rankwise.observe.model import observe_model
from tests.tiny import tiny_config, tiny_gpt2, tiny_llama

PROMPTS = [[1, 5, 9, 40], [7, 8]]


@pytest.fixture(params=["tied", "untied", "gpt2", "odd"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    builders = {
        "tied": lambda: tiny_llama(tmp_path),
        "untied": lambda: tiny_llama(tmp_path, tied=False),
        "gpt2": lambda: tiny_gpt2(tmp_path),
        "odd": lambda: tiny_llama(tmp_path, layers=3, hidden=48, intermediate=112, heads=3, kv_heads=1, vocab=333),
    }
    return builders[request.param]()


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("r", [1, 8])
def test_declared_counts_are_the_real_ones(folder: Path, method: str, r: int) -> None:
    facts = observe_model(str(folder))
    base = load_base(folder, dtype="fp32")
    assert total_params(base) == facts.total_params
    config = tiny_config(method) if method == "full" else tiny_config(method, r=r)
    declared = facts.total_params if method == "full" else lora_params(facts, r, "all-linear")
    assert trainable_params(attach(base, config)) == declared


def test_declared_counts_with_chosen_targets(folder: Path) -> None:
    facts = observe_model(str(folder))
    config = tiny_config(target_modules=(facts.linears[0].name, facts.linears[-1].name))
    model = attach(load_base(folder, dtype="bf16"), config)
    assert trainable_params(model) == lora_params(facts, 4, config.target_modules)


def test_four_bit_counts_and_dtypes(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    folder = tiny_llama(tmp_path, hidden=64, intermediate=128)
    facts = observe_model(str(folder))
    base = load_base(folder, dtype="bf16", four_bit=True)
    assert total_params(base) == facts.total_params
    config = tiny_config("qlora")
    model = attach(base, config)
    declared = lora_params(facts, 4, "all-linear")
    assert trainable_params(model) == declared
    assert total_params(model) == facts.total_params + declared
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    final_logits(model, PROMPTS)  # bitsandbytes repacks the weights for the CPU at the first forward pass
    assert total_params(model) == facts.total_params + declared


def test_four_bit_cannot_train_in_full(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    base = load_base(tiny_llama(tmp_path, hidden=64, intermediate=128), dtype="bf16", four_bit=True)
    with pytest.raises(ModelError, match="4-bit"):
        attach(base, tiny_config("full"))


def test_four_bit_without_bitsandbytes(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError) as error:
        load_base(llama, dtype="bf16", four_bit=True)
    assert "pip install bitsandbytes" in error.value.fix


def test_damaged_weights_are_a_model_error(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    (folder / "model.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(ModelError, match="could not load"):
        load_base(folder, dtype="bf16")


def test_load_is_quiet_and_in_the_asked_precision(untied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = load_base(untied, dtype="fp32")
    assert {p.dtype for p in model.parameters()} == {torch.float32} and not model.training
    assert capfd.readouterr() == ("", "")


def test_full_trains_everything_in_fp32(llama: Path) -> None:
    model = attach(load_base(llama, dtype="fp32"), tiny_config("full"))
    assert model.training and all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())


def test_same_seed_same_adapter_and_the_global_generator_is_left_alone(llama: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = attach(load_base(llama, dtype="fp32"), tiny_config(seed=3))
    assert torch.equal(torch.rand(1), expected)
    second = attach(load_base(llama, dtype="fp32"), tiny_config(seed=3))
    other = attach(load_base(llama, dtype="fp32"), tiny_config(seed=4))
    a, b, c = (next(p for n, p in m.named_parameters() if "lora_A" in n) for m in (first, second, other))
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_checkpointing_changes_no_gradient(llama: Path, method: str) -> None:
    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        config = tiny_config(method, gradient_checkpointing=checkpointing)
        model = attach(load_base(llama, dtype="fp32"), config)
        ids = torch.tensor([[1, 5, 9, 40, 7, 2]])
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        return [p.grad for p in model.parameters() if p.requires_grad and p.grad is not None]

    plain, again = gradients(False), gradients(True)
    assert len(plain) == len(again) > 0
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, again, strict=True))


def test_adapter_off_is_the_base_and_comes_back(llama: Path, tmp_path: Path) -> None:
    base_logits = final_logits(load_base(llama, dtype="fp32"), PROMPTS)
    model = attach(load_base(llama, dtype="fp32"), tiny_config())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    changed = final_logits(model, PROMPTS)
    assert not torch.allclose(changed, base_logits)
    with untouched(model):
        assert torch.equal(final_logits(model, PROMPTS), base_logits)
    assert torch.equal(final_logits(model, PROMPTS), changed) and model.training
    model.save_pretrained(tmp_path / "adapter")
    loaded = load_adapter(load_base(llama, dtype="fp32"), tmp_path / "adapter")
    assert torch.equal(final_logits(loaded, PROMPTS), changed)
    assert trainable_params(loaded) == 0
    again = load_adapter(load_base(llama, dtype="fp32"), tmp_path / "adapter", trainable=True)
    assert trainable_params(again) == trainable_params(model)


def test_full_models_have_no_adapter_to_switch_off(llama: Path) -> None:
    with pytest.raises(ModelError, match="no adapter"), untouched(load_base(llama, dtype="fp32")):
        pass


def test_adapter_for_another_base_is_refused(llama: Path, tmp_path: Path) -> None:
    attach(load_base(llama, dtype="fp32"), tiny_config()).save_pretrained(tmp_path / "adapter")
    other = load_base(tiny_llama(tmp_path / "other", hidden=48, heads=3, kv_heads=1), dtype="fp32")
    with pytest.raises(ModelError, match="does not fit"):
        load_adapter(other, tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"adapter_config.json is missing"):
        load_adapter(other, tmp_path)


def test_targets_that_match_nothing(llama: Path) -> None:
    with pytest.raises(UsageError, match="no module of LlamaForCausalLM has such a name") as caught:
        attach(load_base(llama, dtype="fp32"), tiny_config(target_modules=("nothing",)))
    assert "q_proj" in caught.value.expected
