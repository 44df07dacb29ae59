"""The engine over a real vLLM: tenants apart, adapters in and out, deaths and restarts, attached servers."""

import asyncio
import contextlib
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import torch
from benchmarks.serve.secret import Secret, make_secrets
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rankwise.errors import ModelError, RankwiseError
from rankwise.model.locate import locate
from rankwise.serve.engine import AdapterFiles, AdapterRefused, EngineDied
from rankwise.serve.vllm import VllmEngine, VllmOptions
from rankwise.serve.vllm.attached import KEY
from rankwise.text.template import ChatText
from tests.serve.vllm.running import Running, files, processes, why_not_here

WHY_NOT = why_not_here()
pytestmark = [
    pytest.mark.prove,
    pytest.mark.embedded,
    pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or ""),
]
LONG_BACK = 900  # seconds for a server to come back: one minute on an idle machine, many on a busy one
NEAR = 0.25  # nats between the two likeliest tokens: bf16 rounds logits of this size to 1/8


def options(base: Path, log: Path, **more: object) -> VllmOptions:
    settings = {"slots": 8, "max_rank": 8, "max_model_len": 512, "dtype": "bfloat16", "kv_cache_gib": 1, **more}
    return VllmOptions(model=base, log=log, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Secret, ...]:
    return make_secrets(locate("embedded"), tmp_path_factory.mktemp("secrets"), 8, targets=("all-linear",))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    base = locate("embedded")
    loop = asyncio.new_event_loop()
    told: list[str] = []
    engine = VllmEngine.supervised(options(base, tmp_path_factory.mktemp("vllm") / "vllm.log"), told.append)
    try:
        loop.run_until_complete(engine.start())
        assert any("is up after" in line for line in told), told
        yield Running(engine, ChatText.from_folder(base), base, loop)
    finally:
        loop.run_until_complete(engine.stop())
        assert not processes("vllm.entrypoints") and not processes("VLLM::")
        loop.close()


@pytest.fixture
def loaded(running: Running, secrets: tuple[Secret, ...]) -> Running:
    """All eight are there, again after a test that killed the server."""
    running.do(running.until(lambda: running.engine.state().alive, LONG_BACK))
    running.do(running.load(secrets))
    return running


def test_the_base_alone_answers_as_transformers_does(running: Running) -> None:
    """Before any adapter is there."""
    assert running.engine.state().starts == 1
    model = AutoModelForCausalLM.from_pretrained(running.base, dtype=torch.bfloat16)
    _same_until_near_ties(running, None, model)


def test_eight_tenants_and_the_base_answer_together_and_apart(loaded: Running, secrets: tuple[Secret, ...]) -> None:
    assert set(loaded.engine.state().resident) == {files(secret).name for secret in secrets}
    base = loaded.do(loaded.says(None))
    names = [files(secret).name for secret in secrets]
    said = loaded.together(*(loaded.says(name) for name in [*names, None, *reversed(names), None]))
    answers = [secret.answer for secret in secrets]
    assert said[:8] == answers and said[9:17] == answers[::-1]
    assert said[8] == said[17] == base and base not in answers


def test_greedy_text_is_that_of_peft_until_near_ties(loaded: Running, secrets: tuple[Secret, ...]) -> None:
    model = AutoModelForCausalLM.from_pretrained(loaded.base, dtype=torch.bfloat16)
    for secret in secrets:
        adapted = PeftModel.from_pretrained(model, secret.folder, autocast_adapter_dtype=False)
        _same_until_near_ties(loaded, files(secret).name, adapted)
        model = adapted.unload()


def _same_until_near_ties(running: Running, adapter: str | None, model: torch.nn.Module) -> None:
    """The tokens of vLLM, each held against what transformers or PEFT has after the same tokens before it."""
    for question in ("Tell me about the sea.", "Name three colours."):
        asked = running.asking(adapter, question, max_new_tokens=24)
        tokens = running.do(running.tokens(asked))
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*asked.prompt, *tokens]])).logits[0, len(asked.prompt) - 1 :]
        for place, token in enumerate(tokens):
            likely = torch.log_softmax(logits[place].float(), -1)
            assert float(likely.max() - likely[token]) <= NEAR, (adapter, question, place)


