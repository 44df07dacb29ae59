"""`rankwise estimate --calibrate`: real steps of one configuration on this machine, beside what the formulas say.

The steps are those of `measured.RealStep`: the real model class and method, the training step itself, random token ids.
On a CPU likelihoods, greedy answers and a merge are timed as well, because `rankwise eval` and `rankwise merge` run
there. The ledger gets all entries at the end or, when something stops the run, none.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from transformers import GenerationConfig

from rankwise.errors import AnswerIsNo, RankwiseError
from rankwise.estimate.commands import Served, forward_seconds, generation_seconds, merge_seconds
from rankwise.estimate.configure import positions_of
from rankwise.estimate.ledger import append, entry_of, workload_of
from rankwise.estimate.measured import RealStep, refuse_what_cannot_run
from rankwise.estimate.memory import estimate_memory, family
from rankwise.estimate.selfcheck import Subject, require_device, weights_of
from rankwise.estimate.storage import BYTES
from rankwise.estimate.time import passes
from rankwise.estimate.traced import shapes_of, traced
from rankwise.files import folder_bytes
from rankwise.methods import METHODS
from rankwise.model.likelihood import Autocast, evaluating, row_losses
from rankwise.model.load import quiet_transformers
from rankwise.records import DeviceFacts, Setup, Shapes
from rankwise.records.ledger import AnswerBatch, Calibration, EvaluationWork, Quantity, Timing
from rankwise.store import now

Progress = Callable[[str, int, int], None]
# (folder of an adapter, folder to write) -> the merged model: the work of `rankwise merge`.
Merge = Callable[[Path, Path], object]
WARM_UP = 2  # steps that are not timed: kernels are prepared, the optimizer's state is made
STEPS = 20
PASSES = 3  # over the likelihood rows
LIKELIHOOD_ROWS = 8
ANSWER_PASSES = 2  # over the prompts
ANSWERS, ANSWER_STEPS, ANSWER_PROMPT = 16, 24, 64
CHEAP_MERGE = 2_000_000_000  # bytes of a stored model up to which a merge is timed


@dataclass
class _Trial:
    """What is timed, and what came of it."""

    setup: Setup
    model: str
    device: DeviceFacts
    shapes: Shapes
    mean_length: float
    progress: Progress
    timings: list[Timing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Rows are as long as they are on average, because that is what sets the time."""
        return max(2, round(self.mean_length))

    def served(self, adapter_bytes: int = 0) -> Served:
        shapes, setup = self.shapes, self.setup
        return Served(
            device=self.device,
            model=self.model,
            method=setup.method,
            total=shapes.total_params,
            linears=shapes.linears,
            tied=shapes.tied,
            dtype=setup.dtype,
            targets=setup.target_modules,
            stored_bytes=shapes.total_params * BYTES[setup.dtype],
            adapter_bytes=adapter_bytes,
        )

    def add(self, quantity: Quantity, what: str, seconds: list[float], predicted: float | None) -> None:
        spread = (min(seconds), max(seconds))
        self.timings.append(
            Timing(
                quantity=quantity,
                what=what,
                seconds=median(seconds),
                spread=spread,
                repeats=len(seconds),
                predicted=predicted,
            )
        )


