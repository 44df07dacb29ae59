"""A model with an adapter of any kind is scored and answers as one pass over the whole text would."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from rankwise.methods import METHODS
from rankwise.model.attach import attach, untouched
from rankwise.model.generate import answer_ids, positions_of, stream
from rankwise.model.likelihood import IGNORE, final_logits, row_losses
from rankwise.model.load import load_base
from rankwise.model.prefix import WORTH, read_prefix, token_losses
from rankwise.text.masks import Encoded
from rankwise.text.template import ChatText
from tests.tiny import tiny_config

ADAPTERS = [name for name, m in METHODS.items() if m.trains == "adapter" and name != "qlora"]
PROMPTS = [name for name in ADAPTERS if "num_virtual_tokens" in METHODS[name].options]
CONVERSATIONS = [[{"role": "user", "content": text}] for text in ("yes", "What does it cost?", "a" * 40, "no", "ok")]
SHARED = tuple(range(5, 5 + WORTH + 8))
ROWS = [Encoded((*SHARED, *own), (*[IGNORE] * len(SHARED), *own), 1) for own in ((50, 60, 70), (51,), (9, 8, 7, 6))]


@pytest.fixture(params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


def adapted(folder: Path, method: str) -> Any:
    """With values that change the output, as after training."""
    options: dict[str, Any] = {"r": None, "lora_alpha": None, "lora_dropout": None, "target_modules": None}
    config = tiny_config(method, **({} if "r" in METHODS[method].options else options))
    model: Any = attach(load_base(folder, dtype="fp32"), config)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    return model.eval()


@pytest.mark.parametrize("method", ADAPTERS)
def test_losses_are_those_of_all_logits(folder: Path, method: str) -> None:
    """Logits are asked for by position, and a prompt method has positions of its own before the row."""
    model = adapted(folder, method)
    expected = []
    for row in ROWS:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([row.ids])).logits[0, -len(row.ids) :]
        labels = torch.tensor(row.labels)
        expected.append(float(cross_entropy(logits[:-1], labels[1:], ignore_index=IGNORE, reduction="sum")))
    assert [loss for loss, _ in row_losses(model, ROWS)] == pytest.approx(expected, rel=1e-4)
    assert [sum(losses) for losses in token_losses(model, ROWS)] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("method", ADAPTERS)
def test_batched_streamed_and_single_answers_are_those_of_scoring(folder: Path, method: str) -> None:
    model, text = adapted(folder, method), ChatText.from_folder(folder)
    expected = [greedy(model, text, conversation, 8) for conversation in CONVERSATIONS]
    assert answer_ids(model, text, CONVERSATIONS, 8, batch_size=1) == expected
    assert answer_ids(model, text, CONVERSATIONS, 8) == expected
    assert answer_ids(model, text, CONVERSATIONS, 8, share_prefix=True) == expected
    assert "".join(stream(model, text, CONVERSATIONS[1], 8)) == text.decode(expected[1])


def greedy(model: Any, text: ChatText, conversation: Any, steps: int) -> list[int]:
    """Each token from one pass over all before it."""
    prompt, said = text.encode_prompt(conversation), list[int]()
    for _ in range(steps):
        token = int(final_logits(model, [[*prompt, *said]])[0].argmax())
        if token in text.stop_token_ids:
            break
        said.append(token)
    return said


# While PiSSA trains its base holds the residual; published, it is LoRA on the untouched base.
@pytest.mark.parametrize("method", [name for name in ADAPTERS if name != "pissa"])
def test_switched_off_it_answers_as_its_base(folder: Path, method: str) -> None:
    model, ids = adapted(folder, method), [list(ROWS[0].ids)]
    base = final_logits(load_base(folder, dtype="fp32"), ids)
    with untouched(model) as off:
        assert torch.equal(final_logits(off, ids), base)
    assert not torch.equal(final_logits(model, ids), base)


@pytest.mark.parametrize("method", PROMPTS)
def test_a_learned_prompt_takes_positions_and_is_not_cached(folder: Path, method: str) -> None:
    model, base = adapted(folder, method), load_base(folder, dtype="fp32")
    assert positions_of(model) == (positions_of(base) or 0) - 20
    assert read_prefix(model, SHARED) is None and read_prefix(base, SHARED) is not None
