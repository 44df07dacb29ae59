"""Serving N variants: bytes against published files, GPUs against counting by hand, and what may never happen."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.estimate.kvcache import cache_of
from rankwise.estimate.serving import (
    PENALTY,
    TYPICAL_PENALTY,
    UTILISATION,
    estimate_serving,
    served_bytes,
    serving_notes,
    slot_bytes,
)
from rankwise.observe.catalogue import find_architecture
from rankwise.records import CostOptions, DeviceFacts, LinearShape, ModelFacts, ServingEstimate, Setup
from tests import builders

GIB = 1 << 30


def llama2(layers: int, hidden: int, intermediate: int) -> ModelFacts:
    return builders.llama(
        name="llama-2", layers=layers, hidden=hidden, intermediate=intermediate, kv=hidden, vocab=32_000, tied=False
    )


LLAMA2_7B, LLAMA2_13B = llama2(32, 4096, 11_008), llama2(40, 5120, 13_824)


def setup(method: str = "lora", r: int | None = 16, model: str = "llama-3-8b") -> Setup:
    found = find_architecture(model)
    assert found is not None
    return Setup(
        config=found.config,
        method=method,
        r=None if method == "full" else r,
        dtype="bf16",
        per_device_train_batch_size=1,
        max_length=8,
    )


def served(
    method: str = "lora",
    *,
    facts: ModelFacts | None = None,
    device: DeviceFacts | None = None,
    asked: Setup | None = None,
    usd_per_hour: float | None = 2.0,
    host: float | None = 25e9,
    r: int = 16,
    **options: Any,
) -> ServingEstimate:
    """Llama-3-8B with LoRA on all linear layers, on an A100-80GB."""
    facts = facts or builders.llama3_8b()
    per_rank = sum((s.in_features + s.out_features) * s.count for s in facts.linears)
    return estimate_serving(
        asked or setup(method, r),
        trainable=facts.total_params if method == "full" else r * per_rank,
        base_params=facts.total_params,
        linears=facts.linears,
        adapter_file_bytes=None,
        device=device or builders.a100(),
        options=CostOptions(**options),
        usd_per_hour=usd_per_hour,
        host_bytes_per_second=host,
    )


# -- bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("group", "gigabytes"), [(128, 7.26), (64, 7.51), (32, 8.00)])
def test_gptq_has_the_size_of_published_files(group: int, gigabytes: float) -> None:
    """TheBloke/Llama-2-13B-GPTQ on the Hub: AutoGPTQ's files also hold an index for each input and empty biases."""
    found = served_bytes(LLAMA2_13B.total_params, LLAMA2_13B.linears, "gptq", group)
    extras = sum((4 * s.in_features + 2 * s.out_features) * s.count for s in LLAMA2_13B.linears)
    assert round((found + extras) / 1e9, 2) == pytest.approx(gigabytes, abs=0.011)
    assert extras < 0.002 * found


def test_bits_of_a_quantised_weight() -> None:
    one = (LinearShape(name="w", out_features=4096, in_features=4096, count=1),)
    bits = {f: served_bytes(4096**2, one, f) * 8 / 4096**2 for f in ("bf16", "fp8", "awq", "gptq", "nf4")}
    assert (bits["bf16"], bits["awq"], bits["gptq"]) == (16, 4.15625, 4.15625)
    assert bits["fp8"] == 8 + 16 / 4096
    assert bits["nf4"] == pytest.approx(4.127, abs=5e-4)


def test_embeddings_head_and_norms_stay_in_16_bit() -> None:
    facts = builders.llama3_8b()
    sizes = {f: served_bytes(facts.total_params, facts.linears, f) / 1e9 for f in ("bf16", "fp8", "awq", "nf4")}
    assert {name: round(size, 2) for name, size in sizes.items()} == {
        "bf16": 16.06,
        "fp8": 9.08,
        "awq": 5.73,
        "nf4": 5.7,
    }


