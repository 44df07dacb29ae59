"""Replay without a corpus: the untouched base writes the general rows itself, once, by sampling.

What is sampled from a model at temperature 1, with nothing cut off, follows its own distribution, so that the gradient
of cross-entropy on such rows is zero on average as long as the model is the base: the rows pull back only what has
moved (Self-generated replay, arXiv 2605.26097). A chat model is asked nothing: its template is written up to where the
user speaks, and it goes on with a question of its own (Magpie, arXiv 2406.08464), which it then answers. A model
without a template writes documents.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig

from rankwise.errors import TrainingError
from rankwise.files import write_text
from rankwise.model.generate import only_settings, positions_of
from rankwise.model.likelihood import device_of, evaluating
from rankwise.model.load import load_base, quiet_transformers
from rankwise.records import DeviceFacts, ModelFacts
from rankwise.text.general import Replay
from rankwise.text.locked import locked
from rankwise.text.template import ChatText

BATCH = 16  # rows that are written together
TRIES = 8  # rows begun for each that is wanted, before it is given up
REPEATS = 3.0  # bytes of a text over those of its zlib form, from which on it goes in circles (plain text: 1.5 to 2.5)
SHORT = 200  # bytes below which zlib tells nothing
_USER = "\u27e6user\u27e7"

Row = dict[str, Any]


@dataclass
class Written:
    """Rows so far, and what was dropped, by reason."""

    rows: list[Row] = field(default_factory=list)
    begun: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, why: str) -> None:
        self.dropped[why] = self.dropped.get(why, 0) + 1

    def sentence(self) -> str:
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(self.dropped.items()))
        return f"{len(self.rows)} rows kept of {self.begun} begun" + (f" (dropped: {why})" if why else "")


def load_for_replay(facts: ModelFacts, device: DeviceFacts) -> Any:
    """The untouched base, in the precision of its files where the device has it."""
    bf16 = device.bf16 and facts.dtype != "fp32"
    return load_base(facts.path, dtype="bf16" if bf16 else "fp32", device="cpu" if device.kind == "cpu" else "cuda")


def write_replay(path: Path, model: nn.Module, chat: ChatText, replay: Replay) -> Iterator[Written]:
    """Write `path`, unless another process has by then; yields what there is after each batch.

    Raises:
        TrainingError: of many tries hardly any row was fit to be learned.
    """
    with locked(path):
        if path.is_file():
            return
        written = Written()
        for written in generate(model, chat, replay):
            yield written
        if len(written.rows) < min(4, replay.rows):
            raise TrainingError(
                f"the base cannot write rows for replay: {written.sentence()}",
                expected="text that ends and does not go in circles",
                fix="give general rows as data.general.path",
            )
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in written.rows))


def generate(model: nn.Module, chat: ChatText, replay: Replay, batch: int = BATCH) -> Iterator[Written]:
    """Rows of the messages format (with a chat template) or the text format, batch by batch; they follow from the seed,
    the size of a batch, the model and its device.
    """
    written, seen = Written(), set[str]()
    with torch.random.fork_rng(), evaluating(model):
        torch.manual_seed(replay.seed)
        while len(written.rows) < replay.rows and written.begun < TRIES * replay.rows:
            written.begun += batch
            for row, key in _batch(model, chat, replay, batch, written):
                if key in seen:
                    written.drop("twice")
                elif len(written.rows) < replay.rows:
                    seen.add(key)
                    written.rows.append(row)
            yield written


def _batch(model: nn.Module, chat: ChatText, replay: Replay, batch: int, written: Written) -> Iterator[tuple[Row, str]]:
    if not chat.has_template:
        begin = chat.eos_token_id if chat.bos_token_id is None else chat.bos_token_id
        for text in _sample(model, chat, [[begin]] * batch, replay.answer_tokens, set(), written):
            yield {"text": text}, text
        return
    opening, closing = _around_the_user(chat)
    ends = set(chat.encode(closing)[:1])
    asked = list(_sample(model, chat, [chat.encode(opening)] * batch, replay.question_tokens, ends, written))
    questions = [[{"role": "user", "content": question}] for question in asked]
    prompts = [chat.encode_prompt(question) for question in questions]
    answers = _sample(model, chat, prompts, replay.answer_tokens, set(), written, keep_places=True)
    for question, answer in zip(questions, answers, strict=True):
        if answer:
            yield {"messages": [*question, {"role": "assistant", "content": answer}]}, question[0]["content"] + answer


def _around_the_user(chat: ChatText) -> tuple[str, str]:
    """The template's text before and after what a user says first."""
    before, _, after = chat.render([{"role": "user", "content": _USER}]).partition(_USER)
    return before, after


def _sample(
    model: nn.Module,
    chat: ChatText,
    prompts: Sequence[Sequence[int]],
    most: int,
    ends: set[int],
    written: Written,
    *,
    keep_places: bool = False,
) -> Iterator[str]:
    """What the model goes on with; of what is not fit to be learned nothing, or with `keep_places` an empty text."""
    stops = {*chat.stop_token_ids, *ends}
    for ids in _sampled_ids(model, chat, prompts, most, sorted(stops)) if prompts else ():
        text, fault = _judged(ids, chat, stops)
        if fault:
            written.drop(fault)
        if not fault or keep_places:
            yield "" if fault else text


def _judged(ids: Sequence[int], chat: ChatText, stops: set[int]) -> tuple[str, str | None]:
    """(the text before the stop token, why it is not kept)."""
    end = next((i for i, token in enumerate(ids) if token in stops), None)
    if end is None:
        return "", "unfinished"
    text = chat.decode(ids[:end]).strip()
    if not text:
        return "", "empty"
    if text != chat.decode(ids[:end], skip_special_tokens=False).strip():
        return "", "with special tokens"
    data = text.encode("utf-8", "replace")
    circles = len(data) >= SHORT and len(data) > REPEATS * len(zlib.compress(data))
    return text, "in circles" if circles else None


def _sampled_ids(
    model: Any, chat: ChatText, prompts: Sequence[Sequence[int]], most: int, stops: list[int]
) -> list[list[int]]:
    """New ids of each prompt at temperature 1 with nothing cut off; padding stands on the left."""
    width, device = max(map(len, prompts)), device_of(model)
    positions = positions_of(model)
    room = most if positions is None else max(1, min(most, positions - width))
    pad = chat.eos_token_id if chat.pad_token_id is None else chat.pad_token_id
    ids = [[*[pad] * (width - len(p)), *p] for p in prompts]
    used = [[*[0] * (width - len(p)), *[1] * len(p)] for p in prompts]
    settings = GenerationConfig(
        max_new_tokens=room,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        eos_token_id=stops,
        pad_token_id=pad,
        use_cache=True,
    )
    with only_settings(model, settings), quiet_transformers():
        out: torch.Tensor = model.generate(
            input_ids=torch.tensor(ids, device=device), attention_mask=torch.tensor(used, device=device)
        )
    return [list(row) for row in out[:, width:].tolist()]
