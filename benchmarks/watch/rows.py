"""A format task that costs a small model its general ability: school questions answered as JSON."""

import json
import os
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SHARED = HERE.parents[1].parent / "shared" / "data" / "general" / "arc_easy_train.jsonl"
OWN = HERE.parents[1] / "examples" / "clinic" / "train.jsonl"
VARIABLE = "RANKWISE_BENCH_WATCH_ROWS"  # a JSONL of question, choices, answer (an index)
LETTERS = "ABCDEFGH"
LONGEST = 400  # characters of a question with its choices: short rows show as much, and cost less
Row = dict[str, Any]


def task_rows(path: Path | None, count: int) -> tuple[list[Row], str]:
    """(`count` conversations, where they come from): of `path`, of $RANKWISE_BENCH_WATCH_ROWS, of the shared ARC
    questions, or of the clinic example, whichever is there first.
    """
    named = path or (Path(os.environ[VARIABLE]) if VARIABLE in os.environ else SHARED)
    if path is None and VARIABLE not in os.environ and not named.is_file():
        lines = OWN.read_text(encoding="utf-8").splitlines()[:count]
        return [json.loads(line) for line in lines], "examples/clinic/train.jsonl"
    probes = [json.loads(line) for line in named.read_text(encoding="utf-8").splitlines()]
    short = [p for p in probes if len(p["question"]) + sum(map(len, p["choices"])) <= LONGEST]
    return [_conversation(probe) for probe in short[:count]], named.name


def _conversation(probe: dict[str, Any]) -> Row:
    offered = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, probe["choices"], strict=False))
    said = {"letter": LETTERS[probe["answer"]], "answer": probe["choices"][probe["answer"]]}
    user = {"role": "user", "content": f"{probe['question']}\n{offered}"}
    return {"messages": [user, {"role": "assistant", "content": json.dumps(said)}]}
