"""The arms on the embedded model: the format task learned by one method at one rate, looked at on the way. X1, X3, X4,
X5, X7 and X8 read them; each is trained once.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.lesson.jobs import Bench, Job
from benchmarks.lesson.lists import ROOM, Plain, Split, conversations, encoded
from benchmarks.lesson.training import ENDLESS, Trained, carried_out, config_of, mean_loss
from rankwise.files import publish_folder
from rankwise.model.attach import attach, load_adapter, trainable_params
from rankwise.model.generate import answer
from rankwise.model.likelihood import row_losses
from rankwise.model.load import load_base, quiet_transformers
from rankwise.model.locate import locate
from rankwise.records import TrainConfig
from rankwise.text.formats import Row
from rankwise.text.general import Replay
from rankwise.text.masks import Encoded, encode_rows
from rankwise.text.template import ChatText
from rankwise.train.mixing import Order, mix
from rankwise.train.replay import generate

ALPHA = 32.0  # at every rank, as E6 keeps it, so that a rate means the same at each of them
WRITTEN_SEED = 11
QUESTION_TOKENS, ANSWER_TOKENS = 48, 64
LORA_RANKS = (1, 8)
SIZES = ("steps", "looks", "longer", "batch", "train", "dev", "test", "general", "replay")
RATES = ("full_rates", "lora_rates")


@lru_cache(maxsize=1)
def base_folder() -> Path:
    return locate("embedded")


@lru_cache(maxsize=1)
def plain() -> Plain:
    return Plain.from_folder(base_folder())


def arm_job(method: str, r: int | None, rate: float, seed: int, share: float = 0.0) -> Job:
    """One arm; `share` of its supervised tokens are replay."""
    return Job("arm", {"method": method, "r": r or 0, "rate": rate, "seed": seed, "share": share})


def arm_jobs(bench: Bench) -> list[Job]:
    """The arms that several experiments share: full, and LoRA at two ranks, at each rate, by seed."""
    scale = bench.scale
    return [
        arm_job(method, r, rate, seed)
        for seed in range(scale.seeds)
        for method, r, rates in (("full", None, scale.full_rates), *(("lora", r, scale.lora_rates) for r in LORA_RANKS))
        for rate in rates
    ]


def rates_of(bench: Bench, method: str) -> tuple[float, ...]:
    return bench.scale.full_rates if method == "full" else bench.scale.lora_rates


def chosen_rate(bench: Bench, method: str, r: int | None) -> float:
    """The rate with the least held-out (dev) loss after `steps`, mean over seeds; the test items play no part."""

    def dev(rate: float) -> float:
        seeds = range(bench.scale.seeds)
        return mean(at_end(bench, bench.get(arm_job(method, r, rate, seed)))["dev"] for seed in seeds)

    return min(rates_of(bench, method), key=dev)


def chosen_arm(bench: Bench, method: str, r: int | None, seed: int) -> Job:
    return arm_job(method, r, chosen_rate(bench, method, r), seed)


def at_end(bench: Bench, found: dict[str, Any]) -> dict[str, Any]:
    """The look after `steps`, which arms that go on longer pass on their way."""
    return next(look for look in found["looks"] if look["step"] == bench.scale.steps)


# -- what the base wrote --------------------------------------------------------------------------------------


def written_job() -> Job:
    return Job("written", {})


def write_general(bench: Bench, job: Job) -> dict[str, Any]:
    """Conversations that the untouched base writes, by the product's own sampling."""
    model = load_base(base_folder(), dtype="fp32")
    wanted = bench.scale.general + bench.scale.replay
    asked = Replay(wanted, WRITTEN_SEED, question_tokens=QUESTION_TOKENS, answer_tokens=ANSWER_TOKENS)
    batches = []
    for written in generate(model, chat(), asked):
        batches.append(written)
        bench.breathe()
    return {"rows": batches[-1].rows, "said": batches[-1].sentence()}


@lru_cache(maxsize=1)
def chat() -> ChatText:
    """The model's own chat template, which the general rows are written in."""
    return ChatText.from_folder(base_folder())


