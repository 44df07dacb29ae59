"""`python -m benchmarks.train.peer_llamafactory`: the same rows by LLaMA-Factory; a JSON line in, a JSON line out.

In: {"folder": of the run, "model": folder, "train", "held_out": [ids, where the answer begins] of each row,
"max_steps"}. Out: {"step_seconds", "losses", "held_out", "tokens", "version", "config"}. Runs in an interpreter that
has LLaMA-Factory.

It is what `llamafactory-cli train` runs, with rows that are encoded already (`tokenized_path`). What it does otherwise
than the others, and is left as it is: rows are padded to a multiple of 8.
"""

import sys
import time
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.train.arm import answer
from benchmarks.train.rows import LEARNING_RATE, LONGEST, LORA, STEP_ROWS, held_out_loss

# What a user of a small model picks; LLaMA-Factory's own defaults recompute activations.
USUAL = {
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": STEP_ROWS,
    "disable_gradient_checkpointing": True,
    "bf16": True,
}
BESIDE = {
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "lora_rank": LORA["r"],
    "lora_alpha": LORA["lora_alpha"],
    "lora_dropout": LORA["lora_dropout"],
    "lora_target": "all",
    "template": "smollm2",
    "dataset": "bench",
    "cutoff_len": LONGEST,
    "learning_rate": LEARNING_RATE,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "use_cpu": True,
    "dataloader_pin_memory": False,
    "report_to": "none",
    "logging_steps": 1,
    "save_strategy": "no",
    "seed": 0,
    "disable_tqdm": True,
}


def without_sound() -> None:
    """An empty module for torchaudio where that is missing. LLaMA-Factory imports it for rows with sound, which these
    are not, and PyPI's builds of it load on machines with CUDA only.
    """
    if find_spec("torchaudio") is None:
        module = ModuleType("torchaudio")
        module.__spec__ = ModuleSpec("torchaudio", None)
        sys.modules["torchaudio"] = module


def trained(asked: dict[str, Any]) -> dict[str, Any]:
    """One run of `max_steps` steps."""
    without_sound()
    import torch
    from datasets import Dataset
    from llamafactory.train.tuner import run_exp
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.began, self.seconds, self.losses = 0.0, [], []

        def on_step_begin(self, *arguments: Any, **more: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            self.seconds.append(time.perf_counter() - self.began)

        def on_log(self, *arguments: Any, logs: dict[str, Any], **more: Any) -> None:
            if "loss" in logs:
                self.losses.append(logs["loss"])

    folder, seen = Path(asked["folder"]), Clock()
    rows = [
        {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100] * start + ids[start:]}
        for ids, start in asked["train"]
    ]
    Dataset.from_list(rows).save_to_disk(str(folder / "rows"))
    given = {"model_name_or_path": asked["model"], "tokenized_path": str(folder / "rows")}
    out = str(folder / "adapter")
    run_exp({**BESIDE, **USUAL, **given, "output_dir": out, "max_steps": asked["max_steps"]}, callbacks=[seen])
    base = AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.bfloat16)
    return {
        "step_seconds": seen.seconds,
        "losses": seen.losses,
        "held_out": held_out_loss(PeftModel.from_pretrained(base, out), asked["held_out"]),
        "tokens": sum(len(ids) for ids, _ in asked["train"]),
        "version": version("llamafactory"),
        "config": USUAL,
    }


if __name__ == "__main__":
    answer(trained)
