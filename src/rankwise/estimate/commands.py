"""Seconds of `rankwise eval` and `rankwise merge`, which run on the CPU: a formula of what bounds each part, corrected
by the ledger. Counted from where the libraries are imported, which takes 6 to 9 s before that, to the result.

Other devices give None: no rate of them was ever tried here.
"""

from dataclasses import dataclass

from rankwise.estimate.efficiency import ON_CPU
from rankwise.estimate.ledger import correction, entry_of
from rankwise.estimate.memory import family
from rankwise.estimate.processor import SHORT_ROWS
from rankwise.estimate.storage import BYTES
from rankwise.records import DeviceFacts, Interval, LinearShape
from rankwise.records.ledger import AnswerBatch, EvaluationWork, LedgerEntry, Quantity, Workload

# Of the measured 2048 x 2048 matmul rate with long rows: transformers' own forward pass, not the training step's.
EVALUATION_EFFICIENCY = {"full": 0.275, "adapter": 0.29, "quantised": 0.23}
# What server memory gives two cores, read or written. A guess, as the others here are: the ledger mends them.
MEMORY_BYTES_PER_SECOND = 10e9
DISK_READ_BYTES_PER_SECOND = 1e9  # of weights that the page cache does not hold
DISK_WRITE_BYTES_PER_SECOND = 0.3e9  # until fsync returns
# A PyTorch operation that computes next to nothing: 10 us, of which a decoder layer has about 30 in one pass, and a
# LoRA module 6 more.
OPERATION_SECONDS = 10e-6
LAYER_OPERATIONS = 30
MODULE_OPERATIONS = 6
# Building the classes, reading config and tokenizer, publishing files: without the weights.
FIXED_SECONDS = 1.0
# Of merging a number of an adapted weight, in a core's cache: read, to fp32, the product of rank 16 added, back to 16
# bit, written. 1.6 ns on one core of a cloud machine (docs/log.md); the ledger mends it.
MERGE_SECONDS = 1.6e-9


@dataclass(frozen=True)
class Served:
    """A model on a device, as far as the time of inference and merging depends on it.

    Attributes:
        model: as the person named it. method: with which it was trained.
        total: parameters, tied ones once. linears: of the blocks. tied: is the head the embedding?
        dtype: of the weights as inference loads them. targets: linear layers with an adapter beside them.
        stored_bytes: of the base's files. adapter_bytes: of the adapter's; 0 without one.
    """

    device: DeviceFacts
    model: str
    method: str
    total: int
    linears: tuple[LinearShape, ...]
    tied: bool
    dtype: str
    targets: str | tuple[str, ...] | None
    stored_bytes: int
    adapter_bytes: int

    @property
    def linear(self) -> int:
        """Parameters of the linear layers inside the blocks."""
        return sum(s.out_features * s.in_features * s.count for s in self.linears)

    @property
    def head(self) -> int:
        """Of the product with the vocabulary: what is no block's matrix is embedding and head."""
        return (self.total - self.linear) // (1 if self.tied else 2)

    @property
    def bytes(self) -> int:
        return self.total * BYTES[self.dtype]

    @property
    def operation_seconds(self) -> float:
        """Of one forward pass, whatever its size."""
        layers = max((s.count for s in self.linears), default=0)
        return OPERATION_SECONDS * (LAYER_OPERATIONS * layers + MODULE_OPERATIONS * self.modules)

    @property
    def modules(self) -> int:
        """Linear layers with an adapter."""
        return sum(s.count for s in self._targeted)

    @property
    def adapted(self) -> int:
        """Numbers of their weights."""
        return sum(s.out_features * s.in_features * s.count for s in self._targeted)

    @property
    def _targeted(self) -> tuple[LinearShape, ...]:
        every = self.targets == "all-linear"
        return tuple(s for s in self.linears if every or (self.targets and s.name in self.targets))

    @property
    def rate(self) -> float | None:
        """FLOP/s of long rows; None where none was measured."""
        rate = self.device.matmul_flops.get(self.dtype) if self.device.kind == "cpu" else None
        return None if rate is None else rate * EVALUATION_EFFICIENCY[family(self.method)]


@dataclass(frozen=True)
class Told:
    """A prediction: seconds by formula, as corrected, and the interval of the corrected ones."""

    raw: float
    seconds: float
    interval: Interval


@dataclass(frozen=True)
class Times:
    """Seconds of an evaluation, and of its two parts."""

    whole: float
    forward: float
    generation: float


# -- by formula ------------------------------------------------------------------------------------


def forward_seconds(served: Served, work: EvaluationWork) -> float | None:
    """Likelihoods of rows, one by one, logits at labelled positions."""
    if work.rows == 0:
        return 0.0
    if served.rate is None:
        return None
    flops = 2.0 * (served.linear * work.tokens + served.head * work.labelled)
    return flops / (served.rate * _share(work.tokens / work.rows)) + work.rows * served.operation_seconds


