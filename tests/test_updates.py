"""Stochastic rounding, and a library's optimizer on one parameter at a time."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rankwise.records import TrainConfig
from rankwise.train.optimizers import hugging_faces, make_optimizer
from rankwise.updates import CHUNK, OneByOne, stochastic_round
from tests.tiny import tiny_config

RATES = {1e-6: 0.98, 1e-5: 0.84, 1e-4: 0.12}  # evidence E30: share of Adam's updates that bf16 rounds away


def weights(seed: int = 0, rows: int = 400) -> Tensor:
    """Of standard deviation 0.02, as language models have them."""
    return torch.randn(rows, 512, generator=torch.Generator().manual_seed(seed)).mul_(0.02).bfloat16()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rounded_once(start: Tensor, rate: float, *, by_chance: bool) -> Tensor:
    """Weights after one step of AdamW whose every update is the rate, or its opposite."""
    p = nn.Parameter(start.clone())
    config = tiny_config("full", learning_rate=rate, dtype="bf16", bf16_stochastic_round=by_chance)
    optimizer = make_optimizer(holding(p), config)
    p.grad = torch.ones_like(p)
    optimizer.step()
    return p.detach()


def holding(*parameters: nn.Parameter) -> nn.Module:
    module = nn.Module()
    for n, p in enumerate(parameters):
        module.register_parameter(f"weight{n}", p)
    return module


@pytest.mark.parametrize("rate", RATES)
def test_rounding_to_the_nearest_loses_small_updates_and_chance_keeps_their_mean(rate: float) -> None:
    start = weights()
    plain, chance = (rounded_once(start, rate, by_chance=by) for by in (False, True))
    assert float((plain == start).float().mean()) == pytest.approx(RATES[rate], abs=0.03)
    moved = (chance.double() - start.double()).mean()
    step = start.abs().double().mean() * 2**-8  # a bound on what one weight is rounded by
    assert float(moved) == pytest.approx(-rate, abs=4 * float(step) / start.numel() ** 0.5)


def test_the_mean_of_many_roundings_is_the_number() -> None:
    number = 1.0 + 0.3 * 2**-7
    found = stochastic_round(torch.full((200_000,), number), seeded(0)).double()
    assert set(found.tolist()) == {1.0, 1.0 + 2**-7}
    assert float(found.mean()) == pytest.approx(number, abs=4 * 0.46 * 2**-7 / 200_000**0.5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_bf16_holds_is_left_alone(sign: float) -> None:
    held = weights().float().mul_(sign)
    assert torch.equal(stochastic_round(held.clone(), seeded(0)).float(), held)


def test_what_is_not_finite_stays_so() -> None:
    nan = torch.tensor([0x7FFFFFFF, 0x7FC00000, -1], dtype=torch.int32).view(torch.float32)
    assert stochastic_round(nan, seeded(0)).isnan().all()
    ends = torch.tensor([float("inf"), float("-inf")])
    assert torch.equal(stochastic_round(ends.clone(), seeded(0)).float(), ends)


def test_many_small_steps_arrive_where_fp32_does() -> None:
    """256 steps of 1e-5 against a weight of 0.02, which bf16 holds in steps of 6e-5 or 1.2e-4."""
    start = torch.full((64, 64), 0.02).bfloat16()
    found = {}
    for by_chance in (False, True):
        p = nn.Parameter(start.clone())
        config = tiny_config("full", learning_rate=1e-5, dtype="bf16", bf16_stochastic_round=by_chance)
        optimizer = make_optimizer(holding(p), config)
        for _ in range(256):
            p.grad = torch.ones_like(p)
            optimizer.step()
        found[by_chance] = float(p.detach().double().mean() - start.double().mean())
    assert found[False] == 0.0
    assert found[True] == pytest.approx(-256e-5, rel=0.02)


def test_a_second_moment_decays_that_the_nearest_would_hold_up() -> None:
    """Adam's second moment falls by 0.1 % a step, which is below half a step of bf16."""
    after: dict[bool, float] = {}
    for by_chance in (False, True):
        p = nn.Parameter(torch.zeros(64, 64, dtype=torch.bfloat16))
        config = tiny_config("full", learning_rate=1e-5, dtype="bf16", bf16_stochastic_round=by_chance)
        optimizer = make_optimizer(holding(p), config)
        for step in range(301):
            p.grad = torch.full_like(p, 0.0 if step else 1.0)
            optimizer.step()
        after[by_chance] = float(optimizer.state[p]["exp_avg_sq"].double().mean()) / 1e-3
    assert after[False] == pytest.approx(1.0, abs=0.01)
    assert after[True] == pytest.approx(0.999**300, abs=0.02)


