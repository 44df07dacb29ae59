"""`python -m benchmarks.train.bench`: tokens per second and loss of one LoRA job, ours beside others', in one run.

Processes hold their libraries loaded: ours, TRL's, and litgpt's and LLaMA-Factory's where these are installed. A round
asks each arm once, one after the other, so that what else the machine does meets all of them. TRL's best is the
quickest of a grid that is run first. litgpt and LLaMA-Factory run in the first round, and in later ones while that
leaves the whole under ten minutes on two idle cores. Other programs here add to every figure. Writes result.json and
README.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.memory.bench import commit, machine, versions
from benchmarks.train.arm import ROOT, Arm, Peer
from benchmarks.train.readme import readme
from benchmarks.train.rows import STEP_ROWS, conversations

HERE = Path(__file__).parent
PEERS = ROOT / ".venv-train" / "bin" / "python"
OTHERS = {  # name of the arm and of its module -> interpreter that has it
    "litgpt": ROOT / ".venv-train-litgpt" / "bin" / "python",
    "llamafactory": ROOT / ".venv-train-llamafactory" / "bin" / "python",
}
LIMIT = 570  # seconds of all rounds and the grid: what is left of ten minutes goes to starting and ending
ROUNDS, STEPS, HELD_OUT = 3, 2, 24
THREADS = 2
ONE_ROW = 1024  # tokens of a packed row of TRL's, where no document is longer


def grid(tokens: int, longest: int) -> dict[str, dict[str, Any]]:
    """TRL's options that a user would try, for 16 rows a step of `tokens` tokens together. In 1.16 its loss makes the
    logits in chunks in all of them.
    """
    plain: dict[str, Any] = {"gradient_checkpointing": False}
    rows = {
        f"batch {size}": plain | {"per_device_train_batch_size": size, "gradient_accumulation_steps": STEP_ROWS // size}
        for size in (1, 4)
    }
    length = max(ONE_ROW, longest)
    packed = plain | {"packing": True, "packing_strategy": "bfd", "max_length": length}
    accumulation = max(1, round(tokens / length))
    return rows | {
        "batch 1, bf16 weights without autocast": rows["batch 1"] | {"bf16": False},
        f"packed to {length}": packed | {"per_device_train_batch_size": 1, "gradient_accumulation_steps": accumulation},
    }


class Others:
    """litgpt and LLaMA-Factory: each once, and once more in later rounds while the time lasts."""

    def __init__(self, pythons: Mapping[str, Path], place: Path, threads: int, until: float) -> None:
        self.peers = {name: Peer(name, python, place / f"{name}.log", threads) for name, python in pythons.items()}
        self.place, self.until = place, until
        self.needed: dict[str, float] = {}  # seconds of an arm's last run

    def turn(self, number: int, ahead: float, **content: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """(arm, its run in this round) of those there is time for, with `ahead` seconds needed for what comes later."""
        for name, peer in self.peers.items():
            began = time.monotonic()
            if name in self.needed and began + ahead + self.needed[name] > self.until:
                continue
            yield name, peer.ask(folder=str(self.place / f"{name}-{number}"), **content)
            self.needed[name] = time.monotonic() - began

    def close(self) -> None:
        for peer in self.peers.values():
            peer.close()


def matmul_rate(threads: int) -> float:
    """bf16 at 2048 x 2048 with as many threads as the arms have, in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-m", "rankwise.model.matmul"], capture_output=True, text=True, env=environment, check=True
    )
    return float(json.loads(done.stdout)["bf16"])