def generation_seconds(served: Served, work: EvaluationWork) -> float | None:
    """Greedy answers: a forward pass over each batch's prompts, then one a token, each of which reads all weights."""
    if not work.batches:
        return 0.0
    return None if served.rate is None else sum(_batch_seconds(served, served.rate, b) for b in work.batches)


def _batch_seconds(served: Served, rate: float, batch: AnswerBatch) -> float:
    tokens, rows = batch.rows * batch.prompt, batch.rows
    prompts = 2.0 * (served.linear * tokens + served.head * rows) / (rate * _share(tokens))
    arithmetic = 2.0 * (served.linear + served.head) * rows / (rate * _share(rows))
    token = max(arithmetic, served.bytes / MEMORY_BYTES_PER_SECOND)
    return prompts + token * max(0, batch.steps - 1) + served.operation_seconds * batch.steps


def load_seconds(served: Served) -> float:
    """Weights from disk to memory in their precision."""
    return FIXED_SECONDS + _reading(served) + served.bytes / MEMORY_BYTES_PER_SECOND


def merge_seconds(served: Served) -> float | None:
    """Read, and compute while what was computed is written. Unknown but for a CPU."""
    if served.device.kind != "cpu":
        return None
    writing = served.stored_bytes / DISK_WRITE_BYTES_PER_SECOND
    return FIXED_SECONDS + _reading(served) + max(writing, MERGE_SECONDS * served.adapted)


def _reading(served: Served) -> float:
    return (served.stored_bytes + served.adapter_bytes) / DISK_READ_BYTES_PER_SECOND


def _share(tokens: float) -> float:
    return tokens / (tokens + SHORT_ROWS)


# -- as told, and what happened --------------------------------------------------------------------


def estimate_evaluation(served: Served, work: EvaluationWork) -> Told | None:
    """`rankwise eval`: load, likelihoods, answers, each part with its own factor. None where no rate is known."""
    forward, answers = forward_seconds(served, work), generation_seconds(served, work)
    if forward is None or answers is None:
        return None
    load = load_seconds(served)
    parts = [
        Told(load, load, (load * ON_CPU[0], load * ON_CPU[1])),
        told(served.device, served.method, "forward", forward),
        told(served.device, served.method, "generation", answers),
    ]
    return Told(
        sum(p.raw for p in parts),
        sum(p.seconds for p in parts),
        (sum(p.interval[0] for p in parts), sum(p.interval[1] for p in parts)),
    )


def estimate_merge(served: Served) -> Told | None:
    """`rankwise merge`, without the proof that follows it."""
    raw = merge_seconds(served)
    return None if raw is None else told(served.device, served.method, "merge", raw)


def told(device: DeviceFacts, method: str, quantity: Quantity, raw: float) -> Told:
    """Seconds by formula -> what is told, by what the ledger knows of this device."""
    known = correction(device, family(method), quantity, near=raw) if raw > 0 else None
    if known is None:
        return Told(raw, raw, (raw * ON_CPU[0], raw * ON_CPU[1]))
    seconds = raw * known.factor
    return Told(raw, seconds, (seconds * known.low, seconds * known.high))


def evaluation_entries(
    served: Served, said: Told, done: EvaluationWork, times: Times, source: str
) -> tuple[LedgerEntry, ...]:
    """The whole as it was told, and each part by the formula for what was really asked of it: how long the answers
    would get was not known before.
    """
    parts: list[tuple[Quantity, float | None, float]] = [
        ("forward", forward_seconds(served, done), times.forward),
        ("generation", generation_seconds(served, done), times.generation),
    ]
    made = [_entry(served, q, raw, None, took, done, source) for q, raw, took in parts if raw and took > 0]
    return (*made, _entry(served, "evaluation", said.raw, said.seconds, times.whole, done, source))


def merge_entry(served: Served, said: Told, seconds: float, source: str) -> LedgerEntry:
    nothing = EvaluationWork(rows=0, tokens=0, labelled=0, batches=())
    return _entry(served, "merge", said.raw, said.seconds, seconds, nothing, source)


def _entry(
    served: Served,
    quantity: Quantity,
    raw: float,
    corrected: float | None,
    took: float,
    done: EvaluationWork,
    source: str,
) -> LedgerEntry:
    rows = done.rows + sum(b.rows for b in done.batches)
    tokens = done.tokens + sum(b.rows * (b.prompt + b.steps) for b in done.batches)
    work = Workload(method=served.method, rows=rows, length=tokens / max(1, rows), dtype=served.dtype)
    return entry_of(
        served.device,
        served.method,
        quantity,
        predicted=raw,
        corrected=corrected,
        actual=took,
        model=served.model,
        work=work,
        source=source,
    )
