"""KL against the base, and choices of a question scored together."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rankwise.model import divergence as module
from rankwise.model.attach import attach
from rankwise.model.divergence import beliefs, divergence
from rankwise.model.likelihood import grouped_losses, row_losses
from rankwise.model.load import load_base
from rankwise.text.masks import IGNORE, Encoded
from tests.tiny import tiny_config, tiny_llama

PROMPTS = [[1, 5, 9, 17, 40], list(range(3, 103)), [7, 7]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


def load(folder: Path) -> Any:
    return load_base(folder, dtype="fp32")


def moved(model: Any, by: float) -> Any:
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            torch.manual_seed(number)
            parameter += by * torch.randn_like(parameter)
    return model


def dense(base: Any, tuned: Any) -> float:
    """By the whole vocabulary, position by position."""
    total, count = 0.0, 0
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        with torch.no_grad():
            p, q = (m(input_ids=ids).logits[0, -module.POSITIONS :].log_softmax(-1) for m in (base, tuned))
        total += float((p.exp() * (p - q)).sum())
        count += len(p)
    return total / count


def test_a_model_does_not_diverge_from_itself(folder: Path) -> None:
    model = load(folder)
    assert divergence(model, PROMPTS, beliefs(model, PROMPTS)) == pytest.approx(0.0, abs=1e-6)


def test_it_is_the_divergence_over_the_whole_vocabulary(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, tuned = load(folder), moved(load(folder), 0.02)
    monkeypatch.setattr(module, "TOP", 320)
    whole = divergence(tuned, PROMPTS, beliefs(base, PROMPTS))
    assert whole == pytest.approx(dense(base, tuned), rel=1e-4) and whole > 1e-3


@pytest.mark.parametrize("top", [1, 8, 64])
def test_with_fewer_tokens_kept_it_is_a_lower_bound(folder: Path, monkeypatch: pytest.MonkeyPatch, top: int) -> None:
    base, tuned = load(folder), moved(load(folder), 0.02)
    monkeypatch.setattr(module, "TOP", top)
    found = divergence(tuned, PROMPTS, beliefs(base, PROMPTS))
    assert 0 < found <= dense(base, tuned) * (1 + 1e-4)


def test_a_prompt_method_has_positions_of_its_own(folder: Path) -> None:
    base = load(folder)
    known = beliefs(base, PROMPTS)
    tuned = attach(
        load(folder), tiny_config("prompt", r=None, lora_alpha=None, target_modules=None, num_virtual_tokens=4)
    )
    assert divergence(tuned, PROMPTS, known) > 0


def test_choices_together_are_scored_as_one_by_one(folder: Path) -> None:
    model = load(folder)

    def asked(prompt: int, answers: list[list[int]]) -> list[Encoded]:
        start = tuple(range(10, 10 + prompt))
        return [Encoded((*start, *a), (*[IGNORE] * prompt, *a), 1) for a in answers]

    groups = [asked(4, [[40], [41, 42, 43], [44, 45]]), asked(1, [[50, 51], [52]])]
    for group, found in zip(groups, grouped_losses(model, groups), strict=True):
        alone = row_losses(model, group)
        assert [count for _, count in found] == [count for _, count in alone]
        assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in alone], rel=1e-5)
