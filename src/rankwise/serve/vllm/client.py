"""vLLM's HTTP API as far as we need it. The adapters' part is vLLM's own and no part of OpenAI's."""

import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from rankwise.errors import ModelError
from rankwise.serve.engine import EngineDied, Generation, Piece
from rankwise.serve.vllm.stream import ServerFault, completion_request, raise_fault, read_line
from rankwise.text.golden import Golden, answers_golden, tokenize_request

SECONDS = 5.0  # to connect, and for an answer that nothing is computed for
LOADING_SECONDS = 600.0  # for an adapter to be read, or a probe to be answered among others on a busy machine


Health = Literal["well", "dead", "silent"]


@dataclass(frozen=True)
class Served:
    """What `/v1/models` says.

    Attributes:
        base: name of the base model.
        root: its folder or id, as the server was given it.
        max_model_len: tokens of prompt and answer.
        adapters: name -> folder, as the server was given it.
    """

    base: str
    root: str
    max_model_len: int
    adapters: dict[str, str]


class Client:
    """One server. Faults of the connection are EngineDied: nobody is there to answer."""

    def __init__(self, url: str, key: str | None):
        """
        Args:
            url: without `/v1`.
            key: sent as a bearer token; None: the server asks for none.
        """
        self.url, self.key = url, key
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            trust_env=False,  # a proxy of the environment is for others
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def health(self) -> Health:
        """Does the server answer, and does its engine live?"""
        try:
            status = (await self._http.get("/health")).status_code
        except httpx.HTTPError:
            return "silent"
        return "well" if status == 200 else "dead"

    async def served(self) -> Served:
        """The base and the adapters it has. Raises ModelError: it is no vLLM, or serves no base."""
        told = await self._json("GET", "/v1/models")
        try:
            cards = told["data"]
            bases = [card for card in cards if card.get("parent") is None]
            base = bases[0]
            adapters = {card["id"]: str(card["root"]) for card in cards if card.get("parent") is not None}
            return Served(base["id"], str(base["root"]), int(base["max_model_len"]), adapters)
        except (KeyError, IndexError, TypeError, ValueError):
            raise ModelError(
                f"{self.url} answers /v1/models, and not as vLLM does",
                expected="a list of models with max_model_len",
            ) from None

    async def can_load(self) -> bool:
        """Is there a way to load adapters while it runs? Asked by unloading one that nobody has."""
        try:
            await self.unload("rankwise-none@0")
        except ServerFault as fault:
            return '"detail"' not in fault.what  # so words FastAPI, not vLLM, that there is no such address
        return True

    async def load(self, name: str, folder: Path, *, again: bool = False) -> None:
        """Raises ServerFault as the server words it; EngineDied."""
        body: dict[str, Any] = {"lora_name": name, "lora_path": str(folder)}
        await self._request("POST", "/v1/load_lora_adapter", body | ({"load_inplace": True} if again else {}))

    async def unload(self, name: str) -> None:
        """Raises ServerFault, also where it has none of that name; EngineDied."""
        await self._request("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    async def reads_alike(self, model: str, golden: Golden) -> bool:
        """Does the server's own template and tokenizer come to the ids that training fed?"""
        return answers_golden(golden, await self._json("POST", "/tokenize", tokenize_request(model, golden)))

    async def tokenize(self, model: str, text: str) -> tuple[int, ...]:
        """The ids that the server's tokenizer makes of exactly this text."""
        body = {"model": model, "prompt": text, "add_special_tokens": False}
        return tuple((await self._json("POST", "/tokenize", body)).get("tokens") or ())

    async def likely(self, model: str, prompts: Sequence[Sequence[int]], count: int) -> list[dict[str, float]]:
        """What may come after each prompt: the `count` most likely tokens with their log-probabilities.

        Not `prompt_logprobs`: beside another request it kills the engine of vLLM 0.32 on a CPU once adapters are on.
        """
        body = {
            "model": model,
            "prompt": [list(prompt) for prompt in prompts],
            "max_tokens": 1,
            "temperature": 0.0,
            "logprobs": count,
            "return_tokens_as_token_ids": True,
            "cache_salt": secrets.token_urlsafe(16),  # computed, and not remembered from the last time
        }
        told = await self._json("POST", "/v1/completions", body)
        try:
            choices = sorted(told["choices"], key=lambda choice: int(choice["index"]))
            return [dict(choice["logprobs"]["top_logprobs"][0]) for choice in choices]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ServerFault(200, "an answer without log-probabilities") from None

    async def complete(self, model: str, asked: Generation) -> AsyncGenerator[Piece, None]:
        """The answer as it comes; leaving it cancels the request. Raises ServerFault; EngineDied."""
        timeout = httpx.Timeout(SECONDS, read=None)  # it may wait in vLLM's queue; whether it lives is asked elsewhere
        try:
            async with self._http.stream(
                "POST", "/v1/completions", json=completion_request(model, asked), timeout=timeout
            ) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    raise_fault(answer.status_code, _told(answer))
                async for line in answer.aiter_lines():
                    piece = read_line(line, asked)
                    if piece is not None:
                        yield piece
                        if piece.finish is not None:
                            return
        except httpx.HTTPError as error:
            raise EngineDied(f"the connection to vLLM broke ({type(error).__name__})") from None
        raise EngineDied("vLLM's stream ended without saying why")

    async def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        told = _told(await self._request(method, path, body))
        if not isinstance(told, dict):
            raise ServerFault(200, f"{path} without a JSON object")
        return told

    async def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        timeout = httpx.Timeout(SECONDS, read=LOADING_SECONDS if body is not None else SECONDS)
        try:
            answer = await self._http.request(method, path, json=body, timeout=timeout)
        except httpx.HTTPError as error:
            raise EngineDied(f"vLLM at {self.url} does not answer ({type(error).__name__})") from None
        if answer.status_code != 200:
            raise_fault(answer.status_code, _told(answer))
        return answer


def _told(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return answer.text