def calibrate(
    setup: Setup,
    folder: Path | None,
    device: DeviceFacts,
    *,
    model: str,
    mean_length: float | None = None,
    merge: Merge | None = None,
    steps: int = STEPS,
    progress: Progress = lambda *_: None,
) -> Calibration:
    """Time `steps` optimizer steps of `setup` on this machine and put measured beside predicted into the ledger.

    Args:
        folder: config.json and safetensors weights; None: random weights are made, which take the same time.
        device: of this machine, as predictions for it name it.
        mean_length: real tokens a row, the length of the rows that are run; None: rows are full.
        merge: as it would be carried out, given an adapter of this model; None: no merge is timed.

    Raises:
        UsageError: several devices, or a loss that only a trace has.
        AnswerIsNo: it does not fit into what is free.
        RankwiseError: no CUDA device, or the step cannot run here (the sentence of the library says why).
        RunError, SpaceError: the ledger cannot be written.
    """
    refuse_what_cannot_run(setup)
    where = "cpu" if device.kind == "cpu" else "cuda:0"
    require_device(where)
    trial = _Trial(setup, model, device, shapes_of(setup.config), mean_length or float(setup.max_length), progress)
    run = setup.model_copy(update={"max_length": trial.length})
    _require_room(run, device, where)
    subject = Subject(model, setup.config, folder, setup.per_device_train_batch_size, trial.length)
    with weights_of(subject) as weights, _told_plainly(model):
        _measure(trial, run, weights, where, merge if folder else None, steps)
    return _kept(trial, "random" if folder is None else "real")


def _require_room(run: Setup, device: DeviceFacts, where: str) -> None:
    free = device.available_bytes if where == "cpu" else torch.cuda.mem_get_info(where)[0]
    needed = estimate_memory(traced(run), run, device).peak_device
    if free is not None and needed > free:
        raise AnswerIsNo(
            f"these steps would take {needed / 1e9:,.1f} GB, and {device.name} has {free / 1e9:,.1f} GB free now",
            expected="a configuration that fits, since it is really run",
            fix="calibrate with a smaller --batch, --seq-len or model: the factor holds for the whole family",
        )


