"""Bytes on disk: what a checkpoint holds, and how many of them a run keeps.

A resumable checkpoint is the trained weights with the optimizer's state. How many bytes that is depends on the recipe,
per trained parameter with AdamW:

====================================================  =======  ======  ======  =====
recipe                                                weights  master  states  sum
====================================================  =======  ======  ======  =====
`rankwise train` and the Trainer, all in bf16         2        -       4       6
the same, fp32 weights (also under autocast)          4        -       8       12
DeepSpeed ZeRO, any stage                             2        4       8       14
FSDP with mixed precision (accelerate raises to fp32) 4        -       8       12
an fp32 adapter, on any base                          4        -       8       12
====================================================  =======  ======  ======  =====

So a full 7B checkpoint is 84 GB by `rankwise train` and 98 GB by DeepSpeed, of which 14 GB are the 16-bit weights
(DeepSpeed 0.19 writes 14 bytes at stages 1 and 2; at stage 3 12, beside the weights that the trainer gathers). The
Trainer writes the weights a second time under ZeRO 1 and 2 and under FSDP's FULL_STATE_DICT (`_save_checkpoint`), which
is not counted. torch.save adds about 270 bytes a tensor, a distributed checkpoint 2,100.
"""

from dataclasses import dataclass

from rankwise.estimate.course import times
from rankwise.methods import METHODS
from rankwise.methods.vocabulary import MODULES_TO_SAVE
from rankwise.records import CostOptions, Setup, StorageEstimate
from rankwise.trace.stack import fp32_master

BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
GB = 1e9
# Optimizer states whose bytes per trained parameter do not follow its dtype. bitsandbytes keeps one byte a state with
# an fp32 scale for 256 of them (tensors under 4,096 elements stay fp32, and the Trainer keeps those of embeddings in
# fp32 as well), or fp32.
STATE_BYTES = {
    "adamw_8bit": 2 * (1 + 4 / 256),
    "adamw_bnb_8bit": 2 * (1 + 4 / 256),
    "paged_adamw_8bit": 2 * (1 + 4 / 256),
    "lion_8bit": 1 + 4 / 256,
    "paged_lion_8bit": 1 + 4 / 256,
    "paged_adamw": 8.0,
    "paged_adamw_32bit": 8.0,
}
# States per trained parameter in the parameter's own dtype; AdamW's two where a name is not listed.
STATES = {"sgd": 0, "rmsprop": 1}
ADAM_STATES = 2
# Its sums of rows and columns follow the shapes and not the number of parameters.
FACTORED = ("adafactor",)
MASTER = 4  # bytes of an fp32 master weight
# Tokenizer, configuration, random state, headers and the entries of torch.save that a saved folder carries beside its
# tensors (4 MB for a 49k vocabulary).
SMALL_FILES = 5_000_000


@dataclass(frozen=True)
class Checkpoint:
    """Bytes of one checkpoint on disk: the weights as they are used, and what only training on needs."""

    weights: int
    optimizer: int

    @property
    def resumable(self) -> int:
        return self.weights + self.optimizer


@dataclass(frozen=True)
class Retention:
    """Checkpoints of a run by number.

    Attributes:
        written: over the whole run; None where its steps are unknown.
        kept: left at the end: the best and the newest, which may be the same.
        most: at one time, because a new one is whole before an old one goes.
        newest: of those kept, resumable because they are the newest; the others hold weights alone.
    """

    written: int | None
    kept: int
    most: int
    newest: int


