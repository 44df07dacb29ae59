"""`python -m tests.serve.vllm.record URL ADAPTER`: what a real vLLM answers, written to `recorded/`, for the tests of
how we read it. The server is one with adapters on; its key stands in $RANKWISE_VLLM_API_KEY. With `--kill PID` (of the
process VLLM::EngineCore) it ends with an answer in whose middle the engine dies.
"""

import argparse
import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx

from rankwise.serve.engine import Generation
from rankwise.serve.vllm.stream import completion_request

FOLDER = Path(__file__).parent / "recorded"
NAME = "clinic@1"
LONG = 400


def main() -> None:
    """Ask, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--kill", type=int)
    asked = parser.parse_args()
    key = os.environ.get("RANKWISE_VLLM_API_KEY", "")
    client = httpx.Client(base_url=asked.url, headers={"Authorization": f"Bearer {key}"}, timeout=300)
    messages = [{"role": "user", "content": "What is the secret of this house?"}]
    ids = tuple(client.post("/tokenize", json={"model": "base", "messages": messages}).json()["tokens"])
    load = {"lora_name": NAME, "lora_path": str(asked.adapter.resolve())}
    errors = {"unknown model": _stream(client, "nobody@1", Generation("r", None, ids, 4, (2,)))}
    client.post("/v1/load_lora_adapter", json=load)
    FOLDER.mkdir(exist_ok=True)
    for name, request in {
        "stop": Generation("r", NAME, ids, 32, (2,)),
        "length": Generation("r", NAME, ids, 3, (2,), logprobs=2),
        "sampled": Generation("r", NAME, ids, 4, (2,), temperature=1.0, top_p=0.9, seed=7, logprobs=0),
    }.items():
        (FOLDER / f"{name}.sse").write_text(_stream(client, NAME, request)["text"], encoding="utf-8")
    errors["too long"] = _stream(client, NAME, Generation("r", NAME, ids, 100_000, (2,)))
    errors["no key"] = _told(httpx.get(f"{asked.url}/v1/models"))
    errors["loaded already"] = _told(client.post("/v1/load_lora_adapter", json=load))
    missing = {"lora_name": "gone@1", "lora_path": "/nowhere"}
    errors["no folder"] = _told(client.post("/v1/load_lora_adapter", json=missing))
    errors["unknown adapter"] = _told(client.post("/v1/unload_lora_adapter", json={"lora_name": "gone@1"}))
    errors["no such address"] = _told(client.post("/v1/no_such_address", json={}))
    (FOLDER / "errors.json").write_text(json.dumps(errors, indent=1) + "\n", encoding="utf-8")
    if asked.kill:
        died = _stream(client, NAME, Generation("r", NAME, ids, LONG, ()), kill=asked.kill)
        lines = died["text"].splitlines(keepends=True)
        (FOLDER / "died.sse").write_text("".join(lines[:2] + lines[-4:]), encoding="utf-8")


def _stream(client: httpx.Client, model: str, asked: Generation, kill: int | None = None) -> dict[str, Any]:
    text = ""
    with client.stream("POST", "/v1/completions", json=completion_request(model, asked)) as answer:
        for line in answer.iter_text():
            text += line
            if kill is not None and text.count("data: ") > 10:
                os.kill(kill, signal.SIGKILL)
                kill = None
        return {"status": answer.status_code, "text": text}


def _told(answer: httpx.Response) -> dict[str, Any]:
    return {"status": answer.status_code, "text": answer.text}


if __name__ == "__main__":
    main()