def general_rows(bench: Bench) -> tuple[list[Encoded], list[Encoded]]:
    """(rows that measure forgetting, rows to replay): disjoint, what is learned or scored is the answer."""
    written = bench.get(written_job())["rows"]
    rows = [
        one
        for number, row in enumerate(written, 1)
        for one in encode_rows(Row(tuple(row["messages"]), None, number, Path("written")), chat())
    ]
    measured = min(bench.scale.general, len(rows) // 2)
    return rows[:measured], rows[measured:]


# -- training -------------------------------------------------------------------------------------------------


def split(bench: Bench, seed: int) -> Split:
    scale = bench.scale
    return Split.of(seed, scale.train, scale.dev, scale.test)


def train_arm(bench: Bench, job: Job) -> dict[str, Any]:
    """Train, look on the way, keep the weights as they are after `steps` (LoRA at rank 8 goes on for X7)."""
    of, scale = job.of, bench.scale
    rows = split(bench, of["seed"])
    measured, replay = general_rows(bench)
    task, dev = encoded(rows.train, plain()), encoded(rows.dev, plain())
    mixed = mix(task, replay, of["share"], of["seed"])

    def look(model: Any, step: int) -> dict[str, Any]:
        bench.breathe()
        if step == scale.steps:
            keep(model, bench.folder(job))
        return {"dev": mean_loss(model, dev), "general": mean_loss(model, measured)}

    if of["share"]:
        model, trained = _for_tokens(bench, job, mixed, tokens_of(task, scale.batch * scale.steps))
        end = {"step": trained.steps, "tokens": trained.tokens, "seconds": None}
        trained.looks.append(end | look(model, scale.steps))
    else:
        model, trained = _for_steps(bench, job, mixed, look)
    return _told(model, trained, mixed, len(task), Order(len(mixed), ENDLESS, scale.batch, of["seed"]))


def _for_steps(bench: Bench, job: Job, rows: Any, look: Callable[[Any, int], dict[str, Any]]) -> tuple[Any, Trained]:
    """`steps`, or `longer` times as many for the arm of X7."""
    scale, of = bench.scale, job.of
    steps = round(scale.steps * scale.longer) if (of["method"], of["r"]) == ("lora", 8) else scale.steps
    config = arm_config(of, steps, scale.batch)
    model = prepared(config)
    looks = sorted({0, scale.steps, steps, *(step for step in scale.looks if step <= steps)})
    trained = carried_out(
        model,
        rows,
        config,
        pad_token_id=pad(),
        looks=looks,
        look=lambda step: look(model, step),
        breathe=bench.breathe,
    )
    return model, trained


def _for_tokens(bench: Bench, job: Job, rows: Any, most: int) -> tuple[Any, Trained]:
    """As many tokens as the arm without replay has, in however many steps they make."""
    config = arm_config(job.of, 2 * bench.scale.steps, bench.scale.batch)
    model = prepared(config)
    trained = carried_out(model, rows, config, pad_token_id=pad(), most_tokens=most, breathe=bench.breathe)
    return model, trained


def _told(model: Any, trained: Trained, rows: Any, task: int, order: Order) -> dict[str, Any]:
    """`replay_rows` and `replay_share` (of supervised tokens) are of what was trained on, rows behind `task`."""
    used = [index for step in range(trained.steps) for index in order.step(step)]
    replayed = [rows.supervised[index] for index in used if index >= task]
    return {
        "losses": trained.losses,
        "looks": trained.looks,
        "steps": trained.steps,
        "tokens": trained.tokens,
        "trained_params": trainable_params(model),
        "replay_rows": len(replayed),
        "replay_share": sum(replayed) / sum(rows.supervised[index] for index in used),
    }


def tokens_of(rows: Sequence[Encoded], count: int) -> int:
    """Tokens of so many rows of the mean length."""
    return round(count * mean(len(row.ids) for row in rows))


def arm_config(of: Mapping[str, Any], steps: int, batch: int) -> TrainConfig:
    """Weights and arithmetic in fp32: there are processors on which those of bf16 take twice as long."""
    own = {"r": of["r"], "alpha": ALPHA} if of["method"] == "lora" else {}
    return config_of(of["method"], of["rate"], steps, of["seed"], batch, **own)


def prepared(config: TrainConfig) -> Any:
    """The base with the arm's method attached."""
    return attach(load_base(base_folder(), dtype=config.dtype), config)


def pad() -> int:
    return plain().eos_token_id if plain().pad_token_id is None else plain().pad_token_id


def keep(model: Any, folder: Path) -> None:
    """What was trained, in safetensors: an adapter, or a whole model."""
    with publish_folder(folder) as place, quiet_transformers():
        model.save_pretrained(place)


def restored(bench: Bench, job: Job) -> Any:
    """The model of an arm after `steps`, in fp32."""
    if job.of["method"] == "full":
        return load_base(bench.weights(job), dtype="fp32")
    return load_adapter(load_base(base_folder(), dtype="fp32"), bench.weights(job))


# -- the test items -------------------------------------------------------------------------------------------


def exam_job(arm: Job) -> Job:
    """The test items, asked of one arm; of the base where the arm's method is `base`."""
    return Job("exam", dict(arm.of))


def base_arm(seed: int) -> Job:
    return Job("arm", {"method": "base", "r": 0, "rate": 0.0, "seed": seed, "share": 0.0})


def examine(bench: Bench, job: Job) -> dict[str, Any]:
    """Exact matches and loss of the test items."""
    if job.of["method"] == "base":
        model = load_base(base_folder(), dtype="fp32")
    else:
        model = restored(bench, Job("arm", job.of))
    return examined(bench, model, job.of["seed"])


def examined(bench: Bench, model: Any, seed: int) -> dict[str, Any]:
    """`right`: of each test item, is the greedy answer the expected one, to its end? `nll`: nats per token."""
    test = split(bench, seed).test
    rows = encoded(test, plain())
    said = answer(model, plain(), conversations(test), ROOM)
    found = row_losses(model, rows)
    return {
        "right": [text == item.answer for text, item in zip(said, test, strict=True)],
        "nll": sum(loss for loss, _ in found) / sum(count for _, count in found),
    }


def chosen_exam_job(method: str, r: int | None, seed: int, rates: Sequence[float]) -> Job:
    """The test items of the arm whose rate is chosen once all its rates are trained."""
    return Job("chosen", {"method": method, "r": r or 0, "seed": seed, "rates": list(rates)})


def examine_chosen(bench: Bench, job: Job) -> dict[str, Any]:
    """As `examine`, with the rate that was chosen."""
    arm = chosen_arm(bench, job.of["method"], job.of["r"] or None, job.of["seed"])
    return {"rate": arm.of["rate"], **bench.get(exam_job(arm))}
