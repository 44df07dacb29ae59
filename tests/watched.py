"""A tiny model that has something to forget, and short sets that show it."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from rankwise.text.template import ChatText
from tests.training import WORDS, toy_model, write_jsonl

TEXTS = [
    "The clinic opens at eight in the morning.",
    "Rivers run from the mountains to the sea.",
    "A week has seven days and a year has many.",
    "Bread is made from flour, water and salt.",
    "The moon goes around the earth each month.",
    "Bees make honey and live in a hive.",
    "Snow falls in winter and melts in spring.",
]
QUESTIONS = [
    ("What do bees make?", "honey"),
    ("What is bread made from?", "flour"),
    ("When does snow fall?", "winter"),
    ("Where do rivers end?", "the sea"),
    ("What goes around the earth?", "the moon"),
    ("How many days has a week?", "seven"),
    ("When does the clinic open?", "at eight"),
]


def ability_files(folder: Path) -> dict[str, str]:
    """`forgetting.general` and `forgetting.questions` of a job in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "general.jsonl", [{"text": text} for text in TEXTS])
    answers = [answer for _, answer in QUESTIONS]
    rows = [
        {"question": question, "answer": answer, "choices": [answers[(i + n) % len(answers)] for n in range(3)]}
        for i, (question, answer) in enumerate(QUESTIONS)
    ]
    write_jsonl(folder / "questions.jsonl", rows)
    return {"general": "general.jsonl", "questions": "questions.jsonl"}


def knowing_model(folder: Path, steps: int = 60) -> Path:
    """A toy model that has learned TEXTS and QUESTIONS by heart."""
    toy_model(folder)
    chat = ChatText.from_folder(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    said = [*TEXTS, *(f"Question: {question}\nAnswer: {answer}" for question, answer in QUESTIONS), *WORDS]
    rows = [torch.tensor([chat.encode_document(text)]) for text in said]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        for ids in rows:
            (model(input_ids=ids, labels=ids).loss / len(rows)).backward()
        optimizer.step()
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder
