"""Ollama's Modelfile: where the weights are, how a conversation is written, where an answer stops. Torch-free."""

from pathlib import Path

from rankwise.errors import ModelError
from rankwise.export.gguf.gotemplate import go_template
from rankwise.text.template import ChatText

NAME = "Modelfile"


def modelfile(gguf: str, chat: ChatText, *, adds_bos: bool, licence: Path | None) -> tuple[str, list[str]]:
    """(the text of a Modelfile, notes for the person who uses it).

    Args:
        gguf: name of the file beside it.
        adds_bos: does the GGUF say that BOS is put before a text?
        licence: a file with the licence's text.
    """
    lines, notes = [f"FROM ./{gguf}"], []
    try:
        template = go_template(chat, adds_bos=adds_bos)
        if '"""' in template.text():
            raise ModelError("the chat template holds three quotation marks")
        lines.append(f'TEMPLATE """{template.text()}"""')
        if template.trimmed:
            notes.append(
                "The chat template cuts blank space off the ends of messages, which Ollama's cannot: send them without."
            )
        if template.system is None:
            notes.append("The chat template knows no system message, and the Modelfile leaves such messages out.")
    except ModelError as error:
        notes.append(
            f"The Modelfile has no TEMPLATE: {error.what}. llama.cpp renders the template in the GGUF by itself "
            "(llama-server --jinja); Ollama does so only where it is close to one that it knows, so compare before use."
        )
    for stop in chat.stop_token_ids:
        text = chat.decode([stop], skip_special_tokens=False)
        lines.append(f"PARAMETER stop {_quoted(text)}")
    if licence is not None and '"""' not in (text := licence.read_text(encoding="utf-8", errors="replace")):
        lines.append(f'LICENSE """{text}"""')
    return "\n".join(lines) + "\n", notes


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
