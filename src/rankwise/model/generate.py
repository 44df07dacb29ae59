"""Greedy answers: batched for evaluation, streamed for chat. Both stop on the tokens that training teaches."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from math import exp
from typing import Any, Protocol

import torch
from torch import nn
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

from rankwise.errors import ModelError
from rankwise.model.likelihood import device_of, evaluating
from rankwise.model.load import quiet_transformers
from rankwise.model.prefix import learned_prompt, read_once, read_prefix, repeated

Messages = Sequence[Mapping[str, Any]]
BATCH = 16  # rows that are answered together


class Speech(Protocol):
    """What generation needs of a model's text; `rankwise.text.template.ChatText` is one."""

    @property
    def pad_token_id(self) -> int | None: ...
    @property
    def eos_token_id(self) -> int: ...
    @property
    def stop_token_ids(self) -> Sequence[int]: ...
    def encode_prompt(self, messages: Messages) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Said:
    """An answer as the model gave it.

    Attributes:
        ids: new tokens, without the stop token.
        ended: by a stop token; False: the limit cut it off.
        log_probs: of each token of `ids`, the logarithm of the probability that the model gave it.
    """

    ids: list[int]
    ended: bool
    log_probs: list[float]

    @property
    def probability(self) -> float | None:
        """Geometric mean over the tokens said; None where it said nothing."""
        return exp(sum(self.log_probs) / len(self.log_probs)) if self.log_probs else None


def answer(
    model: nn.Module,
    text: Speech,
    conversations: Sequence[Messages],
    max_new_tokens: int,
    batch_size: int = BATCH,
    on_batch: Callable[[int], None] | None = None,
) -> list[str]:
    """The model's greedy answer to each conversation, in order, without special tokens.

    In fp32 an answer does not depend on the rows beside it; in bf16 padding changes the rounding, which may flip a
    near-tie.

    Args:
        model: any causal language model of transformers, with or without a PEFT adapter.
        max_new_tokens: answers are cut there, or where the model's positions end.
        batch_size: rows in one batch; rows of similar length are put together.
        on_batch: called after each batch with the number of answers that it gave.

    Raises:
        ModelError: no chat template, or a conversation as long as the model's context.
    """
    return [text.decode(i) for i in answer_ids(model, text, conversations, max_new_tokens, batch_size, on_batch)]


def answer_ids(
    model: nn.Module,
    text: Speech,
    conversations: Sequence[Messages],
    max_new_tokens: int,
    batch_size: int = BATCH,
    on_batch: Callable[[int], None] | None = None,
    share_prefix: bool = False,
) -> list[list[int]]:
    """As `answer`, the token ids (which their text, encoded again, need not give back), without the stop token.

    share_prefix: what all prompts begin with (the same examples, say) is read once; in bf16 this changes the rounding.
    """
    found = say(model, text, conversations, max_new_tokens, batch_size, on_batch, share_prefix)
    return [said.ids for said in found]


def say(
    model: nn.Module,
    text: Speech,
    conversations: Sequence[Messages],
    max_new_tokens: int,
    batch_size: int = BATCH,
    on_batch: Callable[[int], None] | None = None,
    share_prefix: bool = False,
) -> list[Said]:
    """As `answer_ids`, with how each answer ended and how probable its tokens were."""
    prompts = [text.encode_prompt(c) for c in conversations]
    answers: dict[int, Said] = {}
    shared, cache = _prefix(model, prompts) if share_prefix else (0, None)
    for room, rows in batches(prompts, max_new_tokens, positions_of(model), batch_size, padded=_pads(model)):
        memory = {} if cache is None else {"past_key_values": repeated(cache, len(rows))}
        new = _greedy(model, text, [prompts[i] for i in rows], room, shared, **memory)
        answers |= dict(zip(rows, new, strict=True))
        if on_batch:
            on_batch(len(rows))
    return [answers[i] for i in range(len(prompts))]


def stream(model: nn.Module, text: Speech, messages: Messages, max_new_tokens: int) -> Iterator[str]:
    """The greedy answer to one conversation, piece by piece as it is generated.

    Closing the iterator, or Ctrl-C in the loop that reads it, stops the generation. Raises as `answer`.
    """
    prompt = text.encode_prompt(messages)
    room = _room(prompt, max_new_tokens, positions_of(model))
    pieces = _Pieces(text)
    failure: list[BaseException] = []

    def work() -> None:
        try:
            _greedy(model, text, [prompt], room, streamer=pieces, stopping_criteria=StoppingCriteriaList([pieces.stop]))
        except BaseException as error:
            failure.append(error)
        finally:
            pieces.end()

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        yield from pieces
    finally:
        pieces.stop.asked = True
        worker.join()
    if failure:
        raise failure[0]


def batches(
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    positions: int | None,
    size: int = BATCH,
    *,
    padded: bool = True,
) -> Iterator[tuple[int, list[int]]]:
    """(new tokens allowed, row numbers), longest prompts first so that running out of memory shows at once. Rows near
    the end of the context are kept apart, so that they do not shorten the answers of others; without `padded`, rows of
    different lengths are too."""
    rooms = [_room(p, max_new_tokens, positions) for p in prompts]
    order = sorted(range(len(prompts)), key=lambda i: (rooms[i], len(prompts[i])), reverse=True)
    for (room, _), group in groupby(order, key=lambda i: (rooms[i], None if padded else len(prompts[i]))):
        rows = list(group)
        for start in range(0, len(rows), size):
            yield room, rows[start : start + size]


