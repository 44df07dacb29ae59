"""The offline catalogue: every config builds the model it says it is, and no name leads to another shape."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.errors import ModelError
from rankwise.observe import catalogue
from rankwise.observe.catalogue import Architecture, architectures, find_architecture, nearest, read_config, rows

ALL = architectures()
BY_NAME = {architecture.name: architecture for architecture in ALL}

# Published counts (safetensors metadata on the hub, model cards), independent of the index.
PUBLISHED = {
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Llama-2-70b-hf": 68_976_648_192,
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-405B": 405_853_388_800,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
    "mistralai/Mixtral-8x7B-v0.1": 46_702_792_704,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen2.5-14B": 14_770_033_664,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "google/gemma-2b": 2_506_172_416,
    "google/gemma-2-9b": 9_241_705_984,
    "microsoft/phi-2": 2_779_683_840,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "bigcode/gpt_bigcode-santacoder": 1_124_886_528,
    "EleutherAI/pythia-1b": 1_011_781_632,
    "openai-community/gpt2-xl": 1_557_611_200,
    "EleutherAI/gpt-j-6b": 6_050_882_784,
    "facebook/opt-350m": 331_196_416,
    "bigscience/bloom-7b1": 7_069_016_064,
    "tiiuae/falcon-7b": 6_921_720_704,
    "01-ai/Yi-34B": 34_388_917_248,
    "openai/gpt-oss-20b": 20_914_757_184,
}


@pytest.mark.parametrize("architecture", ALL, ids=lambda architecture: architecture.name)
def test_transformers_builds_exactly_the_parameters_of_the_index(architecture: Architecture) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**architecture.config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == architecture.total_params
    # The count alone could come out right by two faults; the vocabulary decides the memory of the logits.
    embedding = model.get_input_embeddings().weight
    assert embedding.shape[0] == architecture.config["vocab_size"]


@pytest.mark.parametrize(("hub_id", "count"), PUBLISHED.items())
def test_counts_are_the_published_ones(hub_id: str, count: int) -> None:
    found = find_architecture(hub_id)
    assert found is not None
    assert found.total_params == count


@pytest.mark.parametrize("architecture", ALL, ids=lambda architecture: architecture.name)
def test_every_name_id_and_alias_leads_home(architecture: Architecture) -> None:
    for name in (architecture.name, *architecture.aliases, *architecture.hub_ids):
        for spelling in (name, name.upper(), f" {name} "):
            assert find_architecture(spelling) is architecture, spelling


def test_no_id_and_no_name_appears_twice() -> None:
    ids = Counter(hub_id.lower() for architecture in ALL for hub_id in architecture.hub_ids)
    names = Counter(name.lower() for architecture in ALL for name in (architecture.name, *architecture.aliases))
    assert max(ids.values()) == 1
    assert max(names.values()) == 1


def test_the_folder_holds_one_config_for_each_entry_and_nothing_else() -> None:
    files = {path.name for path in catalogue.FOLDER.iterdir()}
    assert files == {f"{name}.json" for name in BY_NAME} | {"index.toml", "gptq.toml"}


@pytest.mark.parametrize("architecture", ALL, ids=lambda architecture: architecture.name)
def test_a_config_names_its_class_its_dtype_and_its_shape(architecture: Architecture) -> None:
    config = architecture.config
    assert len(config["architectures"]) == 1
    assert config["torch_dtype"] in {"bfloat16", "float16", "float32"}
    assert isinstance(config["tie_word_embeddings"], bool)
    assert architecture.source
    row = next(row for row in rows() if row["name"] == architecture.name)
    for key in ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size"):
        assert isinstance(row[key], int), key
        assert row[key] > 0, key


def test_the_config_is_a_copy() -> None:
    BY_NAME["llama-3-8b"].config["vocab_size"] = 1
    assert BY_NAME["llama-3-8b"].config["vocab_size"] == 128_256


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TheBloke/Mistral-7B-v0.1-GPTQ", "mistral-7b"),
        ("unsloth/mistral-7b-instruct-v0.3-bnb-4bit", "mistral-7b-v0.3"),
        ("TheBloke/Mixtral-8x7B-Instruct-v0.1-GPTQ", "mixtral-8x7b"),
        ("unsloth/Qwen2.5-7B-bnb-4bit", "qwen2.5-7b"),
        ("unsloth/Qwen3-14B-Base-unsloth-bnb-4bit", "qwen3-14b"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "qwen2.5-7b"),
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", "llama-3.1-8b"),
        ("TheBloke/Llama-2-13B-chat-AWQ", "llama-2-13b"),
        ("llama-3-8b", "llama-3-8b"),
        ("Meta Llama3 8B", "llama-3-8b"),
        ("LLaMA 7B", "llama-7b"),
        ("qwen-1_8b-chat", "qwen-1.8b"),
        ("stablelm-2-1_6b", "stablelm-2-1.6b"),
        ("TheBloke/CodeLlama-7B-Python-GPTQ", "codellama-7b-python"),
        ("EleutherAI/pythia-1b-deduped", "pythia-1b"),
    ],
)
def test_suffixes_that_leave_the_shape_alone_are_dropped(name: str, expected: str) -> None:
    found = find_architecture(name)
    assert found is not None
    assert found.name == expected


def test_a_conversion_with_other_modules_is_kept_apart_from_its_original() -> None:
    converted, original = find_architecture("unsloth/Phi-4-bnb-4bit"), find_architecture("microsoft/phi-4")
    assert converted is not None
    assert original is not None
    assert converted.config["model_type"] == "llama"
    assert original.config["model_type"] == "phi3"
    assert find_architecture("phi-4") is original


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "llama",
        "llama-70b",
        "llama-2-8b",
        "Llama-3.21B",
        "llama-38b",
        "mistral-7b-v0.4",
        "mistral-small",
        "qwen2.5-8b",
        "qwen2.5-7b-vl",
        "Qwen/Qwen2.5-VL-7B-Instruct",
        "gemma-3",
        "meta-llama/Llama-Guard-3-8B",
        "someone/my-llama-3-8b",
        "Qwen/Qwen2.5-72B-Instruct-AWQ",  # its intermediate size is padded for the quantiser
        "Qwen2.5-72B-Instruct-GPTQ-Int4",
        "embedded",
        "SmolLM2",
    ],
)
def test_near_misses_give_none(name: str) -> None:
    assert find_architecture(name) is None


def test_names_a_digit_apart_are_different_shapes() -> None:
    vocabularies = {name: BY_NAME[name].config["vocab_size"] for name in ("mistral-7b", "mistral-7b-v0.3")}
    assert vocabularies == {"mistral-7b": 32_000, "mistral-7b-v0.3": 32_768}
    for one, other in (("Llama-3.2-1B", "Llama-3.1-8B"), ("Qwen2.5-7B", "Qwen2.5-14B"), ("Qwen2-7B", "Qwen-7B")):
        first, second = find_architecture(one), find_architecture(other)
        assert first is not None
        assert second is not None
        assert first.total_params != second.total_params


@given(st.sampled_from(ALL), st.lists(st.sampled_from(["-GPTQ", "-AWQ", "-bnb-4bit", "-unsloth-bnb-4bit", "-hf"])))
def test_stored_otherwise_is_the_same_shape_or_unknown(architecture: Architecture, suffixes: list[str]) -> None:
    """However a hub id is decorated with storage suffixes, it never means another shape."""
    found = find_architecture(architecture.hub_ids[0] + "".join(suffixes))
    assert found in (architecture, None)
    if not architecture.excluded:
        assert found is architecture


@given(st.text(max_size=40))
def test_any_text_is_answered(name: str) -> None:
    found = find_architecture(name)
    assert found is None or found in ALL
    assert len(nearest(name)) <= 3


@pytest.mark.parametrize(
    ("name", "among"),
    [("qwen2.5-8b", "qwen2.5-7b"), ("Llama-3.21B", "llama-3.2-1b"), ("TheBloke/Mistrl-7B-v0.1-GPTQ", "mistral-7b")],
)
def test_nearest_offers_what_was_meant(name: str, among: str) -> None:
    offered = nearest(name)
    assert among in offered
    assert len(set(offered)) == len(offered) <= 3


def test_rows_hold_the_numbers_of_families_that_spell_them_otherwise() -> None:
    table = {row["name"]: row for row in rows()}
    assert list(table) == list(BY_NAME)
    assert table["gpt2"]["hidden_size"] == 768
    assert table["gpt2"]["num_key_value_heads"] is None
    assert table["gpt2"]["intermediate_size"] is None
    assert table["mpt-7b"]["num_hidden_layers"] == 32
    assert table["mpt-7b"]["max_position_embeddings"] == 2048
    assert table["opt-1.3b"]["intermediate_size"] == 8192
    assert table["llama-3-8b"] == {
        "name": "llama-3-8b",
        "hub_id": "meta-llama/Meta-Llama-3-8B",
        "total_params": 8_030_261_248,
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14_336,
        "vocab_size": 128_256,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
        "license": "llama3",
    }


def test_a_config_file_of_ones_own_is_read(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "llama", "hidden_size": 64}), encoding="utf-8")
    assert read_config(file) == {"model_type": "llama", "hidden_size": 64}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[1]", "not a JSON object"),
        ("{}", "no model_type"),
        ('{"model_type": 3}', "no model_"),
    ],
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=said) as caught:
        read_config(file)
    assert caught.value.expected
    assert caught.value.fix


def test_a_missing_config_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_config(tmp_path / "absent.json")


def test_looking_a_name_up_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from rankwise.observe.catalogue import find_architecture, nearest, rows;"
        "find_architecture('meta-llama/Llama-2-7b-hf').config; nearest('lama'); rows();"
        "print([m for m in ('torch', 'transformers', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
