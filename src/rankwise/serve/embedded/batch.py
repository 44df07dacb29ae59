"""Continuous batching: one running batch that rows join after their prompt was read and leave as soon as they end.

At each turn at most `prefill_tokens` of waiting prompts are read, then the running batch takes one step: long prompts
do not starve those who are being answered, and a row never waits for a longer one to end (Orca, Yu et al. 2022, OSDI).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rankwise.serve.embedded.adapter import Adapter
from rankwise.serve.embedded.cache import RowsCache, tokens_mask
from rankwise.serve.embedded.mixed import Mixer
from rankwise.serve.embedded.sampling import Chosen, Draw, choose
from rankwise.serve.embedded.settings import Settings
from rankwise.serve.engine import Finish


@dataclass(eq=False)
class Row:
    """One request.

    Attributes:
        key: by which the parent knows it.
        length: tokens of it that the cache holds, virtual ones included.
        last: the token that the next step reads.
        said: tokens of the answer so far.
    """

    key: int
    adapter: Adapter | None
    prompt: tuple[int, ...]
    max_new_tokens: int
    stop: frozenset[int]
    draw: Draw
    length: int = 0
    last: int = 0
    said: int = 0
    cancelled: bool = False

    @property
    def virtual(self) -> int:
        return 0 if self.adapter is None else self.adapter.virtual_tokens

    @property
    def most(self) -> int:
        """Tokens that it may come to hold."""
        return self.virtual + len(self.prompt) + self.max_new_tokens


@dataclass(frozen=True, slots=True)
class Emitted:
    """What a step gave one row; `chosen` is None where a stop token ended it."""

    key: int
    chosen: Chosen | None
    finish: Finish | None


@dataclass
class Prefill:
    """Rows whose prompts are being read together, aligned at the right: `done` of `width` columns are read."""

    rows: list[Row]
    ids: Tensor
    embeds: Tensor | None
    lengths: list[int]
    cache: RowsCache
    done: int = 0
    width: int = field(init=False)

    def __post_init__(self) -> None:
        self.width = max(self.lengths)


class Batch:
    """The running batch of one model; called from one thread."""

    def __init__(self, model: PreTrainedModel, settings: Settings) -> None:
        self._model, self._settings, self._device = model, settings, model.device
        self._layers = model.config.get_text_config().num_hidden_layers
        self._mixer = Mixer(model)
        self._cache = RowsCache(self._layers)
        self._prefill: Prefill | None = None
        self.token_bytes = kv_bytes_per_token(model)
        self.waiting: deque[Row] = deque()
        self.running: list[Row] = []

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.running or self._prefill)

    @property
    def counts(self) -> tuple[int, int]:
        """(rows in the batch, rows before it)."""
        reading = len(self._prefill.rows) if self._prefill else 0
        return len(self.running) + reading, len(self.waiting)

    def fits(self, row: Row) -> bool:
        """Could it be answered if it were alone?"""
        return row.most * self.token_bytes <= self._settings.kv_bytes

    def cancel(self, key: int) -> None:
        """It takes no further step."""
        self.waiting = deque(row for row in self.waiting if row.key != key)
        for row in self._prefill.rows if self._prefill else ():
            row.cancelled |= row.key == key
        for row in [row for row in self.running if row.key == key]:
            self._leave(row)
        self._narrow()

    def forget(self, adapter: Adapter) -> None:
        self._mixer.forget(adapter)

    @torch.inference_mode()
    def turn(self) -> list[Emitted]:
        """Read some of a prompt, then take a step; what the rows were given."""
        emitted = self._read()
        if self.running:
            emitted += self._step()
        return emitted

    def _read(self) -> list[Emitted]:
        if self._prefill is None:
            admitted = self._admitted()
            if not admitted:
                return []
            self._prefill = self._begun(admitted)
        at = self._prefill
        if all(row.cancelled for row in at.rows):
            self._prefill = None
            return []
        columns = max(1, self._settings.prefill_tokens // len(at.rows))
        logits = self._chunk(at, min(at.width, at.done + columns))
        if at.done < at.width:
            return []
        self._prefill = None
        for row, length in zip(at.rows, at.lengths, strict=True):
            row.length = length
        self._cache.join(at.cache)
        self.running += at.rows
        for row in [row for row in at.rows if row.cancelled]:
            logits = logits[[i for i, other in enumerate(at.rows) if other is not row]]
            at.rows.remove(row)
            self._leave(row)
        return self._said(at.rows, logits)

    def _admitted(self) -> list[Row]:
        """The rows at the head of the queue that are read together: within the batch, its memory and one reading."""
        found: list[Row] = []
        room = self._settings.max_rows - len(self.running)
        longest = max((row.most for row in self.running), default=0)
        while self.waiting and len(found) < room:
            row = self.waiting[0]
            together, longest = len(self.running) + len(found) + 1, max(longest, row.most)
            if together > 1 and together * longest * self.token_bytes > self._settings.kv_bytes:
                break
            width = max([len(r.prompt) + r.virtual for r in (*found, row)])
            apart = bool(row.adapter and row.adapter.prefix) or any(r.adapter and r.adapter.prefix for r in found)
            if found and (apart or (len(found) + 1) * width > self._settings.prefill_tokens):
                break
            found.append(self.waiting.popleft())
        return found

    def _begun(self, rows: list[Row]) -> Prefill:
        prefix = rows[0].adapter.prefix if rows[0].adapter else ()
        cache = RowsCache(self._layers)
        if prefix:  # such a row is read alone
            virtual = prefix[0][0].shape[1]
            cache.begin(1, virtual + len(rows[0].prompt))
            for layer, (keys, values) in enumerate(prefix):
                cache.put(layer, keys[None], values[None])
            cache.advance(virtual)
            lengths = [virtual + len(rows[0].prompt)]
        else:
            lengths = [row.virtual + len(row.prompt) for row in rows]
            cache.begin(len(rows), max(lengths))
        width = max(lengths)
        ids = torch.tensor([[0] * (width - len(r.prompt)) + list(r.prompt) for r in rows], device=self._device)
        return Prefill(rows, ids, self._embeds(rows, ids), lengths, cache, cache.width)

    def _embeds(self, rows: Sequence[Row], ids: Tensor) -> Tensor | None:
        """Embeddings where a row has learned ones before its own."""
        if not any(row.adapter is not None and row.adapter.prompt is not None for row in rows):
            return None
        embeds: Tensor = self._model.get_input_embeddings()(ids).clone()
        for place, row in enumerate(rows):
            if row.adapter is not None and row.adapter.prompt is not None:
                end = ids.shape[1] - len(row.prompt)
                embeds[place, end - row.virtual : end] = row.adapter.prompt
        return embeds

    def _chunk(self, at: Prefill, end: int) -> Tensor:
        """Read columns up to `end`; the logits (rows, vocabulary) of the last one."""
        pads = torch.tensor([at.width - length for length in at.lengths], device=self._device)
        columns = torch.arange(at.done, end, device=self._device)
        positions = (columns - pads[:, None]).clamp(min=0)
        mask = tokens_mask(at.lengths, at.width, self._device)[:, :end]
        given = {"input_ids": at.ids[:, at.done : end]}
        if at.embeds is not None:
            given = {"inputs_embeds": at.embeds[:, at.done : end]}
        with self._mixer.rows([row.adapter for row in at.rows], "prefill"):
            logits = self._forward(at.cache, mask, positions, **given)
        at.done = end
        return logits

    def _forward(self, cache: RowsCache, mask: Tensor, positions: Tensor, **given: Tensor) -> Tensor:
        model: Any = self._model
        out = model(
            **given,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache.advance(positions.shape[1])
        logits: Tensor = out.logits[:, -1]
        return logits

    def _step(self) -> list[Emitted]:
        rows = self.running
        self._cache.reserve(len(rows), 1)
        ids = torch.tensor([[row.last] for row in rows], device=self._device)
        positions = torch.tensor([[row.length] for row in rows], device=self._device)
        mask = tokens_mask([row.length + 1 for row in rows], self._cache.width + 1, self._device)
        with self._mixer.rows([row.adapter for row in rows], "decode"):
            logits = self._forward(self._cache, mask, positions, input_ids=ids)
        for row in rows:
            row.length += 1
        return self._said(list(rows), logits)

    def _said(self, rows: Sequence[Row], logits: Tensor) -> list[Emitted]:
        """Let each row choose; those that end leave the batch."""
        emitted = []
        for row, chosen in zip(rows, choose(logits, [row.draw for row in rows]), strict=True):
            stopped = chosen.token in row.stop
            row.last, row.said = chosen.token, row.said + (not stopped)
            finish: Finish | None = "stop" if stopped else "length" if row.said >= row.max_new_tokens else None
            emitted.append(Emitted(row.key, None if stopped else chosen, finish))
            if finish:
                self._leave(row)
        self._narrow()
        return emitted

    def _leave(self, row: Row) -> None:
        place = self.running.index(row)
        self._cache.leave(place)
        self.running[place] = self.running[-1]
        self.running.pop()

    def _narrow(self) -> None:
        self._cache.narrow(max((row.length for row in self.running), default=0))


def kv_bytes_per_token(model: PreTrainedModel) -> int:
    """Of keys and values of all layers, for one position of one row."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * model.dtype.itemsize)