def estimate_storage(
    setup: Setup,
    *,
    trainable: int,
    stored_bytes: int,
    adapter_file_bytes: int | None,
    optimizer_bytes: int,
    mergeable: bool,
    max_steps: int | None,
    options: CostOptions,
    usd_per_gb_month: float | None,
) -> StorageEstimate:
    """What one run puts on disk, over all devices, and what it costs to keep it.

    A run leaves its kept checkpoints and the artifact: the adapter, or the model as it is stored. The newest
    checkpoints are resumable; one that is kept for its validation loss alone holds weights. The merged model is not
    counted, as it is made by another command in another folder. GB are 1e9 bytes.

    Args:
        trainable: trained parameters.
        stored_bytes: of the whole model as it is saved.
        adapter_file_bytes: of adapter_model.safetensors (`trace.adapterfile.adapter_file`); None for full
            fine-tuning, or to count its tensors alone.
        optimizer_bytes: of the traced optimizer state; used where it does not follow the number of parameters.
        mergeable: can the adapter be folded into the base?
        usd_per_gb_month: price of storage; None where it is unknown.
    """
    one = checkpoint(setup, trainable, adapter_file_bytes, optimizer_bytes)
    held = retention(max_steps, options)
    adapter = one.weights if setup.method != "full" else None
    artifact = (stored_bytes if adapter is None else adapter) + SMALL_FILES
    folder = one.resumable + SMALL_FILES
    left = _bytes(one, held.kept, held.newest) + artifact
    return StorageEstimate(
        checkpoint_bytes=one.resumable,
        weights_only_bytes=one.weights,
        adapter_bytes=adapter,
        merged_bytes=stored_bytes if adapter is not None and mergeable else None,
        checkpoints=held.written,
        kept=held.kept,
        run_bytes=max(_bytes(one, held.most, held.newest + 1), left),
        unpruned_bytes=None if held.written is None else held.written * folder + artifact,
        write_seconds=one.resumable / options.write_bandwidth,
        usd_per_month=None if usd_per_gb_month is None else left / GB * usd_per_gb_month,
    )


def _bytes(one: Checkpoint, count: int, resumable: int) -> int:
    """Of `count` checkpoints, at most `resumable` of them with the optimizer's state."""
    whole = min(count, resumable)
    return whole * one.resumable + (count - whole) * one.weights + count * SMALL_FILES


def checkpoint(setup: Setup, trainable: int, adapter_file_bytes: int | None, optimizer_bytes: int) -> Checkpoint:
    """One checkpoint by the recipe of `setup` (the table above); arguments as in `estimate_storage`."""
    width = trained_width(setup)
    weights = trainable * width if adapter_file_bytes is None else adapter_file_bytes
    encoder = trainable * width if setup.method in METHODS and METHODS[setup.method].encodes else 0
    zero = setup.parallel.startswith("zero")
    state = state_width(setup.optim, MASTER if zero else width)
    states = float(optimizer_bytes) if state is None else trainable * state
    whole = _whole_modules(setup)
    return Checkpoint(weights, round(states) + encoder + whole + (trainable * MASTER if zero else 0))


def _whole_modules(setup: Setup) -> int:
    """Bytes that a checkpoint has more than the published adapter, which rounds embedding and head to the precision of
    the base where they train whole; PEFT writes both, tied or not.
    """
    if setup.new_token_rows != MODULES_TO_SAVE:
        return 0
    width = setup.config.get("hidden_size") or setup.config["n_embd"]
    return 2 * int(setup.config["vocab_size"]) * int(width) * (BYTES["fp32"] - BYTES[setup.dtype])


def trained_width(setup: Setup) -> int:
    """Bytes of one trained parameter as it is saved."""
    if setup.method != "full":
        return BYTES[setup.adapter_dtype]
    if setup.parallel.startswith("zero"):
        return 2 if setup.autocast else BYTES[setup.dtype]
    return MASTER if fp32_master(setup) else BYTES[setup.dtype]


def state_width(optim: str, width: float) -> float | None:
    """Bytes of optimizer state per trained parameter of `width` bytes; None where they follow the shapes instead."""
    if optim in FACTORED:
        return None
    return STATE_BYTES.get(optim, STATES.get(optim, ADAM_STATES) * width)


def retention(max_steps: int | None, options: CostOptions) -> Retention:
    """The union of the best k and the newest n, at most. The last step is always saved."""
    kept = options.keep_best + options.keep_last
    if max_steps is None:
        return Retention(None, kept, kept + 1, options.keep_last)
    written = times(max_steps, options.save_steps)
    return Retention(written, min(written, kept), min(written, kept + 1), options.keep_last)
