"""Real steps of a configuration on this machine, for the ledger."""

from pathlib import Path

from rankwise.api.estimating import hardware_of
from rankwise.api.progress import Progress, quiet
from rankwise.errors import ModelError, UsageError
from rankwise.estimate.memory import device_name
from rankwise.model.locate import locate
from rankwise.observe.devices import gpus_here, observe_device
from rankwise.observe.gpus import match_gpu
from rankwise.records import Configuration
from rankwise.records.ledger import Calibration


def calibrate(asked: Configuration, progress: Progress = quiet) -> Calibration:
    """Run 20 real steps of a configuration on this machine, and an evaluation and a merge where they can be; the ledger
    then corrects later estimates for this device.

    Raises:
        UsageError: a GPU that this machine lacks, several devices, a loss path that exists as a trace alone.
        AnswerIsNo: it does not fit into what is free now.
        RankwiseError: it cannot run here. RunError, SpaceError: the ledger cannot be written.
    """
    _require_here(asked)
    from rankwise.estimate.calibrate import calibrate
    from rankwise.export.merge import fold

    device = observe_device(hardware_of(asked))
    folder = _files_here(asked.model)
    four_bit, eight_bit, dtype = asked.method == "qlora", asked.method == "lora-8bit", asked.dtype

    def merge(adapter: Path, out: Path) -> Path | None:
        if folder is None:
            return None
        return fold(folder, adapter, out, four_bit=four_bit, eight_bit=eight_bit, dtype=dtype)

    return calibrate(
        asked.setup(device_name(device)),
        folder,
        device,
        model=asked.model,
        mean_length=float(asked.tokens_per_example or asked.seq_len),
        merge=merge,
        progress=progress,
    )


def _require_here(asked: Configuration) -> None:
    if asked.gpu is None or asked.gpu.lower() == "cpu":
        return
    wanted, here = match_gpu(asked.gpu)["name"], [gpu["name"] for gpu in gpus_here()]
    if wanted not in [_known_as(name) for name in here]:
        raise UsageError(
            f"--calibrate runs on this machine, which has no {wanted}",
            expected=f"one of its own devices: {', '.join([*here, 'cpu'])}",
            fix="leave --gpu out, or calibrate on a machine with that GPU",
        )


def _known_as(name: str) -> str:
    """The table's name of a GPU as nvidia-smi calls it."""
    try:
        return str(match_gpu(name)["name"])
    except UsageError:
        return name


def _files_here(name: str) -> Path | None:
    """The folder of a model whose weights are on this machine; nothing is downloaded."""
    try:
        return locate(name, download=False)
    except ModelError:
        return None
