"""Plans made by hand: a 13B model on two A100s with 14 priced options, and a 70B model that nothing can train."""

from dataclasses import dataclass
from typing import Any

from rankwise.records import (
    DeviceFacts,
    Estimate,
    Flip,
    Job,
    Offer,
    Plan,
    Price,
    QualityPrior,
    Reason,
    Rejection,
    Rung,
    TrainConfig,
    Verdict,
)
from tests.report.conftest import build_config, build_estimate, build_facts, build_flip, build_memory, build_plan

CAPACITY = 80_000_000_000
PRICE = 2.29  # USD of an A100-80GB-hour
E4 = (
    "E4: LoRA Learns Less and Forgets Less, Biderman et al. 2024, arXiv 2405.09673. Llama-2-7B, learning rate swept: "
    "Tulu-v2: on par at low rank. The other side: Newer bases came within 0.01 nats between r16 and r128 (E7)."
)
E6 = "E6: LoRA Without Regret, Thinking Machines 2025. 14 models: LoRA equals full fine-tuning until capacity is spent."
E12 = "E12: PEFT method comparison. Llama-3.2-3B, one seed: DoRA 46.9 %, LoRA 47.8 %, IA3 39.8 %, prompt 34.3 %."
E13 = "E13: torchtune README. Llama-3.1-8B on one RTX 4090: QLoRA 2,413 tokens/s against 3,083."
E25 = "E25: vLLM pull request 11267. Llama-2-7B: 11.45 to 7.60 requests/s. The other side: Punica measured 8 %."
E30 = "E30: Measured by this project. Adam on bf16 weights: 84 % of updates rounded away at 1e-5."


@dataclass(frozen=True)
class Option:
    """One priced option: bytes in GB, hours of one run, and what excluded it."""

    id: str
    method: str
    peak: float
    hours: float
    quality: tuple[float, float, float] | None
    trained: int
    rule: str | None = None
    number: str | None = None
    text: str = ""
    flip: str | None = None
    evidence: tuple[str, ...] = ()


def over(id: str, peak: float, hours: float) -> Option:
    return Option(
        id,
        "full",
        peak,
        hours,
        (1.0, 1.0, 1.0),
        13_015_864_320,
        "memory_fits",
        f"{peak * 1.06:.1f} GB needed at the upper end, 80.0 GB there",
        f"{id} does not fit into the memory of one A100-80GB.",
        f"each device had {peak * 1.06:.0f} GB",
        (E13,),
    )


OPTIONS = (
    over("full", 214.0, 21.4),
    over("full-zero2", 131.0, 22.7),
    over("full-zero3", 105.0, 24.8),
    Option(
        "full-bf16-zero3",
        "full",
        66.0,
        23.9,
        (0.96, 0.85, 1.0),
        13_015_864_320,
        "precision_trap",
        "learning rate 1.2e-05, 84 % of updates lost",
        "Pure bf16 weights round small updates away.",
        "the learning rate were 1e-4",
        (E30,),
    ),
    Option("full-8bit-zero3", "full", 58.1, 26.2, (0.99, 0.95, 1.0), 13_015_864_320),
    Option("lora-r16", "lora", 36.4, 14.9, (0.97, 0.92, 1.01), 62_586_880),
    Option(
        "lora-r16-checkpointing",
        "lora",
        31.2,
        19.6,
        (0.97, 0.92, 1.01),
        62_586_880,
        "recomputation_needed",
        "38.1 GB needed without, 80.0 GB there",
        "Activations fit, so computing them twice only costs time.",
        "each device had less than 38.1 GB",
        (E13,),
    ),
    Option("lora-r64", "lora", 39.5, 15.4, (0.98, 0.93, 1.01), 250_347_520),
    Option(
        "dora-r16",
        "dora",
        38.8,
        18.9,
        (0.96, 0.89, 1.01),
        63_406_080,
        "variant_needs_sweep",
        "46.9 % against 47.8 %, 26 % slower",
        "DoRA reaches what LoRA reaches once each has its own learning rate.",
        None,
        (E12,),
    ),
    Option(
        "qlora-r16",
        "qlora",
        17.3,
        18.1,
        (0.95, 0.88, 1.0),
        62_586_880,
        "quantisation_needed",
        "LoRA needs 38.1 GB of 80.0 GB",
        "Plain LoRA fits, and 4-bit weights take longer on the same device.",
        "each device had less than 38.1 GB",
        (E13,),
    ),
    Option(
        "bottleneck-64",
        "bottleneck",
        37.7,
        15.8,
        (0.93, 0.82, 1.0),
        52_428_800,
        "engine_serves",
        "5 variants",
        "vLLM does not serve adapters of this kind.",
        "variants were 1",
    ),
    Option(
        "ia3",
        "ia3",
        35.1,
        13.8,
        (0.75, 0.6, 0.88),
        1_187_840,
        "discouraged",
        "39.8 % against 47.8 %",
        "IA3 loses at equal cost.",
        None,
        (E12,),
    ),
    Option(
        "prompt-20",
        "prompt",
        35.0,
        13.9,
        (0.55, 0.3, 0.75),
        102_400,
        "discouraged",
        "34.3 % against 47.8 %",
        "Prompt tuning loses at equal cost.",
        None,
        (E12,),
    ),
    Option("prefix-20", "prefix", 35.2, 14.0, None, 8_192_000, "discouraged", None, "Prefix tuning loses too."),
)


