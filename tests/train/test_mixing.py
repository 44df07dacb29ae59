"""Data order follows from the seed alone; general rows come in by share of supervised tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.text.masks import IGNORE, Encoded
from rankwise.train.mixing import Order, mix


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5), st.sampled_from([0.3, 1.0, 1.5, 2.0, 3.0]))
@settings(max_examples=200, deadline=None)
def test_each_epoch_is_a_permutation_and_the_last_batch_is_short(
    rows: int, batch: int, seed: int, epochs: float
) -> None:
    order = Order(rows, epochs, batch, seed)
    steps = [order.step(i) for i in range(order.steps)]
    assert all(len(step) == batch for step in steps[:-1])
    stream = [row for step in steps for row in step]
    assert len(stream) == order.total == max(1, round(rows * epochs))
    for start in range(0, len(stream) - rows + 1, rows):
        assert sorted(stream[start : start + rows]) == list(range(rows))
    rest = stream[len(stream) - len(stream) % rows :]
    assert len(set(rest)) == len(rest)


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 3), st.permutations(range(12)))
@settings(max_examples=100, deadline=None)
def test_a_step_is_the_same_in_whatever_order_it_is_asked_for(
    rows: int, batch: int, seed: int, asked: list[int]
) -> None:
    """Which is what a resumed run does."""
    in_order = Order(rows, 2.0, batch, seed)
    expected = [in_order.step(i) for i in range(12)]
    other = Order(rows, 2.0, batch, seed)
    assert {i: other.step(i) for i in asked} == dict(enumerate(expected))


def test_seed_and_epoch_decide_the_order() -> None:
    def first(order: Order, epoch: int) -> list[int]:
        return order.step(epoch)

    one, two = Order(50, 3, 50, 0), Order(50, 3, 50, 1)
    assert first(one, 0) != first(two, 0) and first(one, 0) != first(one, 1) != first(one, 2)
    assert first(one, 1) == first(Order(50, 3, 50, 0), 1)


def test_the_order_is_the_same_on_every_machine_and_version() -> None:
    assert Order(8, 1, 8, 0).step(0) == Order(8, 5, 8, 0).step(0)
    assert Order(8, 1, 8, 7).step(0) == [5, 4, 2, 1, 3, 6, 7, 0]


def test_beyond_the_last_row_the_stream_goes_on() -> None:
    order = Order(10, 1.0, 4, 0)
    assert order.steps == 3 and len(order.step(2)) == 2
    assert all(len(order.step(i)) == 4 and set(order.step(i)) <= set(range(10)) for i in range(3, 20))


def row(supervised: int, line: int) -> Encoded:
    ids = tuple(range(3, 3 + supervised + 2))
    return Encoded(ids, (IGNORE, IGNORE, *ids[2:]), line)


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=40),
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
    st.floats(0.01, 0.9),
    st.integers(0, 3),
)
@settings(max_examples=200, deadline=None)
def test_the_share_of_general_tokens_is_within_one_row(
    task: list[int], general: list[int], share: float, seed: int
) -> None:
    task_rows = [row(n, i) for i, n in enumerate(task)]
    general_rows = [row(n, 1000 + i) for i, n in enumerate(general)]
    mixed = mix(task_rows, general_rows, share, seed)
    assert mixed[: len(task_rows)] == task_rows
    added = mixed[len(task_rows) :]
    got = sum(r.supervised for r in added)
    wanted = share / (1 - share) * sum(task)
    assert abs(got - wanted) <= max(general)
    counts = [sum(r.line == line for r in added) for line in range(1000, 1000 + len(general))]
    assert max(counts) - min(counts) <= 1  # repeated only when all were used


@pytest.mark.parametrize(("share", "general"), [(0.0, 3), (0.5, 0)])
def test_nothing_is_mixed_in_without_share_or_rows(share: float, general: int) -> None:
    task = [row(3, i) for i in range(4)]
    assert list(mix(task, [row(2, 9)] * general, share, 0)) == task


def test_mixing_follows_the_seed() -> None:
    task, general = [row(10, i) for i in range(10)], [row(5, 100 + i) for i in range(50)]
    first, again, other = (list(mix(task, general, 0.3, seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert first[:10] == task and mix(task, general, 0.3, 0)[-1] == first[-1]
