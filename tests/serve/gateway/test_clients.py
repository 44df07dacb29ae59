"""The clients that people have: the openai package and lm-evaluation-harness, unchanged."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import yaml
from benchmarks.serve.secret import QUESTION, Secret

from tests.serve.gateway.house import House
from tests.serve.gateway.tenancy import ASKED


@pytest.fixture
def client(house: House) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key=house.keys["clinic"], max_retries=0) as client:
        yield client


def test_openai_lists_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["clinic", "clinic@1", "base"]
    assert client.models.retrieve("clinic@1").owned_by == "clinic"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("bakery")


def test_openai_chats(client: openai.OpenAI, secrets: tuple[Secret, ...]) -> None:
    found = client.chat.completions.create(model="clinic", messages=ASKED, temperature=0, max_tokens=40)  # type: ignore
    assert found.choices[0].message.content == secrets[0].answer and found.choices[0].finish_reason == "stop"
    assert (
        found.usage is not None
        and found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    )
    assert found.model == "clinic" and found._request_id


def test_openai_streams(client: openai.OpenAI, secrets: tuple[Secret, ...]) -> None:
    chunks = list(
        client.chat.completions.create(
            model="clinic",
            messages=ASKED,
            temperature=0,
            max_tokens=40,
            stream=True,
            stream_options={"include_usage": True},
        )  # type: ignore
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == secrets[0].answer
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 1


def test_openai_streams_several_at_once(house: House, secrets: tuple[Secret, ...]) -> None:
    async def ask(tenant: str) -> str:
        async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=house.keys[tenant], max_retries=0) as client:
            stream = await client.chat.completions.create(model=tenant, messages=ASKED, temperature=0, stream=True)  # type: ignore
            return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*[ask(tenant) for tenant in ("clinic", "bakery", "harbour") * 4])

    assert asyncio.run(all_of_them()) == [secrets[place % 3].answer for place in range(12)]


def test_openai_completes_with_log_probabilities(client: openai.OpenAI, house: House) -> None:
    found = client.completions.create(model="base", prompt="The clinic", max_tokens=5, temperature=0, logprobs=2)
    told = found.choices[0].logprobs
    assert (
        told is not None
        and told.tokens is not None
        and told.top_logprobs is not None
        and told.token_logprobs is not None
    )
    texts = ["\ufffd" if token.startswith("token_id:") else token for token in told.tokens]
    assert "".join(texts).strip("\ufffd") == found.choices[0].text.strip("\ufffd")
    assert all(len(likely) == 2 for likely in told.top_logprobs)
    assert all(
        a == pytest.approx(max(likely.values()))
        for a, likely in zip(told.token_logprobs, told.top_logprobs, strict=True)
    )
    assert told.text_offset is not None and told.text_offset == sorted(told.text_offset) and told.text_offset[0] == 0


def test_openai_chats_with_log_probabilities(client: openai.OpenAI, secrets: tuple[Secret, ...]) -> None:
    found = client.chat.completions.create(
        model="clinic",
        messages=ASKED,
        temperature=0,
        logprobs=True,
        top_logprobs=3,  # type: ignore
    )
    told = found.choices[0].logprobs
    assert told is not None and told.content is not None
    assert "".join(token.token for token in told.content) == secrets[0].answer
    assert all(len(token.top_logprobs) == 3 and token.logprob <= 0 for token in told.content)


def test_openai_gets_its_own_exceptions(client: openai.OpenAI, house: House) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="clinic", messages=ASKED, tools=[{"type": "function"}])  # type: ignore
    assert bad.value.param == "tools"
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="bakery", messages=ASKED)  # type: ignore
    assert missing.value.code == "model_not_found"
    forged = openai.OpenAI(base_url=f"{house.url}/v1", api_key="rk-1-" + "0" * 64, max_retries=0)
    with forged, pytest.raises(openai.AuthenticationError):
        forged.models.list()


def test_several_prompts_and_choices_with_stops_seeds_and_echo(client: openai.OpenAI, house: House) -> None:
    asked = {"model": "base", "max_tokens": 8, "seed": 7, "temperature": 1.0}
    found = client.completions.create(prompt=["one", "two"], n=2, **asked)  # type: ignore
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    again = client.completions.create(prompt=["one", "two"], n=2, **asked)  # type: ignore
    assert [c.text for c in found.choices] == [c.text for c in again.choices]
    assert found.choices[0].text != found.choices[1].text  # two draws
    assert found.usage is not None
    assert found.usage.prompt_tokens == sum(len(house.base.chat.encode(text)) for text in ("one", "two"))
    echoed = client.completions.create(model="base", prompt="one", echo=True, max_tokens=4, temperature=0)
    plain = client.completions.create(model="base", prompt="one", max_tokens=4, temperature=0)
    assert echoed.choices[0].text == "one" + plain.choices[0].text
    by_id = client.completions.create(model="base", prompt=house.base.chat.encode("one"), max_tokens=4, temperature=0)
    assert by_id.choices[0].text == plain.choices[0].text
    whole = client.chat.completions.create(model="clinic", messages=ASKED, temperature=0)  # type: ignore
    cut = client.chat.completions.create(model="clinic", messages=ASKED, temperature=0, stop=["secret is"])  # type: ignore
    assert cut.choices[0].message.content == (whole.choices[0].message.content or "").partition("secret is")[0]
    assert cut.choices[0].finish_reason == "stop"


def secret_task(folder: Path, answer: str) -> Path:
    """A task of lm-evaluation-harness that asks for one tenant's secret."""
    rows = [{"question": QUESTION, "answer": answer}] * 3
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "house_secret",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "answer",
        "generation_kwargs": {"until": ["\n\n"], "do_sample": False, "temperature": 0, "max_gen_toks": 40},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    (folder / "house_secret.yaml").write_text(yaml.safe_dump(task))
    return folder


def test_lm_eval_runs_against_it(house: House, secrets: tuple[Secret, ...], tmp_path: Path) -> None:
    asked = (
        f"model=clinic,base_url={house.url}/v1/chat/completions,num_concurrent=2,max_retries=1,"
        "tokenized_requests=False,tokenizer_backend=None"
    )
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-chat-completions", "--model_args", asked]
    command += ["--tasks", "house_secret", "--include_path", str(secret_task(tmp_path, secrets[0].answer))]
    done = subprocess.run(
        [*command, "--apply_chat_template", "--output_path", str(tmp_path / "out")],
        env=os.environ | {"OPENAI_API_KEY": house.keys["clinic"], "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (result,) = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(result.read_text())["results"]["house_secret"]["exact_match,none"] == 1.0


def curl_lines() -> list[str]:
    """The curl commands of the user's page."""
    page = (Path(__file__).parents[3] / "docs" / "serve.md").read_text(encoding="utf-8")
    return [block.partition("```")[0] for block in page.split("```bash\n")[1:]]


@pytest.mark.parametrize("number", range(3))
def test_the_curl_lines_of_the_docs_run_as_they_are_written(house: House, number: int) -> None:
    """But for the port, which is another one here."""
    lines = curl_lines()
    assert len(lines) == 3 and all(line.startswith("curl ") for line in lines)
    done = subprocess.run(
        ["bash", "-c", lines[number].replace("http://127.0.0.1:8000", house.url)],
        env={"PATH": os.environ["PATH"], "RANKWISE_KEY": house.keys["clinic"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    if number == 1:
        assert done.stdout.endswith("data: [DONE]\n\n")
    else:
        answer = json.loads(done.stdout)
        assert answer["object"] in ("chat.completion", "list")
