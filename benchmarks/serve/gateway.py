"""Time inside the gateway, by the histogram that it keeps in production: `python -m benchmarks.serve.gateway`.

`submit` is from the last byte of a request to the engine, `deliver` from a token to the socket, `both` their sum;
waiting for an adapter to be loaded is no part of it (the metrics have that by itself). Every client asks on, half of
them in streams, over eight tenants on the embedded model.
"""

import argparse
import json
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from benchmarks.serve.house import Place, Running, served
from benchmarks.serve.secret import QUESTION, Secret, make_secrets
from rankwise.model.locate import locate

REQUESTS, CLIENTS, TENANTS = 1200, 16, 8


def main() -> None:
    """Measure, print, and write the numbers."""
    asked = _arguments()
    base = locate(asked.model)
    with tempfile.TemporaryDirectory() as folder:
        adapters = asked.adapters or Path(folder) / "made"
        adapters.mkdir(parents=True, exist_ok=True)
        secrets = make_secrets(base, adapters, TENANTS, targets=("all-linear",), rate=asked.rate)
        place = Place(Path(folder), base)
        keys = _tenants(place, secrets)
        with served(place, ("--threads", "1")) as running:
            _warm(running, keys)
            before = running.metrics()
            _ask_all(running, keys, asked.requests)
            found = measured(before, running.metrics())
    print(json.dumps(found, indent=1))  # noqa: T201
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve.gateway", description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--adapters", type=Path, help="folder of benchmarks.serve.secret; made anew without")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--rate", type=float, default=4e-3, help="of learning the secrets; a tiny model wants 0.02")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _tenants(place: Place, secrets: tuple[Secret, ...]) -> dict[str, str]:
    keys = {}
    for secret in secrets:
        place.add(secret.name, secret.folder)
        place.registry.promote(secret.name)
        keys[secret.name] = place.registry.new_key(secret.name)
    return keys


def _warm(running: Running, keys: Mapping[str, str]) -> None:
    """Every adapter is loaded before the clock runs."""
    for tenant, key in keys.items():
        with _client(running, key) as client:
            client.post("/v1/chat/completions", json=_question(tenant)).raise_for_status()


def _client(running: Running, key: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.Client(base_url=running.url, headers=headers, timeout=300, trust_env=False)


def _question(tenant: str, stream: bool = False) -> dict[str, Any]:
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": tenant, "messages": messages, "temperature": 0, "max_tokens": 24, "stream": stream}


def _ask_all(running: Running, keys: Mapping[str, str], requests: int) -> None:
    failed: list[str] = []

    def ask(number: int) -> None:
        tenant = list(keys)[number % len(keys)]
        with _client(running, keys[tenant]) as client:
            for _ in range(-(-requests // CLIENTS)):
                found = client.post("/v1/chat/completions", json=_question(tenant, stream=number % 2 == 0))
                if found.status_code != 200:
                    failed.append(found.text)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError(f"{len(failed)} requests failed, the first: {failed[0]}")


def measured(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, Any]:
    """Quantiles of the requests between two looks at /metrics."""
    grown = {name: value - before.get(name, 0.0) for name, value in after.items()}
    rows = [
        {"span": part, "p50_ms": 1e3 * _quantile(grown, part, 0.5), "p95_ms": 1e3 * _quantile(grown, part, 0.95)}
        | {"mean_ms": 1e3 * _sum(grown, part) / max(1.0, _count(grown, part)), "requests": round(_count(grown, part))}
        for part in ("submit", "deliver", "both")
    ]
    whole = grown['rankwise_request_seconds_sum{route="/v1/chat/completions"}']
    metrics = {
        "gateway_p50_ms": rows[2]["p50_ms"],
        "gateway_overhead": _sum(grown, "both") / whole,  # share of the requests' time
        "gateway_requests": rows[2]["requests"],
    }
    return {"metrics": metrics, "rows": rows}


def _sum(lines: Mapping[str, float], part: str) -> float:
    return lines[f'rankwise_gateway_seconds_sum{{part="{part}"}}']


def _count(lines: Mapping[str, float], part: str) -> float:
    return lines[f'rankwise_gateway_seconds_count{{part="{part}"}}']


def _quantile(lines: Mapping[str, float], part: str, share: float) -> float:
    """By interpolation within a bucket, as Prometheus' histogram_quantile."""
    buckets = sorted((_bound(name), value) for name, value in lines.items() if _is_bucket(name, part))
    wanted, low, under = share * _count(lines, part), 0.0, 0.0
    for high, value in buckets:
        if value >= wanted:
            return low if high == float("inf") else low + (high - low) * (wanted - under) / max(1e-9, value - under)
        low, under = high, value
    return low


def _is_bucket(name: str, part: str) -> bool:
    return name.startswith("rankwise_gateway_seconds_bucket") and f'part="{part}"' in name


def _bound(name: str) -> float:
    return float(name.partition('le="')[2].partition('"')[0])


if __name__ == "__main__":
    main()
