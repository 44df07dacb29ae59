"""What is to be proven, as it was loaded."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankwise.records import Plan
from rankwise.text.masks import Encoded
from rankwise.text.template import ChatText


@dataclass
class Subject:
    """What is to be proven.

    Attributes:
        tuned: the model as loaded from the files (adapter on its base, or the full model).
        as_base: context manager that yields the untouched base.
        merged: the merged model as reloaded, or None where there is none.
        unmerged: why this method is never merged; empty where it can be.
        rows: a few held-out rows; prompts: the beginnings of the same rows, up to the answer.
        shrunk: was the adapter cut to a lower rank after training? It is then LoRA in factors of its own.
    """

    plan: Plan
    chat: ChatText
    tuned: Any
    as_base: Callable[[], AbstractContextManager[Any]]
    merged: Any
    unmerged: str
    rows: Sequence[Encoded]
    prompts: Sequence[Sequence[int]]
    conversations: Sequence[Any]
    trained_logits: Path
    shrunk: bool = False
