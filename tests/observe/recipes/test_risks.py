"""Each check fires where it should, with its line and its number, and nowhere else."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from rankwise.decide.rulebook import evidence
from rankwise.observe.recipes import read_recipe
from rankwise.observe.recipes.about import About
from rankwise.observe.recipes.risks import find_risks
from rankwise.records.recipe import Risk

SAMPLES = Path(__file__).parent / "samples"
AXOLOTL: dict[str, Any] = {
    "base_model": "meta-llama/Meta-Llama-3-8B",
    "adapter": "lora",
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_target_linear": True,
    "datasets": [{"path": "a/b", "type": "alpaca"}],
    "sequence_len": 2048,
    "learning_rate": 2e-4,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "gradient_checkpointing": True,
    "attn_implementation": "flash_attention_2",
    "val_set_size": 0.05,
    "save_total_limit": 2,
    "excess_length_strategy": "raise",
}
FULL = AXOLOTL | dict.fromkeys(("adapter", "lora_r", "lora_alpha", "lora_target_linear")) | {"learning_rate": 2e-5}
FACTORY: dict[str, Any] = {
    "model_name_or_path": "Qwen/Qwen2.5-7B-Instruct",
    "stage": "sft",
    "do_train": True,
    "dataset": "x",
    "template": "qwen",
    "cutoff_len": 2048,
    "learning_rate": 1e-4,
    "per_device_train_batch_size": 2,
    "bf16": True,
    "val_size": 0.1,
    "eval_strategy": "steps",
    "save_total_limit": 2,
}
TRL: dict[str, Any] = {
    "model_name_or_path": "Qwen/Qwen2.5-0.5B",
    "dataset_name": "a/b",
    "use_peft": True,
    "lora_target_modules": "all-linear",
    "dtype": "bfloat16",
    "learning_rate": 2e-4,
    "max_length": 2048,
    "assistant_only_loss": True,
    "eval_strategy": "steps",
    "save_total_limit": 2,
}


def risks(tmp_path: Path, keys: dict[str, Any], about: About | None = None, tool: str | None = None) -> list[Risk]:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(keys, sort_keys=False))
    return list(find_risks(read_recipe(path, tool=tool), about or About()))


def rules(found: list[Risk]) -> set[str]:
    return {r.rule for r in found}


@pytest.mark.parametrize("keys", [AXOLOTL, FACTORY, TRL], ids=["axolotl", "llama-factory", "trl"])
def test_a_careful_configuration_has_nothing_but_the_note_on_its_data(tmp_path: Path, keys: dict[str, Any]) -> None:
    assert rules(risks(tmp_path, keys)) == {"data_not_here"}


def line_of(keys: dict[str, Any], key: str) -> int | None:
    """Of a key in what `risks` writes: only flat keys are asked for."""
    lines = yaml.safe_dump(keys, sort_keys=False).splitlines()
    return next((n for n, line in enumerate(lines, 1) if line.startswith(f"{key}:")), None)


@pytest.mark.parametrize(
    ("base", "more", "rule", "level", "key", "number"),
    [
        (
            AXOLOTL,
            {"lora_target_linear": None, "lora_target_modules": ["q_proj", "o_proj"]},
            "attention_only",
            "risk",
            "lora_target_modules",
            None,
        ),
        (AXOLOTL, {"lora_target_linear": None}, "no_targets", "fault", "adapter", None),
        (AXOLOTL, {"lora_alpha": 2}, "alpha_far_below_rank", "risk", "lora_alpha", "alpha 2 / r 16 = 0.125"),
        (AXOLOTL, {"lora_alpha": 128}, "alpha_far_above_rank", "risk", "lora_alpha", "= 8"),
        (AXOLOTL, {"lora_r": 128, "lora_alpha": 128}, "alpha_at_high_rank", "note", "lora_alpha", "= 1"),
        (AXOLOTL, {"learning_rate": 1e-5}, "learning_rate_low", "risk", "learning_rate", "1e-05"),
        (AXOLOTL, {"learning_rate": 3e-3}, "learning_rate_high", "risk", "learning_rate", "0.003"),
        (
            AXOLOTL,
            {"gradient_accumulation_steps": 32},
            "large_batch_for_adapter",
            "note",
            "gradient_accumulation_steps",
            "2 x 32 x 1 = 64 rows a step",
        ),
        (AXOLOTL, {"adapter": "qlora"}, "qlora_without_4bit", "fault", "adapter", None),
        (FULL, {}, "updates_rounded_away", "risk", "bf16", "70 % of the updates at a learning rate of 2e-05"),
        (FULL, {"learning_rate": 2e-4}, "learning_rate_high", "risk", "learning_rate", "0.0002"),
        (FULL, {"load_in_4bit": True}, "quantised_without_adapter", "fault", "load_in_4bit", None),
        (FULL, {"optimizer": "adamw_hf"}, "optimizer_gone", "fault", "optimizer", None),
        (AXOLOTL, {"sequence_len": None}, "length_by_default", "risk", "sequence_len", "512 tokens"),
        (AXOLOTL, {"sequence_len": 256}, "short_rows", "risk", "sequence_len", "256 tokens"),
        (AXOLOTL, {"excess_length_strategy": None}, "long_rows_dropped", "note", "sequence_len", None),
        (
            AXOLOTL,
            {"attn_implementation": None, "sample_packing": True},
            "packed_rows_see_each_other",
            "risk",
            "sample_packing",
            None,
        ),
        (AXOLOTL, {"train_on_inputs": True}, "prompt_trained", "risk", "train_on_inputs", None),
        (AXOLOTL, {"chat_template": "gemma"}, "template_of_another_family", "risk", "chat_template", None),
        (
            AXOLOTL,
            {"datasets": [{"path": "a/b", "type": "chat_template"}]},
            "no_template",
            "risk",
            "chat_template",
            None,
        ),
        (
            AXOLOTL,
            {"gradient_checkpointing": False, "sequence_len": 8192},
            "long_rows_without_checkpointing",
            "risk",
            "gradient_checkpointing",
            "8,192",
        ),
        (AXOLOTL, {"datasets": None}, "no_data", "risk", "datasets", None),
        (AXOLOTL, {"val_set_size": 0}, "no_validation", "risk", "val_set_size", None),
        (
            AXOLOTL,
            {"val_set_size": 0, "load_best_model_at_end": True},
            "best_without_validation",
            "fault",
            "load_best_model_at_end",
            None,
        ),
        (
            AXOLOTL,
            {"val_set_size": 0, "early_stopping_patience": 3},
            "stopping_without_validation",
            "fault",
            "early_stopping_patience",
            None,
        ),
        (AXOLOTL, {"save_total_limit": None}, "checkpoints_without_limit", "note", "save_total_limit", None),
        (FULL, {"save_total_limit": None}, "checkpoints_without_limit", "risk", "save_total_limit", None),
        (AXOLOTL, {"save_total_limit": 1}, "one_checkpoint", "note", "save_total_limit", None),
        (AXOLOTL, {"save_strategy": "no"}, "no_checkpoints", "risk", "save_strategy", None),
        (AXOLOTL, {"max_steps": 10, "num_epochs": 3}, "steps_over_epochs", "note", "max_steps", "10 steps"),
        (AXOLOTL, {"lora_rnak": 8}, "key_unknown", "fault", "lora_rnak", None),
        (AXOLOTL, {"flash_attention": True}, "key_deprecated", "note", "flash_attention", None),
        (AXOLOTL, {"max_packed_sequence_len": 8}, "key_deprecated", "fault", "max_packed_sequence_len", None),
        (AXOLOTL, {"torch_compile_mode": "fast"}, "value_unknown", "fault", "torch_compile_mode", None),
        (AXOLOTL, {"wandb_api_key": "abc"}, "secret_in_file", "risk", "wandb_api_key", None),
        (FACTORY, {"do_train": None}, "do_train_missing", "fault", "do_train", None),
        (FACTORY, {"packing": True}, "packed_rows_see_each_other", "risk", "packing", None),
        (FACTORY, {"train_on_prompt": True}, "prompt_trained", "risk", "train_on_prompt", None),
        (FACTORY, {"template": "alpaca"}, "template_overrides_chat", "risk", "template", None),
        (FACTORY, {"template": "llama3"}, "template_of_another_family", "risk", "template", None),
        (FACTORY, {"warmup_ratio": 0.1}, "key_retired", "risk", "warmup_ratio", None),
        (FACTORY, {"fp16": True}, "two_precisions", "fault", "fp16", None),
        (TRL, {"dtype": None}, "frozen_base_in_fp32", "note", "dtype", None),
        (TRL, {"packing": True, "packing_strategy": "wrapped"}, "packed_rows_see_each_other", "risk", "packing", None),
        (TRL, {"assistant_only_loss": None}, "prompt_trained_unless_told", "note", "assistant_only_loss", None),
        (TRL, {"eval_strategy": "no"}, "no_validation", "risk", "eval_strategy", None),
        (TRL, {"lora_target_modules": None}, "attention_only", "risk", "lora_target_modules", None),
        (TRL, {"packing_strategy": "bdf"}, "value_unknown", "fault", "packing_strategy", None),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_check_fires(
    tmp_path: Path, base: dict[str, Any], more: dict[str, Any], rule: str, level: str, key: str, number: str | None
) -> None:
    keys = {k: v for k, v in (base | more).items() if v is not None}
    assert rule not in rules(risks(tmp_path, {k: v for k, v in base.items() if v is not None})) or not more
    found = [r for r in risks(tmp_path, keys) if r.rule == rule]
    assert len(found) == 1, found
    assert (found[0].level, found[0].key, found[0].line) == (level, key, line_of(keys, key))
    assert number is None or number in (found[0].number or "")
    assert found[0].text and found[0].fix


def test_what_the_model_is_enters(tmp_path: Path) -> None:
    long = risks(tmp_path, AXOLOTL, About(positions=1024))
    assert next(r for r in long if r.rule == "longer_than_the_model").number == "2,048 tokens, 1,024 positions"
    keys = TRL | {"dtype": "float32"}
    heavy = next(r for r in risks(tmp_path, keys, About(total_params=8_030_261_248)) if r.rule == "frozen_base_in_fp32")
    assert heavy.level == "risk" and heavy.number == "15.0 GiB more"
    saved = risks(tmp_path, AXOLOTL | {"lora_modules_to_save": ["embed_tokens"]}, About(engine="vllm"))
    assert "not_served_unmerged" in rules(saved)
    assert "not_served_unmerged" not in rules(risks(tmp_path, AXOLOTL | {"lora_modules_to_save": ["embed_tokens"]}))
    small = risks(tmp_path, AXOLOTL | {"adapter": "prompt_tuning"}, About(total_params=3_000_000_000))
    assert "prompt_tuning_on_small_model" in rules(small)


def test_a_rate_is_held_against_the_plan_where_there_is_one(tmp_path: Path) -> None:
    near = risks(tmp_path, AXOLOTL | {"learning_rate": 3e-5}, About(rate=4e-5))
    far = risks(tmp_path, AXOLOTL | {"learning_rate": 2e-4}, About(rate=2e-5))
    assert not {"learning_rate_low", "learning_rate_high"} & rules(near)
    assert next(r for r in far if r.rule == "learning_rate_high").number == (
        "0.0002 against 2e-05, which we would start from"
    )


@pytest.mark.parametrize("pad", ["</s>", "<|endoftext|>"])
def test_padding_that_ends_sequences_is_worse_where_masks_go_by_token(tmp_path: Path, pad: str) -> None:
    trl = risks(tmp_path, TRL | {"pad_token": pad})
    args = risks(tmp_path, TRL | {"pad_token": pad, "output_dir": "o"}, tool="args")
    assert [r.level for r in (*trl, *args) if r.rule == "pad_is_eos"] == ["note", "risk"]


def test_deepspeed_keeps_an_fp32_copy_so_nothing_is_rounded_away(tmp_path: Path) -> None:
    keys = {k: v for k, v in FULL.items() if v is not None}
    assert "updates_rounded_away" not in rules(
        risks(tmp_path, keys | {"deepspeed": "deepspeed_configs/zero3_bf16.json"})
    )


def test_faults_come_first_and_each_group_in_the_order_of_the_file() -> None:
    found = find_risks(read_recipe(SAMPLES / "axolotl_qlora.yml"), About())
    levels = [r.level for r in found]
    assert levels == sorted(levels, key=["fault", "risk", "note"].index)
    for level in ("fault", "risk", "note"):
        lines = [r.line for r in found if r.level == level and r.line is not None]
        assert lines == sorted(lines)


def test_the_nearest_valid_key_is_named_and_nested_keys_are_looked_at() -> None:
    fixes = {r.key: r.fix for r in read_recipe(SAMPLES / "axolotl_qlora.yml").faults}
    assert fixes["eval_sampel_packing"] == "did you mean eval_sample_packing?"
    assert fixes["datasets.data_file"] == "did you mean data_files?"


def test_every_cited_evidence_is_in_the_evidence_file(tmp_path: Path) -> None:
    cited: set[str] = set()
    for keys in (
        AXOLOTL | {"lora_target_linear": None, "lora_target_modules": ["q_proj"], "lora_alpha": 1, "val_set_size": 0},
        AXOLOTL | {"lora_r": 128, "lora_alpha": 128, "learning_rate": 1e-6, "gradient_accumulation_steps": 64},
        AXOLOTL | {"adapter": "prompt_tuning", "gradient_checkpointing": False, "sequence_len": 8192},
        FULL,
    ):
        found = risks(tmp_path, {k: v for k, v in keys.items() if v is not None}, About(total_params=10**9))
        cited |= {name for r in found for name in r.evidence}
    assert {"E4", "E6", "E7", "E8", "E12", "E13", "E16", "E24", "E30"} <= cited <= set(evidence())


@pytest.mark.parametrize(
    "keys",
    [
        AXOLOTL | {"hub_token": "hf_abcdefghijklmnopqrstuvwxyz"},
        AXOLOTL | {"wandb": {"api_key": "hf_abcdefghijklmnopqrstuvwxyz"}},
        AXOLOTL | {"wandb_project": "hf_abcdefghijklmnopqrstuvwxyz"},
        AXOLOTL | {"datasets": [{"path": "https://me:hf_abcdefghijklmnopqrstuvwxyz@host/x.jsonl", "type": "alpaca"}]},
        TRL | {"env": {"HF_TOKEN": "hf_abcdefghijklmnopqrstuvwxyz"}},
        TRL | {"packing_strategy": "hf_abcdefghijklmnopqrstuvwxyz"},
        FACTORY | {"hf_hub_token": "hf_abcdefghijklmnopqrstuvwxyz"},
    ],
)
def test_a_secret_is_told_of_and_never_shown(tmp_path: Path, keys: dict[str, Any]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(keys))
    recipe = read_recipe(path)
    found = find_risks(recipe, About())
    assert "abcdefghijklmnop" not in recipe.model_dump_json() + "".join(r.model_dump_json() for r in found)
    assert "secret_in_file" in {r.rule for r in found}


def test_special_tokens_are_no_secrets(tmp_path: Path) -> None:
    keys = AXOLOTL | {"special_tokens": {"pad_token": "<pad>", "eos_token": "<eos>"}, "hf_use_auth_token": True}
    assert "secret_in_file" not in rules(risks(tmp_path, keys))
