"""Run by torchrun in two processes: carries several runs out, one after the other, so that the imports are paid once.

    python -m torch.distributed.run --nproc-per-node 2 -m tests.train.engines.carry FILE

FILE holds a list of [what, folder of a planned run, ...]; what fails is written to FILE.errors, a line for each rank.
"""

import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

from rankwise.errors import TrainingError
from rankwise.model.attach import attach
from rankwise.model.load import load_base
from rankwise.records import Step
from rankwise.store import Run
from rankwise.train.engines.asserted import require_planned
from rankwise.train.engines.choice import start_engine
from rankwise.train.engines.engine import Engine
from rankwise.train.engines.fsdp import Fsdp, decoder_layers
from rankwise.train.engines.group import Group
from rankwise.train.optimizers import make_optimizer
from rankwise.worker import work


def run(folder: str, resume: bool = False, stop_after: int | None = None) -> None:
    """Carry a run out; rank 1 alone is asked to stop, and both must."""
    stop = threading.Event()
    for event in work(Run(Path(folder)), resume=resume, stop_signal=stop):
        if isinstance(event, Step) and event.step == stop_after and dist.get_rank() == 1:
            stop.set()


def started(folder: str, engine: Engine | None = None) -> Engine:
    """The engine of a planned run around its model."""
    plan = Run(Path(folder)).plan()
    config = plan.verdict.config
    assert config is not None
    engine = engine or start_engine(str(plan.verdict.parallel), Group.join(cpu=True), config)
    with engine.loading():
        model = attach(load_base(plan.facts.model.path, dtype=config.dtype), config)
    engine.wrap(model, lambda wrapped: make_optimizer(wrapped, config))
    return engine


def generate(folder: str, checkpoint: str, out: str) -> None:
    """Greedy tokens of the model as it is spread, with the weights of a checkpoint."""
    engine = started(folder)
    engine.restore_weights(Path(checkpoint))
    ids = torch.tensor([[5, 17, 40, 9, 33]])
    engine.module.eval()
    with torch.no_grad(), engine.generating() as model:
        said = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    if dist.get_rank() == 0:
        Path(out).write_text(json.dumps(said[0].tolist()))
    engine.close()


class Unsplit(Fsdp):
    """Wrapped by `fully_shard`, with nothing given to it to split."""

    def wrap(self, model: Any, make: Any) -> None:
        everything = set(model.parameters())
        for layer in decoder_layers(model):
            fully_shard(layer, ignored_params=everything)
        fully_shard(model, ignored_params=everything)
        self.module = self.bare = model
        self.optimizer = make(model)


def faults(folder: str, out: str) -> None:
    """What an assertion says of starts that went wrong."""
    config = Run(Path(folder)).plan().verdict.config
    assert config is not None
    group = Group.join(cpu=True)
    said = {}
    for name, engine, parallel, kind in (
        ("unsplit", Unsplit(group, config), "fsdp", "cpu"),
        ("ddp in its place", start_engine("ddp", group, config), "fsdp", "cpu"),
        ("another device", start_engine("ddp", group, config), "ddp", "gpu"),
        ("as planned", start_engine("fsdp", group, config), "fsdp", "cpu"),
    ):
        try:
            require_planned(started(folder, engine), parallel, kind)
            said[name] = ""
        except TrainingError as error:
            said[name] = error.what
    if dist.get_rank() == 0:
        Path(out).write_text(json.dumps(said))


def main(file: str) -> None:
    """Each line of work in its turn; the process group is made once, as Ray Train does it."""
    dist.init_process_group("gloo")
    for what, *arguments in json.loads(Path(file).read_text()):
        try:
            {"run": run, "generate": generate, "faults": faults}[what](*arguments)
        except BaseException:
            with Path(f"{file}.errors").open("a") as errors:
                errors.write(f"rank {dist.get_rank()}, {what} {arguments}:\n{traceback.format_exc()}\n")
            os._exit(1)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
