"""Records built by hand, torch-free: a small machine, a small model, small data, and what follows from them."""

from pathlib import Path
from typing import Any

from rankwise.decide.choose import choose
from rankwise.decide.offers import Market
from rankwise.estimate.price import price_all
from rankwise.estimate.tracers import tracers
from rankwise.records import (
    Acted,
    AdapterVersion,
    Allowance,
    Arm,
    ArmResult,
    Artifact,
    Bakeoff,
    BenchmarkFailure,
    BenchmarkResult,
    Benchmarks,
    BenchmarkScore,
    Change,
    Check,
    Conclusion,
    Contrast,
    CurvePoint,
    DataFacts,
    Detectable,
    DeviceFacts,
    Diagnosis,
    EngineFit,
    Event,
    Exported,
    Facts,
    Failed,
    Finished,
    Gate,
    Job,
    Limits,
    Lineage,
    LinearShape,
    Measurement,
    Merge,
    MergedAdapter,
    MergedTensor,
    MethodChoice,
    ModelFacts,
    ModuleSpectrum,
    Note,
    Outcome,
    Parent,
    Past,
    PastArm,
    PastComparison,
    PastContrast,
    Plan,
    Price,
    Rehearsed,
    Said,
    Saved,
    Scores,
    Shrunk,
    Slice,
    SpectrumSeen,
    Started,
    Step,
    Stopped,
    Tariff,
    Tenant,
    Trial,
    TruncatedRank,
    Truncation,
    Validation,
    Verification,
    Watched,
    WatchedSet,
    Watching,
)
from rankwise.watch.spectra import sum_up

TIME = "2026-11-22T10:00:00.000+00:00"
GB = 1_000_000_000


def sha(letter: str) -> str:
    return letter * 64


# -- facts ---------------------------------------------------------------------------------------


def llama(
    *,
    name: str,
    layers: int,
    hidden: int,
    intermediate: int,
    kv: int,
    vocab: int,
    tied: bool,
    dtype: str = "bf16",
    positions: int = 8192,
) -> ModelFacts:
    """ModelFacts of a Llama from its shape; `kv` is the output width of k_proj and v_proj."""
    shapes = {
        "q_proj": (hidden, hidden),
        "k_proj": (kv, hidden),
        "v_proj": (kv, hidden),
        "o_proj": (hidden, hidden),
        "gate_proj": (intermediate, hidden),
        "up_proj": (intermediate, hidden),
        "down_proj": (hidden, intermediate),
    }
    linears = tuple(LinearShape(name=n, out_features=o, in_features=i, count=layers) for n, (o, i) in shapes.items())
    in_blocks = sum(s.out_features * s.in_features * s.count for s in linears)
    total = in_blocks + vocab * hidden * (1 if tied else 2) + hidden * (2 * layers + 1)
    return ModelFacts(
        name=name,
        folder=f"/models/{name}",
        architecture="LlamaForCausalLM",
        total_params=total,
        linears=linears,
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=intermediate,
        vocab_size=vocab,
        max_position_embeddings=positions,
        tie_word_embeddings=tied,
        dtype=dtype,
        weight_bytes=total * (4 if dtype == "fp32" else 2),
        config=llama_config(layers, hidden, intermediate, kv, vocab, tied, positions),
        weights_hash=sha("b"),
        template_hash=sha("c"),
        license="apache-2.0",
        source="built by hand",
    )


