"""`rankwise chat`"""

import sys
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from rankwise.cli.face import Json, RunFolder, command
from rankwise.cli.printing import notes, print_json, print_lines
from rankwise.errors import UsageError


@command
def chat(
    *,
    run: RunFolder,
    prompt: Annotated[str | None, typer.Option(help="One question; without it a conversation begins.")] = None,
    base: Annotated[bool, typer.Option("--base", help="Talk to the untouched base instead.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 256,
    as_json: Json = False,
) -> int:
    """Talk to a run's model. Example: `rankwise chat RUN --prompt "Hello"`"""
    from rankwise import api

    opened = api.open_run(run)
    if as_json and prompt is None:
        raise UsageError("--json needs --prompt: a conversation has no single answer")
    reply = api.chat(opened, base=base)
    if prompt is None:
        return _converse(reply, max_new_tokens)
    pieces = []
    for piece in reply([{"role": "user", "content": prompt}], max_new_tokens):
        pieces.append(piece)
        if not as_json:
            sys.stdout.write(piece)
            sys.stdout.flush()
    print_json({"prompt": prompt, "answer": "".join(pieces), "base": base}) if as_json else print_lines("")
    return 0


def _converse(reply: Callable[[list[dict[str, str]], int], Iterator[str]], max_new_tokens: int) -> int:
    """Turns until end of input; Ctrl-C ends an answer, a second one the conversation."""
    notes.print("Ctrl-D ends the conversation, Ctrl-C an answer.")
    messages: list[dict[str, str]] = []
    while True:
        try:
            said = input("you> ").strip()
        except (EOFError, KeyboardInterrupt):
            print_lines("")
            return 0
        if not said:
            continue
        messages.append({"role": "user", "content": said})
        pieces: list[str] = []
        try:
            for piece in reply(messages, max_new_tokens):
                pieces.append(piece)
                sys.stdout.write(piece)
                sys.stdout.flush()
        except KeyboardInterrupt:
            notes.print("(stopped)")
        print_lines("")
        messages.append({"role": "assistant", "content": "".join(pieces)})
