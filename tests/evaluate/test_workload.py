"""What an evaluation is expected to ask, and what it did ask, on a real tiny model."""

import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from rankwise.evaluate.evaluation import evaluate
from rankwise.evaluate.exam import set_exam
from rankwise.evaluate.pair import Pair
from rankwise.evaluate.workload import MOST_ROWS, PROBE_TOKENS, SPARE_TOKENS, Spent, expected_work
from rankwise.jobfile import read_job
from rankwise.methods import METHODS
from rankwise.model.load import load_base
from rankwise.records import Job
from rankwise.records.ledger import AnswerBatch
from rankwise.text.dataset import Dataset, load_dataset
from rankwise.text.masks import Encoded
from rankwise.text.probes import Probe, read_probes
from rankwise.text.template import ChatText
from tests.tiny import tiny_llama
from tests.training import toy_rows, write_jsonl

torch.set_num_threads(1)
JOB = """
goal: instruction
model: tiny
data: {train: train.jsonl, validation: 0.5, facts: facts.jsonl, general: {path: general.jsonl}}
hardware: cpu
"""
PROBES = [
    {"question": "900 yes", "answer": "yes"},
    {
        "question": "901 prices please",
        "answer": "prices",
        "choices": ["prices", "hours"],
        "paraphrases": ["prices, 901"],
        "reversed": {"question": "what had prices?", "answer": "901"},
    },
]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Dataset, list[Probe], ChatText, Path]:
    folder = tmp_path_factory.mktemp("job")
    tiny_llama(folder / "tiny")
    write_jsonl(folder / "train.jsonl", toy_rows(40))
    write_jsonl(folder / "general.jsonl", toy_rows(8, seed=8))
    write_jsonl(folder / "facts.jsonl", PROBES)
    (folder / "job.yaml").write_text(JOB)
    job = read_job(folder / "job.yaml", {}, METHODS)
    chat = ChatText.from_folder(folder / "tiny")
    data = load_dataset(
        job, chat, general=job.data.general and job.data.general.path, max_length=256, on_long="drop", seed=0
    )
    assert job.data.facts is not None
    return job, data, read_probes(job.data.facts), chat, folder / "tiny"


def test_the_expected_work_is_what_was_asked(subject: tuple[Job, Dataset, list[Probe], ChatText, Path]) -> None:
    job, data, probes, chat, folder = subject
    model = load_base(folder, dtype="fp32")
    pair = Pair(chat, model, lambda: nullcontext(model), lambda *_: None)
    evaluate(set_exam(job, data, probes, ()), pair, None)
    expected, done = expected_work(data, probes, chat, 256), pair.spent.work()
    assert (done.rows, done.tokens, done.labelled) == (expected.rows, expected.tokens, expected.labelled)
    assert expected.rows == 2 * (len(data.validation) + len(data.general) + 2)
    prompts = [(b.rows, b.prompt) for b in expected.batches]
    assert [(b.rows, b.prompt) for b in done.batches] == prompts
    assert sum(b.rows for b in expected.batches) == 2 * (len(data.held_out) + len(probes) + 2)
    assert all(0 < d.steps <= PROBE_TOKENS + SPARE_TOKENS for d in done.batches)
    assert pair.spent.forward_seconds > 0 and pair.spent.generation_seconds > 0


def test_the_base_talks_to_the_limit_and_the_tuned_model_as_long_as_the_row(
    subject: tuple[Job, Dataset, list[Probe], ChatText, Path],
) -> None:
    _, data, _, chat, _ = subject
    batches = expected_work(data, [], chat, 256).batches
    longest = max(len(chat.encode(str(row.messages[-1]["content"]))) for row in data.held_out)
    half = len(batches) // 2
    assert {b.steps for b in batches[:half]} == {longest + SPARE_TOKENS}
    assert max(b.steps for b in batches[half:]) == longest + 1
    assert sum(b.rows for b in batches[:half]) == len(data.held_out) <= MOST_ROWS


def test_near_the_end_of_the_context_answers_are_shorter(
    subject: tuple[Job, Dataset, list[Probe], ChatText, Path],
) -> None:
    _, data, _, chat, _ = subject
    tight = max(len(chat.encode_prompt(row.messages[:1])) for row in data.held_out) + 3
    assert min(b.steps for b in expected_work(data, [], chat, tight).batches) == 3


def test_what_was_spent_adds_up() -> None:
    spent = Spent()
    spent.scored([Encoded((1, 2, 3), (-100, 2, 3), 1)], 0.5)
    spent.scored([Encoded((1, 2), (1, -100), 2)], 0.25)
    spent.answered([[1, 2, 3], [1]], [[5, 6], [7]], 10, 2.0)
    spent.answered([[1]], [[5, 6, 7]], 3, 1.0)
    with spent.elsewhere():
        time.sleep(0.02)
    assert 0.02 <= spent.elsewhere_seconds < 5
    done = spent.work()
    assert (spent.forward_seconds, spent.generation_seconds) == (0.75, 3.0)
    assert (done.rows, done.tokens, done.labelled) == (2, 5, 2)
    assert done.batches == (AnswerBatch(rows=2, prompt=3, steps=3), AnswerBatch(rows=1, prompt=1, steps=3))
