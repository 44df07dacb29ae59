"""`python -m benchmarks.train.peer_trl`: the same rows by TRL's SFTTrainer; a JSON line in, a JSON line out.

In: {"folder": of the run, "model": folder, "train", "held_out": conversations, "config": SFTConfig's fields}. Out:
{"step_seconds", "losses", "held_out", "version", "tokens"}. Runs in an interpreter that has TRL.
"""

import time
from importlib.metadata import version
from typing import Any

from benchmarks.train.arm import answer
from benchmarks.train.rows import LEARNING_RATE, LONGEST, LORA, encoded, held_out_loss

# The lesson's script; what follows from a CPU and from a bench that keeps nothing is below it.
LESSON = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "gradient_checkpointing": True,
    "bf16": True,
    "packing": False,
    "max_length": LONGEST,
}
BESIDE = {
    "learning_rate": LEARNING_RATE,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "use_cpu": True,
    "dataloader_pin_memory": False,
    "report_to": [],
    "logging_steps": 1,
    "save_strategy": "no",
    "seed": 0,
    "disable_tqdm": True,
}


def trained(asked: dict[str, Any]) -> dict[str, Any]:
    """One run of `max_steps` steps."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.began, self.seconds = 0.0, []

        def on_step_begin(self, *arguments: Any, **more: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            self.seconds.append(time.perf_counter() - self.began)

    clock = Clock()
    tokenizer = AutoTokenizer.from_pretrained(asked["model"])
    rows = [{"prompt": row[:-1], "completion": row[-1:]} for row in asked["train"]]
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.bfloat16),
        args=SFTConfig(output_dir=asked["folder"], **(BESIDE | LESSON | asked["config"])),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(task_type="CAUSAL_LM", **LORA),
        callbacks=[clock],
    )
    trainer.train()
    return {
        "step_seconds": clock.seconds,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "held_out": held_out_loss(trainer.model, encoded(tokenizer, asked["held_out"])),
        "tokens": sum(len(ids) for ids, _ in encoded(tokenizer, asked["train"])),
        "version": version("trl"),
    }


if __name__ == "__main__":
    answer(trained)
