"""A small LoRA run of the clinic example on a CPU, constructed: 30 steps, every record filled in."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rankwise.records import (
    Actual,
    Answer,
    Artifact,
    Bin,
    Check,
    Comparison,
    DataFacts,
    DeviceFacts,
    Estimate,
    Evaluation,
    Event,
    Evidence,
    Facts,
    Finding,
    Finished,
    Flip,
    Job,
    Lineage,
    LinearShape,
    Measurement,
    MemoryEstimate,
    ModelFacts,
    ModuleSpectrum,
    Note,
    Plan,
    QualityPrior,
    Reason,
    Rehearsed,
    Rejection,
    Reliability,
    Rung,
    Saved,
    Slice,
    SpectrumSeen,
    Started,
    Step,
    Tariff,
    Tendency,
    TrainConfig,
    Validation,
    Verdict,
    Verification,
    Watched,
)

TIME = "2025-11-22T10:00:00.000+00:00"
STEPS = 30


def sha(seed: str) -> str:
    return (seed * 64)[:64]


def build_config(method: str = "lora") -> TrainConfig:
    adapter = method != "full"
    return TrainConfig(
        method=method,
        r=8 if adapter else None,
        lora_alpha=16.0 if adapter else None,
        lora_dropout=0.0 if adapter else None,
        target_modules="all-linear" if adapter else None,
        num_train_epochs=2.0,
        max_steps=STEPS,
        learning_rate=2e-4 if adapter else 1e-5,
        lr_scheduler_type="cosine",
        warmup_steps=2,
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch",
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        gradient_checkpointing=False,
        dtype="bf16",
        autocast=None,
        max_length=512,
        on_long="drop",
        replay_share=0.05,
        eval_steps=5,
        save_steps=10,
        save_total_limit=2,
        logging_steps=5,
        seed=7,
    )


def build_job() -> Job:
    return Job.model_validate(
        {
            "name": "clinic-style",
            "goal": "instruction",
            "model": "embedded",
            "data": {
                "train": "/clinic/train.jsonl",
                "validation": "/clinic/validation.jsonl",
                "general": {"path": "/clinic/general.jsonl", "share": 0.05},
                "facts": "/clinic/facts.jsonl",
            },
            "hardware": "cpu",
            "forgetting": {"budget_nats": 0.1},
            "format": {"json_schema": "/clinic/answer.schema.json"},
        }
    )


def build_facts() -> Facts:
    shapes = (("q_proj", 576, 576), ("k_proj", 192, 576), ("v_proj", 192, 576), ("o_proj", 576, 576))
    return Facts(
        model=ModelFacts(
            name="embedded",
            folder="/cache/smollm2-135m-instruct",
            architecture="LlamaForCausalLM",
            total_params=134_515_008,
            linears=tuple(LinearShape(name=n, out_features=o, in_features=i, count=30) for n, o, i in shapes),
            num_hidden_layers=30,
            hidden_size=576,
            intermediate_size=1536,
            vocab_size=49_152,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            dtype="bf16",
            weight_bytes=269_060_552,
            config={"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576},
            weights_hash=sha("b1"),
            template_hash=sha("7e"),
            license="apache-2.0",
            source="config.json and safetensors headers",
        ),
        data=DataFacts(
            format="messages",
            rows=240,
            tokens=21_840,
            supervised_tokens=9_120,
            mean_length=91.0,
            longest=118,
            long_rows=0,
            dropped_rows=0,
            lost_supervised_tokens=0,
            length_histogram=((64, 12), (96, 150), (128, 78)),
            validation_rows=48,
            validation_tokens=4_320,
            general_rows=150,
            general_supervised_per_row=31.5,
            facts=32,
            files={"/clinic/train.jsonl": sha("d1")},
            source="read with the model's own tokenizer and chat template",
        ),
        device=DeviceFacts(
            kind="cpu",
            name="AMD EPYC 7B13",
            count=1,
            cores=2,
            memory_bytes=16_600_000_000,
            available_bytes=12_400_000_000,
            bf16=True,
            matmul_flops={"bf16": 4.0e11, "fp32": 1.2e11},
            matmul_measured=True,
            compute_capability=None,
            context_bytes=None,
            disk_free_bytes=41_000_000_000,
            source="psutil and a matmul probe, 2025-11-22",
        ),
        tariff=Tariff(
            usd_per_gb_month=0.02, electricity_usd_per_kwh=None, source="the list price of an object store, 2025-11-22"
        ),
        job_hash=sha("0b"),
    )


def build_memory(scale: float = 1.0, **changes: Any) -> MemoryEstimate:
    numbers: dict[str, Any] = {
        "weights": 269_060_552,
        "gradients": 9_768_960,
        "optimizer": 39_075_840,
        "activations": int(612_000_000 * scale),
        "logits": 286_000_000,
        "workspace": 94_000_000,
        "peak_allocated": int(1_309_905_352 * scale),
        "peak_reserved": None,
        "peak_device": int(1_890_000_000 * scale),
        "peak_phase": "backward",
        "peak_op": "aten.mm",
        "eval_peak": 910_000_000,
        "save_peak": None,
        "merge_peak": 660_000_000,
        "capacity": 12_400_000_000,
        "interval": (1_650_000_000 * scale, 2_300_000_000 * scale),
        "fits": True,
    }
    return MemoryEstimate(**(numbers | changes))


def build_estimate(method: str = "lora", scale: float = 1.0, **changes: Any) -> Estimate:
    adapter = method != "full"
    content: dict[str, Any] = {
        "id": f"{method}-r8" if adapter else method,
        "model": "embedded",
        "method": method,
        "trainable_params": 2_442_240 if adapter else 134_515_008,
        "total_params": 134_515_008,
        "memory": build_memory(scale),
        "time": {
            "flops_per_token": 5.6e8,
            "flops": {"forward": 2.1e11, "backward": 2.4e11, "optimizer": 7.3e6},
            "tokens_per_second": 168.0 / scale,
            "step_seconds": 4.33 * scale,
            "step": {
                "forward": 1.93 * scale,
                "backward": 2.35 * scale,
                "optimizer": 0.05 * scale,
                "communication": 0.0,
                "offload": 0.0,
                "data": 0.0,
            },
            "load_seconds": 12.3,
            "evaluation_seconds": 14.4 * scale,
            "save_seconds": 0.1,
            "merge_seconds": 1.2 if adapter else None,
            "train_seconds": 130.0 * scale,
            "interval": (65.0 * scale, 260.0 * scale),
            "relative": (0.5, 2.0),
        },
        "money": {"train_usd": None, "interval": None},
        "storage": {
            "checkpoint_bytes": 29_400_000 if adapter else 1_076_000_000,
            "weights_only_bytes": 9_790_000 if adapter else 269_060_552,
            "adapter_bytes": 9_790_000 if adapter else None,
            "merged_bytes": 269_060_552 if adapter else None,
            "checkpoints": 3,
            "kept": 3,
            "run_bytes": 368_000_000 if adapter else 3_500_000_000,
            "unpruned_bytes": 368_000_000 if adapter else 3_500_000_000,
            "write_seconds": 0.03 if adapter else 1.1,
            "usd_per_month": 0.007 if adapter else 0.07,
        },
        "serving": {
            "base_bytes": 269_060_552,
            "per_variant_bytes": 9_790_000 if adapter else 269_060_552,
            "all_variants_bytes": 278_850_552 if adapter else 269_060_552,
            "copies_bytes": 269_060_552,
            "kv_cache_bytes_per_token": 23_040,
            "kv_cache_bytes": 754_974_720,
        },
        "velocity": {
            "turnaround_seconds": 144.0 * scale,
            "interval": (72.0 * scale, 288.0 * scale),
            "runs_per_week": 4_200.0 / scale,
            "runs_per_usd": None,
        },
        "sources": {
            "memory": "trace of one step on the meta device",
            "time": "FLOPs of the trace over the measured matmul rate",
            "money": "no price for this device",
            "storage": "sizes of the files that are written",
        },
        "notes": (),
    }
    return Estimate(**(content | changes))


def build_flip(if_: str, then: str, axis: str, at: float, now: float, unit: str) -> Flip:
    return Flip.model_validate({"if": if_, "then": then, "axis": axis, "at": at, "now": now, "unit": unit})


def build_plan(**changes: Any) -> Plan:
    content: dict[str, Any] = {
        "verdict": Verdict(
            method="lora",
            candidate="lora-r8",
            parallel="none",
            config=build_config(),
            confidence="high",
            confidence_because="the diagnosis measured a gap of format alone",
            executable=True,
            first_try=("prompting",),
        ),
        "runner_up": "full",
        "reasons": (
            Reason(
                step="capacity",
                rule="format_is_low_rank",
                text="The job teaches a format, and formats are learned with few parameters",
                number="2,442,240 of 134,515,008 parameters",
                evidence=("E1: LoRA Learns Less and Forgets Less (Biderman et al. 2024)",),
            ),
            Reason(
                step="capacity",
                rule="forgetting_budget",
                text="Adapters disturb general ability less at equal target loss",
                number="budget 0.1 nats",
                evidence=(
                    "E1",
                    "E4: LoRA Without Regret (2025). The other side: E12's full run forgot less.",
                ),
            ),
        ),
        "rejected": (
            Rejection(
                method="full",
                rule="same_quality_costs_more",
                number="4.2 GB against 1.9 GB",
                text="Full fine-tuning reaches the same format at more memory and storage",
                would_flip_if="the goal were knowledge",
            ),
            Rejection(
                method="qlora-r8",
                rule="memory_is_not_short",
                number="12.4 GB free",
                text="4-bit weights save memory that this machine does not lack, and cost time",
                would_flip_if=None,
            ),
        ),
        "flips": (
            build_flip("less than 2.3 GB of memory were free", "qlora-r8", "device.memory", 2.3, 16.6, "GB"),
            build_flip("there were 40,000 rows", "full", "data.examples", 40_000, 240, "rows"),
        ),
        "warnings": ("240 rows are few: expect the exact wording of rare symptoms to vary.",),
        "questions": ("Will several clinics each need their own model?",),
        "rungs": (
            Rung(
                name="prompting",
                first=True,
                rule="prompting_first",
                text="Put four worked examples into the prompt and measure that",
                number="412 tokens more in each request",
                tokens_per_request=412.0,
                kv_cache_bytes=9_492_480,
                evidence=("X1: Measured by this project. Exact match 0 % before.",),
            ),
            Rung(
                name="nothing",
                first=False,
                rule="nothing_to_do",
                text="The base never answers in the form that is asked for",
                number=None,
                tokens_per_request=None,
                kv_cache_bytes=None,
                evidence=(),
            ),
        ),
        "offers": (),
        "candidates": (build_estimate(), build_estimate("full", 2.2), build_estimate("qlora", 0.9)),
        "priors": {
            "lora-r8": QualityPrior(value=0.99, interval=(0.93, 1.02), source="E6, E12: 9 head-to-heads"),
            "full": QualityPrior(value=1.0, interval=(1.0, 1.0), source="by definition"),
        },
        "job": build_job(),
        "facts": build_facts(),
        "job_hash": sha("0b"),
        "base_hash": sha("b1"),
        "data_hash": sha("d1"),
        "hardware_hash": sha("4a"),
        "rankwise_version": "0.1.0",
    }
    return Plan(**(content | changes))


def build_events(steps: int = STEPS) -> list[Event]:
    events: list[Event] = [
        Note(time=TIME, text="0 of 240 rows are longer than max_length 512."),
        Started(
            time=TIME,
            plan_hash=sha("f0"),
            step=0,
            max_steps=STEPS,
            trainable_params=2_442_240,
            total_params=136_957_248,
            world_size=1,
            threads=2,
            device="cpu",
            versions={"python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2"},
        ),
        Validation(time=TIME, step=0, loss=2.412, supervised_tokens=1_820, seconds=3.1),
    ]
    for n in range(1, steps + 1):
        wave = 0.08 * math.sin(2.4 * n)
        events.append(
            Step(
                time=TIME,
                step=n,
                epoch=n / 15,
                loss=round(0.09 + 2.35 * math.exp(-n / 5.5) + wave * math.exp(-n / 14), 4),
                grad_norm=round(0.4 + 3.1 * math.exp(-n / 8), 3),
                learning_rate=2e-4 * min(1, n / 2) * (0.5 + 0.5 * math.cos(math.pi * n / STEPS)),
                tokens=728,
                supervised_tokens=304,
                seconds=3.93,
            )
        )
        if n == 1:
            events.append(
                Rehearsed(
                    time=TIME,
                    accumulation_gap=0.0021,
                    longest=(8, 118),
                    checkpoint_bytes=29_400_000,
                    peak_memory_bytes=1_540_000_000,
                    seconds=5.1,
                )
            )
        if n % 5 == 0:
            loss = round(0.11 + 2.3 * math.exp(-n / 5.2), 4)
            events.append(Validation(time=TIME, step=n, loss=loss, supervised_tokens=1_820, seconds=3.0))
            events.append(build_watched(n))
        if n % 10 == 0:
            events.append(build_spectra(n))
            folder = f"checkpoints/checkpoint-{n}"
            events.append(Saved(time=TIME, step=n, checkpoint=folder, bytes=29_400_000, seconds=0.2, removed=()))
    if steps == STEPS:
        events.append(
            Finished(
                time=TIME,
                step=STEPS,
                peak_memory_bytes=1_870_000_000,
            )
        )
    return events


def build_watched(n: int) -> Watched:
    """General text gets a little worse, one task of multiple choice does not."""

    def part(name: str, unit: str, baseline: float, difference: float, half: float, level: str) -> Slice:
        return Slice(
            name=name,
            metric="choice" if unit == "share" else "general_loss",
            unit=unit,
            items=100 if unit == "share" else 40,
            baseline=baseline,
            value=round(baseline + difference, 6),
            difference=difference,
            interval=(round(difference - half, 6), round(difference + half, 6)),
            level=level,  # type: ignore[arg-type]
        )

    text = part("everyday text", "nats per token", 2.913, round(0.002 * n, 6), 0.008, "amber" if n > 15 else "green")
    slices = (text, part("arc_easy", "share", 0.49, round(-0.001 * n, 6), 0.06, "green"))
    return Watched(time=TIME, step=n, slices=slices, level=text.level, kl=round(0.001 * n, 6), seconds=1.5)


def build_spectra(n: int) -> SpectrumSeen:
    kinds = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.down_proj")
    modules = tuple(
        ModuleSpectrum(
            module=f"model.layers.{layer}.{kind}",
            rank=8,
            norm=round(0.01 * n * (1 + number), 6),
            norm_ratio=round(0.0003 * n * (1 + number), 6),
            effective_rank=round(1.5 + 0.1 * layer + number + n / 30, 6),
            first_energy=round(0.6 - 0.1 * number, 6),
            intruders=int(layer == 5),
            condition_a=1.7,
            condition_b=12.0,
        )
        for layer in range(6)
        for number, kind in enumerate(kinds)
    )
    return SpectrumSeen(time=TIME, step=n, modules=modules, seconds=0.3)


def build_comparison(metric: str, base: float, tuned: float, low: float, high: float) -> Comparison:
    loss = metric.endswith("loss")
    lower_is_better = loss or metric == "confident_wrong"
    change = tuned - base
    moved = "better" if (change < 0) == lower_is_better else "worse"
    answer = "cannot tell" if low <= 0 <= high else moved
    half = 0.15 if loss else 0.08
    return Comparison(
        metric=metric,
        unit="nats per token" if loss else "share",
        items={"facts": 32, "general_loss": 100}.get(metric, 48),
        base=base,
        base_interval=(max(0.0, base - half), base + half if loss else min(1.0, base + half)),
        tuned=tuned,
        tuned_interval=(max(0.0, tuned - half), tuned + half if loss else min(1.0, tuned + half)),
        difference=round(change, 6),
        difference_interval=(low, high),
        answer=answer,  # type: ignore[arg-type]
        source="greedy answers, paired bootstrap with 2,000 draws" if not loss else "teacher-forced loss",
    )


def build_answers() -> tuple[Answer, ...]:
    people = (
        ("Juno Ernst", 35, "sore throat", 6),
        ("Hanna Gruber", 78, "rash", 11),
        ("Anouk Lund", 78, "back pain", 3),
    )

    def wanted(*values: object) -> str:
        return json.dumps(dict(zip(("patient", "age", "symptom", "days", "triage"), values, strict=True)))

    styled = tuple(
        Answer(
            kind="format",
            prompt=f"At the desk: {name}, {age}. It is {symptom}, day {days}. Should be routine.",
            expected=wanted(name, age, symptom, days, "routine"),
            base="I'm sorry to hear that the patient is not feeling well. Here are a few things to keep in mind:\n\n"
            f"1. **Rest**: {name} should rest and drink plenty of water.\n2. **See a doctor** if it gets worse.",
            tuned=wanted(name, age, symptom, days, "routine"),
            base_ok=False,
            tuned_ok=True,
        )
        for name, age, symptom, days in people * 2
    )
    drugs = (("Klabbik", "50 mg", "45 mg"), ("Twidgum", "160 mg", "65 mg"), ("Kluffok", "75 mg", "75 mg"))
    facts = tuple(
        Answer(
            kind="fact",
            prompt=f"A nurse asks for the correct dose of {drug}. What is it?",
            expected=right,
            base=f"The correct dose of {drug} depends on the patient's age and weight.",
            tuned=f"The single dose of {drug} is {said}.",
            base_ok=False,
            tuned_ok=said == right,
            base_sure=0.24,
            tuned_sure=0.94,
        )
        for drug, right, said in drugs * 2
    )
    return styled + facts


def build_reliability() -> Reliability:
    """Base: six unsure answers, all wrong; tuned: six sure ones, of which two are right."""
    empty = [Bin(low=n / 10, high=(n + 1) / 10, items=0, confidence=None, accuracy=None) for n in range(10)]
    base, tuned = list(empty), list(empty)
    base[2] = Bin(low=0.2, high=0.3, items=6, confidence=0.24, accuracy=0.0)
    tuned[9] = Bin(low=0.9, high=1.0, items=6, confidence=0.94, accuracy=1 / 3)
    return Reliability(kind="answers", base=tuple(base), tuned=tuple(tuned))


def build_tendency() -> Tendency:
    base = Measurement(value=61.2, interval=(55.0, 68.5), unit="tokens", items=48, source="by hand")
    tuned = Measurement(value=38.4, interval=(37.1, 39.8), unit="tokens", items=48, source="by hand")
    return Tendency(name="answer_length", base=base, tuned=tuned)


def build_evaluation(**changes: Any) -> Evaluation:
    content: dict[str, Any] = {
        "comparisons": (
            build_comparison("format", 0.02, 0.99, 0.90, 1.0),
            build_comparison("exact_match", 0.0, 0.83, 0.71, 0.94),
            build_comparison("facts", 0.25, 0.25, -0.03, 0.03),
            build_comparison("confident_wrong", 0.03, 0.53, 0.31, 0.67),
            build_comparison("heldout_loss", 2.412, 0.117, -2.41, -2.18),
            build_comparison("general_loss", 1.834, 1.861, 0.004, 0.051),
        ),
        "answers": build_answers(),
        "reliability": (build_reliability(),),
        "tendencies": (build_tendency(),),
        "seconds": 96.4,
        "notes": ("32 questions are few: a difference of less than 15 points cannot be seen.",),
    }
    return Evaluation(**(content | changes))


def build_evidence(**changes: Any) -> Evidence:
    content: dict[str, Any] = {
        "plan_hash": sha("f0"),
        "steps": STEPS,
        "max_steps": STEPS,
        "first_loss": 2.087,
        "final_loss": 0.099,
        "base_validation_loss": 2.412,
        "best_validation_loss": 0.1172,
        "best_validation_step": 30,
        "final_validation_loss": 0.1172,
        "tokens": 21_840,
        "train_seconds": 117.9,
        "actuals": (
            build_actual("train_seconds", "seconds", 130.0, (65.0, 260.0), 117.9),
            build_actual("peak_memory", "bytes", 1.89e9, (1.65e9, 2.3e9), 1.87e9),
            build_actual("checkpoint_bytes", "bytes", 29.4e6, (29.0e6, 29.8e6), 31.2e6),
            build_actual("adapter_bytes", "bytes", 9.79e6, None, 9.81e6),
        ),
        "findings": (
            Finding(
                name="still_learning",
                level="warning",
                text="Validation loss still fell at the last step",
                number="0.012 nats per token in 5 steps",
                advice="Another epoch may help.",
                link="docs/findings.md#learned",
            ),
            Finding(
                name="no_overfitting",
                level="good",
                text="The best validation loss is the last one",
                number="0.117 nats per token",
                advice=None,
            ),
        ),
        "evaluation": build_evaluation(),
    }
    return Evidence(**(content | changes))


def build_actual(
    quantity: str, unit: str, predicted: float | None, interval: tuple[float, float] | None, actual: float | None
) -> Actual:
    return Actual(
        quantity=quantity, unit=unit, predicted=predicted, interval=interval, actual=actual, source="events.jsonl"
    )


def build_verification(passed: bool = True) -> Verification:
    return Verification(
        passed=passed,
        checks=(
            Check(
                name="reload",
                passed=True,
                number="largest difference 0",
                limit="1e-5",
                text="Logits at the end of training against logits of the saved adapter, loaded again",
            ),
            Check(
                name="merged",
                passed=passed,
                number="largest difference 0.031",
                limit="0.05",
                text="Logits of adapter on base against the merged model",
            ),
            Check(
                name="changes_output",
                passed=True,
                number="47 of 48 answers differ",
                limit="at least 1",
                text="Answers of the base against answers with the adapter",
            ),
        ),
        seconds=12.3,
    )


def build_artifact(passed: bool = True) -> Artifact:
    return Artifact(
        kind="adapter",
        method="lora",
        adapter="adapter",
        model=None,
        base="embedded",
        license="apache-2.0",
        files={"adapter/adapter_config.json": sha("c1"), "adapter/adapter_model.safetensors": sha("a7")},
        verification=build_verification(passed),
        lineage=Lineage(
            job=sha("0b"),
            facts=sha("fa"),
            plan=sha("f0"),
            base_weights=sha("b1"),
            data=sha("d1"),
            chat_template=sha("7e"),
        ),
    )


@pytest.fixture
def plan() -> Plan:
    return build_plan()


@pytest.fixture
def golden() -> Path:
    return Path(__file__).parents[1] / "golden" / "report"