def rejection(option: Option) -> Rejection:
    assert option.rule is not None
    return Rejection(
        method=option.id,
        rule=option.rule,
        number=option.number,
        text=option.text,
        would_flip_if=option.flip,
        evidence=option.evidence,
    )


def estimate(option: Option, price: float | None = PRICE, gpus: int = 2) -> Estimate:
    full = option.method == "full"
    seconds, peak = option.hours * 3600, int(option.peak * 1e9)
    base = 26_031_728_640
    usd = None if price is None else option.hours * gpus * price
    plain = build_estimate(option.method)
    memory = build_memory(
        weights=base // (2 if full else 1),
        activations=int(0.2 * peak),
        peak_allocated=int(0.95 * peak),
        peak_device=peak,
        interval=(0.94 * peak, 1.06 * peak),
        capacity=CAPACITY,
        fits=1.06 * peak <= CAPACITY,
    )
    return plain.model_copy(
        update={
            "id": option.id,
            "model": "llama-2-13b",
            "trainable_params": option.trained,
            "total_params": 13_015_864_320 + (0 if full else option.trained),
            "memory": memory,
            "time": plain.time.model_copy(
                update={
                    "train_seconds": seconds,
                    "interval": (0.8 * seconds, 1.25 * seconds),
                    "tokens_per_second": 204_800_000 / seconds,
                }
            ),
            "money": plain.money.model_copy(
                update={"usd_per_hour": price}
                if usd is None
                else {
                    "usd_per_hour": price,
                    "train_usd": usd,
                    "interval": (0.8 * usd, 1.25 * usd),
                    "runs": (10.0, 20.0),
                    "failures_usd": 0.04 * usd,
                    "project_usd": 15.6 * usd,
                    "project_interval": (8.3 * usd, 26 * usd),
                }
            ),
            "storage": plain.storage.model_copy(
                update={"adapter_bytes": None if full else 4 * option.trained, "run_bytes": 40_000_000_000}
            ),
            "serving": plain.serving.model_copy(
                update={
                    "base_bytes": base,
                    "per_variant_bytes": base if full else 2 * option.trained,
                    "all_variants_bytes": 5 * base if full else base + 10 * option.trained,
                    "copies_bytes": 5 * base,
                }
            ),
            "sources": plain.sources | {"money": "list price, 2026-11-01"},
        }
    )


def config_13b() -> TrainConfig:
    return build_config().model_copy(update={"r": 16, "lora_alpha": 32.0, "gradient_accumulation_steps": 1})


def build_13b(**changes: Any) -> Plan:
    """LoRA on two A100-80GB for five variants; the runner-up is full fine-tuning with an 8-bit optimizer."""
    job = Job.model_validate(
        {
            "name": "support-13b",
            "goal": "instruction",
            "model": "llama-2-13b",
            "data": {"examples": 200_000, "tokens_per_example": 512},
            "hardware": {"gpu": "A100-80GB", "count": 2},
            "budget": {"usd": 550},
            "variants": 5,
            "serving": {"engine": "vllm"},
        }
    )
    facts = build_facts()
    device = DeviceFacts.model_validate(
        facts.device.model_dump()
        | {
            "kind": "gpu",
            "name": "A100-80GB",
            "count": 2,
            "cores": None,
            "memory_bytes": CAPACITY,
            "available_bytes": None,
            "disk_free_bytes": None,
            "matmul_measured": False,
            "price": Price(usd_per_hour=PRICE, spot_usd_per_hour=None, source="list price, 2026-11-01"),
            "source": "datasheet",
        }
    )
    model = facts.model.model_copy(
        update={"name": "llama-2-13b", "folder": None, "total_params": 13_015_864_320, "weights_hash": None}
    )
    content: dict[str, Any] = {
        "verdict": Verdict(
            method="lora",
            candidate="lora-r16",
            parallel="ddp",
            config=config_13b(),
            confidence="medium",
            confidence_because="nobody has measured how much of this data the base already knows",
            executable=True,
            first_try=("prompting",),
        ),
        "runner_up": "full-8bit-zero3",
        "reasons": reasons_13b(),
        "rejected": tuple(rejection(o) for o in OPTIONS if o.rule),
        "flips": flips_13b(),
        "warnings": (
            "the whole project lies beyond the budget: 5,323 USD of 550 USD",
            "no data.general: forgetting of general ability will not be measured",
        ),
        "questions": (
            "What does the base lose on a held-out answer? `rankwise diagnose` measures it in minutes.",
            "May general rows be replayed? data.general names them.",
        ),
        "rungs": rungs_13b(),
        "offers": offers_13b(),
        "candidates": tuple(estimate(o) for o in OPTIONS),
        "priors": {
            o.id: QualityPrior(value=o.quality[0], interval=o.quality[1:], source="E4, E6, E12: 31 head-to-heads")
            for o in OPTIONS
            if o.quality
        },
        "job": job,
        "facts": facts.model_copy(update={"device": device, "model": model}),
        "base_hash": None,
    }
    return build_plan(**(content | changes))


