"""Requests a minute, at once, and tokens a day."""

from datetime import timedelta

import pytest

from rankwise.records import Limits
from rankwise.serve.gateway.errors import Refusal
from rankwise.serve.gateway.limits import Usage, today


def test_the_bucket_empties_and_fills_evenly() -> None:
    now = [0.0]
    usage, limits = Usage(lambda: now[0]), Limits(requests_per_minute=2)
    usage.take_turn("a", limits)
    usage.take_turn("a", limits)
    with pytest.raises(Refusal) as refused:
        usage.take_turn("a", limits)
    assert refused.value.status == 429 and refused.value.headers()["retry-after"] == "30"
    usage.take_turn("b", limits)
    now[0] = 30.0
    usage.take_turn("a", limits)
    with pytest.raises(Refusal):
        usage.take_turn("a", limits)
    usage.take_turn("a", Limits())


def test_requests_at_once() -> None:
    usage, limits = Usage(), Limits(concurrent_requests=1)
    with usage.open("a", limits, 5), pytest.raises(Refusal) as refused, usage.open("a", limits, 5):
        pass
    assert refused.value.code == "too_many_open"
    with usage.open("a", limits, 5):
        pass


def test_the_quota_counts_what_was_used_what_is_open_and_what_other_gateways_used() -> None:
    usage, limits, day = Usage(), Limits(tokens_per_day=100), today()
    with usage.open("a", limits, 60) as spent:
        with pytest.raises(Refusal) as refused, usage.open("a", limits, 60):
            pass
        assert refused.value.code == "insufficient_quota" and "60" in refused.value.message
        spent.prompt, spent.answer = 10, 20
    assert usage.untold() == {"a": {day: (10, 20)}}
    with usage.open("a", limits, 70):
        pass
    usage.tell("a", day, (10, 20), 90)
    assert usage.untold() == {}
    with pytest.raises(Refusal) as full, usage.open("a", limits, 11):
        pass
    assert full.value.retry_after is not None and 0 < full.value.retry_after <= 86400
    usage.known("a", day - timedelta(days=1), 5)  # of yesterday: says nothing of today
    with pytest.raises(Refusal), usage.open("a", limits, 11):
        pass


def test_what_is_used_while_the_registry_is_told_is_not_lost() -> None:
    usage, day = Usage(), today()
    with usage.open("a", Limits(), 10) as spent:
        spent.prompt = 3
    told = usage.untold()["a"][day]
    with usage.open("a", Limits(), 10) as spent:
        spent.answer = 4
    usage.tell("a", day, told, 3)
    assert usage.untold() == {"a": {day: (0, 4)}}
