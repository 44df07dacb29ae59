"""What the lesson said of time, money, storage and serving, computed."""

from collections.abc import Callable

from rankwise.estimate.lesson.costtable import TOKENS, cost_row, packed
from rankwise.estimate.lesson.counts import stored
from rankwise.estimate.lesson.desk import LARGE, MODELS, Desk, recipe
from rankwise.estimate.lesson.said import said_cost, said_number
from rankwise.records import Estimate, ServingEstimate
from rankwise.records.tables import CostRow, Figure

MODEL = "llama-3-8b"
BATCHES = (16, 32, 64, 128)


def ratio(name: str, value: float | None) -> Figure:
    return Figure(name=name, value=value, unit="ratio")


def _over(above: float | None, below: float | None) -> float | None:
    return None if above is None or not below else above / below


def _full(desk: Desk, **options: object) -> Estimate:
    """Full fine-tuning of 8B that fits on one A100-80GB, so that a method is compared on the same card."""
    return desk.price(MODEL, "full", optimizer="adamw_torch_fused", **options)


def full_over_lora(desk: Desk) -> list[Figure]:
    def operations(checkpointing: bool) -> float:
        options = {"gradient_checkpointing": checkpointing}
        lora = desk.price(MODEL, "lora", rank=16, **options)
        return _full(desk, **options).time.flops_per_token / lora.time.flops_per_token

    return [
        ratio("operations per token, full over LoRA, with checkpointing", operations(True)),
        ratio("operations per token, full over LoRA, without", operations(False)),
        ratio("card-hours, full over LoRA, 8B on A100-80GB", _same_card(desk)),
    ]


def _same_card(desk: Desk) -> float | None:
    run = packed(TOKENS[0], 1)
    full, lora = _full(desk, **run), desk.price(MODEL, "lora", rank=16, **run)
    return _over(full.time.train_seconds, lora.time.train_seconds)


def qlora_speed(desk: Desk) -> list[Figure]:
    lora, qlora = (desk.price(MODEL, method, rank=16).time.tokens_per_second for method in ("lora", "qlora"))
    return [ratio("speed, QLoRA over LoRA, 8B on one A100-80GB", _over(qlora, lora))]


def dollars_7b(desk: Desk) -> list[Figure]:
    def one(tokens: int, name: str) -> Figure:
        row = cost_row(desk, "7B", recipe(name), tokens)
        return Figure(
            name=f"{'full' if name == 'ZeRO-3' else name}, {tokens:,} tokens an example",
            value=row.usd_at_said_price,
            unit="USD",
            interval=row.usd_at_said_price_interval,
        )

    return [one(tokens, name) for tokens in TOKENS for name in ("ZeRO-3", "LoRA")]


def _hours(row: CostRow, name: str) -> Figure:
    return Figure(name=name, value=row.train_seconds, unit="s", interval=row.interval)


def qlora_hours(desk: Desk) -> list[Figure]:
    return [
        _hours(cost_row(desk, "7B", recipe("QLoRA"), t), f"QLoRA 7B, {t:,} tokens an example, one {LARGE}")
        for t in TOKENS
    ]


def hours_70b(desk: Desk) -> list[Figure]:
    return [
        _hours(cost_row(desk, "70B", recipe("QLoRA"), t), f"70B, QLoRA, {t:,} tokens an example, one {LARGE}")
        for t in TOKENS
    ]


def twenty_runs(desk: Desk) -> list[Figure]:
    """By the lesson's own table, and by ours for 512 tokens an example."""
    found = []
    fewest, most = said_number("fewest_runs"), said_number("most_runs")
    for name, method, way in (("full", "full", "ZeRO-3"), ("QLoRA", "qlora", "QLoRA")):
        said = said_cost("7B", method)
        assert said is not None
        row = cost_row(desk, "7B", recipe(way), TOKENS[0])
        span, central = row.usd_at_said_price_interval, row.usd_at_said_price
        found += [
            Figure(name=f"{name}, 10 runs at the table's low end", value=fewest * said.usd[0], unit="USD"),
            Figure(name=f"{name}, 20 runs at the table's high end", value=most * said.usd[1], unit="USD"),
            Figure(
                name=f"{name}, 15 runs as computed, 512 tokens an example",
                value=None if central is None else (fewest + most) / 2 * central,
                unit="USD",
                interval=None if span is None else (fewest * span[0], most * span[1]),
            ),
        ]
    return found


