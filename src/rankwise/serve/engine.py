"""What the gateway asks of an engine, whichever it is: token ids in, token ids out, adapters loaded and unloaded while
others answer. Templates, text, keys and quotas are the gateway's; an engine knows ids and adapter names alone, so that
the ids a server feeds are those that training fed.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from rankwise.errors import RankwiseError

Finish = Literal["stop", "length"]


class EngineDied(RankwiseError):
    """The engine's process went away while it held requests; what was emitted before stands, and a new process can go
    on from there."""


class AdapterRefused(RankwiseError):
    """An adapter that this engine cannot carry, or whose canary failed; the others are untouched."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer that is asked for.

    Attributes:
        request_id: of the person's request; an engine may be told to cancel it.
        adapter: the name that `load` was given; None: the base.
        prompt: token ids, template rendered already.
        max_new_tokens: at least 1; prompt and answer together fit the model's positions (the gateway sees to it).
        stop_token_ids: ids that end the answer; they are not emitted.
        temperature: 0 is greedy.
        top_p: share of the probability that is drawn from, in (0, 1].
        seed: of the draw; None: any.
        frequency_penalty, presence_penalty: as OpenAI defines them, subtracted from logits, over the answer so far.
        logprobs: how many of the most likely tokens are told with each token; None: nothing is told.
    """

    request_id: str
    adapter: str | None
    prompt: tuple[int, ...]
    max_new_tokens: int
    stop_token_ids: tuple[int, ...]
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Some tokens of an answer, in order.

    Attributes:
        tokens: new ids, perhaps none in the last piece.
        logprobs: natural logarithm of the probability of each, where they were asked for.
        likely: for each token the most likely (id, log-probability) pairs, where they were asked for.
        finish: why the answer ended; None: it goes on.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    likely: tuple[tuple[tuple[int, float], ...], ...] = ()
    finish: Finish | None = None


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """An adapter as it is loaded: `name` is unique over tenants and versions, e.g. `clinic@3`."""

    name: str
    folder: Path
    method: str
    rank: int | None
    bytes: int


@dataclass(frozen=True, slots=True)
class EngineState:
    """What an engine says of itself.

    Attributes:
        alive: does a process answer?
        starts: of its process, counted from 1; a change means that nothing is resident any more.
        resident: names of the loaded adapters.
        running, waiting: requests in the batch, and those before it.
        resident_bytes: of process memory; None where it is not ours to read.
    """

    alive: bool
    starts: int
    resident: tuple[str, ...]
    running: int
    waiting: int
    resident_bytes: int | None


class Engine(Protocol):
    """An engine with one base model. All methods are called from one event loop."""

    async def start(self) -> None:
        """Come up and stay up: a process that dies is started again (with a pause that grows) until `stop`.

        Raises:
            ModelError: the base cannot be loaded.
            RankwiseError: it did not come up; the end of its log is told.
        """

    async def stop(self) -> None:
        """End its processes; nothing is left running."""

    async def load(self, adapter: AdapterFiles) -> None:
        """Make an adapter resident while others answer. Loading what is resident does nothing.

        Raises:
            AdapterRefused: it cannot be carried.
            EngineDied: the process went away.
        """

    async def unload(self, name: str) -> None:
        """Give its memory back; the caller sees to it that no request of it is open. Unknown names do nothing."""

    def generate(self, asked: Generation) -> AsyncIterator[Piece]:
        """The answer, piece by piece; the last piece alone has a `finish`. Closing the iterator cancels the request.

        Raises:
            EngineDied: the process went away; tokens emitted until then stand.
        """

    def state(self) -> EngineState:
        """At once, without asking the process."""
