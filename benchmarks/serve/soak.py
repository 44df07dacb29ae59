"""Twenty minutes of everything at once: `python -m benchmarks.serve.soak --out benchmarks/serve/soak.json`.

Clients of eight tenants ask without a pause, half of them in streams, while this process adds, promotes, rolls back
and removes versions by the command line and the registry, and kills the engine twice. Each adapter emits a secret of
its own, so an answer tells which adapter gave it. Counted are answers of another tenant's adapter (none may be),
accepted requests that ended without an answer and without a clear error (none may be), and the memory of gateway and
engine over time. Fewer than 50 answers a minute prove nothing, and fail.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.serve.house import Place, Running, served
from benchmarks.serve.secret import QUESTION, Secret, make_secrets
from rankwise.model.locate import locate

TENANTS, KILLS = 8, 2
ANSWERED_A_MINUTE = 50  # at least: a thousand in twenty minutes
GUEST = "guest"  # comes and goes; the others stay
CHANGE_SECONDS, LOOK_SECONDS = 5.0, 5.0
FLAT_SHARE = 0.05  # by which memory may grow from the second quarter to the last


@dataclass
class Seen:
    """What happened, from all threads.

    Attributes:
        wrong: answers that are no secret of the tenant that asked, with whose they are.
        lost: accepted requests without an end and without an error that says why.
        errors: clear ones, by status and code.
        changes: by kind.
        memory: [seconds, bytes of the gateway, bytes of the engine].
    """

    answered: int = 0
    wrong: list[dict[str, str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, int, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)


@dataclass
class Soak:
    """
    Attributes:
        secrets: two of each tenant, the guest's at the end.
        keys: of those who can ask now.
    """

    place: Place
    running: Running
    secrets: tuple[Secret, ...]
    keys: dict[str, str]
    seen: Seen

    def own(self, tenant: str) -> tuple[Secret, Secret]:
        number = TENANTS if tenant == GUEST else int(tenant.rpartition("-")[2])
        return self.secrets[2 * number], self.secrets[2 * number + 1]


def main() -> None:
    """Run, print, and write the numbers; exit code 1 where a must does not hold."""
    asked = _arguments()
    base = locate(asked.model)
    with tempfile.TemporaryDirectory() as folder:
        adapters = asked.adapters or Path(folder) / "made"
        adapters.mkdir(parents=True, exist_ok=True)
        secrets = make_secrets(base, adapters, 2 * TENANTS + 2, targets=("all-linear",), rate=asked.rate)
        place = Place(Path(folder), base)
        keys = _begin(place, secrets)
        with served(place, ("--threads", "1", "--slots", str(asked.slots))) as running:
            soak = Soak(place, running, secrets, keys, Seen())
            _run(soak, 60 * asked.minutes)
            found = _told(soak, asked.minutes)
    print(json.dumps(found["metrics"], indent=1))  # noqa: T201
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if not found["passed"]:
        raise SystemExit(f"it did not hold: {json.dumps(found['metrics'])}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--adapters", type=Path, help="folder of benchmarks.serve.secret; made anew without")
    parser.add_argument("--slots", type=int, default=6, help="fewer than there are versions, so that some make room")
    parser.add_argument("--rate", type=float, default=4e-3, help="of learning the secrets; a tiny model wants 0.02")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _begin(place: Place, secrets: tuple[Secret, ...]) -> dict[str, str]:
    """Eight tenants, each with its first version promoted."""
    keys = {}
    for number in range(TENANTS):
        tenant = f"tenant-{number}"
        place.add(tenant, secrets[2 * number].folder)
        place.registry.promote(tenant)
        keys[tenant] = place.registry.new_key(tenant)
    return keys


def _run(soak: Soak, seconds: float) -> None:
    began = time.monotonic()
    clients = [threading.Thread(target=_ask, args=(soak, number)) for number in range(TENANTS + 1)]
    others = [threading.Thread(target=_change, args=(soak,)), threading.Thread(target=_look, args=(soak, began))]
    for thread in (*clients, *others):
        thread.start()
    try:
        for kill in range(1, KILLS + 1):
            soak.seen.over.wait(max(0.0, began + seconds * kill / (KILLS + 1) - time.monotonic()))
            if (engine := soak.running.engine()) is not None:
                engine.kill()
                soak.seen.changes["engine killed"] += 1
        soak.seen.over.wait(max(0.0, began + seconds - time.monotonic()))
    finally:
        soak.seen.over.set()
        for thread in (*clients, *others):
            thread.join(700)


# -- clients ---------------------------------------------------------------------------------------


def _ask(soak: Soak, number: int) -> None:
    tenant = GUEST if number == TENANTS else f"tenant-{number}"
    with httpx.Client(base_url=soak.running.url, timeout=660, trust_env=False) as client:
        stream = number % 2 == 0
        while not soak.seen.over.is_set():
            if (key := soak.keys.get(tenant)) is None:
                time.sleep(0.2)
                continue
            stream = not stream
            try:
                text, error = _one(client, tenant, key, stream)
            except httpx.HTTPError as fault:
                text, error = None, None
                with soak.seen.lock:
                    soak.seen.lost.append(f"{tenant}: {type(fault).__name__}: {fault}")
            _count(soak, tenant, text, error)
            if error is not None:
                time.sleep(0.2)


def _one(client: httpx.Client, tenant: str, key: str, stream: bool) -> tuple[str | None, str | None]:
    """The answer, or the error that says why there is none; neither: it was lost."""
    messages = [{"role": "user", "content": QUESTION}]
    asked = {"model": tenant, "messages": messages, "temperature": 0, "max_tokens": 32, "stream": stream}
    headers = {"authorization": f"Bearer {key}"}
    if not stream:
        found = client.post("/v1/chat/completions", json=asked, headers=headers)
        body = found.json()
        if found.status_code == 200:
            return body["choices"][0]["message"]["content"], None
        return None, f"{found.status_code} {body['error']['code']}"
    with client.stream("POST", "/v1/chat/completions", json=asked, headers=headers) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    if response.status_code != 200:
        return None, f"{response.status_code} {json.loads(lines[-1])['error']['code']}"
    if lines[-1] == "[DONE]":
        chunks = [json.loads(line) for line in lines[:-1]]
        return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks), None
    last = json.loads(lines[-1])
    return None, f"in a stream: {last['error']['code']}" if "error" in last else None


def _count(soak: Soak, tenant: str, text: str | None, error: str | None) -> None:
    seen, own = soak.seen, {secret.answer for secret in soak.own(tenant)}
    with seen.lock:
        if text is not None:
            seen.answered += 1
            if text not in own:
                whose = [secret.name for secret in soak.secrets if secret.answer == text]
                seen.wrong.append({"tenant": tenant, "answer": text, "of": whose[0] if whose else "nobody"})
        elif error is not None:
            seen.errors[error] += 1
        else:
            seen.lost.append(f"{tenant}: ended without an answer and without an error")


# -- changes ---------------------------------------------------------------------------------------


def _change(soak: Soak) -> None:
    random_ = random.Random(0)
    versions = dict.fromkeys(soak.keys, 1)
    while not soak.seen.over.wait(CHANGE_SECONDS):
        tenant = random_.choice([*versions, GUEST])
        if tenant == GUEST:
            _guest(soak)
        elif versions[tenant] == 1:
            soak.place.add(tenant, soak.own(tenant)[1].folder)
            _tenants(soak, "promote", tenant)
            versions[tenant] = 2
        elif versions[tenant] == 2:
            _tenants(soak, "rollback", tenant)
            versions[tenant] = 3
        else:
            _tenants(soak, "promote", tenant)
            versions[tenant] = 2


def _guest(soak: Soak) -> None:
    """Comes if it is not here, goes if it is; what it asked just before may get 401, which is clear."""
    if soak.keys.pop(GUEST, None) is not None:
        _tenants(soak, "remove", GUEST)
        return
    soak.place.add(GUEST, soak.own(GUEST)[0].folder)
    soak.seen.changes["add"] += 1
    _tenants(soak, "promote", GUEST)
    soak.keys[GUEST] = soak.place.registry.new_key(GUEST)


def _tenants(soak: Soak, *arguments: str) -> None:
    command = [sys.executable, "-m", "rankwise", "tenants", *arguments]
    command += ["--registry", str(soak.place.folder / "registry.sqlite")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    soak.seen.changes[arguments[0]] += 1


def _look(soak: Soak, began: float) -> None:
    while not soak.seen.over.wait(LOOK_SECONDS):
        try:
            engine = soak.running.engine()
            gateway = psutil.Process(soak.running.pid).memory_info().rss
            held = engine.memory_info().rss if engine is not None else 0
        except psutil.Error:
            continue
        soak.seen.memory.append((round(time.monotonic() - began, 1), gateway, held))


# -- result ----------------------------------------------------------------------------------------


def _told(soak: Soak, minutes: float) -> dict[str, Any]:
    seen, lines = soak.seen, soak.running.metrics()
    gateway, engine = (_growth([(row[0], row[place]) for row in seen.memory]) for place in (1, 2))
    metrics = {
        "minutes": minutes,
        "answered": seen.answered,
        "wrong_answers": len(seen.wrong),
        "lost": len(seen.lost),
        "clear_errors": sum(seen.errors.values()),
        "engine_killed": seen.changes["engine killed"],
        "answers_resumed": sum(v for k, v in lines.items() if k.startswith("rankwise_answers_resumed_total")),
        "evictions": lines.get("rankwise_adapter_evictions_total", 0.0),
        "gateway_memory_growth": gateway,
        "engine_memory_growth": engine,
    }
    flat = all(growth is None or growth <= FLAT_SHARE for growth in (gateway, engine))
    passed = not seen.wrong and not seen.lost and flat and seen.answered >= ANSWERED_A_MINUTE * minutes
    return {
        "passed": passed,
        "metrics": metrics,
        "errors": dict(seen.errors),
        "changes": dict(seen.changes),
        "wrong": seen.wrong[:20],
        "lost": seen.lost[:20],
        "memory": seen.memory,
    }


def _growth(rows: list[tuple[float, int]]) -> float | None:
    """Share by which the median of the last quarter is above that of the second; None: too short to say."""
    if len(rows) < 16:
        return None
    quarter = len(rows) // 4
    second = statistics.median(size for _, size in rows[quarter : 2 * quarter])
    last = statistics.median(size for _, size in rows[-quarter:])
    return last / second - 1 if second else None


if __name__ == "__main__":
    main()