def reasons_13b() -> tuple[Reason, ...]:
    return (
        Reason(
            step="capacity",
            rule="capacity_suffices",
            text="The adapter may be too small for what the data teaches",
            number="62.6 Mbit held, 102.4 Mbit to learn",
            evidence=(E6,),
        ),
        Reason(
            step="capacity",
            rule="many_variants",
            text="5 tenants share one base; each adds only its adapter",
            number="26.7 GB against 130.2 GB of copies",
            evidence=(E25,),
        ),
        Reason(
            step="capacity",
            rule="adapter_suffices",
            text="Where capacity suffices, LoRA with a tuned rate learns what full fine-tuning learns",
            number="0.48 % of the parameters train",
            evidence=(E4, E6, E12),
        ),
    )


def flips_13b() -> tuple[Flip, ...]:
    return (
        build_flip(
            "the device had 38.10 GB instead of 80.0 GB",
            "prompting first, then qlora instead of prompting first, then lora",
            "device.memory_bytes",
            38.1,
            80.0,
            "GB",
        ),
        build_flip(
            "the data had 91,750,000 answer tokens instead of 20,480,000",
            "prompting first, then full-8bit instead of prompting first, then lora",
            "data.supervised_tokens",
            91_750_000.0,
            20_480_000.0,
            "tokens",
        ),
        build_flip(
            "budget.usd were 341.10 instead of 550.00",
            "none instead of prompting first, then lora",
            "budget.usd",
            341.1,
            550.0,
            "USD",
        ),
    )


def rungs_13b() -> tuple[Rung, ...]:
    return (
        Rung(
            name="prompting",
            first=True,
            rule="prompting_first",
            text="Four examples in the prompt show what prompting alone can do",
            number="2,048 tokens more in each request",
            tokens_per_request=2_048.0,
            kv_cache_bytes=1_677_721_600,
            evidence=(E12,),
        ),
        Rung(
            name="retrieval",
            first=False,
            rule="retrieval_first",
            text="Nothing has to be looked up: the goal is a way of answering",
            number=None,
            tokens_per_request=None,
            kv_cache_bytes=None,
            evidence=(),
        ),
        Rung(
            name="nothing",
            first=False,
            rule="nothing_to_do",
            text="Whether the base already answers well is unknown",
            number=None,
            tokens_per_request=None,
            kv_cache_bytes=None,
            evidence=(),
        ),
    )


def offer(gpu: str, count: int, candidate: str, usd: float | None, why: str, **changes: Any) -> Offer:
    content: dict[str, Any] = {
        "gpu": gpu,
        "count": count,
        "candidate": candidate,
        "method": candidate.split("-")[0],
        "parallel": "none" if count == 1 else "zero3",
        "peak_device": 19_300_000_000,
        "capacity": 24_000_000_000,
        "train_seconds": 31.5 * 3600,
        "usd": usd,
        "usd_interval": None if usd is None else (0.8 * usd, 1.25 * usd),
        "why": why,
        "source": "list prices, 2026-11-01",
    }
    return Offer(**(content | changes))


def offers_13b() -> tuple[Offer, ...]:
    return (
        offer("L4-24GB", 1, "qlora-r16", 22.1, "cheapest that fits"),
        offer(
            "H100-80GB",
            8,
            "full-zero3",
            96.4,
            "fastest within the budget",
            train_seconds=3.9 * 3600,
            peak_device=41_200_000_000,
            capacity=CAPACITY,
        ),
        offer("B300-288GB", 1, "full-8bit", None, "roomiest", peak_device=95_000_000_000, capacity=288_000_000_000),
    )


def build_none(**changes: Any) -> Plan:
    """No option fits one A100-80GB; what would is to be rented."""
    listed = [o for o in OPTIONS if o.rule == "memory_fits"]
    content: dict[str, Any] = {
        "verdict": Verdict(
            method="none",
            candidate=None,
            parallel=None,
            config=None,
            confidence="high",
            confidence_because="the upper end of every peak lies above the memory",
            executable=False,
            first_try=(),
        ),
        "runner_up": None,
        "reasons": (),
        "rejected": tuple(rejection(o) for o in listed),
        "flips": (build_flip("there were 4 devices", "full-zero3", "hardware.count", 4.0, 2.0, "devices"),),
        "candidates": tuple(estimate(o) for o in listed),
        "priors": {},
    }
    return build_13b(**(content | changes))
