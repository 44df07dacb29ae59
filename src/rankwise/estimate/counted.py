"""FLOPs of passes of any shape, from a few traces: what the steps of a comparison really asked for. A multiply-add
counts as two, and attention over a document of L tokens as L x L, whatever kernel runs it: as torch's own counter sees
eager attention.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from rankwise.estimate.price import setup_of
from rankwise.estimate.time import ADAMW_OPERATIONS
from rankwise.estimate.traced import traced
from rankwise.records import Candidate, Plan, Setup, Trace

# Traced shapes: (rows, tokens, positions with logits). A pass is linear in its tokens and its logits, and square in the
# length of what attends together; virtual tokens, which come before each row, add to the linear part alone.
LENGTHS = (8, 16, 24)
KEPT = (2, 4)


@dataclass(frozen=True)
class Counter:
    """FLOPs of one forward and backward pass: a + rows (b + c length + e kept) + d squares."""

    per_pass: float
    per_row: float
    per_token: float
    per_square: float
    per_kept: float
    update: float

    def passed(self, rows: int, length: int, kept: int, squares: int) -> float:
        """Of one pass.

        Args:
            length: padded tokens of a row. kept: positions of a row whose logits are made.
            squares: sum of the squared lengths of what attends together.
        """
        linear = self.per_row + self.per_token * length + self.per_kept * kept
        return self.per_pass + rows * linear + self.per_square * squares

    def step(self, passes: Iterable[tuple[int, int, int, int]]) -> float:
        """Of an optimizer step of these passes, its update included."""
        return self.update + sum(self.passed(*shape) for shape in passes)

    def mean_step(self, plan: Plan) -> float:
        """Of an optimizer step of a plan's configuration, for rows of mean length."""
        config, data = plan.verdict.config, plan.facts.data
        assert config is not None
        rows, length = config.per_device_train_batch_size, data.mean_length
        kept = length * min(1.0, data.supervised_tokens / max(1, data.tokens))
        linear = self.per_row + self.per_token * length + self.per_kept * kept
        one = self.per_pass + rows * (linear + self.per_square * length * length)
        return self.update + config.gradient_accumulation_steps * one


def counter_of(plan: Plan) -> Counter:
    """Of the step of a plan's configuration. Raises as `traced`."""
    config, named = plan.verdict.config, str(plan.verdict.candidate)
    assert config is not None
    candidate = Candidate(id=named, recipe=config.method, method=config.method, parallel="none", config=config)
    return counter(setup_of(plan.facts, candidate))


def counter(setup: Setup) -> Counter:
    """The FLOPs of a setup's step as a function of the rows in it, exact. Raises as `traced`."""
    near, middle, far = ((1, length, KEPT[0]) for length in LENGTHS)
    ones = [_flops(setup, *shape) for shape in (near, middle, far)]
    gap = LENGTHS[1] - LENGTHS[0]
    square = (ones[2] - 2 * ones[1] + ones[0]) / (2 * gap * gap)
    token = (ones[1] - ones[0]) / gap - square * (LENGTHS[0] + LENGTHS[1])
    kept = (_flops(setup, 1, LENGTHS[0], KEPT[1]) - ones[0]) / (KEPT[1] - KEPT[0])
    row = _flops(setup, 2, LENGTHS[0], KEPT[0]) - ones[0]
    alone = row - square * LENGTHS[0] ** 2 - token * LENGTHS[0] - kept * KEPT[0]
    return Counter(ones[0] - row, alone, token, square, kept, ADAMW_OPERATIONS * _trace(setup, *near).trainable_params)


def _flops(setup: Setup, rows: int, length: int, kept: int) -> float:
    flops = _trace(setup, rows, length, kept).flops
    return float(flops["forward"] + flops["backward"])


def _trace(setup: Setup, rows: int, length: int, kept: int) -> Trace:
    return traced(
        setup.model_copy(
            update={
                "per_device_train_batch_size": rows,
                "max_length": length,
                "labelled_share": kept / length,
                "gradient_accumulation_steps": 1,
                "attn_implementation": "eager",
            }
        )
    )
