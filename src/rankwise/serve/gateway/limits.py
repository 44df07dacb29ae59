"""What a tenant may use of this gateway: requests a minute, requests at once, and tokens a day over all gateways."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from rankwise.records import Limits
from rankwise.serve.gateway.errors import limited


@dataclass(slots=True)
class _Use:
    """Of one tenant.

    Attributes:
        allowance: requests that may come now (token bucket), as of `at`.
        open: requests that are answered or wait.
        promised: tokens that open requests may still take.
        told: tokens of `day` that the registry knew last, over all gateways.
        untold: (day -> prompt, answer) tokens that it does not know yet.
    """

    allowance: float | None = None
    at: float = 0.0
    open: int = 0
    promised: int = 0
    day: date = date.min
    told: int = 0
    untold: dict[date, tuple[int, int]] = field(default_factory=dict)


def today() -> date:
    return datetime.now(UTC).date()


class Usage:
    """Counts in memory; `untold` and `told` are the two ways in which the poll keeps the registry's sum and ours
    together, so that no request waits for a database.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._uses: dict[str, _Use] = {}

    def take_turn(self, tenant: str, limits: Limits) -> None:
        """One request of the minute. The bucket holds a minute's worth and fills evenly. Raises Refusal (429)."""
        most = limits.requests_per_minute
        if most is None:
            return
        use, now = self._of(tenant), self._clock()
        filled = most if use.allowance is None else use.allowance + (now - use.at) * most / 60
        use.allowance, use.at = min(float(most), filled), now
        if use.allowance < 1:
            wait = (1 - use.allowance) * 60 / most
            raise limited(f"More than {most} requests a minute.", wait, "rate_limit_exceeded")
        use.allowance -= 1

    @contextmanager
    def open(self, tenant: str, limits: Limits, tokens: int) -> Iterator["Spent"]:
        """While a request is answered that may take `tokens`. Raises Refusal (429)."""
        use, most = self._of(tenant), limits.concurrent_requests
        if most is not None and use.open >= most:
            raise limited(f"{use.open} requests are open, and {most} may be at once.", 1, "too_many_open")
        self._within_quota(use, limits, tokens)
        use.open, use.promised, spent = use.open + 1, use.promised + tokens, Spent()
        try:
            yield spent
        finally:
            use.open, use.promised = use.open - 1, use.promised - tokens
            day = today()
            prompt, answer = use.untold.get(day, (0, 0))
            use.untold[day] = (prompt + spent.prompt, answer + spent.answer)

    def _within_quota(self, use: _Use, limits: Limits, tokens: int) -> None:
        if (most := limits.tokens_per_day) is None:
            return
        used = (use.told if use.day == today() else 0) + sum(use.untold.get(today(), (0, 0)))
        if used + use.promised + tokens <= most:
            return
        midnight = datetime.combine(today() + timedelta(days=1), datetime.min.time(), UTC)
        raise limited(
            f"This request may take {tokens} tokens; {used} of {most} of this UTC day are used and open requests may "
            f"take {use.promised} more. Lower max_tokens, or wait.",
            (midnight - datetime.now(UTC)).total_seconds() if not use.promised else 1,
            "insufficient_quota",
        )

    def untold(self) -> Mapping[str, Mapping[date, tuple[int, int]]]:
        """What the registry does not know yet; `tell` takes it away."""
        return {name: dict(use.untold) for name, use in self._uses.items() if use.untold}

    def tell(self, tenant: str, day: date, told: tuple[int, int], sum_of_day: int) -> None:
        """The registry has counted `told`, and knows the day's sum over all gateways."""
        use = self._of(tenant)
        prompt, answer = use.untold.pop(day, (0, 0))
        if (rest := (prompt - told[0], answer - told[1])) != (0, 0):
            use.untold[day] = rest
        self.known(tenant, day, sum_of_day)

    def known(self, tenant: str, day: date, sum_of_day: int) -> None:
        """What the registry's sum of a day is; of an earlier day than the last one told: nothing."""
        use = self._of(tenant)
        if day >= use.day:
            use.day, use.told = day, sum_of_day

    def has_asked(self, tenant: str) -> bool:
        """Since this gateway was started."""
        return tenant in self._uses

    def _of(self, tenant: str) -> _Use:
        return self._uses.setdefault(tenant, _Use())


@dataclass(slots=True)
class Spent:
    """Tokens that a request took, filled in while it is answered."""

    prompt: int = 0
    answer: int = 0
