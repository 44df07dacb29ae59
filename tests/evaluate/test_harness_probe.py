"""A task of lm-evaluation-harness as a probe of the watch: item by item, whoever asks for which of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rankwise.errors import BenchmarkError
from rankwise.evaluate.harness import load_tokenizer, score
from rankwise.evaluate.harness_probe import TaskProbe, task_probes
from rankwise.evaluate.harness_tasks import Asked, load_tasks
from rankwise.model.likelihood import row_losses
from rankwise.model.load import load_base
from rankwise.text.masks import Encoded
from tests.lmtasks import CHOICE, TEXTS, write_tasks
from tests.tiny import tiny_llama

pytest.importorskip("lm_eval", reason="the extra `eval` is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny", positions=512, dtype="fp32")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))


def probe(tiny: Path, folder: Path, name: str, **more: Any) -> TaskProbe:
    (made,) = task_probes(Asked((name,), folder, **more), load_tokenizer(tiny), None)
    return made


def test_questions_are_shares_with_their_chance(tiny: Path, folder: Path) -> None:
    model, made = load_base(tiny, dtype="fp32"), probe(tiny, folder, "small_group", limit=7)
    assert (made.name, made.metric, made.items, made.chance) == ("small_group", "choice", 14, 0.25)
    numbers = made.measure(model, range(14))
    asked = Asked(("small_group",), folder, limit=7)
    (loaded,), _ = load_tasks(asked)
    group = score(model, load_tokenizer(tiny), loaded, asked).scores[0]
    assert {weight for _, weight in numbers} == {1.0}
    assert sum(value for value, _ in numbers) / 14 == pytest.approx(group.value)


def test_texts_are_nats_per_token(tiny: Path, folder: Path) -> None:
    """As our own cross-entropy has it, of every token after a beginning token."""
    model, made = load_base(tiny, dtype="fp32"), probe(tiny, folder, "small_texts")
    assert (made.metric, made.chance, made.items) == ("general_loss", None, 4)
    tokenizer = load_tokenizer(tiny)
    rows = [tokenizer.encode(text["text"]) for text in TEXTS]
    ours = row_losses(model, [Encoded((tokenizer.bos_token_id, *r), (-100, *r), 1) for r in rows])
    assert np.array(made.measure(model, range(4))) == pytest.approx(np.array(ours), rel=1e-4)


def test_a_part_of_the_items_gives_the_same_numbers(tiny: Path, folder: Path) -> None:
    model = load_base(tiny, dtype="fp32")
    for name in ("small_group", "small_texts", "small_answers"):
        made = probe(tiny, folder, name)
        whole = made.measure(model, range(made.items))
        asked = [made.items - 1, 0, 2, 0]  # of the last task as well; one twice, as processes fill up their shares
        assert made.measure(model, asked) == [whole[number] for number in asked]
        made.whole = True
        assert made.measure(model, asked) == [whole[number] for number in asked]


def test_its_hash_knows_what_is_asked(tiny: Path, folder: Path, tmp_path: Path) -> None:
    first = probe(tiny, folder, "small_arc").content
    assert probe(tiny, folder, "small_arc").content == first
    changed = write_tasks(tmp_path / "changed", questions=[{**CHANGED, "answer": n % 4} for n in range(8)])
    others = {probe(tiny, folder, "small_arc", limit=3).content, probe(tiny, changed, "small_arc").content}
    assert len(others | {first}) == 3


CHANGED = {"question": "Which?", "choices": ["a", "b", "c", "d"]}


def test_what_cannot_be_watched_is_refused(tiny: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="nobody/nothing"):
        probe(tiny, folder, "not_here")
    mine = write_tasks(tmp_path / "mine", ["small_arc", "small_texts"])
    (mine / "mixed.yaml").write_text(yaml.safe_dump({"group": "mixed", "task": ["small_arc", "small_texts"]}))
    with pytest.raises(BenchmarkError, match="both texts and questions"):
        probe(tiny, mine, "mixed")
    (mine / "f1.yaml").write_text(yaml.safe_dump({"task": "f1", **CHOICE, "metric_list": [{"metric": "mcc"}]}))
    with pytest.raises(BenchmarkError, match="keeps no number an item"):
        probe(tiny, mine, "f1").measure(load_base(tiny, dtype="fp32"), range(3))
