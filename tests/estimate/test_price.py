"""Prices: sums add up, bounds hold, more never costs less, unknown stays unknown, units are right."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.decide.configure import Rung, configure
from rankwise.decide.recipes import BY_NAME
from rankwise.estimate.configure import configure as configure_options
from rankwise.estimate.efficiency import efficiency_source
from rankwise.estimate.memory import NCCL_BYTES, PROCESS_BYTES, process_bytes, residual_of
from rankwise.estimate.options import typed
from rankwise.estimate.price import price, price_all, price_configuration, setup_of
from rankwise.estimate.traced import traced
from rankwise.methods import NF4_BITS
from rankwise.methods.lora import lora_params
from rankwise.records import Candidate, Configuration, DeviceFacts, Estimate, Facts, Job, ModelFacts, TrainConfig
from tests import builders

WORLDS = {
    "small model, cpu": builders.facts(),
    "small model, cpu without bf16": builders.facts(device=builders.laptop(bf16=False)),
    "8B on an A100": builders.facts(builders.llama3_8b(), builders.data_facts(5000, 512), builders.a100()),
}
METHOD_NAMES = ("full", "lora", "qlora")  # of every family that is priced by its own formulas
every_method = pytest.mark.parametrize("method", METHOD_NAMES)
every_world = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
few = settings(max_examples=8, deadline=None)  # each example is traced, which takes about a second


def config(facts: Facts, method: str, checkpointing: bool = False, **changes: Any) -> TrainConfig:
    made = configure(builders.job(), facts, BY_NAME[method], Rung(gradient_checkpointing=checkpointing))
    return made.model_copy(update=changes)


def candidate(facts: Facts, method: str, **changes: Any) -> Candidate:
    return Candidate(id=method, recipe=method, method=method, parallel="none", config=config(facts, method, **changes))


def priced(facts: Facts, method: str, job: Job | None = None, **changes: Any) -> Estimate:
    return price(job or builders.job(), facts, candidate(facts, method, **changes))


# -- sums and bounds -----------------------------------------------------------------------------


@every_world
@every_method
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_peak_is_the_sum_of_its_parts(world: Facts, method: str, checkpointing: bool) -> None:
    memory = priced(world, method, checkpointing=checkpointing).memory
    parts = (memory.weights, memory.gradients, memory.optimizer, memory.activations, memory.logits, memory.workspace)
    assert min(parts) >= 0 < memory.weights
    assert memory.peak_allocated == sum(parts)
    reserved = memory.peak_reserved if world.device.kind == "gpu" else memory.peak_allocated
    assert reserved is not None and reserved >= memory.peak_allocated
    passing = memory.activations + memory.logits + memory.workspace
    kept = passing if world.device.kind == "cpu" else 0
    assert memory.peak_device == reserved + process_bytes(world.device, 1) + kept
    assert memory.peak_phase in ("load", "forward", "backward", "optimizer") and memory.peak_op
    assert memory.eval_peak is not None and memory.eval_peak < memory.peak_allocated


def test_a_process_takes_its_context_and_with_others_its_collectives() -> None:
    assert process_bytes(builders.laptop(), 1) == process_bytes(builders.laptop(), 8) == PROCESS_BYTES
    assert process_bytes(builders.a100(), 1) == 495 << 20
    assert process_bytes(builders.a100(), 8) == (495 << 20) + NCCL_BYTES
    estimate = priced(builders.facts(device=builders.a100(context_bytes=None)), "lora")
    assert any("CUDA context" in note for note in estimate.notes)


@every_world
@every_method
def test_an_interval_holds_its_number_and_decides_what_fits(world: Facts, method: str) -> None:
    estimate = priced(world, method)
    low, high = estimate.memory.interval
    residual = residual_of(world.device.kind, method)
    assert low == estimate.memory.peak_device * (1 + residual["low"]) < estimate.memory.peak_device < high
    assert high == estimate.memory.peak_device * (1 + residual["high"])
    assert estimate.memory.fits == (high <= estimate.memory.capacity)
    low, high = estimate.time.interval or (0, 0)
    assert low < (estimate.time.train_seconds or 0) < high


@every_method
@pytest.mark.parametrize(("spare", "fits"), [(0, True), (-1, False)])
def test_what_fits_turns_at_the_upper_end(method: str, spare: int, fits: bool) -> None:
    high = priced(WORLDS["small model, cpu"], method).memory.interval[1]
    device = builders.laptop(memory_bytes=int(-(-high // 1)) + spare)
    assert priced(builders.facts(device=device), method).memory.fits == fits


@every_world
@every_method
def test_counts_and_names_agree(world: Facts, method: str) -> None:
    estimate = priced(world, method)
    assert (estimate.id, estimate.method, estimate.model) == (method, method, world.model.name)
    chosen = candidate(world, method).config
    declared = world.model.total_params if method == "full" else lora_params(world.model, chosen.r or 0, "all-linear")
    assert estimate.trainable_params == declared
    added = 0 if method == "full" else estimate.trainable_params
    assert estimate.total_params == world.model.total_params + added
    groups = {"memory", "time", "money", "storage", "serving"}
    assert set(estimate.sources) == groups | {"device", "interval"}
    assert all(estimate.sources.values())
    assert estimate.sources["interval"] == residual_of(world.device.kind, method)["source"]


@every_method
def test_storage_and_serving_add_up(method: str) -> None:
    estimate = priced(builders.facts(), method, builders.job(variants=5))
    storage, serving = estimate.storage, estimate.serving
    assert storage.run_bytes > 3 * storage.checkpoint_bytes
    base = builders.smollm2().weight_bytes
    if method == "full":
        assert storage.adapter_bytes is None and storage.checkpoint_bytes == 12 * 134_515_008
        assert serving.all_variants_bytes == 5 * base == 5 * serving.per_variant_bytes
    else:
        header = (storage.adapter_bytes or 0) - 4 * estimate.trainable_params
        assert 0 < header < 200 * 2 * 7 * 30  # of 420 tensors
        assert storage.checkpoint_bytes == 12 * estimate.trainable_params + header
        assert serving.per_variant_bytes == 2 * estimate.trainable_params  # a server holds adapters in 16 bit
        assert serving.all_variants_bytes == base + 5 * serving.per_variant_bytes


# -- unknown stays unknown -----------------------------------------------------------------------


@every_method
def test_without_a_matmul_rate_time_and_money_are_unknown(method: str) -> None:
    estimate = priced(builders.facts(device=builders.a100(matmul_flops={})), method)
    time = estimate.time
    assert (time.tokens_per_second, time.step_seconds, time.train_seconds, time.interval) == (None,) * 4
    assert (estimate.money.train_usd, estimate.money.interval) == (None, None)
    assert time.flops_per_token > 0 and time.flops.forward > 0
    assert (time.step, time.relative, time.load_seconds) == (None, None, None)
    assert estimate.velocity.turnaround_seconds is None


@every_method
def test_without_a_price_money_is_unknown_and_time_is_not(method: str) -> None:
    estimate = priced(builders.facts(device=builders.laptop()), method)
    assert estimate.money.train_usd is None and estimate.time.train_seconds is not None


@every_method
def test_money_is_seconds_times_price_times_devices(method: str) -> None:
    one = priced(builders.facts(device=builders.a100()), method)
    four = priced(builders.facts(device=builders.a100(count=4)), method, max_steps=10)
    assert one.money.train_usd == pytest.approx((one.time.train_seconds or 0) / 3600 * 2.0)
    assert four.money.train_usd == pytest.approx((four.time.train_seconds or 0) / 3600 * 2.0 * 4)


# -- more never costs less -----------------------------------------------------------------------

methods = st.sampled_from(METHOD_NAMES)
small = st.sampled_from([1, 2, 5, 16])


@few
@given(methods, st.booleans(), small, small)
def test_a_larger_batch_takes_more_memory_and_time(method: str, checkpointing: bool, batch: int, more: int) -> None:
    facts = builders.facts()
    one, other = (
        priced(facts, method, checkpointing=checkpointing, per_device_train_batch_size=b, gradient_accumulation_steps=1)
        for b in (batch, batch + more)
    )
    if method == "full":  # its optimizer step can be the peak, whatever the batch
        assert one.memory.peak_device <= other.memory.peak_device
    else:
        assert one.memory.peak_device < other.memory.peak_device
    assert (one.time.step_seconds or 0) < (other.time.step_seconds or 0)


@few
@given(methods, st.booleans(), st.sampled_from([8, 100, 1000]), st.sampled_from([1, 50, 3000]))
def test_longer_rows_take_more_memory_and_time(method: str, checkpointing: bool, length: int, more: int) -> None:
    one, other = (
        priced(
            builders.facts(data=builders.data_facts(length=n)),
            method,
            checkpointing=checkpointing,
            max_length=8192,
            per_device_train_batch_size=1,
        )
        for n in (length, length + more)
    )
    assert one.memory.peak_device <= other.memory.peak_device
    assert (one.time.step_seconds or 0) < (other.time.step_seconds or 0)


@few
@given(st.sampled_from(["lora", "qlora"]), st.sampled_from([1, 8, 60]), st.sampled_from([1, 30, 100]))
def test_a_higher_rank_takes_more_of_everything(method: str, rank: int, more: int) -> None:
    one, other = (priced(builders.facts(), method, r=r) for r in (rank, rank + more))
    assert one.trainable_params < other.trainable_params
    assert one.memory.peak_device < other.memory.peak_device
    assert one.storage.run_bytes < other.storage.run_bytes
    assert (one.time.step_seconds or 0) < (other.time.step_seconds or 0)


@few
@given(methods, st.integers(1, 10**6), st.integers(1, 10**6))
def test_more_rows_never_take_less_time_at_the_same_batch(method: str, rows: int, more: int) -> None:
    batch = {"gradient_accumulation_steps": 8, "per_device_train_batch_size": 1}
    job = builders.job(train=batch, method={"name": "lora", "r": 8})
    times = []
    for n in (rows, rows + more):
        facts = builders.facts(data=builders.data_facts(n, supervised_tokens=38 * n))
        chosen = configure(job, facts, BY_NAME[method], Rung())
        made = Candidate(id=method, recipe=method, method=method, parallel="none", config=chosen)
        times.append(price(job, facts, made).time.train_seconds or 0)
    assert times[0] <= times[1]


@every_method
@pytest.mark.parametrize(("batch", "length"), [(1, 500), (16, 91)])
def test_recomputation_trades_memory_for_time(method: str, batch: int, length: int) -> None:
    facts = builders.facts(data=builders.data_facts(length=length))
    plain, again = (priced(facts, method, checkpointing=c, per_device_train_batch_size=batch) for c in (False, True))
    assert again.memory.activations < plain.memory.activations or again.memory.peak_phase == "optimizer"
    assert again.memory.peak_device <= plain.memory.peak_device
    assert (again.time.step_seconds or 0) > (plain.time.step_seconds or 0)


@every_world
def test_four_bits_take_less_memory_than_sixteen_and_adapters_less_than_everything(world: Facts) -> None:
    full, lora, qlora = (priced(world, m).memory.peak_device for m in ("full", "lora", "qlora"))
    assert qlora < lora < full


# -- what a configuration says beside its step ------------------------------------------------------


def asked(**said: object) -> Configuration:
    config = builders.llama_config(2, 512, 1408, 256, 32_000, False, 2048)
    return configure_options(typed({"model": "small", "batch": 4, "seq_len": 128, "examples": 1000, **said}), config)


def test_a_plan_and_a_configuration_price_the_same_step_alike() -> None:
    every_token = builders.data_facts(240, 91, supervised_tokens=240 * 91)
    facts = builders.facts(data=every_token, device=builders.a100())
    made = candidate(facts, "lora", lora_dropout=0.0)
    config = made.config
    said = {
        "model": "embedded",
        "rank": config.r,
        "alpha": config.lora_alpha,
        "batch": config.per_device_train_batch_size,
        "grad_accum": config.gradient_accumulation_steps,
        "seq_len": 91,
        "dtype": config.dtype,
        "autocast": config.autocast or "none",
        "optimizer": config.optim,
        "targets": config.target_modules,
        "loss": "labelled",
    }
    by_plan = price(builders.job(), facts, made)
    by_options = price_configuration(
        configure_options(typed(said), facts.model.config), facts.device, builders.tariff()
    )
    assert by_options.trainable_params == by_plan.trainable_params
    assert by_options.total_params == by_plan.total_params
    assert by_options.time.flops == by_plan.time.flops
    assert by_options.time.step == by_plan.time.step is not None


def test_candidates_priced_together_are_priced_as_alone() -> None:
    facts, job = builders.facts(), builders.job()
    candidates = [candidate(facts, method) for method in METHOD_NAMES]
    assert price_all(job, facts, candidates) == [price(job, facts, c) for c in candidates]


def test_the_steps_of_a_run_follow_from_its_rows() -> None:
    device = builders.a100(count=2)
    one = price_configuration(asked(gpus=2, grad_accum=2, epochs=3.0), device, builders.tariff()).time
    twice = price_configuration(asked(gpus=2, grad_accum=2, epochs=6.0), device, builders.tariff()).time
    assert one.step_seconds == twice.step_seconds
    # 188 steps of 16 rows, and 375
    assert (twice.train_seconds or 0) - (one.train_seconds or 0) == pytest.approx((375 - 188) * (one.step_seconds or 0))
    unknown = price_configuration(asked(examples=None), builders.a100(), builders.tariff())
    assert unknown.time.step_seconds is not None and unknown.time.train_seconds is None
    assert unknown.money.train_usd is None and unknown.velocity.turnaround_seconds is None


def test_an_adapter_that_can_be_merged_has_the_seconds_of_it() -> None:
    lora, prompt, full = (
        price_configuration(asked(method=m), builders.laptop(), builders.tariff()) for m in ("lora", "prompt", "full")
    )
    assert (lora.time.merge_seconds or 0) > 0
    assert prompt.time.merge_seconds is None and full.time.merge_seconds is None


def test_the_source_of_time_says_how_it_was_found() -> None:
    gpu = price_configuration(asked(), builders.a100(), builders.tariff())
    assert efficiency_source() in gpu.sources["time"]
    cpu = price_configuration(asked(gpu="cpu"), builders.laptop(), builders.tariff())
    assert "measured matmul rate" in cpu.sources["time"] and "factor of two" in cpu.sources["time"]


def test_what_a_device_cannot_do_is_noted() -> None:
    def notes(device: DeviceFacts, **said: object) -> str:
        return "\n".join(price_configuration(asked(**said), device, builders.tariff()).notes)

    turing = builders.a100(name="T4", compute_capability=7.5, bf16=False, matmul_flops={"fp16": 65e12, "fp32": 8e12})
    assert "no bf16 arithmetic" in notes(turing) and "no bf16" not in notes(turing, dtype="fp16")
    assert "FlashAttention 2" in notes(turing, dtype="fp16", attn="flash")
    assert "network between nodes" in notes(builders.a100(count=4), gpus=2, nodes=2, parallel="ddp")
    assert "network" not in notes(builders.a100(count=2), gpus=2, parallel="ddp")


# -- units ---------------------------------------------------------------------------------------


def weights(model: ModelFacts, device: DeviceFacts, method: str) -> int:
    facts = builders.facts(model, device=device)
    return traced(setup_of(facts, candidate(facts, method))).buckets.weights


def test_the_weights_of_llama3_8b_have_their_published_bytes() -> None:
    model, device = builders.llama3_8b(), builders.a100()
    adapter = 4 * 8 * 2_621_440
    norms_and_blocks = 2_000_000  # small tensors rounded up to 512 bytes; rotary frequencies
    assert weights(model, device, "lora") == pytest.approx(2 * 8_030_261_248 + adapter, abs=norms_and_blocks)
    assert weights(model, device, "full") == pytest.approx(4 * 8_030_261_248, abs=norms_and_blocks)
    embedding = 8_030_261_248 - model.linear_params
    quantised = round(NF4_BITS / 8 * model.linear_params) + 2 * embedding + adapter
    assert weights(model, device, "qlora") == pytest.approx(quantised, abs=norms_and_blocks)


def test_full_fine_tuning_keeps_weights_gradient_and_two_moments_in_fp32() -> None:
    world = WORLDS["8B on an A100"]
    memory = priced(world, "full").memory
    assert memory.weights == pytest.approx(4 * 8_030_261_248, rel=1e-4)
    assert memory.optimizer == pytest.approx(2 * memory.weights, rel=1e-3)
    assert memory.gradients + memory.activations + memory.logits > 0


def test_flops_follow_the_six_n_rule() -> None:
    facts = builders.facts(builders.llama3_8b(), builders.data_facts(1000, 128), builders.a100())
    full, lora = (priced(facts, m).time for m in ("full", "lora"))
    assert full.flops_per_token / builders.llama3_8b().linear_params == pytest.approx(6.0, rel=0.1)
    assert full.flops_per_token / lora.flops_per_token == pytest.approx(1.5, rel=0.05)
    assert full.flops.backward == pytest.approx(2 * full.flops.forward, rel=0.02)


def test_rows_shorter_than_the_longest_cost_in_proportion() -> None:
    even = builders.facts(data=builders.data_facts(length=200))
    mixed = builders.facts(data=builders.data_facts(length=200, mean_length=50.0))
    changes = {"max_length": 200, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    one, other = (priced(f, "lora", **changes) for f in (even, mixed))
    assert one.memory == other.memory
    attention = 2 * traced(setup_of(even, candidate(even, "lora", **changes))).work["forward"].attention_flops
    whole = one.time.flops.forward
    assert 0 < attention < 0.1 * whole
    assert other.time.flops.forward == pytest.approx((whole - attention) / 4 + attention / 16)


def test_two_cores_train_the_embedded_model_at_the_speed_seen() -> None:
    """Runs of docs/log.md: rows of 93 tokens at 803 GFLOP/s."""
    device = builders.laptop(matmul_flops={"bf16": 803e9, "fp32": 187e9})
    facts = builders.facts(data=builders.data_facts(320, 93), device=device)
    for method, rows, seen in (("lora", 1, 329), ("lora", 4, 495), ("full", 4, 412), ("qlora", 4, 507)):
        estimate = priced(facts, method, per_device_train_batch_size=rows, gradient_accumulation_steps=8 // rows)
        assert estimate.time.tokens_per_second == pytest.approx(seen, rel=0.21), (method, rows)


def test_adamw_updates_the_embedded_model_in_a_quarter_of_a_second() -> None:
    with_update = priced(builders.facts(), "full", gradient_accumulation_steps=1).time
    device = builders.laptop(matmul_flops={"bf16": 1e30})
    update_alone = priced(builders.facts(device=device), "full").time.step_seconds
    assert update_alone == pytest.approx(0.24, abs=0.005)
    assert (with_update.step_seconds or 0) > update_alone


def test_the_total_rate_counts_every_device() -> None:
    same = {"max_steps": 5, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    one, four = (priced(builders.facts(device=builders.a100(count=n)), "lora", **same).time for n in (1, 4))
    assert four.tokens_per_second == pytest.approx(4 * (one.tokens_per_second or 0))
    assert four.step_seconds == pytest.approx(one.step_seconds)