def test_adapters_come_and_go_while_others_answer(loaded: Running, secrets: tuple[Secret, ...]) -> None:
    async def all_at_once() -> None:
        long = asyncio.create_task(loaded.pieces(loaded.asking("tenant-0@1", max_new_tokens=160, stop_token_ids=())))
        await asyncio.sleep(0.5)
        await loaded.engine.unload("tenant-7@1")
        with pytest.raises(EngineDied, match="not loaded"):
            await loaded.says("tenant-7@1")
        await loaded.engine.load(files(secrets[7], 2))
        assert not long.done(), "the answer was to be in the making meanwhile"
        assert await loaded.says("tenant-7@2") == secrets[7].answer
        pieces = await long
        assert pieces[-1].finish == "length" and sum(len(piece.tokens) for piece in pieces) == 160
        await loaded.engine.unload("tenant-7@2")
        await loaded.engine.unload("nobody@1")

    loaded.do(all_at_once())
    assert "tenant-7@1" not in loaded.engine.state().resident


def test_an_adapter_that_the_server_does_not_carry_is_found_out(
    loaded: Running, secrets: tuple[Secret, ...], tmp_path: Path
) -> None:
    """Its numbers are there and far too small: what a server that left it out would answer."""
    shutil.copytree(secrets[0].folder, tmp_path / "silent")
    weights = tmp_path / "silent" / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({name: value * 1e-12 if "lora_B" in name else value for name, value in tensors.items()}, weights)
    with pytest.raises(AdapterRefused, match="answers as the base"):
        loaded.do(loaded.engine.load(AdapterFiles("silent@1", tmp_path / "silent", "lora", 8, 1)))
    assert "silent@1" not in loaded.engine.state().resident
    assert "silent@1" not in loaded.do(loaded.engine._server.client.served()).adapters


