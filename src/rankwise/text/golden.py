"""Golden conversations, rendered to ids. Whoever reads a model's text (trainer, adapter folder, merged folder, a server
and its canary) must come to the same ids; the proof and the canary ask by the functions here. Torch-free.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rankwise.text.template import ChatText

GOLDEN_CHAT: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "Hello!"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}],
    [
        {"role": "user", "content": "Name a colour."},
        {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": " Another?\n"},
    ],
)


class Golden(NamedTuple):
    """One conversation, and the ids up to where the assistant begins to speak."""

    messages: list[dict[str, str]]
    ids: tuple[int, ...]


def golden(chat: ChatText) -> tuple[Golden, ...]:
    """The golden conversations as this text reads them; none without a chat template.

    Raises:
        ModelError: the template refuses one of them (a role that it does not know).
    """
    if not chat.has_template:
        return ()
    return tuple(Golden(messages, tuple(chat.encode_prompt(messages))) for messages in GOLDEN_CHAT)


def golden_of(folder: Path) -> tuple[Golden, ...]:
    """As `golden`, of a model or adapter folder as it lies there. Raises ModelError as `ChatText.from_folder`."""
    return golden(ChatText.from_folder(folder))


def tokenize_request(model: str, conversation: Golden) -> dict[str, Any]:
    """The body of vLLM's `POST /tokenize` for a golden conversation."""
    return {"model": model, "messages": conversation.messages, "add_generation_prompt": True}


def answers_golden(conversation: Golden, answer: Mapping[str, Any]) -> bool:
    """Does the JSON answer of a `/tokenize` (vLLM, llama.cpp: `tokens`) hold exactly the ids that training fed?"""
    tokens = answer.get("tokens")
    return isinstance(tokens, list) and tuple(tokens) == conversation.ids


class NamedIds(NamedTuple):
    """The tokens that begin and end text, by name and id, and every id on which an answer stops."""

    bos: tuple[str, int] | None
    eos: tuple[str, int] | None
    stops: tuple[int, ...]

    def __str__(self) -> str:
        named = [f"{name} {found[0]} = {found[1]}" if found else f"no {name}" for name, found in self._pairs()]
        return f"{', '.join(named)}, stops on {', '.join(map(str, self.stops))}"

    def _pairs(self) -> list[tuple[str, tuple[str, int] | None]]:
        return [("BOS", self.bos), ("EOS", self.eos)]


def named_ids(chat: ChatText) -> NamedIds:
    """BOS, EOS and stop ids of this text. EOS has a name only where the tokenizer names it."""
    bos, eos = chat.special_tokens.get("bos_token"), chat.special_tokens.get("eos_token")
    return NamedIds(
        bos=(bos, chat.bos_token_id) if bos is not None and chat.bos_token_id is not None else None,
        eos=(eos, chat.eos_token_id) if eos is not None else None,
        stops=chat.stop_token_ids,
    )