def llama_config(
    layers: int, hidden: int, intermediate: int, kv: int, vocab: int, tied: bool, positions: int
) -> dict[str, Any]:
    """config.json of a Llama whose heads are 64 wide."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": kv // 64,
        "head_dim": 64,
        "vocab_size": vocab,
        "max_position_embeddings": positions,
        "tie_word_embeddings": tied,
    }


def smollm2() -> ModelFacts:
    """SmolLM2-135M."""
    return llama(name="embedded", layers=30, hidden=576, intermediate=1536, kv=192, vocab=49_152, tied=True)


def tiny() -> ModelFacts:
    """A Llama of 0.8M parameters: its traces take a moment."""
    return llama(name="tiny", layers=2, hidden=128, intermediate=512, kv=64, vocab=2048, tied=True)


def llama3_8b() -> ModelFacts:
    return llama(name="llama-3-8b", layers=32, hidden=4096, intermediate=14_336, kv=1024, vocab=128_256, tied=False)


def data_facts(rows: int = 240, length: int = 91, **changes: Any) -> DataFacts:
    """Rows of one length, 42 % of their tokens labelled."""
    content: dict[str, Any] = {
        "format": "messages",
        "rows": rows,
        "tokens": rows * length,
        "supervised_tokens": round(rows * length * 0.42),
        "mean_length": float(length),
        "longest": length,
        "long_rows": 0,
        "dropped_rows": 0,
        "lost_supervised_tokens": 0,
        "length_histogram": ((128, rows),),
        "validation_rows": 48,
        "validation_tokens": 48 * length,
        "general_rows": 150,
        "general_supervised_per_row": 31.5,
        "facts": 32,
        "files": {"/clinic/train.jsonl": sha("d")},
        "source": "built by hand",
    }
    return DataFacts(**(content | changes))


def laptop(**changes: Any) -> DeviceFacts:
    content: dict[str, Any] = {
        "kind": "cpu",
        "name": "two cores",
        "count": 1,
        "cores": 2,
        "memory_bytes": 16 * GB,
        "available_bytes": 12 * GB,
        "bf16": True,
        "matmul_flops": {"bf16": 4.0e11, "fp32": 1.2e11},
        "matmul_measured": True,
        "compute_capability": None,
        "context_bytes": None,
        "disk_free_bytes": 100 * GB,
        "source": "built by hand",
    }
    return DeviceFacts(**(content | changes))


def a100(**changes: Any) -> DeviceFacts:
    content: dict[str, Any] = {
        "kind": "gpu",
        "name": "A100-80GB",
        "count": 1,
        "cores": None,
        "memory_bytes": 80 * (1 << 30),
        "available_bytes": None,
        "bf16": True,
        "matmul_flops": {"bf16": 312e12, "fp32": 19.5e12},
        "matmul_measured": False,
        "compute_capability": 8.0,
        "context_bytes": (414 << 20, 495 << 20, 569 << 20),
        "disk_free_bytes": None,
        "bandwidth": 2039e9,
        "link": "NVLink 3",
        "link_bytes_per_second": 300e9,
        "watts": 400.0,
        "price": Price(usd_per_hour=2.0, spot_usd_per_hour=1.0, source="built by hand"),
        "source": "built by hand",
    }
    return DeviceFacts(**(content | changes))


def facts(model: ModelFacts | None = None, data: DataFacts | None = None, device: DeviceFacts | None = None) -> Facts:
    return Facts(
        model=model or smollm2(),
        data=data or data_facts(),
        device=device or laptop(),
        tariff=tariff(),
        job_hash=sha("e"),
    )


def diagnosis(conclusion: str = "style", loss: float = 2.0, prompting: float | None = None) -> Diagnosis:
    """What `rankwise diagnose` would have measured."""

    def share(value: float | None) -> Measurement | None:
        if value is None:
            return None
        return Measurement(value=value, interval=(value - 0.1, value + 0.1), unit="share", items=40, source="by hand")

    return Diagnosis.model_validate(
        {
            "conclusion": conclusion,
            "behaviour": share(0.6),
            "knowledge": share(0.4),
            "prompting": share(prompting),
            "base_loss": Measurement(
                value=loss, interval=(loss - 0.1, loss + 0.1), unit="nats per token", items=900, source="by hand"
            ),
            "reasons": (),
            "conditions": ({"name": "zero-shot", "measurements": {}},),
            "examples": ({"question": "ready?", "answer": "yes"},),
            "rows": 40,
            "seconds": 9.0,
            "base_hash": None,
            "data_hash": sha("d"),
            "notes": (),
        }
    )


def tariff(**changes: Any) -> Tariff:
    content: dict[str, Any] = {"usd_per_gb_month": 0.02, "electricity_usd_per_kwh": None, "source": "built by hand"}
    return Tariff(**(content | changes))


# -- job and plan --------------------------------------------------------------------------------


def job(**changes: Any) -> Job:
    """A style job with everything the plan would otherwise ask for; `changes` replaces whole keys."""
    content: dict[str, Any] = {
        "name": "clinic",
        "goal": "instruction",
        "model": "embedded",
        "data": {
            "train": "/clinic/train.jsonl",
            "general": {"path": "/clinic/general.jsonl", "share": 0.05},
            "facts": "/clinic/facts.jsonl",
        },
        "format": {"regex": "yes|no"},
    }
    return Job.model_validate(content | changes)


def plan(wanted: Job | None = None, seen: Facts | None = None, market: Market | None = None) -> Plan:
    """The plan that `choose` makes with the real prices, traced in this process."""
    with tracers(0):
        return choose(wanted or job(), seen or facts(), price_all, market)


def facts_to_watch() -> Facts:
    """`facts` of a job that forgetting is watched in, on sets of the size of our own."""
    sets = (
        WatchedSet(name="general text", metric="general_loss", items=48, tokens=2800, labelled=2750, chance=None),
        WatchedSet(name="general questions", metric="choice", items=80, tokens=5200, labelled=800, chance=0.25),
    )
    seen = facts()
    return seen.model_copy(update={"data": seen.data.model_copy(update={"watched": sets})})


# -- events and what follows from them -----------------------------------------------------------


def started(at: int = 0, **changes: Any) -> Started:
    content: dict[str, Any] = {
        "time": TIME,
        "plan_hash": sha("f"),
        "step": at,
        "max_steps": 20,
        "trainable_params": 2_442_240,
        "total_params": 136_957_248,
        "world_size": 1,
        "threads": 2,
        "device": "cpu",
        "versions": {"python": "3.11"},
    }
    return Started(**(content | changes))


def step(n: int, **changes: Any) -> Step:
    content: dict[str, Any] = {
        "time": TIME,
        "step": n,
        "epoch": n / 10,
        "loss": 2.0 / n,
        "grad_norm": 1.0,
        "learning_rate": 1e-3,
        "tokens": 700,
        "supervised_tokens": 300,
        "seconds": 1.0,
    }
    return Step(**(content | changes))


def validation(n: int, loss: float, **changes: Any) -> Validation:
    content: dict[str, Any] = {"step": n, "loss": loss, "supervised_tokens": 1800, "seconds": 3.0}
    return Validation(time=TIME, **(content | changes))


def saved(n: int) -> Saved:
    return Saved(time=TIME, step=n, checkpoint=f"checkpoints/checkpoint-{n}", bytes=29_400_000, seconds=0.1, removed=())


def note(text: str = "0 rows are too long") -> Note:
    return Note(time=TIME, text=text)


def stopped(n: int) -> Stopped:
    return Stopped(time=TIME, step=n, reason="asked to stop")


def rehearsed() -> Rehearsed:
    return Rehearsed(
        time=TIME,
        accumulation_gap=0.0021,
        longest=(8, 118),
        checkpoint_bytes=29_400_000,
        peak_memory_bytes=None,
        seconds=5.1,
    )


def watched(n: int = 10, difference: float = 0.05) -> Watched:
    part = Slice(
        name="general text",
        metric="general_loss",
        unit="nats per token",
        items=40,
        baseline=2.9,
        value=2.9 + difference,
        difference=difference,
        interval=(difference - 0.01, difference + 0.01),
        level="amber",
    )
    return Watched(time=TIME, step=n, slices=(part,), level="amber", kl=0.02, seconds=1.5)


def acted(n: int = 10) -> Acted:
    return Acted(time=TIME, step=n, action="lower_lr", reason="general text is red", learning_rate_factor=1 / 3)


def spectrum(n: int = 10) -> SpectrumSeen:
    module = ModuleSpectrum(
        module="model.layers.0.self_attn.q_proj",
        rank=16,
        norm=0.4,
        norm_ratio=0.01,
        effective_rank=3.6,
        first_energy=0.5,
        intruders=1,
        condition_a=1.7,
        condition_b=12.0,
    )
    return SpectrumSeen(time=TIME, step=n, modules=(module,), seconds=0.3)


def watching(**changes: Any) -> Watching:
    """What `rankwise watch` says of an adapter; `changes` as fields."""
    events = [spectrum(5), spectrum(10)]
    cut = TruncatedRank(rank=4, loss=1.01, difference=0.01, interval=(0.0, 0.02), kept=0.99, kept_interval=(0.97, 1.0))
    truncation = Truncation(
        rows=20,
        full_rank=16,
        base_loss=2.0,
        full_loss=1.0,
        gain=1.0,
        gain_interval=(0.9, 1.1),
        ranks=(cut.model_copy(update={"rank": 1, "kept": 0.5, "kept_interval": (0.4, 0.6)}), cut),
        source="built by hand",
        seconds=2.0,
    )
    content: dict[str, Any] = {
        "folder": "outputs",
        "kind": "trainer",
        "method": "lora",
        "step": 10,
        "base": "/models/base",
        "matched": "by name and shape",
        "spectrum": sum_up(events),
        "no_spectrum": None,
        "modules": events[-1].modules,
        "comparisons": (),
        "truncation": truncation,
        "shrunk": Shrunk(folder="smaller", rank=4, adapter_bytes=1_000_000, passed=True),
        "findings": (),
        "notes": ("one note",),
        "seconds": 1.0,
    }
    return Watching(**(content | changes))


def failed() -> Failed:
    return Failed(time=TIME, what="loss is not finite", expected="a number", fix="lower the learning rate")


def finished(n: int = 20, **changes: Any) -> Finished:
    content = {"step": n, "peak_memory_bytes": GB}
    return Finished(time=TIME, **(content | changes))  # type: ignore[arg-type]


def whole_run(steps: int = 20) -> list[Event]:
    """An unbroken run that learned: validation and save every five steps."""
    events: list[Event] = [note(), started(), validation(0, 2.5)]
    for n in range(1, steps + 1):
        events.append(step(n))
        if n % 5 == 0:
            events += [validation(n, 2.0 / n), saved(n)]
    return [*events, finished(steps)]


def merge(**changes: Any) -> Merge:
    """Of a QLoRA run."""
    values: dict[str, Any] = {
        "how": "sum",
        "density": None,
        "seed": None,
        "base": "/models/base",
        "base_hash": sha("b"),
        "stored_as": "nf4",
        "rounding": "stochastic",
        "adapters": (MergedAdapter(path="/runs/first/adapter", sha256=sha("a"), weight=1.0),),
        "copied": 5,
        "changed": tuple(
            MergedTensor(
                tensor=f"model.layers.{n}.self_attn.q_proj.weight",
                changes=("dequantised nf4", "s B A"),
                delta_norm=1.5 * (n + 1),
                quantisation_error=2.0,
            )
            for n in range(3)
        ),
        "largest_tensor_bytes": 262_144_000,
        "bytes": 14_483_464_192,
        "seconds": 40.0,
    }
    return Merge(**{**values, **changes})


def artifact() -> Artifact:
    proof = Verification(
        passed=True,
        checks=({"name": "reload", "passed": True, "number": "0", "limit": "1e-5", "text": "equal"},),  # type: ignore[arg-type]
        seconds=1.5,
    )
    return Artifact(
        kind="adapter",
        method="lora",
        adapter="adapter",
        model=None,
        base="embedded",
        license="apache-2.0",
        files={"adapter/adapter_model.safetensors": sha("a")},
        verification=proof,
        lineage=Lineage(
            job=sha("e"),
            facts=sha("1"),
            plan=sha("2"),
            base_weights=sha("b"),
            data=sha("d"),
            chat_template=None,
            parent=Parent(kind="adapter", folder="/runs/first/adapter", weights=sha("a"), lineage=None),
        ),
    )


def benchmark_score(outcomes: tuple[float, ...] = (1.0, 0.0), **changes: Any) -> BenchmarkScore:
    """As lm-evaluation-harness would score these items."""
    content: dict[str, Any] = {
        "task": "small_arc",
        "metric": "acc",
        "filter": "none",
        "unit": "share",
        "value": sum(outcomes) / len(outcomes) if outcomes else 0.5,
        "stderr": 0.05,
        "interval": None,
        "higher_is_better": True,
        "items": len(outcomes) or 100,
        "limit": None,
        "num_fewshot": 0,
        "chat_template": False,
        "seed": 1234,
        "version": "1.0",
        "data_hash": sha("d"),
        "harness": "0.4.13",
        "aggregation": "mean",
        "outcomes": outcomes,
        "weights": (1.0,) * len(outcomes),
        "subtasks": {},
    }
    return BenchmarkScore(**(content | changes))


def benchmarks(*results: BenchmarkResult) -> Benchmarks:
    """What `rankwise eval --tasks` would have found."""
    if not results:
        base, tuned = benchmark_score(), benchmark_score((1.0, 1.0))
        results = (
            BenchmarkResult(
                base=base, tuned=tuned, difference=0.5, interval=(-0.1, 0.9), answer="cannot tell", source="paired"
            ),
        )
    failed = BenchmarkFailure(task="mmlu", what="the dataset cais/mmlu is not here", expected="it", fix="fetch it")
    return Benchmarks(results=results, failures=(failed,), notes=("small_arc: a warning",), seconds=75.0)


# -- files ---------------------------------------------------------------------------------------


def write_job(folder: Path, text: str = "goal: task\nmodel: embedded\ndata: {train: rows.jsonl}\n") -> Path:
    """job.yaml with `text`, and the data file that it names."""
    folder.mkdir(parents=True, exist_ok=True)
    turns = '{"messages": [{"role": "user", "content": "ready %d?"}, {"role": "assistant", "content": "yes"}]}\n'
    (folder / "rows.jsonl").write_text("".join(turns % n for n in range(20)))
    path = folder / "job.yaml"
    path.write_text(text)
    return path


def bakeoff() -> Bakeoff:
    """What a comparison of the base and an adapter is planned to be."""
    trained = Arm(name="lora:r=8", kind="trained", method=MethodChoice(name="lora", r=8))
    untrained = Arm(name="base", kind="base", method=None)
    decided = plan()
    allowance = Allowance(
        arm=trained,
        config=decided.verdict.config,
        step_flops=1e12,
        step_seconds=1.5,
        steps=20,
        sweep_steps=5,
        learning_rates=(3e-4, 1e-3, 3e-3),
        flops=5.5e13,
        training_seconds=82.5,
        evaluation_seconds=40.0,
        interval=(90.0, 180.0),
        peak_memory=2e9,
        stored_bytes=1e7,
    )
    answered = Allowance(
        arm=untrained,
        config=None,
        step_flops=None,
        step_seconds=None,
        steps=0,
        sweep_steps=0,
        learning_rates=(),
        flops=0.0,
        training_seconds=0.0,
        evaluation_seconds=20.0,
        interval=(10.0, 40.0),
        peak_memory=None,
        stored_bytes=None,
    )
    least = Detectable(metric="format", unit="share", items=48, difference=0.2, source="worst case of a paired share")
    return Bakeoff(
        job=job(),
        job_hash=sha("a"),
        base_hash=sha("b"),
        unit="minutes",
        budget=8.0,
        seeds=(0, 1),
        allowances=(answered, allowance),
        detectable=(least,),
        notes=("retrieval: no facts are given",),
    )


def trial(arm: str = "lora:r=8", seed: int = 0, values: tuple[float, ...] = (1.0, 0.0), **changes: Any) -> Trial:
    """One finished run of an arm; `values` are its scores on format."""
    scores = Scores(metric="format", unit="share", side="style", higher_is_better=True, values=values)
    said = Said(prompt="p", expected="e", answer="a", ok=True, side="style")
    return Trial(
        **{
            "arm": arm,
            "purpose": "final",
            "seed": seed,
            "learning_rate": 1e-3,
            "steps": 20,
            "flops": 2e13,
            "tokens": 4000,
            "training_seconds": 30.0,
            "evaluation_seconds": 12.0,
            "peak_memory": 2e9,
            "stored_bytes": 10**7,
            "trainable_params": 10**6,
            "chosen_by": 0.3,
            "curve": (CurvePoint(step=0, flops=0.0, seconds=0.0, loss=2.0),),
            "scores": (scores,),
            "answers": (said,),
            "notes": (),
            **changes,
        }
    )


def outcome() -> Outcome:
    """What a comparison of two arms found."""
    contrast = Contrast(
        metric="format",
        unit="share",
        side="style",
        first="lora:r=8",
        second="base",
        difference=0.9,
        interval=(0.8, 0.97),
        adjusted=(0.75, 0.98),
        p_value=0.001,
        answer="better",
        items=48,
        seeds=2,
        more_items=None,
        source="paired bootstrap, seeds as clusters",
    )
    result = ArmResult(
        arm="lora:r=8",
        learning_rate=1e-3,
        at_the_edge=False,
        means={"format": 0.9},
        intervals={"format": (0.8, 0.97)},
        flops=2e13,
        seconds=30.0,
        peak_memory=2e9,
        stored_bytes=1e7,
    )
    conclusion = Conclusion(side="style", metric="format", best=("lora:r=8",), text="lora:r=8 is best for style.")
    return Outcome(
        bakeoff_hash=sha("c"),
        results=(result,),
        contrasts=(contrast,),
        conclusions=(conclusion,),
        verdict="lora:r=8 is best for style.",
        spent_flops=2e13,
        spent_seconds=60.0,
        spent_usd=None,
        notes=(),
    )


def adapter_version(tenant: str = "clinic", version: int = 1, **changes: Any) -> AdapterVersion:
    """A proven adapter of rank 8 that met its one requirement."""
    met = Gate(requirement="facts>=0.5", name="facts", comparison=">=", limit=0.5, value=0.7, unit="share", met=True)
    return AdapterVersion.model_validate(
        {
            "tenant": tenant,
            "version": version,
            "method": "lora",
            "rank": 8,
            "bytes": 3_700_000,
            "sha256": f"{version:064d}",
            "base": "embedded",
            "base_hash": sha("b"),
            "template_hash": sha("d"),
            "artifact_hash": sha("e"),
            "gates": (met,),
            "added": "2026-11-23T10:00:00+00:00",
            **changes,
        }
    )


def tenant(name: str = "clinic", versions: int = 2, active: int | None = 1) -> Tenant:
    """A tenant with one key whose first version answers."""
    known = tuple(adapter_version(name, number) for number in range(1, versions + 1))
    return Tenant(name=name, active=active, versions=known, limits=Limits(requests_per_minute=60), keys=1)


def change() -> Change:
    return Change(at="2026-11-23T10:00:00+00:00", tenant="clinic", action="promoted", version=2, before=1)


def exported() -> Exported:
    """A merged model as GGUF, read back."""
    check = Check(
        name="gguf_text", passed=True, number="the same template", limit="as in the model", text="Read again."
    )
    return Exported(
        form="gguf",
        folder="runs/clinic/export/gguf",
        files=("Modelfile", "clinic-bf16.gguf"),
        bytes=270_000_000,
        predicted_bytes=271_000_000,
        checks=(check,),
        notes=("The chat template knows no system message.",),
    )


def engine_fit() -> EngineFit:
    """An adapter whose rank is too large."""
    check = Check(name="rank", passed=False, number="r = 1024", limit="at most 512", text="The largest rank.")
    return EngineFit(
        engine="vllm",
        source="vLLM 0.32.0",
        form="adapter",
        loads=False,
        options=(),
        checks=(check,),
        advice=("cut it",),
    )


def past_contrast(
    answer: str = "better", side: str = "style", first: str = "full", second: str = "lora:r=8", seeds: int = 3
) -> PastContrast:
    """Two arms of an earlier comparison, twelve points apart."""
    sign = {"better": 1, "worse": -1, "cannot tell": 1}[answer]
    low = -0.02 if answer == "cannot tell" else 0.03
    return PastContrast.model_validate(
        {
            "metric": {"style": "format", "facts": "stated", "task": "exact_match"}[side],
            "unit": "share",
            "side": side,
            "first": first,
            "second": second,
            "difference": sign * 0.12,
            "interval": sorted((sign * low, sign * 0.21)),
            "answer": answer,
            "seeds": seeds,
        }
    )


def past_comparison(*contrasts: PastContrast, **changes: Any) -> PastComparison:
    """What was found of LoRA and full fine-tuning on the base of `smollm2`, for jobs like `job`."""
    arms = (
        PastArm(name="base", method=None, r=None, learning_rate=None, tried=1, at_the_edge=False, steps=0),
        PastArm(name="lora:r=8", method="lora", r=8, learning_rate=7e-4, tried=3, at_the_edge=False, steps=40),
        PastArm(name="full", method="full", r=None, learning_rate=4e-5, tried=3, at_the_edge=True, steps=30),
    )
    return PastComparison(
        **{
            "at": "2026-11-23T10:00:00.000+00:00",
            "folder": "/runs/compare-clinic",
            "model": "embedded",
            "base_hash": smollm2().weights_hash or sha("b"),
            "goal": job().goal,
            "domain": None,
            "unit": "minutes",
            "budget": 8.0,
            "seeds": 3,
            "arms": arms,
            "contrasts": contrasts or (past_contrast(),),
            "bakeoff_hash": sha("c"),
            "rankwise_version": "0.0.0",
            **changes,
        }
    )


def past(*found: PastComparison, elsewhere: tuple[str, ...] = (), unreadable: int = 0) -> Past:
    """All that is on file, seen from a job on the base of `smollm2`."""
    return Past(here=found or (past_comparison(),), elsewhere=elsewhere, unreadable=unreadable)