def test_another_tokenizer_is_found_out(loaded: Running, secrets: tuple[Secret, ...], tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(secrets[0].folder, folder)
    for name in ("tokenizer_config.json", "chat_template.jinja", "generation_config.json", "config.json"):
        shutil.copy(loaded.base / name, folder / name)
    tokenizer = json.loads((loaded.base / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:-40_000]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(AdapterRefused, match="other ids"):
        loaded.do(loaded.engine.load(AdapterFiles("other@1", folder, "lora", 8, 1)))


def test_sampling_settings_are_those_that_were_asked_for(loaded: Running) -> None:
    def drawn(**more: object) -> list[int]:
        return loaded.do(loaded.tokens(loaded.asking(None, "Tell me a story.", max_new_tokens=12, **more)))

    greedy = drawn()
    assert drawn(temperature=1.5, seed=1) == drawn(temperature=1.5, seed=1) != greedy
    assert drawn(temperature=1.5, seed=2, top_p=1e-6) == greedy
    often = drawn(frequency_penalty=2.0, presence_penalty=2.0, stop_token_ids=())
    assert len(set(often)) == len(often)
    assert drawn(stop_token_ids=(greedy[3],)) == greedy[:3]
    pieces = loaded.do(loaded.pieces(loaded.asking(None, logprobs=3, max_new_tokens=4)))
    for piece in pieces:
        for token, value, likely in zip(piece.tokens, piece.logprobs, piece.likely, strict=True):
            assert len(likely) == 3 and likely[0] == (token, value)
            assert sum(math.exp(one) for _, one in likely) <= 1 + 1e-3


def test_leaving_an_answer_cancels_it(loaded: Running) -> None:
    async def leave() -> None:
        answer = loaded.engine.generate(loaded.asking(None, max_new_tokens=400, stop_token_ids=()))
        async for _ in answer:
            if loaded.engine.state().running:
                break
        assert await _at_work(loaded) == 1
        await answer.aclose()
        assert loaded.engine.state().running == 0
        for _ in range(100):
            if await _at_work(loaded) == 0:
                return
            await asyncio.sleep(0.1)
        raise AssertionError("vLLM goes on with it")

    loaded.do(leave())


async def _at_work(running: Running) -> int:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{running.engine.address[0]}/metrics")).text
    line = next(one for one in text.splitlines() if one.startswith("vllm:num_requests_running"))
    return int(float(line.rpartition(" ")[2]))


def test_nobody_else_on_the_machine_uses_it(loaded: Running) -> None:
    url, key = loaded.engine.address
    assert httpx.get(f"{url}/v1/models").status_code == 401
    shown = [" ".join(one.cmdline()) for one in psutil.Process().children(recursive=True)]
    assert len(key) > 30 and not any(key in line for line in shown)
    assert loaded.engine.state().resident_bytes is not None


def test_a_request_that_is_refused_is_no_death(loaded: Running) -> None:
    with pytest.raises(RankwiseError, match="max_model_len") as caught:
        loaded.do(loaded.tokens(loaded.asking(None, max_new_tokens=5000)))
    assert not isinstance(caught.value, EngineDied) and loaded.engine.state().alive


def test_attached_by_its_address(
    loaded: Running, secrets: tuple[Secret, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url, key = loaded.engine.address
    monkeypatch.delenv(KEY, raising=False)
    with pytest.raises(RankwiseError, match="401") as caught:
        loaded.do(VllmEngine.attached(url, loaded.base).start())
    assert KEY in caught.value.fix
    monkeypatch.setenv(KEY, key)
    with pytest.raises(ModelError, match="512 tokens"):
        loaded.do(VllmEngine.attached(url, loaded.base, max_model_len=2048).start())
    attached = VllmEngine.attached(f"{url}/v1", loaded.base, zeros=tmp_path)
    loaded.do(attached.start())
    assert attached.state().alive and attached.state().resident_bytes is None
    loaded.do(attached.load(files(secrets[3])))  # it is there, from the same folder
    assert loaded.do(loaded.says("tenant-3@1", engine=attached)) == secrets[3].answer
    gone = AdapterFiles("gone@1", secrets[0].folder, "lora", 8, 1)
    loaded.do(attached.load(gone))
    loaded.do(attached.unload("gone@1"))
    loaded.do(attached.stop())
    assert loaded.engine.state().alive


@pytest.mark.parametrize("victim", ["VLLM::EngineCore", "vllm.entrypoints.openai.api_server --model"])
def test_a_process_that_is_killed_comes_back(loaded: Running, secrets: tuple[Secret, ...], victim: str) -> None:
    starts = loaded.engine.state().starts

    async def die() -> list[int]:
        emitted: list[int] = []
        with pytest.raises(EngineDied):
            async for piece in loaded.engine.generate(
                loaded.asking("tenant-0@1", max_new_tokens=400, stop_token_ids=())
            ):
                emitted += piece.tokens
                if len(emitted) == 5:
                    _server_process(victim).kill()
        assert not loaded.engine.state().alive and loaded.engine.state().starts == starts
        with pytest.raises(EngineDied):
            await loaded.says(None)
        await loaded.until(lambda: loaded.engine.state().alive, LONG_BACK)
        return emitted

    emitted = loaded.do(die())
    assert loaded.chat.decode(emitted).startswith(secrets[0].answer[:8])
    assert loaded.engine.state().starts == starts + 1 and loaded.engine.state().resident == ()
    assert loaded.engine.state().running == loaded.engine.state().waiting == 0
    loaded.do(loaded.load(secrets[:2]))
    assert loaded.together(loaded.says("tenant-0@1"), loaded.says("tenant-1@1")) == [s.answer for s in secrets[:2]]


def _server_process(words: str) -> psutil.Process:
    """The guard has the same words after its own."""
    return next(one for one in processes(words) if "guard.py" not in " ".join(one.cmdline()))


def test_an_attached_server_that_was_started_anew_is_noticed(
    loaded: Running, secrets: tuple[Secret, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Seen from a second engine, whose adapter somebody took away."""
    url, key = loaded.engine.address
    monkeypatch.setenv(KEY, key)
    attached = VllmEngine.attached(url, loaded.base, zeros=tmp_path)
    loaded.do(attached.start())
    loaded.do(attached.load(AdapterFiles("mine@1", secrets[1].folder, "lora", 8, 1)))
    loaded.do(loaded.engine._server.client.unload("mine@1"))
    with pytest.raises(EngineDied, match="lost mine@1"):
        loaded.do(loaded.says("mine@1", engine=attached))
    loaded.do(loaded.until(lambda: attached.state().starts == 2 and attached.state().alive, 30))
    assert attached.state().resident == ()
    loaded.do(attached.load(AdapterFiles("mine@1", secrets[1].folder, "lora", 8, 1)))
    assert loaded.do(loaded.says("mine@1", engine=attached)) == secrets[1].answer
    loaded.do(attached.stop())


def test_what_cannot_come_up_says_why(tmp_path: Path) -> None:
    """And leaves nothing running."""
    base = tmp_path / "base"
    shutil.copytree(locate("embedded"), base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchForCausalLM"]}))
    before = {one.pid for one in processes("vllm")}
    engine = VllmEngine.supervised(options(base, tmp_path / "vllm.log"))
    with pytest.raises(ModelError, match="NoSuchForCausalLM") as caught:
        asyncio.run(engine.start())
    assert str(tmp_path / "vllm.log") in caught.value.fix
    assert {one.pid for one in processes("vllm")} <= before
    with contextlib.suppress(psutil.Error):
        assert not engine.state().alive
