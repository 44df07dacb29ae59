"""A packed step is the step of its rows: same loss, same gradient, whatever the batches."""

import random
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from rankwise.model.blockwise import blockwise_attention
from rankwise.model.load import load_base
from rankwise.records import TrainConfig
from rankwise.step import IGNORE, Batch, training_step
from rankwise.text.masks import Encoded
from rankwise.train.batching import Batching
from tests.tiny import tiny_config
from tests.training import toy_model

PAD = 2
LENGTH = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("batching"), dtype="fp32")


def batches_of(rows: list[Encoded], config: TrainConfig, *, flat: bool) -> list[Batch]:
    return Batching(config, PAD, flat=flat).step(rows, config.per_device_train_batch_size)


def documents(count: int = 9, first_labelled: bool = False) -> list[Encoded]:
    """Of 5 to 40 tokens; with `first_labelled`, every token has a label, the first of each document too."""
    draw = random.Random(3)
    found = []
    for line in range(count):
        ids = tuple(draw.randrange(3, 300) for _ in range(draw.randrange(5, 41)))
        context = 0 if first_labelled else draw.randrange(1, 4)
        found.append(Encoded(ids, (IGNORE,) * context + ids[context:], line + 1))
    return found


def step(folder: Path, batches: list[Batch], *, blockwise: bool) -> tuple[float, torch.Tensor]:
    """(loss, all gradients)."""
    model = load_base(folder, dtype="fp32").train()
    found: list[torch.Tensor] = []

    def clip() -> torch.Tensor:
        found.extend(p.grad.flatten().clone() for p in model.parameters() if p.grad is not None)
        return torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)

    with blockwise_attention(model) if blockwise else nullcontext():
        loss, _ = training_step(
            model,
            batches,
            torch.optim.SGD(model.parameters(), lr=0.0),
            backward=lambda x: x.backward(),
            clip=clip,
            autocast=nullcontext,
        )
    return float(loss), torch.cat(found)


@pytest.mark.parametrize("first_labelled", [False, True])
@pytest.mark.parametrize(("flat", "blockwise"), [(True, True), (False, True), (False, False), (True, False)])
@pytest.mark.parametrize("rows_at_once", [1, 2])
def test_a_packed_step_is_the_unpacked_step(
    folder: Path, rows_at_once: int, flat: bool, blockwise: bool, first_labelled: bool
) -> None:
    given = documents(first_labelled=first_labelled)
    config = tiny_config("full", max_length=LENGTH, per_device_train_batch_size=rows_at_once)
    alone = batches_of(given, config.model_copy(update={"per_device_train_batch_size": 1}), flat=flat)
    packed = batches_of(given, config.model_copy(update={"packing": True}), flat=flat)
    assert len(packed) < len(alone) == len(given)
    assert sum(b.supervised for b in packed) == sum(b.supervised for b in alone)
    expected, gradient = step(folder, alone, blockwise=False)
    loss, other = step(folder, packed, blockwise=blockwise)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert float((gradient - other).norm() / gradient.norm()) < 1e-4


def test_without_position_ids_the_loss_would_be_another(folder: Path) -> None:
    """What the equality above can see."""
    packed = batches_of(documents(), tiny_config("full", max_length=LENGTH, packing=True), flat=True)
    right, _ = step(folder, packed, blockwise=True)
    blind = [Batch(b.input_ids, None, b.keep, b.targets, b.tokens, b.supervised) for b in packed]
    assert abs(step(folder, blind, blockwise=True)[0] - right) > 1e-3


@pytest.mark.parametrize("flat", [True, False])
def test_rows_keep_their_length_and_are_filled(flat: bool) -> None:
    given = documents(40)
    config = tiny_config("full", max_length=LENGTH, per_device_train_batch_size=4, packing=True)
    made = batches_of(given, config, flat=flat)
    assert sum(b.tokens for b in made) == sum(len(d.ids) for d in given)
    if flat:
        assert all(b.input_ids.shape[0] == 1 and b.input_ids.shape[1] <= 4 * LENGTH and b.padding == 0 for b in made)
    else:
        assert all(b.input_ids.shape[0] <= 4 and b.input_ids.shape[1] <= LENGTH for b in made)
    unpacked = batches_of(given, config.model_copy(update={"packing": False}), flat=flat)
    assert len(made) < len(unpacked)


def test_packs_follow_from_the_rows_alone() -> None:
    config = tiny_config("full", max_length=LENGTH, per_device_train_batch_size=2, packing=True)
    one, other = (batches_of(documents(), config, flat=True) for _ in range(2))
    assert [b.input_ids.tolist() for b in one] == [b.input_ids.tolist() for b in other]


def test_unpacked_rows_of_similar_length_share_a_batch() -> None:
    given = documents(16)
    config = tiny_config("full", max_length=LENGTH, per_device_train_batch_size=4)
    sorted_padding = sum(b.padding for b in batches_of(given, config, flat=True))
    longest = [max(len(d.ids) for d in given[i : i + 4]) for i in range(0, 16, 4)]
    as_given = sum(4 * n for n in longest) - sum(len(d.ids) for d in given)
    assert sorted_padding < as_given / 2


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("packing", [True, False])
def test_no_batch_of_a_run_is_larger_than_the_fullest(packing: bool, flat: bool) -> None:
    given = documents(40)
    config = tiny_config(
        "full", max_length=LENGTH, per_device_train_batch_size=4, gradient_accumulation_steps=4, packing=packing
    )
    longest = sorted(given, key=lambda d: -len(d.ids))[:4]
    fullest = Batching(config, PAD, flat=flat).fullest(longest)
    steps = [given[i : i + 16] for i in range(0, 40, 16)]
    largest = max(b.input_ids.numel() for rows in steps for b in batches_of(rows, config, flat=flat))
    assert largest <= fullest.input_ids.numel() <= 4 * LENGTH
