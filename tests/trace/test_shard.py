"""What a rank of a data-parallel group holds: against torch's own FSDP, and against what sharding must mean."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoConfig, AutoModelForCausalLM

from rankwise.records.setup import Setup
from rankwise.trace.layers import NO_LAYER
from rankwise.trace.meter import TRAINED, Recording
from rankwise.trace.peaks import trace
from rankwise.trace.run import run_step
from rankwise.trace.shard import shard
from tests.trace.families import FAMILIES, setup

LAYERS = 3
SMALL: dict[str, Any] = {"config": {"num_hidden_layers": LAYERS}, "attn_implementation": "flash"}
CKPT: dict[str, Any] = {"gradient_checkpointing": True}
HIDDEN = 2 * 32 * 64 * 2  # bytes of one hidden state: rows, tokens, width, bf16


def recorded(of: Setup) -> Recording:
    return shard(run_step(of).recording, of)


def balance(recording: Recording) -> set[int]:
    """Keys alive at the end; every key is born once and dies at most once, after its birth."""
    seen: set[int] = set()
    alive: set[int] = set()
    for event in recording.events:
        if event.birth:
            assert event.key not in seen
            seen.add(event.key)
            alive.add(event.key)
        else:
            alive.remove(event.key)
    assert len(seen) == len(recording.births)
    return alive


SHARDED = ["none", "ddp", "zero1", "zero2", "zero3", "fsdp"]


@pytest.mark.parametrize("parallel", SHARDED)
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("full", {}),
        ("full", {"gradient_accumulation_steps": 2, **CKPT}),
        ("lora", {"stack": "4.48", **CKPT}),
        ("qlora", {"autocast": "bf16"}),
    ],
)
def test_births_and_deaths_balance(parallel: str, method: str, options: dict[str, Any]) -> None:
    recording = recorded(setup("llama", method, parallel=parallel, world_size=3, **SMALL, **options))
    left = [recording.births[key] for key in balance(recording)]
    assert {b.kind for b in left} <= {"weights", "optimizer", "gradients", "workspace", "activations"}
    assert not [b for b in left if b.op in ("all-gather", "reduce-scatter", "fp32 gradient partition")]
    assert not [b for b in left if b.kind == "activations" and b.phase != "load"]
    assert {b.op for b in left if b.kind == "gradients"} <= {"DDP bucket", "reduce bucket"}


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_one_rank_is_not_sharded(parallel: str) -> None:
    alone = trace(setup("llama", **SMALL))
    assert trace(setup("llama", parallel=parallel, world_size=1, **SMALL)) == alone


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize("parallel", ["fsdp", "zero3"])
def test_shares_add_up(parallel: str, ranks: int) -> None:
    """All ranks together hold every parameter once, but for less than a rank's count of bytes for each tensor."""
    whole = recorded(setup("llama", **SMALL))
    share = recorded(setup("llama", parallel=parallel, world_size=ranks, **SMALL))
    own, parts = ([b.bytes for b in r.births if b.op == TRAINED] for r in (whole, share))
    assert len(own) == len(parts)
    assert sum(own) <= ranks * sum(parts) < sum(own) + ranks * len(own)


def test_zero_stages_shard_more_and_more() -> None:
    traces = [trace(setup("llama", parallel=p, world_size=8, **SMALL)) for p in ("ddp", "zero1", "zero2", "zero3")]
    zero = traces[1:]
    assert [t.resident for t in zero] == sorted((t.resident for t in zero), reverse=True)
    assert zero[2].resident < traces[0].resident
    gradients = [t.buckets.gradients for t in zero]
    assert gradients[1] <= gradients[0]


@pytest.mark.parametrize("parallel", ["zero1", "zero2", "zero3"])
def test_offload_takes_from_the_device(parallel: str) -> None:
    kept, optimizer, everything = (
        trace(setup("llama", parallel=parallel, world_size=2, offload=o, **SMALL)) for o in ("none", "optimizer", "all")
    )
    assert optimizer.buckets.optimizer == 0 < kept.resident - optimizer.resident
    assert everything.resident < optimizer.resident
    assert everything.peak_allocated < optimizer.peak_allocated <= kept.peak_allocated


