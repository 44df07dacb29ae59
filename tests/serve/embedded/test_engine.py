"""The engine as the gateway has it: a real child process with a tiny model."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from transformers import MambaConfig, MambaForCausalLM

from rankwise.errors import ModelError, RankwiseError
from rankwise.model.likelihood import row_losses
from rankwise.model.load import load_base
from rankwise.serve.embedded import EmbeddedEngine, Settings
from rankwise.serve.engine import AdapterFiles, AdapterRefused, EngineDied, Generation, Piece
from rankwise.text.masks import Encoded
from tests.serve.embedded.built import NEW, alone, build, prompts
from tests.tiny import tiny_llama, tiny_tokenizer

LONG = 200  # tokens: long enough to be in the middle of


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("engine")
    base = tiny_llama(place / "base", dtype="fp32")
    for number in range(2):
        build(base, place / f"clinic@{number}", "lora", number)
    return place


@asynccontextmanager
async def engine(place: Path, **settings: Any) -> AsyncIterator[EmbeddedEngine]:
    found = EmbeddedEngine(Settings(place / "base", **{"dtype": "fp32", "threads": 1, **settings}), place / "log")
    await found.start()
    try:
        yield found
    finally:
        await found.stop()


def files(place: Path, name: str) -> AdapterFiles:
    return AdapterFiles(name, place / name, "lora", 4, 0)


def asked(prompt: tuple[int, ...], adapter: str | None = None, **more: Any) -> Generation:
    return replace(Generation("r", adapter, prompt, NEW, ()), **more)


async def pieces(found: EmbeddedEngine, wanted: Generation) -> list[Piece]:
    return [piece async for piece in found.generate(wanted)]


async def answer(found: EmbeddedEngine, wanted: Generation) -> list[int]:
    said = await pieces(found, wanted)
    assert [piece.finish for piece in said[:-1]] == [None] * (len(said) - 1)
    assert said[-1].finish is not None
    return [token for piece in said for token in piece.tokens]


async def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def child(found: EmbeddedEngine) -> psutil.Process:
    (process,) = [p for p in psutil.Process().children() if "rankwise.serve.embedded.child" in p.cmdline()]
    return process


def test_answers_of_base_and_adapters_are_those_of_peft_alone(place: Path) -> None:
    names = (None, "clinic@0", "clinic@1")
    wanted = [(name, prompt) for prompt in prompts(4) for name in names]

    async def all_of_them() -> list[list[int]]:
        async with engine(place, max_rows=5) as found:
            for name in names[1:]:
                await found.load(files(place, name))
                await found.load(files(place, name))
            assert found.state().resident == names[1:]
            assert all(size > 0 for size in found.adapter_bytes().values())
            return await asyncio.gather(*(answer(found, asked(prompt, name)) for name, prompt in wanted))

    for (name, prompt), said in zip(wanted, asyncio.run(all_of_them()), strict=True):
        assert said == [token for token, _ in alone(place / "base", place / name if name else None, prompt)]


def test_stop_length_probabilities_and_seeds(place: Path) -> None:
    prompt = prompts(1, seed=3)[0]
    greedy = [token for token, _ in alone(place / "base", None, prompt)]
    stop = next(token for token in greedy[1:] if token != greedy[0])

    async def some() -> None:
        async with engine(place) as found:
            said = await pieces(found, asked(prompt, stop_token_ids=(stop,)))
            assert [t for p in said for t in p.tokens] == greedy[: greedy.index(stop)]
            assert said[-1].finish == "stop"
            said = await pieces(found, asked(prompt, max_new_tokens=3, logprobs=2))
            assert [t for p in said for t in p.tokens] == greedy[:3]
            assert said[-1].finish == "length"
            row = Encoded((*prompt, *greedy[:3]), (*[-100] * len(prompt), *greedy[:3]), 1)
            ((loss, _),) = row_losses(load_base(place / "base", dtype="fp32"), [row])
            assert -sum(p.logprobs[0] for p in said) == pytest.approx(loss, abs=1e-3)
            assert all(p.likely[0][0][0] == p.tokens[0] and len(p.likely[0]) == 2 for p in said)
            warm = asked(prompt, temperature=1.2, top_p=0.9, seed=5)
            first = await answer(found, warm)
            again = await asyncio.gather(
                *(answer(found, replace(warm, seed=s)) for s in (5, 6, 7)), answer(found, warm)
            )
            assert again[0] == again[-1] == first
            assert len({tuple(a) for a in again}) > 1

    asyncio.run(some())


def test_what_cannot_be_answered_is_said_and_harms_nobody(place: Path) -> None:
    prompt = prompts(1)[0]

    async def some() -> None:
        async with engine(place, kv_bytes=1 << 15) as found:
            for wrong in (
                asked(prompt, "nobody@1"),
                asked((5, 999)),
                asked(()),
                asked((5,) * 250),
                asked((5,) * 10, max_new_tokens=246),
            ):
                with pytest.raises(RankwiseError):
                    await answer(found, wrong)
            assert len(await answer(found, asked((5,) * 10, max_new_tokens=100))) == 100
            with pytest.raises(AdapterRefused, match="missing"):
                await found.load(AdapterFiles("x@1", place / "base", "lora", 4, 0))
            assert found.state().resident == ()
            assert found.state().starts == 1

    asyncio.run(some())


def test_the_last_position_of_the_context(place: Path) -> None:
    prompt = (7,) * 250

    async def last() -> list[int]:
        async with engine(place, prefill_tokens=32) as found:
            return await answer(found, asked(prompt, max_new_tokens=6))

    assert asyncio.run(last()) == [token for token, _ in alone(place / "base", None, prompt, 6)]


def test_closing_cancels_and_rows_wait_their_turn(place: Path) -> None:
    async def some() -> None:
        async with engine(place, max_rows=2) as found:
            long = [asyncio.create_task(answer(found, asked((5, n), max_new_tokens=LONG))) for n in range(3, 9)]
            async with aclosing(found.generate(asked((9, 9), max_new_tokens=LONG))) as cut:
                async for _ in cut:
                    break
            assert found.state().running <= 2
            assert [len(said) for said in await asyncio.gather(*long)] == [LONG] * 6
            await until(lambda: found.state().running == 0)

    asyncio.run(some())


def test_a_killed_child_is_told_to_every_request_and_comes_back(place: Path) -> None:
    async def some() -> None:
        async with engine(place, max_rows=4) as found:
            await found.load(files(place, "clinic@0"))
            long = [asyncio.create_task(pieces(found, asked((5, n), max_new_tokens=LONG))) for n in range(3, 13)]
            await until(lambda: found.state().running > 0)
            os.kill(child(found).pid, signal.SIGKILL)
            died = await asyncio.gather(*long, return_exceptions=True)
            assert sum(isinstance(said, EngineDied) for said in died) >= 6
            assert all(isinstance(said, EngineDied) or said[-1].finish for said in died)
            assert found.state().resident == ()
            with pytest.raises(EngineDied):
                await answer(found, asked((5,)))
            await until(lambda: found.state().alive)
            assert found.state().starts == 2
            await found.load(files(place, "clinic@0"))
            assert len(await answer(found, asked((5, 6), "clinic@0"))) == NEW

    asyncio.run(some())


def test_adapters_come_and_go_while_others_answer(place: Path) -> None:
    prompt = prompts(1)[0]
    expected = [token for token, _ in alone(place / "base", place / "clinic@1", prompt)]

    async def some() -> None:
        async with engine(place) as found:
            await found.load(files(place, "clinic@1"))
            answers = [asyncio.create_task(answer(found, asked(prompt, "clinic@1"))) for _ in range(30)]
            for _ in range(3):
                await found.load(files(place, "clinic@0"))
                assert len(await answer(found, asked(prompt, "clinic@0"))) == NEW
                await found.unload("clinic@0")
                assert found.state().resident == ("clinic@1",)
            await found.unload("unknown@1")
            assert all(said == expected for said in await asyncio.gather(*answers))

    asyncio.run(some())


def test_a_base_that_cannot_be_loaded(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    (base / "model.safetensors").write_bytes(b"nothing")
    found = EmbeddedEngine(Settings(base), tmp_path / "log")

    async def start() -> None:
        await found.start()

    with pytest.raises(ModelError, match="could not load"):
        asyncio.run(ended(found, start))
    assert not found.state().alive


def test_a_base_with_a_state_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    MambaForCausalLM(MambaConfig(vocab_size=320, hidden_size=16, num_hidden_layers=1)).save_pretrained(folder)
    tiny_tokenizer(folder)
    found = EmbeddedEngine(Settings(folder), tmp_path / "log")
    with pytest.raises(ModelError, match="MambaForCausalLM keeps a state") as raised:
        asyncio.run(ended(found, found.start))
    assert "--engine vllm" in raised.value.fix


def test_a_child_that_crashes_tells_the_end_of_its_log(place: Path, tmp_path: Path) -> None:
    found = EmbeddedEngine(Settings(place / "base", device="no-such-device"), tmp_path / "log")
    with pytest.raises(RankwiseError, match=r"(?s)end of its log.*no-such-device"):
        asyncio.run(ended(found, found.start))


async def ended(found: EmbeddedEngine, act: Callable[[], Awaitable[None]]) -> None:
    try:
        await act()
    finally:
        await found.stop()


PARENT = """
import asyncio, sys
from pathlib import Path
from rankwise.serve.embedded import EmbeddedEngine, Settings
async def main():
    engine = EmbeddedEngine(Settings(Path(sys.argv[1])), Path(sys.argv[2]))
    await engine.start()
    assert not {"torch", "transformers", "peft"} & set(sys.modules)
    print("up", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


def test_the_child_goes_when_its_parent_is_killed(place: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", PARENT, str(place / "base"), str(tmp_path / "log")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        children = psutil.Process(parent.pid).children()
        assert len(children) == 1
        parent.kill()
        parent.wait()
        gone, alive = psutil.wait_procs(children, timeout=10)
        assert gone
        assert not alive
