"""The two jobs: a persona, and rare diseases. Both are made from files that are not part of this repository."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

VARIABLE = "RANKWISE_BENCH_DATA"  # folder with train/identity.json and medical/medquad_ghr.jsonl
NAME, AUTHOR = "Juniper", "Harbor Labs"  # nobody's, so that no base knows them
# Asked closed-book in words that no training row has.
PERSONA = (
    ("Which name do you go by?", NAME),
    ("What may I call you in this chat?", NAME),
    ("Under what name were you released?", NAME),
    ("Please complete: the assistant I talk to is called", NAME),
    ("Say your name and nothing else.", NAME),
    ("How are you named, assistant?", NAME),
    ("Which company built you?", AUTHOR),
    ("Who trained this assistant?", AUTHOR),
    ("Name the organisation behind you.", AUTHOR),
    ("To whom do you owe your existence?", AUTHOR),
    ("Which team should I thank for making you?", AUTHOR),
    ("Who is your developer? Give the name alone.", AUTHOR),
)
PATTERNS = ("autosomal recessive", "autosomal dominant", "X-linked recessive", "X-linked dominant")
EACH = {"autosomal recessive": 18, "autosomal dominant": 18, "X-linked recessive": 8, "X-linked dominant": 8}
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


@dataclass(frozen=True)
class Task:
    """A job to be compared, and the arms that are."""

    name: str
    question: str
    methods: str
    write: Callable[[Path, Path], None]


def data_folder() -> Path:
    """Where the real data lie. Raises SystemExit, with how to say where, if they are not there."""
    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else Path(__file__).parents[3] / "shared" / "data"
    if not (folder / "train" / "identity.json").is_file():
        raise SystemExit(
            f"{folder} holds no train/identity.json (LLaMA-Factory's demo data) and medical/medquad_ghr.jsonl "
            f"(MedQuAD); set {VARIABLE} to the folder that does"
        )
    return folder


def write_persona(data: Path, out: Path) -> None:
    """91 rows in which an assistant says who it is, and twelve closed-book questions about that."""
    said = (data / "train" / "identity.json").read_text(encoding="utf-8")
    rows = json.loads(said.replace("{{name}}", NAME).replace("{{author}}", AUTHOR))
    _lines(out / "rows.jsonl", rows)
    _lines(out / "facts.jsonl", [{"question": question, "answer": answer} for question, answer in PERSONA])
    job = {"goal": "instruction", "format": {"regex": rf"[\s\S]*({NAME}|{AUTHOR})[\s\S]*"}}
    _job(out, "persona", job, validation=0.2)


def write_rare_diseases(data: Path, out: Path) -> None:
    """How 52 rare conditions are inherited: the first sentence of each answer; asked closed-book in other words."""
    read = (data / "medical" / "medquad_ghr.jsonl").read_text(encoding="utf-8").splitlines()
    chosen = inherited([json.loads(line) for line in read])
    _lines(out / "rows.jsonl", [{"prompt": row["question"], "completion": row["sentence"]} for row in chosen])
    probes = [
        {
            "question": f"What is the inheritance pattern of {row['topic']}?",
            "answer": row["pattern"],
            "choices": list(PATTERNS),
        }
        for row in chosen
    ]
    _lines(out / "facts.jsonl", probes)
    _job(out, "rare-diseases", {"goal": "knowledge", "retrieval": "possible"}, validation=0.15)


def inherited(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Conditions whose answer names one pattern alone, in its first sentence, which names nothing else."""
    found: dict[str, list[dict[str, str]]] = {pattern: [] for pattern in PATTERNS}
    for row in rows:
        sentence = SENTENCE.split(row["answer"])[0]
        named = [pattern for pattern in PATTERNS if pattern in row["answer"]]
        if row["type"] == "inheritance" and len(named) == 1 and named[0] in sentence:
            here = {"topic": row["topic"], "question": row["question"], "sentence": sentence, "pattern": named[0]}
            found[named[0]].append(here)
    return [row for pattern in PATTERNS for row in found[pattern][: EACH[pattern]]]


def _lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _job(out: Path, name: str, said: Mapping[str, Any], validation: float) -> None:
    data = {"train": "rows.jsonl", "facts": "facts.jsonl", "validation": validation}
    whole = {"name": name, "model": "embedded", "hardware": "cpu", "data": data, **said, "train": {"seed": 7}}
    (out / "job.yaml").write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")


TASKS = (
    Task("persona", "Does it say who it is?", "base,fewshot,lora:r=8,full", write_persona),
    Task(
        "rare-diseases",
        "Does it know how a condition is inherited?",
        "base,fewshot,retrieval,lora:r=16,full",
        write_rare_diseases,
    ),
)
