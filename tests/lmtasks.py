"""A folder of tasks for lm-evaluation-harness over a few rows: one of each kind of request, a group, and faults."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

QUESTIONS: list[dict[str, Any]] = [
    {"question": "Which animal lays eggs?", "choices": ["a dog", "a hen", "a cow", "a cat"], "answer": 1},
    {"question": "What does a plant need to make food?", "choices": ["sunlight", "salt", "sand", "sound"], "answer": 0},
    {"question": "What turns water into ice?", "choices": ["wind", "heat", "light", "cold"], "answer": 3},
    {"question": "Which of these is a metal?", "choices": ["wood", "glass", "iron", "wool"], "answer": 2},
    {"question": "What pulls a falling ball down?", "choices": ["gravity", "air", "paint", "noise"], "answer": 0},
    {"question": "Which organ pumps blood?", "choices": ["the lung", "the skin", "the ear", "the heart"], "answer": 3},
    {"question": "What do fish breathe with?", "choices": ["feet", "gills", "leaves", "wings"], "answer": 1},
    {"question": "Which one gives its own light?", "choices": ["the moon", "a stone", "the sun", "a cup"], "answer": 2},
    {"question": "What melts in warm hands?", "choices": ["chocolate", "a coin", "a key", "a brick"], "answer": 0},
    {"question": "Where does rain come from?", "choices": ["rocks", "clouds", "roots", "roads"], "answer": 1},
    {"question": "Which season is the coldest?", "choices": ["spring", "summer", "autumn", "winter"], "answer": 3},
    {"question": "What tells the time?", "choices": ["a spoon", "a shoe", "a clock", "a plate"], "answer": 2},
]
EXAMPLES: list[dict[str, Any]] = [
    {"question": "What do bees make?", "choices": ["honey", "milk", "paper", "silk"], "answer": 0},
    {"question": "What is frozen water?", "choices": ["steam", "ice", "oil", "fog"], "answer": 1},
    {"question": "Which can fly?", "choices": ["a snail", "a horse", "a bird", "a fish"], "answer": 2},
    {"question": "What has four legs?", "choices": ["a snake", "a bird", "a worm", "a table"], "answer": 3},
]
TEXTS = [
    {"text": "The clinic opens at eight and closes at five."},
    {"text": "Rain falls from clouds. Snow falls when it is cold, and it melts in spring."},
    {"text": "Yes."},
    {"text": "A clock tells the time; a ruler tells how long a thing is."},
]
ENDINGS = [
    {"start": "The sun gives", "end": "light"},
    {"start": "Ice is frozen", "end": "water"},
    {"start": "A hen lays", "end": "eggs"},
    {"start": "Bees make", "end": "honey"},
]
CHOICE: dict[str, Any] = {
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"train": "examples.jsonl", "test": "questions.jsonl"}},
    "training_split": "train",
    "fewshot_split": "train",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
    ],
    "metadata": {"version": 1.0},
}
TASKS: dict[str, dict[str, Any]] = {
    "small_arc": {"task": "small_arc", **CHOICE},
    "small_arc_bare": {"task": "small_arc_bare", **CHOICE, "doc_to_text": "{{question}}"},
    "small_texts": {
        "task": "small_texts",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "texts.jsonl"}},
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
        "metric_list": [{"metric": m} for m in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    },
    "small_endings": {
        "task": "small_endings",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "endings.jsonl"}},
        "test_split": "test",
        "output_type": "loglikelihood",
        "doc_to_text": "{{start}}",
        "doc_to_target": " {{end}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    },
    "small_answers": {
        "task": "small_answers",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "endings.jsonl"}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{start}}",
        "doc_to_target": "{{end}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False, "temperature": 0.0},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
    "small_group": {
        "group": "small_group",
        "task": ["small_arc", "small_arc_bare"],
        "aggregate_metric_list": [{"metric": "acc", "aggregation": "mean", "weight_by_size": True}],
        "metadata": {"version": 2.0},
    },
    "not_here": {"task": "not_here", **CHOICE, "dataset_path": "nobody/nothing", "dataset_kwargs": {}},
    "no_file": {"task": "no_file", **CHOICE, "dataset_kwargs": {"data_files": {"test": "gone.jsonl"}}},
}


def write_tasks(folder: Path, names: Sequence[str] = tuple(TASKS), **rows: list[dict[str, Any]]) -> Path:
    """The data and the YAML files of these tasks in `folder`, which is returned; `rows` replaces a file's."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"questions": QUESTIONS, "examples": EXAMPLES, "texts": TEXTS, "endings": ENDINGS} | rows
    for name, content in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    for name in names:
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(TASKS[name], sort_keys=False))
    return folder
