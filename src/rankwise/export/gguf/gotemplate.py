"""A chat template as a Go template, for Ollama. Torch-free.

Templates of the usual kind write fixed text around each message. These texts are found by rendering conversations, the
Go template is put together of them, and it counts only where it gives the same text for every golden conversation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankwise.errors import ModelError
from rankwise.text.golden import GOLDEN_CHAT
from rankwise.text.template import ChatText

SYSTEM, USER, ASSISTANT = "Qsystemtext", "Qusertext", "Qassistanttext"
NOT_FIXED = ("strftime_now",)  # what a template may write that is another text tomorrow
Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class GoTemplate:
    """Texts around the messages of a conversation.

    Attributes:
        first: before a first message that is the user's.
        system: before and after a first message that is the system's; what comes after leads to the user's text.
        user: before and after a later message of the user.
        assistant: before and after an answer.
        turn: from where the assistant begins to speak.
        trimmed: does the original cut blank space off the ends of messages? Go templates of Ollama cannot.
    """

    first: str
    system: tuple[str, str] | None
    user: tuple[str, str]
    assistant: tuple[str, str]
    turn: str
    trimmed: bool = False

    def text(self) -> str:
        """The Go template, as it stands in a Modelfile."""
        system = ""
        if self.system is not None:
            system = f'{{{{ if eq .Role "system" }}}}{_go(self.system[0])}{{{{ .Content }}}}{_go(self.system[1])}'
        user = (
            f'{{{{ {"else " if system else ""}if eq .Role "user" }}}}{{{{ if eq $last "" }}}}{_go(self.first)}'
            f'{{{{ else if eq $last "assistant" }}}}{_go(self.user[0])}{{{{ end }}}}'
            f"{{{{ .Content }}}}{_go(self.user[1])}"
        )
        assistant = (
            f'{{{{ else if eq .Role "assistant" }}}}{_go(self.assistant[0])}{{{{ .Content }}}}{_go(self.assistant[1])}'
        )
        body = f"{system}{user}{assistant}{{{{ end }}}}{{{{ $last = .Role }}}}"
        return f'{{{{ $last := "" }}}}{{{{ range .Messages }}}}{body}{{{{ end }}}}{_go(self.turn)}'

    def render(self, messages: Messages) -> str:
        """What Go makes of it."""
        said, last = "", ""
        for message in messages:
            role, content = message["role"], message["content"]
            if role == "system":
                before, after = self.system or ("", "")
                said += before + content + after
            elif role == "user":
                said += {"": self.first, "assistant": self.user[0]}.get(last, "") + content + self.user[1]
            else:
                said += self.assistant[0] + content + self.assistant[1]
            last = role
        return said + self.turn


def _go(text: str) -> str:
    """Fixed text in a Go template: two braces would begin an action."""
    return text.replace("{{", '{{ "{{" }}')


def go_template(chat: ChatText, *, adds_bos: bool) -> GoTemplate:
    """The Go template of a model's text.

    Args:
        adds_bos: does the engine put BOS before the text by itself? Then the template must not.

    Raises:
        ModelError: there is no template, or it cannot be put in Go's words.
    """
    if chat.template is None:
        raise ModelError("the model has no chat template")
    if found := [name for name in NOT_FIXED if name in chat.template]:
        raise ModelError(f"the chat template writes what changes by the day ({found[0]})")
    bos = chat.special_tokens.get("bos_token", "") if adds_bos else ""
    found_template = _found(chat, bos)
    for trimmed in (False, True):
        if all(_alike(found_template, chat, c, bos, trimmed) for c in _conversations(found_template)):
            return GoTemplate(**{**vars(found_template), "trimmed": trimmed})
    raise ModelError("the chat template writes more than fixed text around each message")


def _found(chat: ChatText, bos: str) -> GoTemplate:
    """From three conversations of known words."""
    user, assistant = {"role": "user", "content": USER}, {"role": "assistant", "content": ASSISTANT}
    try:
        first, after_user, after_answer, end = _split(chat.render([user, assistant, user]), USER, ASSISTANT, USER)
        closed = _split(chat.render([user, assistant]), USER, ASSISTANT)[-1]
        turn = chat.render([user], add_generation_prompt=True).removeprefix(chat.render([user]))
    except ValueError:
        raise ModelError("the chat template changes the words of a message") from None
    if not (after_user.startswith(end) and after_answer.startswith(closed)):
        raise ModelError("the chat template writes other text after the last message than after an earlier one")
    return GoTemplate(
        first=first.removeprefix(bos),
        system=_system(chat, end, bos),
        user=(after_answer.removeprefix(closed), end),
        assistant=(after_user.removeprefix(end), closed),
        turn=turn,
    )


def _system(chat: ChatText, after_user: str, bos: str) -> tuple[str, str] | None:
    """None for a template that knows no system message."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
    try:
        before, between, end = _split(chat.render(messages), SYSTEM, USER)
    except (ModelError, ValueError):
        return None
    return (before.removeprefix(bos), between) if end == after_user else None


def _split(text: str, *words: str) -> list[str]:
    """The texts around the words, which must come in this order, each once. Raises ValueError otherwise."""
    parts = []
    for word in words:
        before, found, text = text.partition(word)
        if not found:
            raise ValueError(word)
        parts.append(before)
    if any(word in part for word in words for part in [*parts, text]):
        raise ValueError("a word stands twice")
    return [*parts, text]


def _conversations(template: GoTemplate) -> list[Messages]:
    system = {"role": "system", "content": "You answer\nin verse."}
    long = [{"role": r, "content": f"{r} {n}: {{x}} <b>"} for n in range(3) for r in ("user", "assistant")]
    asked = [
        *GOLDEN_CHAT,
        [*long, {"role": "user", "content": "And?"}],
        [system, *long, {"role": "user", "content": "?"}],
    ]
    return [c for c in asked if template.system is not None or c[0]["role"] != "system"]


def _alike(template: GoTemplate, chat: ChatText, conversation: Messages, bos: str, trimmed: bool) -> bool:
    if trimmed:
        conversation = [{**m, "content": m["content"].strip()} for m in conversation]
    try:
        return template.render(conversation) == chat.render(conversation, add_generation_prompt=True).removeprefix(bos)
    except ModelError:
        return False
