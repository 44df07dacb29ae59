"""The canary: what an adapter must show after each load before anybody is answered with it.

Its output differs from the base's by more than the base's from itself, and its folder renders the template that it was
trained with. A server that dropped the weights without a word would answer as the base does, and nobody would know.
"""

import asyncio
from contextlib import aclosing
from uuid import uuid4

from rankwise.serve.engine import AdapterFiles, AdapterRefused, Engine, Generation
from rankwise.text.template import ChatText

PROBES = ("What do you do?", "Write one sentence about the weather.")
TOKENS = 4
LIKELY = 5
LEAST = 1e-4  # nats: no engine's arithmetic is so exact that a smaller difference would say anything

Shown = tuple[tuple[int, ...], tuple[dict[int, float], ...]]  # tokens, and at each place the most likely ones


async def differs(engine: Engine, adapter: AdapterFiles, chat: ChatText) -> float:
    """By how much (nats) the adapter's log-probabilities differ from the base's on the probes, beyond how much those
    of the base differ between two runs.

    Raises:
        AdapterRefused: by nothing.
        EngineDied: the process went away.
    """
    found = [await _difference(engine, adapter.name, _ids(chat, probe)) for probe in PROBES]
    if max(found) < LEAST:
        raise AdapterRefused(
            f"{adapter.name} was loaded and its output is that of the base (differs by {max(found):.2g} nats on "
            f"{len(PROBES)} probes)",
            expected=f"a difference of at least {LEAST:g} nats",
            fix="look at the adapter with `rankwise verify`; train again if it learned nothing",
        )
    return max(found)


async def _difference(engine: Engine, name: str, prompt: tuple[int, ...]) -> float:
    base, again, adapted = await asyncio.gather(
        _show(engine, None, prompt), _show(engine, None, prompt), _show(engine, name, prompt)
    )
    return _distance(base, adapted) - 2 * _distance(base, again)


async def _show(engine: Engine, name: str | None, prompt: tuple[int, ...]) -> Shown:
    asked = Generation(f"canary-{uuid4().hex}", name, prompt, TOKENS, stop_token_ids=(), logprobs=LIKELY)
    tokens: list[int] = []
    likely: list[dict[int, float]] = []
    async with aclosing(engine.generate(asked)) as pieces:  # type: ignore[type-var]
        async for piece in pieces:
            tokens += piece.tokens
            likely += [dict(pairs) for pairs in piece.likely]
    return tuple(tokens), tuple(likely)


def _distance(one: Shown, other: Shown) -> float:
    """The largest difference of a log-probability, up to the first place where another token was chosen."""
    widest = 0.0
    for place, (mine, theirs) in enumerate(zip(one[1], other[1], strict=False)):
        widest = max(widest, _apart(mine, theirs), _apart(theirs, mine))
        if one[0][place] != other[0][place]:
            break
    return widest


def _apart(one: dict[int, float], other: dict[int, float]) -> float:
    """At least so much: what is not among the other's likely tokens is at most as likely there as the last of them."""
    if not other:
        return 0.0
    last = min(other.values())
    return max(
        [0.0, *(value - last for token, value in one.items() if token not in other)]
        + [abs(value - other[token]) for token, value in one.items() if token in other]
    )


def _ids(chat: ChatText, probe: str) -> tuple[int, ...]:
    if chat.has_template:
        return tuple(chat.encode_prompt([{"role": "user", "content": probe}]))
    return tuple(chat.encode_opening(probe))


def same_template(chat: ChatText, trained_with: str | None, name: str) -> None:
    """Raises AdapterRefused where the folder's template is another than that of training."""
    if chat.template_hash != trained_with:
        raise AdapterRefused(
            f"{name} was trained with another chat template than its folder has",
            expected=f"sha256 {(trained_with or 'none')[:12]}, found {(chat.template_hash or 'none')[:12]}",
            fix="add the run again: the template belongs to the version",
        )