def test_zero_keeps_12_bytes_a_trained_parameter() -> None:
    """DeepSpeed: fp32 master weight and two fp32 states, split; 16-bit weights whole up to stage 2."""
    ranks = 4
    recording = recorded(setup("llama", parallel="zero2", world_size=ranks, **SMALL))
    total = sum(b.bytes for b in recording.births if b.op == TRAINED) // 2
    states = [recording.births[k] for k in balance(recording) if recording.births[k].kind == "optimizer"]
    assert sum(b.bytes for b in states) == pytest.approx(12 * total / ranks, rel=1e-3)


# -- FSDP ------------------------------------------------------------------------------------------


def test_a_layer_is_gathered_while_it_runs() -> None:
    recording = recorded(setup("llama", parallel="fsdp", world_size=2, **SMALL))
    gathered: set[int] = set()
    layers: Counter[int] = Counter()
    for event in recording.events:
        birth = recording.births[event.key]
        if birth.op == "all-gather" and birth.layer != NO_LAYER:
            (gathered.add if event.birth else gathered.remove)(event.key)
            layers[birth.layer] += event.birth
            assert len(gathered) <= 1
    assert not gathered
    assert layers == dict.fromkeys(range(LAYERS), 5)  # forward and backward of two steps, and an evaluation


@pytest.mark.parametrize("layers", [3, 6])
def test_reentrant_checkpointing_of_frozen_layers_holds_every_border(layers: int) -> None:
    """A layer's recomputed output and the gradient that comes in stay to the end of backward at every border between
    two layers: 2 x (layers - 1) hidden states, where today's checkpointing holds none.
    """
    held = []
    for stack in ("today", "4.48"):
        options = SMALL | {"config": {"num_hidden_layers": layers}, "stack": stack, "loss": "upcast-logits"}
        recording = recorded(setup("llama", "lora", parallel="fsdp", world_size=2, **options, **CKPT))
        late = [
            recording.births[e.key].bytes
            for e in recording.events
            if not e.birth and e.phase == "backward" and e.layer == NO_LAYER != recording.births[e.key].layer
        ]
        late = [size for size in late if size == HIDDEN]
        held.append(sum(late) // 2)  # of two steps
    assert held[1] - held[0] == 2 * (layers - 1) * HIDDEN


@pytest.fixture
def two_ranks() -> Iterator[None]:
    """A process group whose collectives move nothing: this process is rank 0 of 2."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_fsdp_holds_what_torchs_fully_shard_holds(family: str, two_ranks: None) -> None:
    """Bytes of parameters, gradients and states on one rank, exactly: torch shards by rows, and all divide by two."""
    given = FAMILIES[family] | {"num_hidden_layers": 2}
    config = AutoConfig.for_model(given["model_type"], **{k: v for k, v in given.items() if k != "model_type"})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    mesh = init_device_mesh("cpu", (2,))
    stack = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    for layer in [*stack, model]:
        fully_shard(layer, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = torch.zeros(2, 16, dtype=torch.int64)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()

    def local(tensors: Any) -> int:
        return sum(t.to_local().nbytes for t in tensors)

    real = {
        "weights": local(model.parameters()),
        "gradients": local(p.grad for p in model.parameters()),
        "optimizer": local(v for s in optimizer.state.values() for v in s.values() if v.dim()),
    }
    of = setup(family, parallel="fsdp", world_size=2, optim="adamw_torch", config={"num_hidden_layers": 2})
    recording = recorded(of)
    assert held_in_the_step(recording) == real


def held_in_the_step(recording: Recording) -> dict[str, int]:
    """Parameters, gradients and states in the second step: the most of each at a time in its optimizer phase."""
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for event in recording.events:
        birth = recording.births[event.key]
        kind = birth.kind if birth.kind != "weights" or birth.op == TRAINED else "other"
        now[kind] += birth.bytes if event.birth else -birth.bytes
        if event.phase == "optimizer":
            most |= now
    return {kind: most[kind] for kind in ("weights", "gradients", "optimizer")}
