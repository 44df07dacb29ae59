"""A conversation -> the texts that it is trained as, each with the characters that are learned.

What the model sees at inference before an answer is the template's text of the turns up to it, and what it has to say
is what the template then writes for that turn. Templates that only append give one text for all turns. Others rewrite
earlier turns: Qwen3, GLM and gpt-oss drop the reasoning of answers before the last question, Phi-3 ends the whole
text. There the conversation is taken apart, as Qwen's authors advise (github.com/QwenLM/Qwen3/discussions/1398): a text
ends where the next turn would rewrite it, and the next text learns that turn alone, after the earlier ones as the
template writes them then. Nothing is learned in a form that inference does not have. (TRL trains such models with
templates of its own that keep all reasoning, so that training and inference differ.)
"""

from dataclasses import dataclass, field

from rankwise.errors import DataError, ModelError
from rankwise.text.formats import Row
from rankwise.text.template import ChatText

Span = tuple[int, int]


@dataclass
class Segment:
    """A text, the characters [start, end) of it that are learned, and what was noticed.

    Attributes:
        marked: the template itself says what is learned.
        unprompted: an answer begins otherwise than the template's generation prompt does.
    """

    text: str
    spans: list[Span] = field(default_factory=list)
    marked: bool = False
    unprompted: bool = False


def segments(row: Row, chat: ChatText) -> list[Segment]:
    """The texts of a conversation, one unless the template rewrites earlier turns; none where nothing is learned.

    Raises:
        DataError: the template refuses the row.
        ModelError: no chat template, or one whose text of the turns before an answer changes with that answer.
    """
    found: list[Segment] = []
    last = -1
    for index, message in enumerate(row.messages):
        if message["role"] != "assistant" or message.get("weight") == 0:
            continue
        turn = _turn(row, chat, index)
        if not turn.spans:
            continue
        if found and turn.text.startswith(found[-1].text) and turn.spans[0][0] >= found[-1].spans[-1][1]:
            found[-1].text = turn.text
            found[-1].spans += turn.spans
            found[-1].unprompted |= turn.unprompted
        else:
            found.append(turn)
        last = index
    if found and last + 1 < len(row.messages):
        full = _render(row, chat, len(row.messages))
        found[-1].text = full if full.startswith(found[-1].text) else found[-1].text
    return found


def _turn(row: Row, chat: ChatText, index: int) -> Segment:
    """The text up to and with the assistant's turn `index`, of which that turn is learned."""
    after = _render(row, chat, index + 1)
    if (marks := _marks(row, chat, index + 1)) is not None:
        return Segment(after, marks[len(_marks(row, chat, index) or ()) :], marked=True)
    before = _render(row, chat, index, prompt=True)
    if after.startswith(before):
        return Segment(after, [(len(before), len(after))])
    history = _render(row, chat, index)
    if not after.startswith(history):
        raise _unstable(row, index)
    shared = next(i for i, (a, b) in enumerate(zip(f"{before}\0", after, strict=False)) if a != b)
    return Segment(after, [(shared, len(after))], unprompted=True)


def _marks(row: Row, chat: ChatText, count: int) -> list[Span] | None:
    return chat.said(row.messages[:count], row.given) if count else []


def _render(row: Row, chat: ChatText, count: int, *, prompt: bool = False) -> str:
    """The first `count` messages as text; what the template refuses is the row's fault."""
    try:
        return chat.render(row.messages[:count], add_generation_prompt=prompt, given=row.given)
    except ModelError as fault:
        if not chat.has_template:
            raise
        raise DataError(row.path, row.line, fault.what, expected=fault.expected) from None


def _unstable(row: Row, index: int) -> ModelError:
    return ModelError(
        f"the chat template is not prefix-stable: the text of the messages before message {index + 1} of "
        f"{row.path}:{row.line} is not the beginning of the text with it, so what the assistant said cannot be told "
        "apart",
        expected="a template that leaves the turns before an answer as they are, or marks answers by {% generation %}",
        fix="give such a template as chat_template in the job",
    )
