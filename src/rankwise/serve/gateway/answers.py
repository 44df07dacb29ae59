"""Ids of an answer into text, as it comes: stop strings are cut exactly, whole characters alone are let out."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from rankwise.serve.engine import Finish, Piece
from rankwise.text.template import ChatText

BEFORE = 8  # ids of the prompt that the decoder sees where an answer goes on in its text


@dataclass(frozen=True, slots=True)
class TokenSeen:
    """One token with what was told of it.

    Attributes:
        start: characters of the answer before it.
        likely: the most likely (id, log-probability) pairs.
    """

    id: int
    logprob: float
    likely: tuple[tuple[int, float], ...]
    start: int


class AnswerText:
    """The text of one answer so far.

    Attributes:
        tokens: all ids that came, those of a stop string included.
        finish: why it ended; None while it goes on.
    """

    def __init__(self, chat: ChatText, stops: Sequence[str] = (), before: Sequence[int] = ()):
        """
        Args:
            stops: strings that end the answer and are not part of it.
            before: the prompt where the answer goes on in the same text.
        """
        self._chat, self._stops = chat, tuple(stops)
        self._before = tuple(before[-BEFORE:])
        self._decode = chat.decoding(self._before)
        self._decoded = ""
        self._let_out = 0
        self._cut = False
        self._seen: deque[TokenSeen] = deque()
        self.tokens: list[int] = []
        self.finish: Finish | None = None

    def add(self, piece: Piece) -> str:
        """Take in tokens; returns the text that can be let out now."""
        for place, token in enumerate(piece.tokens):
            if piece.logprobs:
                likely = piece.likely[place] if piece.likely else ()
                self._seen.append(TokenSeen(token, piece.logprobs[place], likely, len(self._decoded)))
            self.tokens.append(token)
            self._decoded += self._decode(token)
            if self._stopped():
                return self._let(len(self._decoded))
        if piece.finish is None:
            return self._let(len(self._decoded) - self._perhaps_stop())
        self.finish = piece.finish
        self._decoded += self._unfinished()
        self._stopped()
        return self._let(len(self._decoded))

    def seen(self) -> list[TokenSeen]:
        """Tokens whose text was let out since the last call, and at the end those without text."""
        ended, found = self.finish is not None and not self._cut, []
        while self._seen and (ended or self._seen[0].start < self._let_out):
            found.append(self._seen.popleft())
        return found

    def _let(self, end: int) -> str:
        out = self._decoded[self._let_out : end]
        self._let_out = max(self._let_out, end)
        return out

    def _stopped(self) -> bool:
        """Cut at the first stop string, if one is complete; what was let out cannot be a part of one."""
        places = [place for stop in self._stops if (place := self._decoded.find(stop, self._let_out)) >= 0]
        if places:
            self.finish, self._cut, self._decoded = "stop", True, self._decoded[: min(places)]
        return bool(places)

    def _perhaps_stop(self) -> int:
        """Characters at the end that may be the beginning of a stop string."""
        held = len(self._decoded) - self._let_out
        for length in range(min(held, max(map(len, self._stops), default=1) - 1), 0, -1):
            if any(stop.startswith(self._decoded[-length:]) for stop in self._stops):
                return length
        return 0

    def _unfinished(self) -> str:
        """What is still within an unfinished character at the end: as decoding all ids at once shows it."""
        whole = self._chat.decode([*self._before, *self.tokens])[len(self._chat.decode(self._before)) :]
        return whole[len(self._decoded) :] if whole.startswith(self._decoded) else ""
