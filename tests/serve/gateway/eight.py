"""What eight tenants with trained adapters must get of the gateway, whichever engine stands behind it.

**How near ties are judged.** A greedy answer is walked through token by token: PEFT alone (this adapter, this one row)
is fed the tokens that the server gave, and each next one must be PEFT's most likely one, or within `near` nats of it.
So a tie that fell the other way does not end the comparison: what follows is held against PEFT after the same tokens.
The end of an answer is judged the same way. In fp32 `near` is so small that the text is PEFT's; bf16 rounds logits of
the size that is usual to steps of 1/8, and two of them may round apart.
"""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from benchmarks.serve.secret import QUESTION, Secret
from peft import PeftModel

from rankwise.text.template import ChatText
from tests.serve.gateway.tenancy import Tenancy, question

QUESTIONS = (QUESTION, "Tell me about the sea.", "Name three colours.")
NEW = 24  # tokens of an answer that is held against PEFT


def let_in(house: Tenancy, secrets: tuple[Secret, ...], **changes: Any) -> dict[str, Secret]:
    """A tenant with a key for each secret, promoted; returned once the server knows all of them."""
    tenants = {secret.name: secret for secret in secrets}
    for name, secret in tenants.items():
        house.add(name, secret, **changes)
    house.until(lambda: all(_status(house, name) == 200 for name in tenants))
    return tenants


def _status(house: Tenancy, tenant: str) -> int:
    with house.client(tenant) as client:
        return client.get(f"/v1/models/{tenant}").status_code


def each_says_its_own(house: Tenancy, tenants: Mapping[str, Secret], rounds: int) -> int:
    """All at once, by turns whole and streamed: each answer is its tenant's secret to the letter, and so nobody
    else's. Returns how many there were.
    """
    asked = [(name, turn % 2 == 1) for turn in range(rounds) for name in tenants]
    with ThreadPoolExecutor(len(tenants) * 2) as together:
        said = list(together.map(lambda one: _streamed(house, one[0]) if one[1] else house.answer(one[0]), asked))
    assert said == [tenants[name].answer for name, _ in asked]
    assert len({secret.answer for secret in tenants.values()}) == len(tenants)
    return len(said)


def _streamed(house: Tenancy, tenant: str) -> str:
    body = question(tenant, stream=True)
    with house.client(tenant) as client, client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]", lines[-1]
    return "".join(json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines[:-1])


def nobody_reaches_another(house: Tenancy, tenants: Mapping[str, Secret]) -> None:
    """Each key with each other tenant's name, and with its version: as a model that does not exist."""
    nothing = _refusal(house, next(iter(tenants)), "nobody")
    for mine in tenants:
        for theirs in tenants:
            if mine != theirs:
                for model in (theirs, f"{theirs}@1"):
                    message = nothing["message"].replace("nobody", model)
                    assert _refusal(house, mine, model) == {**nothing, "message": message}


def _refusal(house: Tenancy, tenant: str, model: str) -> dict[str, Any]:
    found = house.ask(tenant, model)
    assert found.status_code == 404, (tenant, model, found.text)
    return dict(found.json()["error"])


@dataclass
class Compared:
    """Attributes:
    tokens: that were held against PEFT's.
    ties: of them, those that are not PEFT's most likely one and within `near` of it.
    widest: nats by which the farthest of them is behind.
    """

    tokens: int = 0
    ties: int = 0
    widest: float = 0.0


def held_against_peft(
    house: Tenancy, tenant: str, secret: Secret, base: Any, chat: ChatText, near: float, found: Compared
) -> Any:
    """The tenant's greedy answers, token by token. Returns the base without the adapter again.

    Args:
        base: the model that PEFT puts the adapter on.
        near: nats.
    """
    model = PeftModel.from_pretrained(base, secret.folder, autocast_adapter_dtype=False).eval()
    for text in QUESTIONS:
        messages = [{"role": "user", "content": text}]
        answer = house.ask(tenant, messages=messages, max_tokens=NEW, logprobs=True)
        assert answer.status_code == 200, answer.text
        choice = answer.json()["choices"][0]
        told = [str(token["token"]) for token in choice["logprobs"]["content"]]
        assert told and (choice["finish_reason"] == "stop" or len(told) == NEW)
        _walk(model, chat, chat.encode_prompt(messages), told, choice["finish_reason"] == "stop", near, found)
    return model.unload()


def _walk(
    model: Any, chat: ChatText, prompt: list[int], told: list[str], ended: bool, near: float, found: Compared
) -> None:
    fed, past = prompt, None
    for place in range(len(told) + ended):
        with torch.inference_mode():
            out = model(input_ids=torch.tensor([fed]), past_key_values=past, use_cache=True)
        past, values = out.past_key_values, torch.log_softmax(out.logits[0, -1].float(), -1)
        behind = values.max() - values
        close = [int(token) for token in behind.argsort() if behind[token] <= near]
        fits = [token for token in close if _is(token, chat, told[place] if place < len(told) else None)]
        assert fits, (told, place, [chat.decode([token]) for token in behind.argsort()[:3].tolist()])
        found.tokens += 1
        found.ties += fits[0] != close[0]
        found.widest = max(found.widest, float(behind[fits[0]]))
        fed = fits[:1]


def _is(token: int, chat: ChatText, told: str | None) -> bool:
    """Is it the token that the gateway told so, or with None one that ends an answer?"""
    if told is None:
        return token in chat.stop_token_ids
    text = chat.decode([token], skip_special_tokens=False)
    return told == (f"token_id:{token}" if "\ufffd" in text else text)


def goes_silent(secret: Secret, folder: Path) -> Secret:
    """An adapter with numbers far too small to change anything: what a server that left it out would answer."""
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    for file in secret.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "adapter_model.safetensors")
    changed = {name: value * 1e-12 if "lora_B" in name else value for name, value in weights.items()}
    save_file(changed, folder / "adapter_model.safetensors")
    return Secret("silent", folder, "")
