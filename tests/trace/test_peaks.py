"""Peaks against facts that can be computed by hand."""

from typing import Any

import pytest

from rankwise.trace.peaks import trace
from rankwise.trace.run import cublas_workspace, run_step
from tests.trace.families import LAYERS, VOCAB, setup

BLOCK = 512
WORKSPACES = 2 * cublas_workspace("gpu-8.0")
WIDE: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3}
SHORT: dict[str, Any] = {"per_device_train_batch_size": 1, "max_length": 8}
CKPT: dict[str, Any] = {"gradient_checkpointing": True}


def whole_blocks(sizes: list[int]) -> int:
    return sum(-(-size // BLOCK) * BLOCK for size in sizes)


# -- optimizers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optim", "copies"),
    [
        ("adamw_torch", 5),  # weights, gradients, two states, and the square root of one that foreach makes
        ("adamw_torch_fused", 4),  # one kernel, no temporary
        ("sgd", 2),
    ],
)
def test_full_fine_tuning_in_bf16_holds_so_many_copies(optim: str, copies: int) -> None:
    found = trace(setup(config=WIDE, optim=optim, **SHORT))
    assert found.peak_phase == "optimizer" or optim == "sgd"
    rest = found.peak_allocated - WORKSPACES - copies * 2 * found.total_params
    parameters = 9 * 3 + 3
    # RoPE's frequencies, the batch and gradient norms: at most three scalars of a block for each parameter
    assert 0 <= rest <= (3 * parameters + 16) * BLOCK
    if optim == "adamw_torch":
        assert rest < 16 * BLOCK
        assert found.peak_op == "aten._foreach_sqrt"


def test_an_adapter_parameter_costs_16_bytes() -> None:
    """PEFT keeps adapters of a 16-bit base in fp32: weight, gradient and two states of 4 bytes each."""
    of = setup("llama", "lora", config=WIDE, r=16, target_modules="all-linear")
    run = run_step(of, 3)
    births, alive = run.recording.births, set()
    found: list[int] = []
    for event in run.recording.events:
        (alive.add if event.birth else alive.remove)(event.key)
        if event.phase == "optimizer":
            kept = [births[k] for k in alive]
            trained = [b for b in kept if b.kind in ("gradients", "optimizer") or b.op == "trained parameter"]
            found.append(sum(b.bytes for b in trained))
    assert max(found) == 16 * run.trainable_params
    assert run.trainable_params == 3 * 16 * (2 * (256 + 256) + 2 * (256 + 128) + 3 * (256 + 512))


def test_8_bit_states_take_two_bytes_a_parameter() -> None:
    full, eight = (trace(setup(config=WIDE, optim=name, **SHORT)) for name in ("adamw_torch", "adamw_bnb_8bit"))
    weights = 2 * full.total_params
    states = eight.resident - (full.resident - 2 * weights)
    quantised = full.total_params - 7 * 256  # norms are below bitsandbytes' 4096 elements: fp32 states
    expected = 2 * quantised + 2 * 4 * 7 * 256 + 2 * 4 * quantised // 256  # and an fp32 scale for 256 of each state
    assert states == pytest.approx(expected, rel=0.02)  # code tables, rounding to blocks


# -- losses ----------------------------------------------------------------------------------------

ROWS, LENGTH = 2, 64
MOVED = (LENGTH - 1) / LENGTH  # a shifted copy lacks the last position of every row
LOSSES = [
    ("full-logits", "today", 14.0),  # held by the loop 2; backward: log-probabilities 4, their gradient 4, the next 4
    ("upcast-logits", "4.48", 2 + 4 + (4 + 4) * MOVED),  # the caller's, fp32, its shifted copy, log-probabilities
    ("upcast-logits", "4.45", 4 + (4 + 4) * MOVED),  # without the caller's
    ("shifted-logits", "4.48", 2 + (2 + 2) * MOVED),  # all of it in 16 bit
    ("shifted-logits", "4.45", 2 + (2 + 4 + 4) * MOVED),  # the Trainer's flag: cross-entropy raises its input
    ("fast-ce", "4.48", 2 + 4 + 4 * MOVED),  # no log-probabilities
    ("fast-ce", "4.45", 4 + 4 * MOVED),
    ("fused-linear", "4.48", 0.0),  # a chunk's logits at a time
    ("chunked", "today", 8.0),  # all 16 bit: held, log-probabilities, their gradient, the next
    ("labelled", "today", 8.0),  # 16-bit logits and gradient, and the fp32 of a few rows: here of all
]


@pytest.mark.parametrize(("loss", "stack", "expected"), LOSSES)
def test_bytes_a_logit(loss: str, stack: str, expected: float) -> None:
    """From two sizes of vocabulary, beside the 16-bit head that grows along."""
    small, large = 8192, 16384
    peaks = []
    for vocab in (small, large):
        config = {"num_hidden_layers": 1, "vocab_size": vocab, "tie_word_embeddings": True}
        of = setup("llama", "lora", loss=loss, stack=stack, config=config, max_length=LENGTH)
        peaks.append(trace(of).peak_allocated)
    head = 2 * 64 * (large - small)
    assert (peaks[1] - peaks[0] - head) / (ROWS * LENGTH * (large - small)) == expected


def test_labelled_logits_shrink_with_their_share() -> None:
    config = {"num_hidden_layers": 1, "vocab_size": 16384, "tie_word_embeddings": True}
    all_, half = (
        trace(setup("llama", "lora", loss="labelled", labelled_share=share, config=config, max_length=LENGTH))
        for share in (1.0, 0.5)
    )
    logits = ROWS * LENGTH * 16384
    assert all_.peak_allocated - half.peak_allocated == pytest.approx(8 * logits / 2, rel=0.02)


# -- sums and orders -------------------------------------------------------------------------------

MATRIX: list[tuple[str, str, dict[str, Any]]] = [
    ("llama", "full", {}),
    ("llama", "qlora", {"kbit_upcast": True, **CKPT}),
    ("mistral", "lora", {"parallel": "fsdp", "world_size": 2, "attn_implementation": "flash"}),
    ("gemma2", "full", {"gradient_accumulation_steps": 2}),
    ("gpt2", "lora", {"target_modules": ("c_attn",)}),
    ("llama", "full", {"parallel": "zero2", "world_size": 2}),
    ("llama", "full", {"device": "cpu", "dtype": "fp32"}),
]


@pytest.mark.parametrize(("family", "method", "options"), MATRIX)
def test_buckets_and_orders(family: str, method: str, options: dict[str, Any]) -> None:
    found = trace(setup(family, method, **options))
    buckets = found.buckets.model_dump()
    assert sum(buckets.values()) == found.peak_allocated
    assert min(buckets.values()) >= 0
    assert found.resident <= found.peak_allocated <= found.peak_reserved
    assert 0 < found.trainable_params <= found.total_params
    assert all(count > 0 for count in found.flops.values())
    assert (found.merge_peak is None) == (method == "full")
    if "gradient_checkpointing" not in options:
        assert found.eval_peak is not None
        assert found.eval_peak < found.peak_allocated


@pytest.mark.parametrize("method", ["full", "qlora"])
def test_more_rows_or_tokens_never_need_less(method: str) -> None:
    few = {"num_hidden_layers": 2}
    rows = [trace(setup("llama", method, config=few, per_device_train_batch_size=n)).peak_allocated for n in (1, 2, 8)]
    tokens = [trace(setup("llama", method, config=few, max_length=n)).peak_allocated for n in (16, 32, 128)]
    assert rows == sorted(rows)
    assert tokens == sorted(tokens)
    assert rows[0] < rows[-1]
    assert tokens[0] < tokens[-1]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "opt"])