def checkpointing(desk: Desk) -> list[Figure]:
    def more(with_: Estimate, without: Estimate) -> float:
        return with_.time.flops_per_token / without.time.flops_per_token - 1

    lora = [desk.price(MODEL, "lora", rank=16, batch=4, gradient_checkpointing=on) for on in (True, False)]
    full = [_full(desk, gradient_checkpointing=on) for on in (True, False)]
    saved = lora[0].memory.peak_device / lora[1].memory.peak_device
    return [
        Figure(name="more operations, full", value=more(*full), unit="share"),
        Figure(name="more operations, LoRA", value=more(*lora), unit="share"),
        ratio("LoRA 8B, batch 4 x 2,048: peak with checkpointing over without", saved),
    ]


def step_share(desk: Desk) -> list[Figure]:
    return [
        ratio(f.name.replace("full over LoRA", "LoRA over full"), _over(1.0, _number(f))) for f in _operations(desk)
    ]


def _operations(desk: Desk) -> list[Figure]:
    return full_over_lora(desk)[:2]


def _number(figure: Figure) -> float | None:
    return float(figure.value) if isinstance(figure.value, int | float) else None


def velocity(desk: Desk) -> list[Figure]:
    return [ratio("time of a run, full over LoRA, 8B on the same A100-80GB", _same_card(desk))]


def checkpoints(desk: Desk) -> list[Figure]:
    names = {"autocast": "resumable, fp32 weights under autocast", "ZeRO-3": "resumable, DeepSpeed ZeRO-3"}
    full = {name: desk.priced(MODELS["7B"], recipe(name), LARGE, 1).storage for name in names}
    weights, zero = full["ZeRO-3"].weights_only_bytes, full["ZeRO-3"].checkpoint_bytes
    month = said_number("usd_per_gb_month") / 1e9

    def kept(each: int | None, scale: float) -> float | None:
        return None if each is None else said_number("checkpoints") * each * scale

    return [
        stored("weights alone", weights),
        *(stored(words, full[name].checkpoint_bytes) for name, words in names.items()),
        Figure(name="20 of the weights", value=kept(weights, 1), unit="B"),
        Figure(name="20 resumable ones, ZeRO-3", value=kept(zero, 1), unit="B"),
        Figure(name="20 of the weights, a month", value=kept(weights, month), unit="USD"),
        Figure(name="20 resumable ones, ZeRO-3, a month", value=kept(zero, month), unit="USD"),
    ]


def checkpoint_counts(desk: Desk) -> list[Figure]:
    """Arithmetic over what the lesson assumes: optimizer steps of the run, every 500th."""

    def count(batch: int) -> int:
        rows = said_number("checkpoint_epochs") * said_number("checkpoint_examples")
        return int(rows // batch // said_number("checkpoint_steps"))

    return [Figure(name=f"checkpoints at batch {b}", value=count(b), unit="checkpoints") for b in BATCHES]


def _served(desk: Desk) -> ServingEstimate:
    """Ten tenants of 7B on adapters."""
    return desk.priced(MODELS["7B"], recipe("LoRA"), LARGE, 1, variants=int(said_number("variants"))).serving


def ten_variants(desk: Desk) -> list[Figure]:
    served = _served(desk)
    return [
        stored("10 full copies, 7B", served.copies_bytes),
        stored("one base and 10 adapters (r=16, all linear layers)", served.all_variants_bytes),
    ]


def unmerged(desk: Desk) -> list[Figure]:
    penalty = _served(desk).unmerged_penalty
    middle = None if penalty is None else sum(penalty) / 2
    name = "throughput that unmerged adapters cost, measured range"
    return [Figure(name=name, value=middle, unit="share", interval=penalty)]


def one_more_variant(desk: Desk) -> list[Figure]:
    served = _served(desk)
    return [
        ratio("memory of one more variant, full copy over adapter", _over(served.base_bytes, served.per_variant_bytes)),
        Figure(name="GPUs that serve 10 full copies of 7B", value=served.copies_gpus, unit="GPUs"),
        Figure(name="GPUs that serve one base with 10 adapters", value=served.gpus, unit="GPUs"),
        Figure(name="variants from which adapters are cheaper", value=served.break_even_variants, unit="variants"),
    ]


CHECKS: dict[str, Callable[[Desk], list[Figure]]] = {
    "13": full_over_lora,
    "14": qlora_speed,
    "15": dollars_7b,
    "16": qlora_hours,
    "17": twenty_runs,
    "18": checkpoints,
    "19": checkpoint_counts,
    "20": ten_variants,
    "43": checkpointing,
    "44": step_share,
    "45": unmerged,
    "48": one_more_variant,
    "N9": velocity,
    "F9": hours_70b,
}
