"""What each tool's keys mean: the options that price exactly their run, and the job."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from rankwise.errors import RecipeError
from rankwise.estimate.options import OPTIONS, typed
from rankwise.observe.recipes import read_recipe
from rankwise.observe.recipes.schema import RETIRED, schema
from rankwise.observe.recipes.translation import PEFT_TARGETS

SAMPLES = Path(__file__).parent / "samples"
EXAMPLES = Path(__file__).parents[3] / "examples" / "recipes"
AXOLOTL: dict[str, Any] = {"base_model": "llama-3-8b", "learning_rate": 1e-4}
FACTORY: dict[str, Any] = {"model_name_or_path": "llama-3-8b", "stage": "sft", "do_train": True, "dataset": "x"}
TRL: dict[str, Any] = {"model_name_or_path": "llama-3-8b", "dataset_name": "a/b"}
ADAPTER = {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True}


def read(tmp_path: Path, keys: dict[str, Any], tool: str | None = None) -> Any:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(keys))
    return read_recipe(path, tool=tool)


def options(tmp_path: Path, keys: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = read(tmp_path, keys).options
    return found


def test_an_axolotl_qlora_run_is_what_axolotl_trains() -> None:
    assert read_recipe(SAMPLES / "axolotl_qlora.yml").options == {
        "model": "NousResearch/Meta-Llama-3-8B",
        "method": "qlora",
        "optimizer": "paged_adamw_8bit",
        "batch": 2,
        "seq_len": 16384,
        "grad_accum": 4,
        "gradient_checkpointing": True,
        "attn": "sdpa",
        "loss": "full-logits",
        "epochs": 4.0,
        "dtype": "bf16",
        "autocast": "bf16",
        "kbit_upcast": True,
        "double_quant": True,
        "rank": 32,
        "alpha": 4.0,
        "dropout": 0.05,
        "targets": ["q_proj", "v_proj"],
        "adapter_dtype": "fp32",
    }


def test_a_llama_factory_run_finds_its_deepspeed_file_its_rows_and_its_default_alpha() -> None:
    recipe = read_recipe(SAMPLES / "llamafactory_lora.yaml")
    assert recipe.options["parallel"] == "zero3" and recipe.options["offload"] == "all"
    assert recipe.options["alpha"] == 16 and recipe.options["targets"] == "all-linear"
    assert recipe.options["dtype"] == "bf16" and "amp" not in recipe.options
    assert recipe.job["data"] == {"train": str((SAMPLES / "tickets.json").resolve()), "validation": 0.1}
    assert recipe.job["train"]["max_length"] == 4096 and recipe.job["train"]["on_long"] == "truncate"


def test_the_nested_form_of_llama_factory() -> None:
    recipe = read_recipe(SAMPLES / "llamafactory_v1.yaml")
    assert (recipe.method, recipe.options["parallel"], recipe.options["rank"]) == ("qlora", "fsdp", 16)
    r = recipe.setting("r")
    assert r is not None and (r.key, r.line) == ("peft_config.r", 5)


def test_trl_loads_in_fp32_chunks_its_loss_and_adapts_what_peft_would() -> None:
    found = read_recipe(SAMPLES / "trl_sft.yaml").options
    assert found["amp"] is True and found["loss"] == "chunked" and found["gpus"] == 2
    assert found["targets"] == ["q_proj", "v_proj"] and found["gradient_checkpointing"] is True


def test_a_trainer_script_by_the_usual_names() -> None:
    recipe = read_recipe(SAMPLES / "trainer_run.sh")
    found = recipe.options
    assert (recipe.tool, recipe.method, found["rank"], found["seq_len"], found["gpus"]) == (
        "args",
        "qlora",
        64,
        1024,
        2,
    )
    assert found["optimizer"] == "paged_adamw_32bit" and recipe.job["train"]["max_steps"] == 1875


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {"method": "full", "dtype": "bf16", "autocast": "bf16"}),
        ({"bf16": False}, {"dtype": "fp32", "autocast": "none"}),
        (ADAPTER | {"fp16": True}, {"dtype": "fp16", "autocast": "fp16"}),
        (ADAPTER, {"method": "lora", "dtype": "bf16", "adapter_dtype": "fp32"}),
        (ADAPTER | {"peft_use_dora": True}, {"method": "dora"}),
        (ADAPTER | {"peft_use_rslora": True}, {"method": "rslora"}),
        (ADAPTER | {"load_in_8bit": True}, {"method": "lora-8bit"}),
        (ADAPTER | {"gptq": True}, {"method": "gptq-lora"}),
        (ADAPTER | {"adapter": "qlora", "load_in_4bit": True}, {"method": "qlora", "double_quant": True}),
        ({"flash_attention": True}, {"attn": "flash"}),
        ({"attn_implementation": "eager"}, {"attn": "eager"}),
        ({"plugins": ["axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"]}, {"loss": "fused-linear"}),
        (
            {"plugins": ["axolotl.integrations.liger.LigerPlugin"], "liger_fused_linear_cross_entropy": True},
            {"loss": "fused-linear"},
        ),
        ({"liger_fused_linear_cross_entropy": True}, {"loss": "full-logits"}),
        ({"chunked_cross_entropy": True}, {"loss": "chunked"}),
        ({"deepspeed": "deepspeed_configs/zero3_bf16_cpuoffload_all.json"}, {"parallel": "zero3", "offload": "all"}),
        ({"deepspeed": {"zero_optimization": {"stage": 2}}}, {"parallel": "zero2"}),
        ({"fsdp_version": 2, "fsdp_config": {"offload_params": True}}, {"parallel": "fsdp", "offload": "all"}),
        ({"fsdp_config": {"activation_checkpointing": True}}, {"parallel": "fsdp", "gradient_checkpointing": True}),
        ({"batch_size": 16, "micro_batch_size": 4}, {"batch": 4, "grad_accum": 4}),
    ],
)
def test_axolotl_key_by_key(tmp_path: Path, more: dict[str, Any], expected: dict[str, Any]) -> None:
    found = options(tmp_path, AXOLOTL | more)
    assert {k: found.get(k) for k in expected} == expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {"method": "lora", "rank": 8, "alpha": 16.0, "optimizer": "adamw_torch_fused", "epochs": 3.0}),
        ({"finetuning_type": "full", "bf16": True}, {"method": "full", "dtype": "bf16", "amp": True}),
        ({"finetuning_type": "full", "pure_bf16": True}, {"dtype": "bf16", "amp": None, "autocast": "none"}),
        ({"quantization_bit": 4, "bf16": True}, {"method": "qlora", "kbit_upcast": False}),
        ({"quantization_bit": 8, "fp16": True}, {"method": "lora-8bit", "dtype": "fp16"}),
        ({"model_name_or_path": "TheBloke/Llama-2-7B-GPTQ"}, {"method": "gptq-lora"}),
        ({"use_dora": True}, {"method": "dora"}),
        ({"lora_target": "q_proj,v_proj"}, {"targets": ["q_proj", "v_proj"]}),
        ({"flash_attn": "fa2"}, {"attn": "flash"}),
        ({"enable_liger_kernel": True}, {"loss": "fused-linear"}),
        ({"use_unsloth": True}, {"loss": "fast-ce"}),
        ({"disable_gradient_checkpointing": True}, {"gradient_checkpointing": False}),
        ({"ray_num_workers": 4}, {"gpus": 4}),
    ],
)
def test_llama_factory_key_by_key(tmp_path: Path, more: dict[str, Any], expected: dict[str, Any]) -> None:
    found = options(tmp_path, FACTORY | more)
    assert {k: found.get(k) for k in expected} == expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {"method": "full", "amp": True, "dtype": "bf16", "batch": 8, "seq_len": 1024}),
        ({"dtype": "bfloat16"}, {"amp": None, "dtype": "bf16", "autocast": "bf16"}),
        ({"use_peft": True}, {"method": "lora", "rank": 16, "alpha": 32, "dropout": 0.05}),
        ({"use_peft": True, "load_in_4bit": True}, {"method": "qlora", "adapter_dtype": "bf16", "double_quant": False}),
        ({"use_peft": True, "lora_target_modules": "all-linear"}, {"targets": "all-linear"}),
        ({"use_liger_kernel": True}, {"loss": "fused-linear"}),
        ({"loss_type": "nll"}, {"loss": "full-logits"}),
        ({"accelerate_config": "zero2"}, {"parallel": "zero2", "dtype": "bf16", "amp": None}),
        ({"fp16": True}, {"dtype": "fp16", "amp": True}),
        ({"max_length": None}, {"seq_len": None}),
    ],
)
def test_trl_key_by_key(tmp_path: Path, more: dict[str, Any], expected: dict[str, Any]) -> None:
    found = options(tmp_path, TRL | more)
    assert {k: found.get(k) for k in expected} == expected


@pytest.mark.parametrize(
    ("base", "more", "word"),
    [
        (AXOLOTL, ADAPTER | {"lora_modules_to_save": ["embed_tokens"]}, "whole copies"),
        (AXOLOTL, {"unfrozen_parameters": ["lm_head"]}, "a part of the weights"),
        (
            AXOLOTL,
            ADAPTER | {"lora_target_linear": False, "lora_target_modules": r"model\.layers\.[0-9]+.*"},
            "a pattern",
        ),
        (AXOLOTL, {"tensor_parallel_size": 2}, "tensor parallelism"),
        (AXOLOTL, {"gradient_checkpointing": "offload"}, "move to the host"),
        (FACTORY, {"use_galore": True, "finetuning_type": "full"}, "GaLore"),
        (FACTORY, {"finetuning_type": "freeze"}, "freeze"),
        (FACTORY, {"model_name_or_path": "TechxGenus/Meta-Llama-3-8B-Instruct-AWQ"}, "awq"),
        (TRL, {"use_peft": True, "load_in_4bit": True, "use_dora": True}, "DoRA over a quantised base"),
    ],
)
def test_what_the_estimate_does_not_model_is_said_and_not_guessed(
    tmp_path: Path, base: dict[str, Any], more: dict[str, Any], word: str
) -> None:
    assert word in (read(tmp_path, base | more).not_priced or "")


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        (AXOLOTL | {"rl": "dpo"}, "dpo is not priced"),
        (AXOLOTL | {"reward_model": True}, "reward model is not priced"),
        (AXOLOTL | {"pretraining_dataset": [{"path": "c4"}]}, "pretraining is not priced"),
        (AXOLOTL | {"processor_type": "AutoProcessor"}, "vision or audio"),
        (FACTORY | {"stage": "dpo"}, "DPO"),
        (FACTORY | {"stage": "ppo"}, "PPO"),
        (FACTORY | {"stage": "kto"}, "KTO"),
        (FACTORY | {"stage": "rm"}, "reward modelling"),
        (FACTORY | {"stage": "pt"}, "pretraining"),
        (FACTORY | {"stage": "stf"}, "'stf'"),
        (FACTORY | {"image_max_pixels": 1}, "vision or audio"),
        (FACTORY | {"model_name_or_path": "Qwen/Qwen2.5-VL-7B-Instruct"}, "vision or audio model by its name"),
        ({"model_name_or_path": "a", "adapter_name_or_path": "b", "template": "qwen", "export_dir": "c"}, "an export"),
        ({"model_name_or_path": "a", "template": "qwen", "infer_backend": "vllm"}, "trains nothing"),
        (TRL | {"num_generations": 4}, "num_generations"),
    ],
)
def test_other_stages_are_refused_by_name_with_the_reason(tmp_path: Path, keys: dict[str, Any], word: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, keys)
    assert word in caught.value.what and "run.yaml" in caught.value.what


RUNS = [p for p in (*SAMPLES.iterdir(), *EXAMPLES.iterdir()) if p.name.startswith(("axolotl", "llama", "tr"))]


@pytest.mark.parametrize("path", sorted(RUNS), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_options_of_every_sample_are_options_of_estimate(path: Path) -> None:
    found = read_recipe(path).options
    assert set(found) <= set(OPTIONS) and typed(found)


def test_the_goal_follows_the_rows_and_is_said_to_be_assumed(tmp_path: Path) -> None:
    text = read(tmp_path, AXOLOTL | {"datasets": [{"path": "a/b", "type": "completion"}]})
    chat = read(tmp_path, AXOLOTL | {"datasets": [{"path": "a/b", "type": "chat_template"}]})
    assert text.job["goal"] == "knowledge"
    assert chat.job["goal"] == "instruction" and any("goal" in a for a in chat.assumptions)


@pytest.mark.parametrize("name", ["axolotl", "llamafactory", "llamafactory_v1", "trl", "trainer"])
def test_a_schema_names_its_commit_and_its_defaults_are_keys(name: str) -> None:
    known = schema(name)
    assert known.commit and known.version and known.source.startswith("https://")
    assert len(known.keys) > 40 and set(known.defaults) <= known.keys and set(known.choices) <= known.keys


def test_the_trainer_really_has_its_keys_and_not_the_retired_ones() -> None:
    import dataclasses

    from transformers import TrainingArguments

    names = {f.name for f in dataclasses.fields(TrainingArguments)}
    assert schema("trainer").keys <= names | {"default_optim", "framework"}
    assert not names & (set(RETIRED) - {"max_seq_length", "torch_dtype", "tokenizer"})


def test_the_default_targets_are_those_of_peft() -> None:
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as theirs

    assert {kind: tuple(theirs[kind]) for kind in PEFT_TARGETS} == PEFT_TARGETS