def test_checkpointing_never_raises_the_peak(family: str) -> None:
    """Of a long full fine-tuning step, where activations make the peak. With a large vocabulary and few layers the
    peak is in the loss, before any layer is computed again, and checkpointing only takes away.
    """
    plain, checkpointed = (trace(setup(family, max_length=128, gradient_checkpointing=on)) for on in (False, True))
    assert checkpointed.peak_allocated < plain.peak_allocated
    assert checkpointed.flops["forward"] == plain.flops["forward"]
    assert checkpointed.flops["backward"] > plain.flops["backward"]


def test_the_forward_arithmetic_is_two_operations_a_weight_and_token() -> None:
    found = trace(setup(attn_implementation="flash"))
    tokens, size = 2 * 32, 64
    matrices = found.total_params - VOCAB * size - (2 * LAYERS + 1) * size  # no products with embeddings and norms
    attention = LAYERS * 2 * tokens * 32 * size  # 2 causal products of length^2 / 2, 2 a multiply-add
    assert found.flops["forward"] == 2 * matrices * tokens + attention


def test_a_frozen_base_needs_no_weight_gradients() -> None:
    full, lora = (trace(setup("llama", method, r=None if method == "full" else 4)) for method in ("full", "lora"))
    assert lora.flops["backward"] < 0.75 * full.flops["backward"]
    assert lora.buckets.gradients < full.total_params * 2 / 5
