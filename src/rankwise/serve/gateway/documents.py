"""Answers as OpenAI's API writes them: one document, or one chunk of a stream."""

from collections.abc import Sequence
from typing import Any, Literal

from rankwise.serve.gateway.answers import TokenSeen
from rankwise.text.template import ChatText

Kind = Literal["chat", "completion"]
_PART = "\ufffd"  # what a part of a character is decoded to
_OBJECTS = {
    "chat": ("chat.completion", "chat.completion.chunk"),
    "completion": ("text_completion", "text_completion"),
}


def usage(prompt: int, answer: int) -> dict[str, int]:
    """Tokens of all prompts and of all answers."""
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def document(kind: Kind, request_id: str, created: int, model: str, *, chunk: bool) -> dict[str, Any]:
    """What every answer begins with."""
    prefix = "chatcmpl" if kind == "chat" else "cmpl"
    return {"id": f"{prefix}-{request_id}", "object": _OBJECTS[kind][chunk], "created": created, "model": model}


def whole_choice(kind: Kind, index: int, text: str, logprobs: Any, finish: str) -> dict[str, Any]:
    """One choice of an answer that is sent at once."""
    said = {"message": {"role": "assistant", "content": text, "refusal": None}} if kind == "chat" else {"text": text}
    return {"index": index, **said, "logprobs": logprobs, "finish_reason": finish}


def chunk_choice(kind: Kind, index: int, text: str | None, logprobs: Any, finish: str | None) -> dict[str, Any]:
    """One choice of a chunk; in a chat `text` None opens the turn."""
    if kind == "completion":
        said: dict[str, Any] = {"text": text or ""}
    elif text is None:
        said = {"delta": {"role": "assistant", "content": ""}}
    else:
        said = {"delta": {"content": text} if text else {}}
    return {"index": index, **said, "logprobs": logprobs, "finish_reason": finish}


def logprobs(kind: Kind, seen: Sequence[TokenSeen], chat: ChatText, offset: int) -> dict[str, Any]:
    """
    Args:
        offset: characters before the answer in the text that is sent (an echoed prompt).
    """
    if kind == "chat":
        return {"content": [_chat_token(token, chat) for token in seen], "refusal": None}
    return {
        "tokens": [_shown(token.id, chat) for token in seen],
        "token_logprobs": [token.logprob for token in seen],
        "top_logprobs": [{_shown(id_, chat): value for id_, value in token.likely} for token in seen],
        "text_offset": [offset + token.start for token in seen],
    }


def _chat_token(token: TokenSeen, chat: ChatText) -> dict[str, Any]:
    likely = [_told(id_, value, chat) for id_, value in token.likely]
    return {**_told(token.id, token.logprob, chat), "top_logprobs": likely}


def _told(id_: int, value: float, chat: ChatText) -> dict[str, Any]:
    text = chat.decode([id_], skip_special_tokens=False)
    return {"token": _shown(id_, chat), "logprob": value, "bytes": None if _PART in text else list(text.encode())}


def _shown(id_: int, chat: ChatText) -> str:
    """Its text; a part of a character has none, and is told by its id as vLLM tells it: two of them differ."""
    text = chat.decode([id_], skip_special_tokens=False)
    return f"token_id:{id_}" if _PART in text else text