def measured(asked: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Everything that result.json holds."""
    began = time.monotonic()
    from transformers import AutoTokenizer

    from benchmarks.train.rows import encoded
    from rankwise.model.locate import locate

    count = STEP_ROWS * asked.steps
    rows, source = conversations(asked.rows, count + HELD_OUT)
    data = {"train": rows[:count], "held_out": rows[count:]}
    model = str(locate("embedded"))
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = {name: encoded(tokenizer, some) for name, some in data.items()}
    lengths = [len(row) for row, _ in ids["train"]]
    ours = Arm(Path(sys.executable), "benchmarks.train.ours", place / "ours.log", asked.threads)
    trl = Arm(asked.peers, "benchmarks.train.peer_trl", place / "trl.log", asked.threads)
    others = Others({name: getattr(asked, name) for name in OTHERS}, place, asked.threads, began + LIMIT)

    def of_trl(config: Mapping[str, Any], steps: int, name: str) -> dict[str, Any]:
        some = {"train": data["train"][: STEP_ROWS * steps], "held_out": data["held_out"][: None if steps > 1 else 1]}
        found = trl.ask(folder=str(place / "trl"), model=model, config={**config, "max_steps": steps}, **some)
        return _said(name, found, sum(lengths[: STEP_ROWS * steps]))

    tried = grid(sum(lengths[:STEP_ROWS]), max(lengths))
    explored = [of_trl(config, 1, name) for name, config in tried.items()]
    best = max((r for r in explored if r["tokens_per_second"]), key=lambda r: r["tokens_per_second"])["arm"]
    rounds: list[dict[str, Any]] = []
    rates = []
    for number in range(asked.rounds):
        round_began = time.monotonic()
        found = ours.ask(folder=str(place / f"ours-{number}"), steps=asked.steps, **data)
        rounds.append(_said("ours", found, sum(lengths)))
        rounds.append(of_trl(tried[best], asked.steps, "trl best"))
        rounds.append(of_trl({}, asked.steps, "trl lesson"))
        rates.append(matmul_rate(asked.threads))
        ahead = (asked.rounds - number - 1) * (time.monotonic() - round_began)
        for name, found in others.turn(number, ahead, model=model, max_steps=asked.steps, **ids):
            rounds.append(_said(name, found, sum(lengths)))
    for arm in (ours, trl, others):
        arm.close()
    return {
        "metrics": metrics(rounds, rates),
        "rows": rounds,
        "grid": explored,
        "best": best,
        "matmul_flops": rates,
        "data": {"source": source, "rows": count, "tokens": sum(lengths), "held_out": len(data["held_out"])},
        "threads": asked.threads,
        "commit": commit(),
        "versions": versions({"peers": {r["arm"].split()[0]: r for r in rounds if "version" in r}}),
        "machine": machine(),
    }


def _said(arm: str, found: dict[str, Any], tokens: int) -> dict[str, Any]:
    """A run with its rate over all of its steps; None where the arm refused."""
    seconds = sum(found.get("step_seconds", ()))
    return {"arm": arm, "tokens": tokens, "tokens_per_second": tokens / seconds if seconds else None} | found


def metrics(rounds: Sequence[Mapping[str, Any]], matmul: Sequence[float]) -> dict[str, float]:
    """Flat name -> number, from the raw rows: medians over rounds. Ratios to others only where these were measured."""

    def middle(arm: str, key: str) -> float:
        return median(r[key] for r in rounds if r["arm"] == arm and r["tokens_per_second"])

    measured = {r["arm"] for r in rounds if r["tokens_per_second"]}
    speed = {arm: middle(arm, "tokens_per_second") for arm in ("ours", "trl best", "trl lesson")}
    gaps = [abs(middle("ours", "held_out") - middle(arm, "held_out")) for arm in ("trl best", "trl lesson")]
    return {
        "ratio_vs_trl_lesson": speed["ours"] / speed["trl lesson"],
        "ratio_vs_trl_best": speed["ours"] / speed["trl best"],
        **{f"ratio_vs_{n}": speed["ours"] / middle(n, "tokens_per_second") for n in OTHERS if n in measured},
        "fraction_of_matmul_rate": speed["ours"] * middle("ours", "flops_per_token") / median(matmul),
        "loss_gap": max(gaps),
        "overhead": middle("ours", "overhead"),
        "padding": middle("ours", "padding"),
        "tokens_per_second": speed["ours"],
    }


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train.bench", description=__doc__)
    parser.add_argument("--rows", type=Path, help="JSON list of instruction, input, output")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each arm runs (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps of a run (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=THREADS, help="of each arm (default: %(default)s)")
    parser.add_argument("--peers", type=Path, default=PEERS, help="interpreter that has TRL")
    for name, python in OTHERS.items():
        parser.add_argument(f"--{name}", type=Path, default=python, help=f"interpreter that has {name}, if any")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of result.json and README.md")
    asked = parser.parse_args()
    if not asked.peers.exists():
        sys.exit(f"{asked.peers} is missing: `make bench-train` builds it, or name one that has TRL by --peers")
    with tempfile.TemporaryDirectory(prefix="rankwise-bench-") as place:
        result = measured(asked, Path(place))
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (asked.out / "README.md").write_text(readme(result), encoding="utf-8")
    sys.stdout.write(readme(result))


if __name__ == "__main__":
    main()