def test_parts_of_a_large_parameter_are_updated_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn differs; the step count and where it leads to do not."""
    found = []
    for chunk in (CHUNK, 1000):
        monkeypatch.setattr("rankwise.updates.CHUNK", chunk)
        p = nn.Parameter(weights(rows=9))
        optimizer = make_optimizer(holding(p), tiny_config("full", learning_rate=1.0, bf16_stochastic_round=True))
        for _ in range(2):
            p.grad = torch.ones_like(p)
            optimizer.step()
        assert int(optimizer.state[p]["step"]) == 2
        found.append(p.detach().float())
    assert torch.allclose(*found, atol=0.1) and not torch.equal(*found)


@pytest.mark.parametrize("optim", ["adamw_8bit", "lion_8bit"])
def test_parts_leave_the_states_of_blocks_as_the_whole_does(optim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for chunk in (CHUNK, 1024):
        monkeypatch.setattr("rankwise.updates.CHUNK", chunk)
        p = nn.Parameter(weights(rows=9))
        optimizer = make_optimizer(holding(p), config(optim, bf16_stochastic_round=True))
        for n in range(3):
            p.grad = torch.randn(p.shape, generator=seeded(n)).bfloat16()
            optimizer.step()
        assert optimizer.state[p]["step"] == 3 and optimizer.state[p]["state1"].dtype == torch.uint8
        found.append({n: v for n, v in optimizer.state[p].items() if isinstance(v, Tensor)})
    assert found[0].keys() == found[1].keys() and all(torch.equal(found[0][n], found[1][n]) for n in found[0])


# -- in the backward pass --------------------------------------------------------------------------


def two_layers(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 64))


def descend(model: Any, optimizer: Any, steps: int) -> Tensor:
    rows = torch.randn(8, 64, generator=seeded(3))
    for _ in range(steps):
        (model(rows) - 1).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def config(optim: str, **changes: Any) -> TrainConfig:
    return tiny_config("full", optim=optim, learning_rate=1e-2, weight_decay=0.1, **changes)


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "sgd", "adafactor", "adamw_8bit", "lion_8bit"])
def test_in_the_backward_pass_is_the_same_update(optim: str) -> None:
    found = []
    for within in (False, True):
        model = two_layers()
        optimizer = make_optimizer(model, config(optim, optimizer_in_backward=within))
        found.append(descend(model, optimizer, 3))
    assert torch.equal(*found)


def test_each_gradient_is_freed_when_it_was_used() -> None:
    model = two_layers()
    left: list[int] = []
    make_optimizer(model, config("adamw_torch", optimizer_in_backward=True))
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda _: left.append(sum(q.grad is not None for q in model.parameters())))
    model(torch.ones(2, 64)).sum().backward()
    assert left == [0, 0, 0, 0]


def test_the_norm_is_that_of_all_gradients() -> None:
    plain, within = two_layers(), two_layers()
    optimizer = make_optimizer(within, config("sgd", optimizer_in_backward=True))
    assert isinstance(optimizer, OneByOne)
    for model in (plain, within):
        model(torch.ones(2, 64)).square().sum().backward()
    expected = nn.utils.get_total_norm([p.grad for p in plain.parameters() if p.grad is not None])
    assert float(optimizer.norm()) == pytest.approx(float(expected))


def test_after_a_gradient_that_is_not_finite_nothing_is_updated() -> None:
    """The last layer's gradients come first and are used; the inner weight's is not finite."""
    model = two_layers()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(model, config("adamw_torch", optimizer_in_backward=True))
    assert isinstance(optimizer, OneByOne)
    inner = model[0](torch.full((1, 64), 1e30))
    scaled = inner * 1e-30 + (inner - inner.detach())  # an ordinary number whose slope by the weight is 1e30
    model[2](torch.tanh(scaled)).sum().backward()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {"2.weight", "2.bias"} <= changed and "0.weight" not in changed
    assert not torch.isfinite(optimizer.norm())
    assert f"{len(changed)} of 4 weight tensors" in optimizer.words()
    optimizer.zero_grad()
    assert descend(model, optimizer, 1).isfinite().all()


# -- states ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "sgd", "adafactor", "adamw_8bit", "lion_8bit"])
@pytest.mark.parametrize("within", [False, True])
def test_bf16_goes_on_bit_for_bit_after_saving(optim: str, within: bool, tmp_path: Any) -> None:
    said = config(optim, bf16_stochastic_round=True, optimizer_in_backward=within)
    model = two_layers().bfloat16()
    rows = torch.randn(8, 64, generator=seeded(3)).bfloat16()

    def go_on(of: nn.Module, optimizer: Any) -> Tensor:
        for _ in range(3):
            of(rows).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return torch.cat([p.detach().flatten() for p in of.parameters()])

    optimizer = make_optimizer(model, said)
    go_on(model, optimizer)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    again = two_layers(1).bfloat16()
    again.load_state_dict(model.state_dict())
    other = make_optimizer(again, said)
    other.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    assert torch.equal(go_on(model, optimizer), go_on(again, other))


def test_other_groups_are_refused() -> None:
    one = make_optimizer(two_layers(), config("sgd", bf16_stochastic_round=True))
    other = make_optimizer(nn.Linear(2, 2), config("sgd", bf16_stochastic_round=True))
    with pytest.raises(ValueError, match="other parameter groups"):
        other.load_state_dict(one.state_dict())


def test_the_classes_are_those_of_hugging_faces_trainer() -> None:
    kind, options = hugging_faces("paged_adamw_8bit", 1e-3)
    assert kind.__module__.startswith("bitsandbytes") and options["optim_bits"] == 8 and options["is_paged"]
    assert options["betas"] == (0.9, 0.999) and options["lr"] == 1e-3
