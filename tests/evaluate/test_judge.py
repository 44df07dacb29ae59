"""A judge behind a real HTTP server that speaks OpenAI's protocol: fair to both places, and unknown where it fails."""

import logging
from typing import Any

import pytest

from rankwise.errors import UsageError
from rankwise.evaluate import judge as judging
from rankwise.evaluate.judge import GIVE_UP, Judge, compare_judged, judged
from tests.evaluate.judges import Server, fair, serving

KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(judging, "PAUSE_SECONDS", 0.001)


ITEMS = [
    ("dose?", "5 mg", "no idea", "it is 5 mg"),
    ("dose?", "5 mg", "5 mg", "7 mg"),
    ("dose?", "5 mg", "1 mg", "2 mg"),
    ("dose?", "5 mg", "the same", " the same "),
]


def ask(server: Server, items: list[tuple[str, str, str, str]] = ITEMS, **options: Any) -> judging.Judgement:
    return judged(Judge(server.url, "referee", **options), items, lambda *_: None)


def test_both_orders_are_asked_and_the_better_answer_wins() -> None:
    with serving(fair) as server:
        found = ask(server)
    assert found.points == [1.0, 0.0, 0.5, 0.5] and not found.turned and not found.failures
    assert len(server.requests) == 6  # two for each pair, none where the answers are the same
    body, headers = server.requests[0]
    assert body["model"] == "referee" and body["temperature"] == 0 and "Authorization" not in headers
    assert body["messages"][0]["role"] == "system" and "wrong fact" in body["messages"][0]["content"]
    compared = compare_judged(Judge(server.url, "referee"), found, "answers")
    assert compared is not None and (compared.metric, compared.items) == ("judge", 4)
    assert compared.base == compared.tuned == 0.5 and compared.answer == "cannot tell"


def test_a_judge_that_prefers_a_place_decides_nothing() -> None:
    with serving(lambda *_: (200, "VERDICT: A")) as server:
        found = ask(server)
    assert found.points == [0.5] * 4 and found.turned == 3


def test_a_clear_winner_is_better() -> None:
    items = [(f"dose {i}?", "5 mg", "no idea", "5 mg") for i in range(12)]
    with serving(fair) as server:
        found = ask(server, items)
        compared = compare_judged(Judge(server.url, "referee"), found, "answers")
    assert compared is not None and (compared.tuned, compared.difference, compared.answer) == (1, 1, "better")


def test_what_fails_is_unknown_and_not_lost() -> None:
    def reply(body: dict[str, Any], text: str) -> tuple[int, str]:
        if "7 mg" in text:
            return 200, "I would rather not say."
        if "2 mg" in text:
            return 400, "bad request"
        return fair(body, text)

    with serving(reply) as server:
        found = ask(server)
    assert found.points == [1.0, None, None, 0.5]
    assert found.failures == {"no verdict in the judge's answer": 1, "HTTP status 400": 1}
    compared = compare_judged(Judge(server.url, "referee"), found, "answers")
    assert compared is not None and compared.items == 2 and "2 of 4 are unknown" in compared.source


def test_a_busy_server_is_asked_again_and_a_dead_one_is_given_up() -> None:
    calls = 0

    def busy(body: dict[str, Any], text: str) -> tuple[int, str]:
        nonlocal calls
        calls += 1
        return (429, "") if calls == 1 else fair(body, text)

    with serving(busy) as server:
        assert ask(server, ITEMS[:1]).points == [1.0]
    items = [(f"{i}?", "x", "a", "b") for i in range(40)]
    found = judged(Judge("http://127.0.0.1:9/v1", "referee"), items, lambda *_: None)
    assert found.points == [None] * 40 and compare_judged(Judge(server.url, "r"), found, "answers") is None
    reasons = " / ".join(found.failures)
    assert f"after {GIVE_UP} failures in a row" in reasons and found.failures.total() == 40


def test_the_key_travels_in_its_header_and_stands_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with serving(lambda *_: (401, f"Incorrect API key provided: {KEY}")) as server:
        found = ask(server, ITEMS[:1], key_variable="MY_KEY")
        judge = Judge(server.url, "referee", "MY_KEY")
    assert server.requests[0][1]["Authorization"] == f"Bearer {KEY}"
    assert found.failures == {"HTTP status 401": 1}
    assert KEY not in caplog.text + repr(found) + repr(judge)


def test_a_redirect_is_not_followed_with_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with serving(lambda *_: (302, "")) as server:
        found = ask(server, ITEMS[:1], key_variable="MY_KEY")
    assert found.failures == {"HTTP status 302": 1} and len(server.requests) == 1


def test_an_answer_that_is_not_of_the_protocol_is_unknown() -> None:
    with serving(lambda *_: (200, "garbage")) as server:
        found = ask(server, ITEMS[:1])
    assert found.points == [None] and len(server.requests) == judging.TRIES


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8000/v1", "judge's URL"),
        ("file:///etc/passwd", "judge's URL"),
        ("http://me:secret@host/v1", "holds a password"),
    ],
)
def test_a_url_that_is_none_is_a_usage_error(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        Judge(url, "m")
    assert "secret" not in str(error.value)
