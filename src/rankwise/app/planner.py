"""Plans in a thread of its own, so that a long one blocks no page; a newer wish of the same page ends the older one."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal

from rankwise import api
from rankwise.errors import RankwiseError
from rankwise.records import Job, Plan

KEPT = 64  # finished plans; each is some hundred kB
IDLE_SECONDS = 300  # after which the processes that trace are ended: they hold memory

State = Literal["waiting", "working", "done", "failed", "superseded"]


class Superseded(Exception):
    """Nobody waits for this plan any more."""


@dataclass
class Wish:
    """A plan that was asked for.

    Attributes:
        key: of equal wishes: the job and the state of its files.
        page: the open page that asked; a newer wish of it takes this one's place.
        given: the form as it was filled.
        seconds: the plan took, by the clock.
    """

    key: str
    page: str
    job: Job
    given: Mapping[str, str]
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: State = "waiting"
    progress: tuple[str, int, int] = ("waiting for the plan before it", 0, 0)
    plan: Plan | None = None
    error: RankwiseError | None = None
    seconds: float | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def tell(self, what: str, done: int, total: int) -> None:
        """Called by the plan. Raises Superseded, which ends it."""
        self.progress = (what, done, total)
        if self.state == "superseded":
            raise Superseded


class Planner:
    """One plan at a time: each of them uses all cores, and the processes that trace have one owner."""

    def __init__(self) -> None:
        self._wishes: OrderedDict[str, Wish] = OrderedDict()
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def ask(self, key: str, page: str, job: Job, given: Mapping[str, str]) -> Wish:
        """The wish, which may be fulfilled already; unfinished ones of the same page are given up."""
        with self._changed:
            for older in [w for w in self._wishes.values() if w.page == page and not w.ended.is_set()]:
                if older.key == key:
                    return older
                self._give_up(older)
            wish = Wish(key, page, job, given)
            known = next((w for w in reversed(self._wishes.values()) if w.key == key and w.state == "done"), None)
            if known is not None:
                wish.plan, wish.seconds, wish.state = known.plan, known.seconds, "done"
                wish.ended.set()
            self._wishes[wish.id] = wish
            self._forget()
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="planner", daemon=True)
                self._thread.start()
        return wish

    def find(self, id: str) -> Wish | None:
        """By the name that `ask` gave it; None: nobody asked, or long ago."""
        return self._wishes.get(id)

    def close(self) -> None:
        """Give up what is not done; the process does not wait for a trace in the middle."""
        with self._changed:
            self._closing = True
            for wish in self._wishes.values():
                if not wish.ended.is_set():
                    self._give_up(wish)
            self._changed.notify_all()

    def _give_up(self, wish: Wish) -> None:
        wish.state = "superseded"
        wish.ended.set()

    def _forget(self) -> None:
        ended = [w.id for w in self._wishes.values() if w.ended.is_set()]
        for id in ended[: max(0, len(self._wishes) - KEPT)]:
            del self._wishes[id]

    def _work(self) -> None:
        while (wish := self._next(None)) is not None:
            with api.ready_to_plan():
                while wish is not None:
                    self._fulfil(wish)
                    wish = self._next(IDLE_SECONDS)

    def _next(self, wait: float | None) -> Wish | None:
        """The newest that waits; None at the end, or when none came for `wait` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._waiting() is not None, wait)
            wish = None if self._closing else self._waiting()
            if wish is not None:
                wish.state = "working"
            return wish

    def _waiting(self) -> Wish | None:
        return next((w for w in reversed(self._wishes.values()) if w.state == "waiting"), None)

    def _fulfil(self, wish: Wish) -> None:
        began = perf_counter()
        with suppress(Superseded):
            try:
                plan = api.plan_job(wish.job, progress=wish.tell)
            except RankwiseError as error:
                self._end(wish, "failed", error=error)
            except Superseded:
                raise
            except Exception as error:  # the thread goes on, and the page says it
                what = f"internal error: {type(error).__name__}: {error}"
                fix = "`rankwise plan JOB --debug` shows where; please report it"
                self._end(wish, "failed", error=RankwiseError(what, fix=fix))
            else:
                self._end(wish, "done", plan=plan, seconds=perf_counter() - began)

    def _end(
        self,
        wish: Wish,
        state: State,
        *,
        plan: Plan | None = None,
        error: RankwiseError | None = None,
        seconds: float | None = None,
    ) -> None:
        with self._changed:
            wish.plan, wish.error, wish.seconds = plan, error, seconds
            if wish.state != "superseded" or plan is not None:
                wish.state = state
            wish.ended.set()