def test_ten_variants_of_a_7b_model_are_140_gb_of_copies_or_some_15_gb() -> None:
    """The lesson's example, with r=16 on q, v and on all seven: science says 14.5 to 16 GB."""
    facts = LLAMA2_7B
    full = served("full", facts=facts, variants=10, asked=setup("full", model="llama-2-7b"))
    assert round(full.all_variants_bytes / 1e9) == 135 == round((full.copies_bytes or 0) / 1e9)  # 6.74e9 x 2 x 10
    for r in (16, 64):
        shared = served(facts=facts, variants=10, r=r, asked=setup("lora", r, model="llama-2-7b"))
        assert 13.5 < shared.all_variants_bytes / 1e9 < 17
        assert shared.all_variants_bytes == shared.base_bytes + 10 * shared.per_variant_bytes
        assert shared.copies_bytes == full.all_variants_bytes


def test_an_adapter_is_16_bit_where_vllm_serves_it_and_as_saved_elsewhere() -> None:
    assert served("lora").per_variant_bytes == 2 * 41_943_040
    assert served("dora").per_variant_bytes == 4 * 41_943_040


def test_a_slot_has_vllms_rank_and_all_linear_layers() -> None:
    linears = builders.llama3_8b().linears
    assert slot_bytes(setup(r=16), linears, 0) == 2 * 16 * 2_621_440
    assert slot_bytes(setup(r=9), linears, 0) == 2 * 16 * 2_621_440
    assert slot_bytes(setup(r=600), linears, 7) == 7  # no such slot: as large as the adapter


# -- GPUs -----------------------------------------------------------------------------------------


def test_gpus_of_an_a100_counted_by_hand() -> None:
    """Llama-3-8B: 16.06 GB, 131,072 B of cache a token; 80 GiB x 0.9 = 77.3 GB hold four copies with a conversation
    each, or one base with all.
    """
    found = served(variants=12, concurrency=12, context=4096)
    assert found.kv_cache_bytes_per_token == 131_072
    assert found.kv_cache_bytes == 12 * 4096 * 131_072
    assert (found.gpus, found.copies_gpus) == (1, 3)
    assert found.usd_per_month == pytest.approx(2.0 * 730)
    assert found.copies_usd_per_month == pytest.approx(3 * 2.0 * 730)
    assert found.break_even_variants == 5
    assert served("full", variants=12, concurrency=12).gpus == 3


def test_the_penalty_keeps_more_conversations_open() -> None:
    """240 conversations of 4,096 tokens are 129 GB and fit beside one base on two GPUs; unmerged adapters serve the
    same requests with 362 open, 194 GB.
    """
    merged, unmerged = (served(variants=n, slots=2, concurrency=240, context=4096) for n in (1, 2))
    assert pytest.approx(0.336, abs=1e-3) == TYPICAL_PENALTY and PENALTY[0] < TYPICAL_PENALTY < PENALTY[1]
    assert (merged.gpus, unmerged.gpus) == (2, 3)
    assert merged.unmerged_penalty == (0.0, 0.0) and unmerged.unmerged_penalty == PENALTY


def test_a_model_larger_than_a_gpu_takes_several_for_each_copy() -> None:
    facts = builders.llama(
        name="llama-3-70b", layers=80, hidden=8192, intermediate=28_672, kv=1024, vocab=128_256, tied=False
    )
    found = served(facts=facts, variants=3, asked=setup(model="llama-3-70b"))
    assert (found.gpus, found.copies_gpus) == (3, 6)  # 13 open conversations are 17 GB beside 141
    assert found.break_even_variants == 2
    assert served(facts=facts, variants=3, asked=setup(model="llama-3-70b"), serving_format="awq").copies_gpus == 3


def test_break_even_is_the_first_number_from_which_adapters_are_cheaper() -> None:
    edge = served(variants=2).break_even_variants
    assert edge is not None
    for n in range(2, 3 * edge):
        found = served(variants=n)
        assert found.gpus is not None and found.copies_gpus is not None
        assert (found.copies_gpus > found.gpus) >= (n >= edge)
    before = served(variants=edge - 1)
    assert before.copies_gpus is not None and before.gpus is not None and before.copies_gpus <= before.gpus


