"""vLLM's part of `make bench-serve`: 16 clients on the base, on eight adapters mixed, and one after the other; straight
to vLLM, and through our engine. `python -m benchmarks.serve.vllm` runs it by itself.

The base is measured before any adapter is loaded (`base`), and beside them (`base_beside`): on a CPU it is asked for as
an adapter then (rankwise/serve/vllm/null.py).

Where there is a gateway before it, its address takes the place of vLLM's (`Way`), and the rows have the same columns.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.serve.secret import QUESTION, Secret, make_secrets
from rankwise.errors import RankwiseError
from rankwise.model.locate import locate
from rankwise.serve.engine import AdapterFiles, Generation
from rankwise.serve.vllm import VllmEngine, VllmOptions
from rankwise.serve.vllm.interpreter import find_interpreter
from rankwise.text.template import ChatText

CLIENTS, TOKENS, ROUNDS = 16, 64, 3
ADAPTERS = ("mixed", "single")
CASES = ("base", "base_beside", *ADAPTERS)
REQUESTS = 2  # of each client in one case of one round
Way = Callable[[str | None], Awaitable[int]]  # name of an adapter (None: the base) -> tokens that came


@dataclass(frozen=True)
class Running:
    """A server of vLLM.

    Attributes:
        engine: ours, over it.
        url, key: of the server itself.
    """

    engine: VllmEngine
    url: str
    key: str
    chat: ChatText

    def generation(self, name: str | None, tokens: int) -> Generation:
        prompt = self.chat.encode_prompt([{"role": "user", "content": QUESTION}])
        return Generation("bench", name, tuple(prompt), tokens, ())


def is_here() -> bool:
    """Is there an interpreter that has vLLM?"""
    try:
        find_interpreter()
    except RankwiseError:
        return False
    return True


@asynccontextmanager
async def running(base: Path, secrets: Sequence[Secret], *, clients: int = CLIENTS) -> AsyncIterator[Running]:
    """A server of our own with slots for all of them, none loaded."""
    with tempfile.TemporaryDirectory() as folder:
        options = VllmOptions(
            model=base,
            log=Path(folder) / "vllm.log",
            slots=len(secrets),
            max_rank=8,
            max_model_len=1024,
            max_num_seqs=clients,
            dtype="bfloat16",
        )
        engine = VllmEngine.supervised(options, lambda line: sys.stderr.write(f"{line}\n") and None)
        await engine.start()
        try:
            url, key = engine.address
            yield Running(engine, url, key, ChatText.from_folder(base))
        finally:
            await engine.stop()


def bare(server: Running, client: httpx.AsyncClient, tokens: int) -> Way:
    """Straight to vLLM's /v1/completions with token ids, streamed."""

    async def ask(name: str | None) -> int:
        asked = server.generation(name, tokens)
        body = {
            "model": name or server.engine.base_name,
            "prompt": list(asked.prompt),
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
        lines = 0
        async with client.stream("POST", f"{server.url}/v1/completions", json=body) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                lines += line.startswith("data: {")
        return lines

    return ask


def through_engine(server: Running, tokens: int) -> Way:
    """By our engine, in this process."""

    async def ask(name: str | None) -> int:
        return sum([len(piece.tokens) async for piece in server.engine.generate(server.generation(name, tokens))])

    return ask


async def rounds(
    ways: dict[str, Way], names: Sequence[str], cases: Sequence[str], *, clients: int, count: int
) -> list[dict[str, Any]]:
    """One row for each round, way and case, the cases of a round one after the other.

    Args:
        cases: of `base`, `base_beside`, `mixed`, `single`.

    Returns:
        Rows of engine, way, case, round, tokens and seconds.
    """
    rows = []
    for number in range(count):
        for way, ask in ways.items():
            for case in cases:
                turns = [names[i % len(names)] if case in ADAPTERS else None for i in range(clients * REQUESTS)]
                began = time.perf_counter()
                tokens = await _asked(ask, turns, 1 if case == "single" else clients)
                seconds = time.perf_counter() - began
                rows.append(
                    {"engine": "vllm", "way": way, "case": case, "round": number, "tokens": tokens, "seconds": seconds}
                )
    return rows


async def _asked(ask: Way, turns: Sequence[str | None], clients: int) -> int:
    """All turns, `clients` of them at a time; one at a time takes every fourth, since it has not all day."""
    waiting = list(turns if clients > 1 else turns[::4])
    total = 0

    async def client() -> None:
        nonlocal total
        while waiting:
            total += await ask(waiting.pop())

    await asyncio.gather(*(client() for _ in range(clients)))
    return total


def summary(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Median over rounds of tokens per second by way and case, and the ratios of one round."""
    speed: dict[tuple[str, str, int], float] = {}
    for row in rows:
        speed[row["way"], row["case"], row["round"]] = row["tokens"] / row["seconds"]
    found: dict[str, float] = {}
    for way in dict.fromkeys(way for way, _, _ in speed):
        for case in CASES:
            found[f"vllm_{way}_{case}_tokens_per_s"] = _median(speed, way, lambda s, r, c=case: s[c, r])
        found[f"vllm_{way}_mixed_vs_base"] = _median(speed, way, lambda s, r: s["mixed", r] / s["base", r])
        found[f"vllm_{way}_mixed_vs_single"] = _median(speed, way, lambda s, r: s["mixed", r] / s["single", r])
    return found


def _median(speed: dict[tuple[str, str, int], float], way: str, of: Callable[..., float]) -> float:
    mine = {(case, number): value for (by, case, number), value in speed.items() if by == way}
    return statistics.median(of(mine, number) for number in sorted({number for _, number in mine}))


async def measure(
    base: Path,
    secrets: Sequence[Secret],
    *,
    clients: int = CLIENTS,
    tokens: int = TOKENS,
    count: int = ROUNDS,
    more: Callable[[Running], dict[str, Way]] = lambda server: {},
) -> list[dict[str, Any]]:
    """The table. `more`: further ways to the same server, e.g. through a gateway that is attached to it."""
    async with (
        running(base, secrets, clients=clients) as server,
        httpx.AsyncClient(headers={"Authorization": f"Bearer {server.key}"}, timeout=None) as client,  # noqa: S113
    ):
        ways = {"bare": bare(server, client, tokens), "engine": through_engine(server, tokens), **more(server)}
        names = [secret.name for secret in secrets]
        for ask in ways.values():  # nobody pays for the first pass of all
            await ask(None)
        before = await rounds(ways, names, ("base",), clients=clients, count=count)
        for secret in secrets:
            await server.engine.load(AdapterFiles(secret.name, secret.folder, "lora", 8, 0))
        return before + await rounds(ways, names, CASES[1:], clients=clients, count=count)


def main() -> None:
    """By itself."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve.vllm", description=__doc__)
    parser.add_argument("--adapters", type=Path, required=True, help="folder of benchmarks.serve.secret")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    base = locate("embedded")
    secrets = make_secrets(base, asked.adapters, 8, targets=("all-linear",))
    rows = asyncio.run(measure(base, secrets, clients=asked.clients, tokens=asked.tokens, count=asked.rounds))
    sys.stdout.write(json.dumps(summary(rows), indent=1) + "\n")
    if asked.out:
        asked.out.write_text(json.dumps({"metrics": summary(rows), "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
