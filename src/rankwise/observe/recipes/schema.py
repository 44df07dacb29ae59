"""What each tool takes: its keys, defaults, choices and deprecations, generated from its sources into the TOML files
beside this one. The file names the tool's version and commit.
"""

import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

# Keys that transformers took before version 5, with what does their work now (transformers 5 migration guide).
RETIRED = {
    "warmup_ratio": "warmup_steps, which takes a share of the run below 1",
    "evaluation_strategy": "eval_strategy",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "no_cuda": "use_cpu",
    "overwrite_output_dir": "nothing: an output folder is written over",
    "save_safetensors": "nothing: safetensors is the only format",
    "logging_dir": "the environment variable TENSORBOARD_LOGGING_DIR",
    "group_by_length": "train_sampling_strategy: group_by_length",
    "half_precision_backend": "nothing: torch's autocast is the only one",
    "fp16_backend": "nothing: torch's autocast is the only one",
    "fp16_opt_level": "nothing: apex is gone",
    "push_to_hub_token": "hub_token",
    "push_to_hub_model_id": "hub_model_id",
    "adafactor": "optim: adafactor",
    "sharded_ddp": "fsdp",
    "fsdp_transformer_layer_cls_to_wrap": "fsdp_config.transformer_layer_cls_to_wrap",
    "fsdp_min_num_params": "fsdp_config.min_num_params",
    "max_seq_length": "max_length",
    "torch_dtype": "dtype",
    "tokenizer": "processing_class",
}


@dataclass(frozen=True)
class Schema:
    """The keys of one tool; `requires` is what it asks of transformers, such as `==5.14.1`."""

    tool: str
    version: str
    commit: str
    requires: str
    source: str
    keys: frozenset[str]
    defaults: dict[str, Any]
    choices: dict[str, list[str]]
    deprecated: dict[str, str]
    nested: dict[str, list[str]]

    def nearest(self, key: str, among: list[str] | None = None) -> str | None:
        """The valid key that looks most like a wrong one."""
        return next(iter(get_close_matches(key, among or sorted(self.keys), 1, cutoff=0.75)), None)


@cache
def schema(name: str) -> Schema:
    """Of axolotl, llamafactory, llamafactory_v1, trl or trainer (the arguments of transformers' Trainer)."""
    read = tomllib.loads(files("rankwise.observe.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8"))
    return Schema(**(read | {"keys": frozenset(read["keys"])}))