def _greedy(
    model: nn.Module, text: Speech, prompts: Sequence[Sequence[int]], room: int, shared: int = 0, **options: Any
) -> list[Said]:
    """What is said to each prompt, up to the stop token. Padding stands on the left, after what prompts share."""
    width, device = max(map(len, prompts)), device_of(model)
    pad = text.eos_token_id if text.pad_token_id is None else text.pad_token_id
    short = [width - len(p) for p in prompts]
    ids = [[*p[:shared], *[pad] * n, *p[shared:]] for p, n in zip(prompts, short, strict=True)]
    used = [[*[1] * shared, *[0] * n, *[1] * (len(p) - shared)] for p, n in zip(prompts, short, strict=True)]
    settings = GenerationConfig(
        max_new_tokens=room, do_sample=False, eos_token_id=list(text.stop_token_ids), pad_token_id=pad, use_cache=True
    )
    sure = _Sure()
    with evaluating(model), only_settings(model, settings), quiet_transformers():
        given = {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(used, device=device)}
        watching = LogitsProcessorList([sure])
        out: torch.Tensor = model.generate(**given, logits_processor=watching, **options)  # type: ignore[operator]
    return [_said(row, row_sure, text) for row, row_sure in zip(out[:, width:].tolist(), sure.rows(), strict=True)]


def _said(row: list[int], log_probs: list[float], text: Speech) -> Said:
    ids = _until_stop(row, text)
    return Said(ids, ended=len(ids) < len(row), log_probs=log_probs[: len(ids)])


def _pads(model: nn.Module) -> bool:
    """PEFT 0.21.2 drops the position ids of rows that follow a prompt of learned embeddings, so that padding between
    the two would move them; a learned prefix of keys and values keeps them.
    """
    prompt = learned_prompt(model)
    return prompt is None or prompt.peft_type == "PREFIX_TUNING"


def _prefix(model: nn.Module, prompts: Sequence[Sequence[int]]) -> tuple[int, DynamicCache | None]:
    """(tokens that all prompts begin with, what the model keeps of them); (0, None) where it would not pay."""
    shared = read_once(prompts)
    cache = read_prefix(model, prompts[0][:shared]) if shared else None
    return (0, None) if cache is None else (shared, cache)


def _until_stop(ids: list[int], text: Speech) -> list[int]:
    end = next((i for i, token in enumerate(ids) if token in text.stop_token_ids), len(ids))
    return ids[:end]


@contextmanager
def only_settings(model: Any, settings: GenerationConfig) -> Iterator[None]:
    """`generate` fills what a call leaves open from the model's generation_config (a repetition penalty, say), so that
    is what must change. A PEFT wrapper and the model in it each hold one."""
    holders = [model] + ([model.get_base_model()] if hasattr(model, "get_base_model") else [])
    before = [h.generation_config for h in holders]
    for holder in holders:
        holder.generation_config = settings
    try:
        yield
    finally:
        for holder, old in zip(holders, before, strict=True):
            holder.generation_config = old


def positions_of(model: Any) -> int | None:
    """Positions that the model has for a row, a learned prompt before it; None where its config does not say."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    prompt = learned_prompt(model)
    return positions if positions is None or prompt is None else positions - prompt.num_virtual_tokens


def _room(prompt: Sequence[int], max_new_tokens: int, positions: int | None) -> int:
    if positions is None:
        return max_new_tokens
    if len(prompt) >= positions:
        raise ModelError(
            f"a conversation has {len(prompt):,} tokens, and the model has {positions:,} positions",
            expected="room for at least one new token",
            fix="shorten it, or begin a new one",
        )
    return min(max_new_tokens, positions - len(prompt))


class _Sure(LogitsProcessor):  # type: ignore[misc]
    """Looks on: the log-probability of the token that a greedy step takes, of each row. Logits stay as they are."""

    def __init__(self) -> None:
        self._steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._steps.append(scores.amax(dim=-1) - scores.logsumexp(dim=-1))
        return scores

    def rows(self) -> list[list[float]]:
        return torch.stack(self._steps, dim=1).tolist()


class _Stop(StoppingCriteria):  # type: ignore[misc]
    """Ends generation at the next token once `asked` is true."""

    asked = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.asked, dtype=torch.bool, device=input_ids.device)


class _Pieces(BaseStreamer):  # type: ignore[misc]
    """Token ids in from the generating thread, text out to the reader.

    Text is held back while it ends in an unfinished character: its bytes may be spread over several tokens.
    """

    def __init__(self, text: Speech):
        self.stop = _Stop()
        self._text = text
        self._queue: queue.Queue[list[int] | None] = queue.Queue()
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        if self._prompt_seen:
            self._queue.put(value.flatten().tolist())
        self._prompt_seen = True  # transformers sends the prompt first

    def end(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[str]:
        ids: list[int] = []
        given = ""
        while (new := self._queue.get()) is not None:
            ids += new
            whole = self._text.decode(_until_stop(ids, self._text))
            if whole.startswith(given) and not whole.endswith("\ufffd") and whole != given:
                yield whole[len(given) :]
                given = whole
        whole = self._text.decode(_until_stop(ids, self._text))
        if whole != given:
            yield whole[len(given) :]
