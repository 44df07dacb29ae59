"""The rows that every arm trains on and is judged by, and the settings that all share."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SHARED = HERE.parents[1].parent / "shared" / "data" / "train" / "alpaca_en_demo.json"
OWN = HERE.parents[1] / "examples" / "clinic" / "train.jsonl"
VARIABLE = "RANKWISE_BENCH_ROWS"  # a JSON list of instruction, input, output
STEP_ROWS = 16  # rows of an optimizer step: the lesson's 4 x 4
LORA = {
    "r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
LEARNING_RATE = 2e-4
LONGEST = 2048  # the lesson's max_seq_length
Messages = list[dict[str, str]]


def conversations(path: Path | None, count: int) -> tuple[list[Messages], str]:
    """(`count` conversations of two turns, where they come from): of `path`, of $RANKWISE_BENCH_ROWS, of the shared
    Alpaca rows, or of the clinic example, whichever is there first.
    """
    named = path or (Path(os.environ[VARIABLE]) if VARIABLE in os.environ else SHARED)
    if path is None and VARIABLE not in os.environ and not named.is_file():
        lines = OWN.read_text(encoding="utf-8").splitlines()[:count]
        return [_turns(json.loads(line)["messages"]) for line in lines], "examples/clinic/train.jsonl"
    rows = json.loads(named.read_text(encoding="utf-8"))[:count]
    return [_alpaca(row) for row in rows], named.name


def _alpaca(row: dict[str, str]) -> Messages:
    asked = row["instruction"] + ("\n" + row["input"] if row["input"] else "")
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]


def _turns(messages: Messages) -> Messages:
    return [{"role": m["role"], "content": m["content"]} for m in messages][-2:]


def encoded(tokenizer: Any, rows: Sequence[Messages]) -> list[tuple[list[int], int]]:
    """(ids, where the answer begins) of each conversation, by the model's own template."""
    found = []
    for row in rows:
        prompt = tokenizer.apply_chat_template(row[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
        ids = tokenizer.apply_chat_template(row, return_dict=True)["input_ids"]
        found.append((ids, len(prompt)))
    return found


def held_out_loss(model: Any, rows: Sequence[tuple[list[int], int]]) -> float:
    """Mean cross-entropy of the answers in nats per token, one row at a time, under bf16 autocast, softmax in fp32."""
    import torch
    from torch.nn.functional import cross_entropy

    model.eval()
    total, count = 0.0, 0
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        for ids, start in rows:
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, start - 1 : -1]
            total += float(cross_entropy(logits.float(), torch.tensor(ids[start:]), reduction="sum"))
            count += len(ids) - start
    model.train()
    return total / count
