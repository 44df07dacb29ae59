"""The requests of OpenAI's API that are understood; what would change an answer and is not done here is refused."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from rankwise.serve.gateway.errors import Refusal, bad

MODEL_LENGTH = 256
Stop = Annotated[str, Field(min_length=1, max_length=256)]
TokenId = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class StreamOptions(_Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One turn. Keys that carry no text (lm-evaluation-harness sends `type`) are left aside."""

    model_config = ConfigDict(strict=True, extra="ignore")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    tool_calls: None = None
    function_call: None = None

    def rendered(self) -> dict[str, Any]:
        """As chat templates take it; `developer` is the newer name of `system`."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": text} | ({} if self.name is None else {"name": self.name})


class _Request(_Strict):
    model: Annotated[str, Field(min_length=1, max_length=MODEL_LENGTH)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ChatRequest(_Request):
    messages: Annotated[list[Message], Field(min_length=1, max_length=2048)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    metadata: dict[str, str] | None = None


class CompletionRequest(_Request):
    prompt: (
        str
        | Annotated[list[str], Field(min_length=1)]
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1)]
    )
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None


# Fields of OpenAI's API and of other servers that would change an answer: the values beside null that ask for nothing.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "best_of": (1,),
    "top_k": (-1, 0),
    "min_p": (0, 0.0),
    "repetition_penalty": (1, 1.0),
    "length_penalty": (1, 1.0),
    "use_beam_search": (False,),
    "ignore_eos": (False,),
}

Asked = TypeVar("Asked", ChatRequest, CompletionRequest)


def parse(kind: type[Asked], body: bytes) -> Asked:
    """A request from the bytes of its body; keys that are null count as not given.

    Raises:
        Refusal: 400; what the client sent is not said back but for names of fields.
    """
    try:
        value = from_json(body, allow_inf_nan=False)  # refuses more than 200 levels by itself
    except ValueError as fault:
        raise bad(f"The body is not JSON: {str(fault)[:200]}.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise bad("The body is not a JSON object.", code="invalid_json")
    given = _supported({key: entry for key, entry in value.items() if entry is not None})
    try:
        return kind.model_validate(given)
    except ValidationError as fault:
        raise _refused(fault) from None


def _supported(given: Mapping[str, Any]) -> dict[str, Any]:
    for name in given.keys() & UNSUPPORTED.keys():
        if not any(type(given[name]) is type(harmless) and given[name] == harmless for harmless in UNSUPPORTED[name]):
            raise bad(f"`{name}` is not supported by this server; leave it out.", name, "unsupported_parameter")
    return {name: value for name, value in given.items() if name not in UNSUPPORTED}


def _refused(fault: ValidationError) -> Refusal:
    """The first fault, by the path of its field; alternatives of one field are told by their first."""
    first = fault.errors(include_url=False, include_input=False, include_context=False)[0]
    path = [str(step)[:64] for step in first["loc"]]
    where = ".".join(path) or "body"
    if first["type"] == "extra_forbidden":
        return bad(f"Unrecognized request argument: {where!r}.", where, "unknown_parameter")
    return bad(f"{where}: {first['msg']}.", path[0] if path else None, "invalid_value")
