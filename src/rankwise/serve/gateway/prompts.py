"""A request into what an engine is asked: ids of each prompt, how it is sampled, and how long it may become."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from rankwise.errors import ModelError
from rankwise.serve.engine import Generation
from rankwise.serve.gateway.errors import bad
from rankwise.serve.gateway.schemas import ChatRequest, CompletionRequest
from rankwise.serve.gateway.settings import Settings
from rankwise.text.template import ChatText

COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions
ASIDE = 20_000  # characters from which a thread turns text into ids, so that others are answered meanwhile


@dataclass(frozen=True, slots=True)
class Prompt:
    """
    Attributes:
        ids: of the prompt.
        goes_on: the answer goes on in the prompt's text, it is no turn of its own.
        echo: text that is put before the answer.
    """

    ids: tuple[int, ...]
    goes_on: bool = False
    echo: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """As `Generation` has it, with defaults of OpenAI's API filled in."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    frequency_penalty: float
    presence_penalty: float
    logprobs: int | None
    stops: tuple[str, ...]

    def generation(
        self, request_id: str, adapter: str | None, prompt: Prompt, chat: ChatText, choice: int
    ) -> Generation:
        """What the engine is asked for one choice; of several with one seed each has a draw of its own."""
        return Generation(
            request_id=request_id,
            adapter=adapter,
            prompt=prompt.ids,
            max_new_tokens=self.max_new_tokens,
            stop_token_ids=chat.stop_token_ids,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=None if self.seed is None else self.seed + choice,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            logprobs=self.logprobs,
        )


async def chat_prompts(asked: ChatRequest, chat: ChatText) -> list[Prompt]:
    """The conversation as the chat template of the adapter writes it. Raises Refusal (400)."""
    messages = [message.rendered() for message in asked.messages]
    size = sum(len(message["content"]) for message in messages)
    try:
        ids = await asyncio.to_thread(chat.encode_prompt, messages) if size > ASIDE else chat.encode_prompt(messages)
    except ModelError as fault:
        raise bad(f"messages: {fault.what[:300]}.", "messages", "template_refused") from None
    return [Prompt(tuple(ids))]


async def completion_prompts(asked: CompletionRequest, chat: ChatText) -> list[Prompt]:
    """Each prompt as ids. Raises Refusal (400)."""
    given = asked.prompt
    several = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    return [await _completion_prompt(prompt, bool(asked.echo), chat) for prompt in several]


async def _completion_prompt(prompt: str | list[int], echo: bool, chat: ChatText) -> Prompt:
    if isinstance(prompt, str):
        encode = chat.encode_opening
        ids = await asyncio.to_thread(encode, prompt) if len(prompt) > ASIDE else encode(prompt)
        if not ids and chat.bos_token_id is not None:
            ids = [chat.bos_token_id]
        if not ids:
            raise bad("An empty prompt gives this model nothing to begin with.", "prompt", "invalid_value")
        return Prompt(tuple(ids), goes_on=True, echo=prompt if echo else "")
    if (highest := max(prompt)) >= chat.vocab_size:
        raise bad(f"prompt: id {highest} is none of the {chat.vocab_size} tokens.", "prompt", "invalid_value")
    return Prompt(tuple(prompt), goes_on=True, echo=chat.decode(prompt) if echo else "")


def sampling(asked: ChatRequest | CompletionRequest, prompts: Sequence[Prompt], settings: Settings) -> Sampling:
    """How the answers are drawn. Raises Refusal (400) with numbers where prompt and answer do not fit."""
    choices = len(prompts) * (asked.n or 1)
    if choices > settings.max_choices:
        raise bad(
            f"{choices} answers are asked for ({len(prompts)} prompts x n = {asked.n or 1}); at most "
            f"{settings.max_choices} may be.",
            "n",
            "too_many_choices",
        )
    if asked.stream_options is not None and not asked.stream:
        raise bad("`stream_options` needs `stream: true`.", "stream_options", "invalid_value")
    return Sampling(
        max_new_tokens=_max_new_tokens(asked, prompts, settings.max_length),
        temperature=1.0 if asked.temperature is None else asked.temperature,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        seed=asked.seed,
        frequency_penalty=asked.frequency_penalty or 0.0,
        presence_penalty=asked.presence_penalty or 0.0,
        logprobs=_logprobs(asked),
        stops=asked.stops,
    )


def _max_new_tokens(asked: ChatRequest | CompletionRequest, prompts: Sequence[Prompt], most: int) -> int:
    longest = max(len(prompt.ids) for prompt in prompts)
    room = most - longest
    if room < 1:
        raise bad(
            f"The prompt has {longest} tokens; prompt and answer together may have {most}.",
            "messages" if isinstance(asked, ChatRequest) else "prompt",
            "context_length_exceeded",
        )
    if isinstance(asked, ChatRequest):
        wanted = asked.max_completion_tokens or asked.max_tokens or room
    else:
        wanted = asked.max_tokens or min(COMPLETION_TOKENS, room)
    if wanted > room:
        raise bad(
            f"The prompt has {longest} tokens and {wanted} are asked for; together they may have {most}, so at most "
            f"{room} can be asked for.",
            "max_tokens",
            "context_length_exceeded",
        )
    return wanted


def _logprobs(asked: ChatRequest | CompletionRequest) -> int | None:
    if isinstance(asked, ChatRequest):
        if asked.top_logprobs and not asked.logprobs:
            raise bad("`top_logprobs` needs `logprobs: true`.", "top_logprobs", "invalid_value")
        return (asked.top_logprobs or 0) if asked.logprobs else None
    if asked.logprobs is not None and asked.echo:
        raise bad(
            "`echo` with `logprobs` asks for log-probabilities of the prompt, which this server does not give.",
            "echo",
            "unsupported_parameter",
        )
    return asked.logprobs
