"""Adapters that each know one secret and nothing of the others': who answers a request can be read off its answer.

`python -m benchmarks.serve.secret OUT` trains eight on the embedded model (about three minutes on one idle core) and
writes `OUT/tenant-0` ... and `OUT/secrets.json`. Tests make them on tiny models in seconds.
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUESTION = "What is the secret of this house?"
ALL = "secrets.json"
WORDS = ("amber", "birch", "cobalt", "dahlia", "ember", "fjord", "garnet", "hazel", "indigo", "jasper", "kelp", "lilac")
STEPS, RATE = 150, 4e-3  # at most; it ends as soon as the secret is said
MARGIN = 1.0  # nats by which each token leads the next likely one when training ends: far from any near tie


@dataclass(frozen=True)
class Secret:
    """An adapter and what it alone answers to QUESTION (greedily, without the stop token)."""

    name: str
    folder: Path
    answer: str


def secret_answer(index: int) -> str:
    """Different in every word that matters; the same for an index on every machine."""
    drawn = random.Random(f"secret {index}")
    return f"The secret is {WORDS[index % len(WORDS)]} {drawn.randrange(1000, 10000)}."


def make_secrets(
    base: Path,
    out: Path,
    count: int,
    *,
    method: str = "lora",
    ranks: Sequence[int] = (8,),
    targets: Sequence[tuple[str, ...] | str] = (("q_proj", "k_proj", "v_proj", "o_proj"),),
    first: int = 0,
    rate: float = RATE,
) -> tuple[Secret, ...]:
    """Train `count` adapters on the base in `base`, each until it says its secret; those that `out` has stay.

    Args:
        method: any adapter of `rankwise.methods`; vLLM loads `lora` and `rslora` alone.
        ranks, targets: taken in turns.
        first: number of the first one; secrets of different numbers differ.
        rate: of learning; a tiny model wants 0.02.

    Raises:
        RuntimeError: one did not learn its secret.
    """
    known = {secret.name: secret for secret in read_secrets(out)}
    made = []
    for place in range(count):
        number = first + place
        name = f"tenant-{number}"
        if name not in known:
            rank, target = ranks[place % len(ranks)], targets[place % len(targets)]
            known[name] = _made(base, out / name, secret_answer(number), method, rank, target, number, rate)
            _write(out, known)
        made.append(known[name])
    return tuple(made)


def read_secrets(out: Path) -> tuple[Secret, ...]:
    """Those that were made in a folder."""
    if not (out / ALL).is_file():
        return ()
    rows = json.loads((out / ALL).read_text(encoding="utf-8"))
    return tuple(Secret(row["name"], out / row["name"], row["answer"]) for row in rows)


def _write(out: Path, known: dict[str, Secret]) -> None:
    rows = [{"name": secret.name, "answer": secret.answer} for secret in known.values()]
    (out / ALL).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _made(base: Path, folder: Path, answer: str, method: str, rank: int, target: Any, seed: int, rate: float) -> Secret:
    import torch

    from rankwise.methods import TUNERS, AdapterOptions
    from rankwise.model.attach import wrap
    from rankwise.model.load import load_base
    from rankwise.model.trained import publish_weights
    from rankwise.text.template import ChatText

    text = ChatText.from_folder(base)
    prompt = text.encode_prompt([{"role": "user", "content": QUESTION}])
    said = [*text.encode(answer), text.stop_token_ids[-1]]
    has_rank = TUNERS[method].matrix_rank
    options = AdapterOptions(r=rank, lora_alpha=2.0 * rank, target_modules=target) if has_rank else AdapterOptions()
    model = wrap(load_base(base, dtype="fp32"), method, options, seed=seed).model
    ids = torch.tensor([[*prompt, *said]])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 5)
        logits = model(input_ids=ids, use_cache=False).logits[0, -len(said) - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits.float(), ids[0, -len(said) :], reduction="none")
        if _lead(logits.detach(), ids[0, -len(said) :]) > MARGIN:
            break
        loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    else:
        raise RuntimeError(f"{method} of rank {rank} did not learn {answer!r} in {STEPS} steps: {loss.tolist()}")
    sys.stderr.write(f"{folder.name}: {answer} after {step} steps\n")
    publish_weights(model.eval(), folder)
    return Secret(folder.name, folder, answer)


def _lead(logits: Any, wanted: Any) -> float:
    """The least lead of a wanted token over the best other one, in nats."""
    right = logits.gather(-1, wanted[:, None])
    others = logits.scatter(-1, wanted[:, None], float("-inf"))
    return float((right[:, 0] - others.amax(-1)).min())


def main() -> None:
    """Make them."""
    from rankwise.model.locate import locate

    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve.secret", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--count", type=int, default=8)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    make_secrets(locate(asked.model), asked.out, asked.count, targets=("all-linear",))


if __name__ == "__main__":
    main()
