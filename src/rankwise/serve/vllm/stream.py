"""vLLM's stream of a completion, line by line, as pieces of an answer; and its errors as ours."""

import json
from typing import Any, NoReturn

from rankwise.errors import RankwiseError
from rankwise.serve.engine import EngineDied, Generation, Piece

BEGIN, END = "data: ", "[DONE]"
MARK = "token_id:"  # before an id where tokens are asked for as ids
SHOWN = 300  # characters of a server's message that are passed on: it may quote what it was sent


class ServerFault(RankwiseError):
    """vLLM answered with an error of its own.

    Attributes:
        status: HTTP status; of an error within a stream, the code that it names.
    """

    def __init__(self, status: int, what: str):
        super().__init__(f"vLLM answered {status}: {what[:SHOWN]}")
        self.status = status


def completion_request(model: str, asked: Generation) -> dict[str, Any]:
    """The body of `POST /v1/completions`: ids in, ids out, and every sampling setting said, so that no default of the
    server's has a part in it. EOS stops an answer where it is one of the stop ids, and only there.
    """
    body: dict[str, Any] = {
        "model": model,
        "prompt": list(asked.prompt),
        "stream": True,
        "max_tokens": asked.max_new_tokens,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "frequency_penalty": asked.frequency_penalty,
        "presence_penalty": asked.presence_penalty,
        "stop_token_ids": list(asked.stop_token_ids),
        "ignore_eos": True,
        "skip_special_tokens": False,
        "return_token_ids": True,
    }
    if asked.seed is not None:
        body["seed"] = asked.seed
    if asked.logprobs is not None:
        body |= {"logprobs": asked.logprobs, "return_tokens_as_token_ids": True}
    return body


def read_line(line: str, asked: Generation) -> Piece | None:
    """One line of the stream; None where it holds no tokens (empty lines, comments, `[DONE]`).

    Raises:
        ServerFault: the line is an error.
        EngineDied: it is none of vLLM's lines: the stream was cut.
    """
    if not line.startswith(BEGIN) or line == BEGIN + END:
        return None
    try:
        told = json.loads(line[len(BEGIN) :])
        if "error" in told:
            raise_fault(500, told)
        if not told["choices"]:
            return None
        return _piece(told["choices"][0], asked)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise EngineDied(f"vLLM's stream broke off within a line ({type(error).__name__})") from None


def _piece(choice: dict[str, Any], asked: Generation) -> Piece:
    tokens, finish = list(choice["token_ids"] or ()), choice["finish_reason"]
    if finish not in (None, "stop", "length"):  # `abort`: somebody else ended it; `error` comes as an error
        raise EngineDied(f"vLLM ended the answer with {finish!r}")
    chosen, likely = _logprobs(choice.get("logprobs"), asked.logprobs)
    if finish == "stop" and tokens and tokens[-1] in asked.stop_token_ids:
        tokens.pop()  # it is told, and is not of the answer
    count = len(tokens)
    return Piece(tuple(tokens), tuple(chosen[:count]), tuple(likely[:count]), finish)


def _logprobs(told: dict[str, Any] | None, wanted: int | None) -> tuple[list[float], list[Any]]:
    """Of each token its log-probability and the `wanted` most likely ids; vLLM adds the chosen one where it is none of
    them.
    """
    if told is None or wanted is None:
        return [], []
    ranked = [
        sorted(((_id(token), value) for token, value in pairs.items()), key=lambda pair: -pair[1])[:wanted]
        for pairs in told["top_logprobs"] or ()
    ]
    return list(told["token_logprobs"]), [tuple(pairs) for pairs in ranked]


def _id(token: str) -> int:
    return int(token.removeprefix(MARK))


def raise_fault(status: int, told: Any) -> NoReturn:
    """An answer that is an error. Raises ServerFault, with vLLM's own words."""
    error = told.get("error") if isinstance(told, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    code = error.get("code") if isinstance(error, dict) else None
    said = message if isinstance(message, str) else json.dumps(told)
    raise ServerFault(code if isinstance(code, int) else status, said)