@contextmanager
def _told_plainly(model: str) -> Iterator[None]:
    """A missing kernel, or memory that ran out, surfaces as whatever its library raises."""
    try:
        yield
    except RankwiseError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise AnswerIsNo(f"{model} ran out of memory: {_first_line(error)}", fix="choose a smaller batch") from None
    except Exception as error:
        raise RankwiseError(
            f"this step of {model} cannot run here: {type(error).__name__}: {_first_line(error)}",
            fix="choose a method, attention kernel and optimizer that this machine has",
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


# -- what is timed ---------------------------------------------------------------------------------


def _measure(trial: _Trial, run: Setup, weights: Path, where: str, merge: Merge | None, steps: int) -> None:
    judged = _why_not_judged(trial)
    with TemporaryDirectory(prefix="rankwise-calibrate-") as place:
        adapter = Path(place) / "adapter"
        step = RealStep(run, weights, torch.device(where))
        try:
            _steps(trial, step, steps)
            if judged:
                trial.notes.append(judged)
            else:
                _likelihoods(trial, step.model)
                _answers(trial, step.model)
                if merge and METHODS[run.method].trains == "adapter":
                    step.model.save_pretrained(adapter)
        finally:
            step.close()
        if adapter.is_dir() and merge:
            _merge(trial, merge, adapter, Path(place) / "merged")


def _why_not_judged(trial: _Trial) -> str:
    """Why evaluation and merge are not timed; empty where they are."""
    if trial.device.kind != "cpu":
        return "evaluation and merge were not timed: they run on the CPU; `--gpu cpu` calibrates that"
    if trial.setup.method not in METHODS:
        return f"evaluation and merge were not timed: `rankwise train` does not carry out {trial.setup.method}"
    if trial.setup.autocast not in (None, trial.setup.dtype):
        return "evaluation and merge were not timed: they run on 16-bit weights, and these are fp32 under autocast"
    return ""


def _steps(trial: _Trial, step: RealStep, steps: int) -> None:
    total, seconds = WARM_UP + steps, []
    for done in range(1, total + 1):
        took = step.seconds()
        if done > WARM_UP:
            seconds.append(took)
        trial.progress("training steps", done, total)
    setup, length = trial.setup, trial.length
    found = passes(traced(setup), setup, trial.device, mean_length=trial.mean_length)
    rows = setup.per_device_train_batch_size * setup.gradient_accumulation_steps
    what = f"an optimizer step of {rows} rows x {length:,} tokens"
    trial.add("step", what, seconds, None if found is None else found.total)


@dataclass(frozen=True)
class _Row:
    ids: list[int]
    labels: list[int]


def _likelihoods(trial: _Trial, model: Any) -> None:
    ids = _random_ids(model, LIKELIHOOD_ROWS, trial.length)
    rows = [_Row(row, row) for row in ids.tolist()]
    autocast: Autocast = "bf16" if trial.setup.autocast == "bf16" else None
    seconds = []
    for done in range(PASSES + 1):
        began = time.perf_counter()
        row_losses(model, rows, autocast)
        if done:  # the first pass prepares kernels for this length
            seconds.append(time.perf_counter() - began)
        trial.progress("likelihoods", done + 1, PASSES + 1)
    count, tokens = LIKELIHOOD_ROWS, LIKELIHOOD_ROWS * trial.length
    work = EvaluationWork(rows=count, tokens=tokens, labelled=tokens - count, batches=())
    what = f"likelihoods of {count} rows x {trial.length:,} tokens"
    trial.add("forward", what, seconds, forward_seconds(trial.served(), work))


def _answers(trial: _Trial, model: Any) -> None:
    limit = positions_of(trial.setup.config) or trial.length + ANSWER_STEPS
    steps = min(ANSWER_STEPS, limit // 2)
    width = max(1, min(ANSWER_PROMPT, trial.length, limit - steps))
    ids = _random_ids(model, ANSWERS, width)
    settings = GenerationConfig(
        max_new_tokens=steps, min_new_tokens=steps, do_sample=False, use_cache=True, pad_token_id=0, eos_token_id=0
    )
    seconds = []
    for done in range(ANSWER_PASSES + 1):
        began = time.perf_counter()
        with evaluating(model), quiet_transformers():
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        if done:
            seconds.append(time.perf_counter() - began)
        trial.progress("answers", done + 1, ANSWER_PASSES + 1)
    batch = AnswerBatch(rows=ANSWERS, prompt=width, steps=steps)
    work = EvaluationWork(rows=0, tokens=0, labelled=0, batches=(batch,))
    what = f"{steps} new tokens for each of {ANSWERS} prompts of {width} tokens"
    trial.add("generation", what, seconds, generation_seconds(trial.served(), work))


def _random_ids(model: Any, rows: int, length: int) -> torch.Tensor:
    """(rows, length) token ids without 0, which stands for padding here."""
    return torch.randint(1, model.config.get_text_config().vocab_size, (rows, length))


def _merge(trial: _Trial, merge: Merge, adapter: Path, out: Path) -> None:
    served = trial.served(folder_bytes(adapter))
    in_memory = 2 * BYTES["fp32"] * served.total  # the weights and, at the end, what they are cast to
    if served.stored_bytes > CHEAP_MERGE or in_memory > (trial.device.available_bytes or in_memory):
        trial.notes.append("a merge was not timed: the model is too large for a quick one")
        return
    began = time.perf_counter()
    merge(adapter, out)
    seconds = time.perf_counter() - began
    trial.progress("merge", 1, 1)
    what = f"folding the adapter into {served.total / 1e6:,.0f} M parameters"
    trial.add("merge", what, [seconds], merge_seconds(served))


# -- what is kept ----------------------------------------------------------------------------------


def _kept(trial: _Trial, weights: Literal["real", "random"]) -> Calibration:
    setup, device = trial.setup, trial.device
    work = workload_of(setup, trial.mean_length)
    made = [
        entry_of(
            device,
            setup.method,
            timing.quantity,
            predicted=timing.predicted,
            actual=timing.seconds,
            model=trial.model,
            work=work,
            source="calibrate",
        )
        for timing in trial.timings
        if timing.predicted
    ]
    return Calibration(
        at=now(),
        device=device.name,
        family=family(setup.method),
        model=trial.model,
        weights=weights,
        timings=tuple(trial.timings),
        entries=append(*made),
        notes=tuple(trial.notes),
    )
