"""After the start: is what runs what was planned? Launchers of other tools were seen to run one process, or DDP in the
place of FSDP, and to end with exit code 0; here that stops the run before its first step.
"""

from typing import Any

from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from rankwise.errors import TrainingError
from rankwise.train.engines.engine import Engine
from rankwise.train.engines.fsdp import decoder_layers

# A process holds its share of each tensor, rounded up to whole rows or to DeepSpeed's alignment; small tensors round
# most. Unsplit would be `world` times the share.
ROUNDING = 1.25


def engine_class(engine: Engine) -> str:
    """What really wraps the model, e.g. DistributedDataParallel, `DeepSpeedEngine, ZeRO stage 3`, FSDPModule."""
    module = engine.module
    if isinstance(module, FSDPModule):
        return "FSDPModule"
    if hasattr(module, "zero_optimization_stage"):
        return f"{type(module).__name__}, ZeRO stage {module.zero_optimization_stage()}"
    return type(module).__name__ if isinstance(module, DistributedDataParallel) else "one process"


EXPECTED = {
    "none": "one process",
    "ddp": "DistributedDataParallel",
    "zero1": "DeepSpeedEngine, ZeRO stage 1",
    "zero2": "DeepSpeedEngine, ZeRO stage 2",
    "zero3": "DeepSpeedEngine, ZeRO stage 3",
    "fsdp": "FSDPModule",
}


def require_world(planned: int, found: int) -> None:
    """Raises TrainingError where another number of processes runs than was planned."""
    if found != planned:
        raise TrainingError(
            f"this plan is for {planned} processes, and {found} {'runs' if found == 1 else 'run'}",
            expected=f"{planned}, one for each device",
            fix="start it with `rankwise train`, or with torchrun and as many processes as the plan has devices",
        )


def require_planned(engine: Engine, parallel: str, kind: str) -> None:
    """After `wrap`: the class that wraps the model, the device, and the parameters held here.

    Raises:
        TrainingError: in every process alike, with what was asked and what runs.
    """
    for what, asked, found in _differences(engine, parallel, kind):
        raise TrainingError(
            f"what runs is not what was planned: {what} is {found}",
            expected=f"{asked}",
            fix="nothing was trained; look at worker.log for what started it, and report this",
        )


def _differences(engine: Engine, parallel: str, kind: str) -> list[tuple[str, str, str]]:
    """(what, asked, found) for each thing that is not as planned, in any of the processes."""
    held, whole = engine.held_params()
    device = {"cuda": "gpu"}.get(_device(engine.bare), _device(engine.bare))
    own: list[tuple[str, str, str]] = []
    if (found := engine_class(engine)) != EXPECTED[parallel]:
        own.append(("the engine", EXPECTED[parallel], found))
    if device != kind:
        own.append(("the device", kind, device))
    own += _shares(engine, parallel, held, whole)
    return [said for each in engine.group.gathered(own) for said in each]


def _shares(engine: Engine, parallel: str, held: int, whole: int) -> list[tuple[str, str, str]]:
    world = engine.group.world
    if parallel not in ("zero3", "fsdp"):
        return [] if held == whole else [("the model of a process", f"{whole:,} parameters", f"{held:,}")]
    if held > ROUNDING * whole / world:
        return [("the share of a process", f"about {whole // world:,} of {whole:,} parameters", f"{held:,}")]
    unsplit = [type(m).__name__ for m in decoder_layers(engine.bare) if not isinstance(m, FSDPModule)]
    return [("a layer", "FSDPModule", unsplit[0])] if parallel == "fsdp" and unsplit else []


def _device(model: Any) -> str:
    return str(next(model.parameters()).device.type)
