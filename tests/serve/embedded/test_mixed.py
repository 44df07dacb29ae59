"""In fp32 a row of a mixed batch answers as PEFT does alone with that row's adapter: for every method that training
has, whichever neighbours there are, and whenever they come and go."""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rankwise.model.load import load_base
from rankwise.serve.embedded.adapter import Adapter
from rankwise.serve.embedded.batch import Batch, Row
from rankwise.serve.embedded.read import read_adapter
from rankwise.serve.embedded.sampling import Draw
from rankwise.serve.embedded.settings import Settings
from tests.serve.embedded.built import NEW, SERVED, Said, alone, build, prompts
from tests.tiny import tiny_gemma2, tiny_gpt2, tiny_llama


def quiet_gemma2(folder: Path) -> Path:
    """With smaller embeddings: those of the tiny one, scaled and tied, have it repeat its input whatever is added."""
    model = load_base(tiny_gemma2(folder), dtype="fp32")
    model.get_input_embeddings().weight.data *= 0.1
    model.save_pretrained(folder)
    return folder


BASES: Mapping[str, Callable[[Path], Path]] = {
    "llama": lambda folder: tiny_llama(folder, dtype="fp32"),
    "gpt2": tiny_gpt2,
    "gemma2": quiet_gemma2,
}
Answers = dict[int, Said]


class House:
    """A base with one adapter of every method (two of LoRA), and the engine's batch over it."""

    def __init__(self, place: Path, kind: str) -> None:
        self.base = BASES[kind](place / "base")
        wanted = [(f"{method}-0", method, {}) for method in SERVED]
        wanted.append(("lora-1", "lora", {"r": 2, "target_modules": ("q_proj",)} if kind != "gpt2" else {"r": 2}))
        self.folders = {name: build(self.base, place / name, m, n, **c) for n, (name, m, c) in enumerate(wanted)}
        self.model = load_base(self.base, dtype="fp32")
        self.adapters: dict[str | None, Adapter | None] = {None: None}
        for name, folder in self.folders.items():
            self.adapters[name] = read_adapter(name, folder, self.model)
        self._known: dict[Any, Said] = {}

    def batch(self, **settings: Any) -> Batch:
        return Batch(self.model, Settings(self.base, **{"dtype": "fp32", "prefill_tokens": 48, **settings}))

    def row(self, key: int, name: str | None, prompt: tuple[int, ...], new: int = NEW) -> Row:
        return Row(key, self.adapters[name], prompt, new, frozenset(), Draw(0.0, 1.0, 0.0, 0.0, 1, None))

    def alone(self, name: str | None, prompt: tuple[int, ...]) -> Said:
        if (name, prompt) not in self._known:
            self._known[name, prompt] = alone(self.base, None if name is None else self.folders[name], prompt)
        return self._known[name, prompt]


@pytest.fixture(scope="module", params=list(BASES))
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp(request.param), request.param)


def run(batch: Batch, rows: list[Row]) -> Answers:
    """All rows together."""
    batch.waiting.extend(rows)
    answers: Answers = defaultdict(list)
    while not batch.idle:
        take(batch, answers)
    return answers


def take(batch: Batch, answers: Answers) -> None:
    for emitted in batch.turn():
        if emitted.chosen is not None:
            assert emitted.chosen.logprob is not None
            answers[emitted.key].append((emitted.chosen.token, emitted.chosen.logprob))


def same(found: Said, expected: Said) -> bool:
    """Token for token, as probable as alone."""
    return [token for token, _ in found] == [token for token, _ in expected] and all(
        abs(a - b) < 2e-3 for (_, a), (_, b) in zip(found, expected, strict=True)
    )


def test_every_method_in_one_batch_answers_as_alone(house: House) -> None:
    names = list(house.adapters)
    asked = [(name, prompt) for name, prompt in zip(names, prompts(len(names)), strict=True)]
    rows = [house.row(key, name, prompt) for key, (name, prompt) in enumerate(asked)]
    answers = run(house.batch(max_rows=len(rows)), rows)
    for key, (name, prompt) in enumerate(asked):
        assert same(answers[key], house.alone(name, prompt)), name


def test_adapters_answer_differently(house: House) -> None:
    prompt = prompts(1)[0]
    answers = [house.alone(name, prompt) for name in house.adapters]
    for number, answer in enumerate(answers):
        assert not any(same(answer, other) for other in answers[:number])


@pytest.mark.parametrize("seed", range(4))
def test_rows_come_and_go_and_change_nothing(house: House, seed: int) -> None:
    draw = random.Random(seed)
    asked = [(draw.choice(list(house.adapters)), prompt) for prompt in prompts(20, seed)]
    length = [draw.randint(1, NEW) for _ in asked]
    batch = house.batch(max_rows=draw.randint(2, 7), prefill_tokens=draw.choice([1, 5, 16, 64]))
    answers: Answers = defaultdict(list)
    cancelled: set[int] = set()
    coming = list(enumerate(asked))
    while coming or not batch.idle:
        for _ in range(draw.randint(0, 3)):
            if coming:
                key, (name, prompt) = coming.pop(0)
                batch.waiting.append(house.row(key, name, prompt, length[key]))
        if draw.random() < 0.1:
            cancelled.add(key := draw.randrange(len(asked)))
            batch.cancel(key)
        take(batch, answers)
    for key, (name, prompt) in enumerate(asked):
        expected = house.alone(name, prompt)[: length[key]]
        if key in cancelled:
            assert same(answers[key], expected[: len(answers[key])])
        else:
            assert same(answers[key], expected), (name, key)


def test_unloading_forgets_and_loading_again_is_the_same(house: House) -> None:
    batch, prompt = house.batch(), prompts(1)[0]
    rows = [house.row(0, "lora-0", prompt), house.row(1, "dora-0", prompt)]
    first = run(batch, rows)
    old = house.adapters["lora-0"]
    assert old is not None
    batch.forget(old)
    house.adapters["lora-0"] = read_adapter("lora-0", house.folders["lora-0"], house.model)
    assert run(batch, [house.row(0, "lora-0", prompt), house.row(1, "dora-0", prompt)]) == first
