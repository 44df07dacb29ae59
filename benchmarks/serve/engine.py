"""The engine's part of `make bench-serve`: 16 concurrent clients on the embedded engine, without its gateway.
`python -m benchmarks.serve.engine` runs it by itself.

Arms, interleaved in each round: the base alone; eight adapters mixed; mixed, but one request at a time; PEFT's static
batch (`generate(adapter_names=...)`, the same prompts and lengths, in this process while the engine is idle); and the
last two of them again with answers of uneven length, where a static batch waits for its longest row. Greedy, no stop
tokens. A rate is tokens of answers over seconds of wall clock; a metric is the median over the rounds of the ratio in
one round.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.serve.secret import QUESTION, Secret, make_secrets
from rankwise.model.locate import locate
from rankwise.serve.embedded import EmbeddedEngine, Settings
from rankwise.serve.engine import AdapterFiles, Generation
from rankwise.text.template import ChatText

CLIENTS, ADAPTERS, TOKENS, ROUNDS = 16, 8, 48, 5
ALONE = 4  # requests of the arm that asks one at a time
UNEVEN = (8, 96)  # tokens of the shortest and of the longest answer


class Arms:
    """What is measured: every arm returns its tokens; all ask the same of the same adapters."""

    def __init__(self, base: Path, secrets: Sequence[Secret], engine: EmbeddedEngine, tokens: int) -> None:
        self._engine, self._secrets, self._tokens = engine, secrets, tokens
        text = ChatText.from_folder(base)
        self._prompts = [
            tuple(text.encode_prompt([{"role": "user", "content": f"{QUESTION} Ask {n} of {CLIENTS}."}]))
            for n in range(CLIENTS)
        ]
        draw = random.Random(0)
        self._uneven = [draw.randint(*UNEVEN) for _ in range(CLIENTS)]
        self._peft = _peft(base, secrets)

    async def base(self) -> int:
        return await self._together([None] * CLIENTS, [self._tokens] * CLIENTS)

    async def mixed(self) -> int:
        return await self._together(self._names(), [self._tokens] * CLIENTS)

    async def mixed_uneven(self) -> int:
        return await self._together(self._names(), self._uneven)

    async def single(self) -> int:
        return sum([await self._ask(n, self._names()[n], self._tokens) for n in range(ALONE)])

    async def peft(self) -> int:
        return self._static([self._tokens] * CLIENTS)

    async def peft_uneven(self) -> int:
        return self._static(self._uneven)

    def _names(self) -> list[str | None]:
        return [self._secrets[n % len(self._secrets)].name for n in range(CLIENTS)]

    async def _together(self, names: Sequence[str | None], tokens: Sequence[int]) -> int:
        return sum(await asyncio.gather(*(self._ask(n, names[n], tokens[n]) for n in range(CLIENTS))))

    async def _ask(self, number: int, name: str | None, tokens: int) -> int:
        asked = Generation("bench", name, self._prompts[number], tokens, ())
        return sum([len(piece.tokens) async for piece in self._engine.generate(asked)])

    def _static(self, tokens: Sequence[int]) -> int:
        """All rows to the longest one's end; what a row has beyond its own answer is not counted."""
        import torch

        width = max(map(len, self._prompts))
        ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in self._prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in self._prompts])
        most = max(tokens)
        with torch.inference_mode():
            self._peft.generate(
                input_ids=ids,
                attention_mask=mask,
                adapter_names=self._names(),
                do_sample=False,
                min_new_tokens=most,
                max_new_tokens=most,
                pad_token_id=0,
            )
        return sum(tokens)


def _peft(base: Path, secrets: Sequence[Secret]) -> Any:
    import torch
    from peft import PeftModel

    from rankwise.model.load import load_base

    torch.set_num_threads(1)
    model: Any = load_base(base, dtype="fp32")
    model = PeftModel.from_pretrained(model, str(secrets[0].folder), adapter_name=secrets[0].name)
    for secret in secrets[1:]:
        model.load_adapter(str(secret.folder), adapter_name=secret.name)
    return model.eval()


async def rounds(base: Path, secrets: Sequence[Secret], log: Path, count: int, tokens: int) -> list[dict[str, Any]]:
    """One row for each arm of each round, after one round that is not counted."""
    engine = EmbeddedEngine(Settings(base, threads=1, max_rows=CLIENTS), log)
    await engine.start()
    try:
        loads = []
        for secret in secrets:
            began = time.perf_counter()
            await engine.load(AdapterFiles(secret.name, secret.folder, "lora", None, 0))
            loads.append(time.perf_counter() - began)
        arms = Arms(base, secrets, engine, tokens)
        ways = {
            name: getattr(arms, name) for name in ("base", "mixed", "single", "peft", "mixed_uneven", "peft_uneven")
        }
        rows: list[dict[str, Any]] = [{"round": 0, "arm": "load", "seconds": s} for s in loads]
        for number in range(count + 1):
            for name, way in ways.items():
                began = time.perf_counter()
                made = await way()
                seconds = time.perf_counter() - began
                if number:
                    rows.append({"round": number, "arm": name, "tokens": made, "seconds": seconds})
        return rows
    finally:
        await engine.stop()


def metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Flat name -> number, from the raw rows."""
    return {
        "mixed_vs_base": ratio(rows, "mixed", "base"),
        "mixed_vs_single": ratio(rows, "mixed", "single"),
        "mixed_vs_peft": ratio(rows, "mixed", "peft"),
        "mixed_vs_peft_uneven": ratio(rows, "mixed_uneven", "peft_uneven"),
        "mixed_tokens_per_second": median(rates(rows, "mixed").values()),
        "load_seconds": median(row["seconds"] for row in rows if row["arm"] == "load"),
    }


def rates(rows: Sequence[Mapping[str, Any]], arm: str) -> dict[int, float]:
    """Round -> tokens a second."""
    return {row["round"]: row["tokens"] / row["seconds"] for row in rows if row["arm"] == arm}


def ratio(rows: Sequence[Mapping[str, Any]], arm: str, other: str) -> float:
    mine, its = rates(rows, arm), rates(rows, other)
    return median(mine[number] / its[number] for number in mine)


def measured(model: str, adapters: Path, count: int, tokens: int) -> dict[str, Any]:
    """What this part adds to result.json."""
    base = locate(model)
    adapters.mkdir(parents=True, exist_ok=True)
    secrets = make_secrets(base, adapters, ADAPTERS, targets=("all-linear",))
    rows = asyncio.run(rounds(base, secrets, adapters / "engine.log", count, tokens))
    return {"metrics": metrics(rows), "rows": rows}


def main() -> None:
    """Measure and write the numbers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve.engine", description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--adapters", type=Path, help="folder of benchmarks.serve.secret; made anew without")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of an answer (default: %(default)s)")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rankwise-bench-") as place:
        found = measured(asked.model, asked.adapters or Path(place), asked.rounds, asked.tokens)
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(found["metrics"], indent=1) + "\n")


if __name__ == "__main__":
    main()
