"""Whose configuration is it? From the command that starts it, or from its keys."""

import re
from pathlib import Path

from rankwise.errors import RecipeError
from rankwise.observe.recipes.arguments import Command
from rankwise.observe.recipes.reading import Source
from rankwise.observe.recipes.translation import PREFERENCES, VISION

TOOLS = {"axolotl": "axolotl", "llama-factory": "llamafactory", "trl": "trl", "args": "trainer"}  # tool -> schema
FACTORY = ("finetuning_type", "lora_target", "cutoff_len", "template", "dataset_dir", "quantization_bit", "lora_rank")
TRL = (
    "use_peft",
    "lora_target_modules",
    "packing_strategy",
    "dataset_name",
    "assistant_only_loss",
    "loss_type",
    "dataset_text_field",
)
ACCELERATE = ("compute_environment", "distributed_type", "fsdp_config", "deepspeed_config")
CLOUD = ("provider", "resources", "setup", "run", "jobs", "dockerfile_commands")
DEEPSPEED = {"zero_optimization", "train_micro_batch_size_per_gpu"}
# A script or subcommand named after another kind of training.
OTHER = re.compile(
    r"(?:^|[/_-])(dpo|ppo|grpo|kto|rloo|orpo|cpo|simpo|xpo|gkd|gold|nash_md|online_dpo|reward|reward_modeling|prm|bco|tpo|mpo"
    r"|async_grpo|gspo|ssd|sdpo|sdft|distillation|vllm[-_]serve)(?:_\w+)?(?:\.py)?$"
)
VISUAL = re.compile(r"(?:^|[/_-])\w*(?:vlm|vision)\w*\.py$")
VISUAL_MODEL = re.compile(
    r"(?i)(?:^|[-_/.\d])(?:vl|vlm|vision|llava|pixtral|voxtral|audio|omni|smolvlm\d?|internvl\d?|ocr|mossvl)(?:$|[-_/.\d])"
)


def of_command(command: Command) -> str:
    """The tool that a command line starts. Raises RecipeError for another kind of training."""
    program, action = command.program, command.action
    name = Path(program).name
    if OTHER.search(program) or (name in ("trl", "llamafactory-cli") and OTHER.search(action)):
        kind = OTHER.search(action) or OTHER.search(program)
        assert kind is not None
        raise RecipeError(f"{program} {action}".strip() + f" trains by {kind[1]}: {PREFERENCES}", expected="SFT")
    if VISUAL.search(program):
        raise RecipeError(f"{program} trains a vision model: {VISION}", expected="SFT on text")
    if name in ("llamafactory-cli", "lmf") or "llamafactory" in program:
        _require(name, action, ("train", ""), command)
        return "llama-factory"
    if name == "axolotl" or program.startswith("axolotl"):
        _require(name, action, ("train", "preprocess", "", "finetune"), command)
        return "axolotl"
    if name == "trl" or (name.startswith("sft") and name.endswith(".py")):
        _require(name, action, ("sft", ""), command)
        return "trl"
    if set(command.said) & set(FACTORY) and "stage" in command.said:
        return "llama-factory"
    return "args"


def _require(name: str, action: str, known: tuple[str, ...], command: Command) -> None:
    if action not in known and not command.config == action:
        raise RecipeError(f"`{name} {action}` trains nothing that we price", expected=f"`{name} {known[0]}`")


def of_keys(source: Source) -> str:
    """The tool that keys belong to. Raises RecipeError where they belong to none."""
    keys = set(source.said)
    if "base_model" in keys and not keys & {"model_name_or_path"}:
        return "axolotl"
    if keys & set(ACCELERATE) and not keys & {"model_name_or_path", "base_model", "model"}:
        raise RecipeError(
            f"{source.path} configures a launcher (accelerate), not a training run",
            expected="the configuration of the training itself",
            fix="bring the command line that names this file: `accelerate launch --config_file … train.py …`",
        )
    if "model" in keys and (
        "train_dataset" in keys or keys & {"peft_config", "dist_config", "sample_backend", "quant_config"}
    ):
        return "llama-factory"
    if "model_name_or_path" in keys and (keys & set(FACTORY) or keys & {"stage", "infer_backend", "export_dir"}):
        return "llama-factory"
    if "model_name_or_path" in keys and keys & set(TRL):
        return "trl"
    if "model_name_or_path" in keys and keys & {
        "learning_rate",
        "per_device_train_batch_size",
        "num_train_epochs",
        "output_dir",
    }:
        return "args" if keys & {"train_file", "data_path"} else "trl"
    if "model_name_or_path" in keys:
        return "trl"
    named = "no training configuration that we know"
    named = "a cloud job's file" if keys & set(CLOUD) else "a DeepSpeed configuration" if keys & DEEPSPEED else named
    shown = [*sorted(keys)[:8], *(["…"] if len(keys) > 8 else [])]
    raise RecipeError(
        f"{source.path or 'arguments'} is {named}: its keys are {', '.join(shown)}",
        expected="base_model (Axolotl), or model_name_or_path (LLaMA-Factory, TRL, arguments of a script)",
        fix="say whose it is with --tool axolotl | llama-factory | trl | args",
    )


def refuse_vision(source: Source, model: str | None) -> None:
    """A vision-language model is known by its name; its configuration may look like any other."""
    if model and VISUAL_MODEL.search(model):
        raise RecipeError(
            f"{source.path or 'arguments'}: {model} is a vision or audio model by its name: {VISION}",
            expected="a causal language model",
            fix="name its text-only counterpart",
        )