@given(
    st.integers(1, 200),
    st.integers(1, 64),
    st.integers(1, 32_768),
    st.sampled_from(["bf16", "fp8", "awq", "nf4"]),
    st.sampled_from([16, 24, 40, 80]),
)
def test_nothing_overflows_a_gpu_and_more_never_takes_less(
    variants: int, concurrency: int, context: int, form: str, size: int
) -> None:
    def of(**changes: Any) -> ServingEstimate:
        asked = {"variants": variants, "concurrency": concurrency, "context": context, "zipf": 1.0, "slots": variants}
        return served(device=builders.a100(memory_bytes=size * GIB), serving_format=form, **(asked | changes))

    found = of()
    assert found.gpus is not None and found.copies_gpus is not None and found.kv_cache_bytes is not None
    room = UTILISATION * size * GIB
    assert found.gpus * room >= found.base_bytes + found.kv_cache_bytes
    assert found.copies_gpus * room >= (found.copies_bytes or 0)
    longer = of(context=2 * context)
    assert (longer.gpus or 0) >= found.gpus and (longer.copies_gpus or 0) >= found.copies_gpus
    busier = of(concurrency=concurrency + 8)
    assert (busier.gpus or 0) >= found.gpus and (busier.copies_gpus or 0) >= found.copies_gpus


# -- slots ----------------------------------------------------------------------------------------


def test_slots_are_simulated_for_several_tenants() -> None:
    found = served(variants=100, slots=8, zipf=1.0).slots
    assert found is not None and 0.2 < found.hit_rate < 0.6
    assert found.miss_seconds == pytest.approx(2 * 41_943_040 / 25e9)
    assert served(variants=1).slots is None and served("full", variants=9).slots is None
    all_fit = served(variants=5, slots=8).slots
    assert all_fit is not None and (all_fit.slots, all_fit.hit_rate) == (5, 1.0)


# -- unknown stays unknown ------------------------------------------------------------------------


def test_without_a_price_gpus_are_counted_and_money_is_unknown() -> None:
    found = served(variants=12, usd_per_hour=None)
    assert found.gpus == 1 and found.break_even_variants is not None
    assert found.usd_per_month is None is found.copies_usd_per_month


def test_without_a_link_a_miss_has_no_price() -> None:
    slots = served(variants=100, host=None).slots
    assert slots is not None and slots.miss_seconds is None


def test_an_unknown_cache_leaves_gpus_unknown() -> None:
    strange = setup().model_copy(update={"config": {"model_type": "somebody's own"}})
    found = served(variants=4, asked=strange)
    assert (found.kv_cache_bytes_per_token, found.kv_cache_bytes, found.gpus, found.copies_gpus) == (None,) * 4
    assert found.usd_per_month is None is found.break_even_variants
    assert found.all_variants_bytes > found.base_bytes > 0
    hybrid = find_architecture("jamba-v0.1")
    assert hybrid is not None and cache_of(hybrid.config) is not None
    state = served(variants=4, asked=setup(model="jamba-v0.1"))
    assert state.kv_cache_bytes_per_token is not None and state.kv_cache_bytes is None is state.gpus


def test_what_vllm_cannot_serve_unmerged_has_no_penalty_and_no_gpus() -> None:
    found = served("dora", variants=4)
    assert (found.gpus, found.unmerged_penalty, found.break_even_variants, found.slots) == (None,) * 4
    assert found.copies_gpus is not None  # merged, each is a copy


def test_notes_say_why_something_is_unknown() -> None:
    strange = setup().model_copy(update={"config": {"model_type": "somebody's own"}})
    assert "somebody's own" in serving_notes(strange, served(asked=strange), CostOptions())[0]
    hybrid = setup(model="jamba-v0.1")
    assert "state" in serving_notes(hybrid, served(asked=hybrid), CostOptions())[0]
    assert "dora" in serving_notes(setup("dora"), served("dora", variants=3), CostOptions(variants=3))[0]
    many = served(variants=500, slots=2, concurrency=64)
    assert "slots" in serving_notes(setup(), many, CostOptions(variants=500))[0]
    assert serving_notes(setup(), served(variants=4), CostOptions(variants=4)) == []


def test_on_a_cpu_there_are_no_gpus_to_count() -> None:
    found = served(variants=4, device=builders.laptop())
    assert (found.gpus, found.copies_gpus, found.break_even_variants) == (None,) * 3
    assert found.kv_cache_bytes is not None
