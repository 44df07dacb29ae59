"""An adapter's file counted on three layers is that of all, to the byte."""

from typing import Any

import pytest

from rankwise.methods import TUNERS
from rankwise.observe.catalogue import find_architecture
from rankwise.records.setup import Setup
from rankwise.trace import adapterfile
from rankwise.trace.adapterfile import adapter_file
from tests.trace.families import FAMILIES, UNLIKE, setup

ADAPTERS = [t.name for t in TUNERS.values() if t.name != "full" and not t.untraceable]
DEEP = {"num_hidden_layers": 12, "n_layer": 12}  # indices of one and of two digits
OWN_TARGETS = {"gpt2": ("c_attn",), "bloom": ("query_key_value",), "opt": ("q_proj", "v_proj")}


def counted(of: Setup, monkeypatch: pytest.MonkeyPatch) -> tuple[int | None, list[int | None]]:
    """The bytes, and how many layers the models had that an adapter was put on (None: all)."""
    depths: list[int | None] = []
    plain = adapterfile.build

    def build(setup: Setup, layers: int | None = None) -> Any:
        depths.append(layers)
        return plain(setup, layers)

    monkeypatch.setattr(adapterfile, "build", build)
    return adapter_file(of), depths


@pytest.mark.parametrize("method", ADAPTERS)
def test_of_every_method(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of = setup("llama", method, r=None, config=DEEP | {"num_key_value_heads": 4, "intermediate_size": 128})
    whole = adapter_file(of, whole=True)
    short, depths = counted(of, monkeypatch)
    assert short == whole
    if TUNERS[method].spans_layers:
        assert depths == [None]


@pytest.mark.parametrize("method", ["lora", "qlora", "dora", "bottleneck", "ia3", "prompt", "ln_tuning"])
def test_usual_methods_are_counted_on_three_layers(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of = setup("llama", method, r=None if method in ("ia3", "prompt") else 4, config=DEEP)
    if method == "prompt":
        assert adapter_file(of) == adapter_file(of, whole=True)  # nothing of it lies in a layer
    else:
        assert counted(of, monkeypatch)[1] == [3, 2]


@pytest.mark.parametrize("family", FAMILIES)
def test_of_every_family(family: str) -> None:
    tied = {"tie_word_embeddings": family in ("llama", "gemma2")}
    of = setup(family, "lora", config=DEEP | tied, target_modules=OWN_TARGETS.get(family, "all-linear"))
    assert adapter_file(of) == adapter_file(of, whole=True)


@pytest.mark.parametrize("family", UNLIKE)
def test_layers_that_differ_are_counted_in_full(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of = setup(family, "lora", config=DEEP, target_modules=("gate_proj", "q_proj", "kv_b_proj"))
    short, depths = counted(of, monkeypatch)
    assert depths == [None]
    assert short == adapter_file(of, whole=True)


@pytest.mark.parametrize(
    ("model", "method", "options"),
    [
        ("llama-3-70b", "lora", {"r": 16}),
        ("llama-3-70b", "lora", {"r": 64, "target_modules": ("q_proj", "v_proj"), "adapter_dtype": "bf16"}),
        ("llama-3.2-3b", "dora", {"r": 32}),  # tied
        ("smollm2-135m", "bottleneck", {"bottleneck_size": 32}),
        ("gemma-2-9b", "ia3", {}),
        ("mixtral-8x7b", "qlora", {"r": 8}),
        ("qwen2.5-7b", "prefix", {"num_virtual_tokens": 10}),
    ],
)
def test_of_the_catalogue(model: str, method: str, options: dict[str, Any]) -> None:
    found = find_architecture(model)
    assert found is not None
    values = {"dtype": "bf16", "per_device_train_batch_size": 1, "max_length": 8, **options}
    of = Setup(config=found.config, method=method, **values)
    assert adapter_file(of) == adapter_file(of, whole=True)
