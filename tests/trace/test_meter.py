"""The meter sees each storage once, says where it was made, and counts what torch's own tracker counts."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker

from rankwise.trace.layers import NO_LAYER, Layers
from rankwise.trace.meter import TRAINED, Meter, Recording, launched, named
from rankwise.trace.peaks import peak_of
from rankwise.trace.run import run_step
from rankwise.trace.stream import Stream
from tests.trace.families import VOCAB, setup


def live(recording: Recording) -> int:
    return sum(recording.births[e.key].bytes * (1 if e.birth else -1) for e in recording.events)


def test_views_and_changes_in_place_are_no_births() -> None:
    meter = Meter(0)
    with meter:
        a = torch.empty(4, 8, device="meta")
        b = a.view(8, 4).t()[1:]
        a.mul_(2)
        a += 1
        c = a.contiguous()
    assert [b.bytes for b in meter.recording.births] == [128]
    assert live(meter.recording) == 128
    del a, b
    assert live(meter.recording) == 128  # c is the same storage
    del c
    assert live(meter.recording) == 0


def test_what_autograd_saves_lives_until_backward() -> None:
    meter = Meter(0)
    x = torch.empty(16, 16, device="meta", requires_grad=True)
    meter.see(x, "weights")
    with meter:
        loss = x.exp().exp().sum()  # exp keeps its result
        assert live(meter.recording) == 3 * 1024 + 4
        loss.backward()
        del loss
        assert live(meter.recording) == 2 * 1024  # x and its gradient
        x.grad = None
    assert live(meter.close()) == 1024


def test_other_devices_and_empty_tensors_do_not_count() -> None:
    meter = Meter(0)
    with meter:
        kept = [torch.ones(8), torch.empty(0, device="meta"), torch.empty(2, device="meta")]
    assert [b.bytes for b in meter.close().births] == [8]
    assert len(kept) == 3


def test_labels_phases_and_flops() -> None:
    meter = Meter(VOCAB)
    with meter:
        with meter.during("forward"), named("stand-in"):
            logits = torch.empty(2, VOCAB, device="meta")
            launched(attention=7)
        with meter.during("backward"):
            product = torch.mm(torch.empty(3, 4, device="meta"), torch.empty(4, 5, device="meta"))
    first, *_, last = meter.close().births
    assert (first.kind, first.phase, first.op) == ("logits", "forward", "stand-in")
    assert (last.kind, last.phase, last.op) == ("workspace", "backward", "aten.mm")
    assert meter.recording.flops == {("forward", NO_LAYER): 7, ("backward", NO_LAYER): 2 * 3 * 4 * 5}
    assert (logits.shape[0], product.shape) == (2, (3, 5))


def test_nothing_counts_outside() -> None:
    launched(attention=1)
    with named("nobody listens"):
        assert torch.empty(2, device="meta").shape == (2,)
    assert Meter.active is None


def test_layers_by_name() -> None:
    model = nn.ModuleDict({"layers": nn.ModuleList(nn.Linear(2, 2) for _ in range(3)), "head": nn.Linear(2, 2)})
    layers = Layers(model, 3)
    names = ("layers.0.weight", "layers.2.bias", "head.weight", "layersX.1.weight")
    assert [layers.of_name(name) for name in names] == [0, 2, NO_LAYER, NO_LAYER]
    with pytest.raises(LookupError, match="no list of 4"):
        Layers(model, 4)


# -- a whole step ----------------------------------------------------------------------------------

COUNT = 5
STEPS: list[dict[str, Any]] = [
    {},
    {"gradient_checkpointing": True},
    {"gradient_checkpointing": True, "stack": "4.48", "loss": "upcast-logits"},
    {"attn_implementation": "eager", "gradient_accumulation_steps": 2},
]


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("options", STEPS, ids=["plain", "checkpointing", "reentrant", "accumulation"])
def test_backward_belongs_to_layers(method: str, options: dict[str, Any]) -> None:
    """Each layer's gradients are made in that layer's part of backward, and alike layers make alike tensors."""
    recording = run_step(setup("llama", method, **options), COUNT).recording
    parameters = Counter(b.layer for b in recording.births if b.op == TRAINED)
    gradients = Counter(b.layer for b in recording.births if b.kind == "gradients")
    assert gradients == Counter({layer: 2 * n for layer, n in parameters.items()})  # of two steps
    assert {layer for layer in parameters if layer != NO_LAYER} == set(range(COUNT))
    for phase in ("forward", "backward", "eval"):
        made = [
            Counter((b.bytes, b.op) for b in recording.births if b.phase == phase and b.layer == i)
            for i in range(1, COUNT - 1)
        ]
        assert made[0] == made[1] == made[2]
        assert sum(made[0].values()) > 10
    if options.get("gradient_checkpointing"):
        work = [recording.flops["backward", i] / recording.flops["forward", i] for i in range(1, COUNT - 1)]
        # computed again (today's variant stops before the last product), then at least one product for each
        assert min(work) > 1.6


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_after_a_step_only_the_model_and_its_states_are_left(method: str) -> None:
    recording = run_step(setup("llama", method), 2).recording
    alive: set[int] = set()
    for event in recording.events:
        (alive.add if event.birth else alive.remove)(event.key)
    left = Counter(recording.births[key].kind for key in alive)
    assert left["gradients"] == left["logits"] == 0
    assert left["activations"] == 3  # the batch: ids, positions with a label, targets
    assert left["workspace"] == 2  # cuBLAS
    assert left["optimizer"] == 2 * sum(b.op == TRAINED for b in recording.births)


# -- against torch's own tracker -------------------------------------------------------------------


def mlp() -> tuple[nn.Module, torch.optim.Optimizer, Tensor]:
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.LayerNorm(256), nn.Linear(256, 64))
    return model, torch.optim.AdamW(model.parameters(), foreach=False), torch.ones(32, 64)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    model(x).pow(2).mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_a_real_step_on_the_cpu_is_what_torchs_memtracker_counts() -> None:
    model, optimizer, x = mlp()
    tracker = MemTracker()
    tracker.track_external(model, optimizer, x)
    with tracker:
        step(model, optimizer, x)
    (peak,) = tracker.get_tracker_snapshot("peak").values()
    (current,) = tracker.get_tracker_snapshot("current").values()
    model, optimizer, x = mlp()
    meter = Meter(0, device="cpu")
    meter.see_weights(model)
    meter.see(x, "activations")
    with meter:
        step(model, optimizer, x)
    recording = meter.close()
    assert peak_of(Stream.of(recording), ("load",), 1).bytes == peak["Total"]
    assert live(recording) == current["Total"]
