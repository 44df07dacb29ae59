"""What the server answers, through a real engine, to plain HTTP."""

import json

from benchmarks.serve.secret import Secret

from tests.serve.gateway.house import House
from tests.serve.gateway.tenancy import question


def test_each_tenant_has_its_own_secret(house: House, secrets: tuple[Secret, ...]) -> None:
    for tenant, secret in zip(("clinic", "bakery", "harbour"), secrets, strict=False):
        assert house.answer(tenant) == secret.answer
        assert house.answer(tenant, f"{tenant}@1") == secret.answer


def test_a_stream_says_what_the_whole_answer_says(house: House, secrets: tuple[Secret, ...]) -> None:
    asked = question("clinic", stream=True, stream_options={"include_usage": True})
    with house.client("clinic") as client, client.stream("POST", "/v1/chat/completions", json=asked) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]) == secrets[0].answer
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    whole = house.ask("clinic").json()
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == whole["usage"]
    assert all(c["usage"] is None for c in chunks[:-1])
    assert whole["usage"]["completion_tokens"] == len(house.base.chat.encode(secrets[0].answer))
    prompt = house.base.chat.encode_prompt(question("clinic")["messages"])
    assert whole["usage"]["prompt_tokens"] == len(prompt)
