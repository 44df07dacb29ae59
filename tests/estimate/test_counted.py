"""The FLOPs that a comparison counts are those of the steps that it takes: the loop's own steps under torch's counter.

Attention runs eagerly, in fp32 and without packing, because the counter knows no fused kernel of a CPU.
"""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rankwise import api
from rankwise.compare.folder import Folder
from rankwise.estimate.counted import counter, counter_of
from rankwise.estimate.measured import RealStep
from rankwise.methods import METHODS
from rankwise.observe.model import observe_model
from rankwise.records import Allowance, Plan
from rankwise.records.setup import Setup
from rankwise.store import Run
from rankwise.worker.trials import Asked, TrainingRun, gather
from tests.builders import bakeoff
from tests.training import toy_job, toy_model

OPTIONS = {"r": 4, "target_modules": "all-linear"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("counted"))


@pytest.mark.parametrize("method", ["full", "lora", "dora", "ia3", "prompt", "prefix", "p_tuning", "bottleneck"])
def test_the_count_of_any_shape_is_that_of_a_real_step(folder: Path, method: str) -> None:
    def setup(rows: int, length: int, share: float) -> Setup:
        return Setup(
            config=observe_model(str(folder)).config,
            method=method,
            dtype="fp32",
            per_device_train_batch_size=rows,
            max_length=length,
            labelled_share=share,
            attn_implementation="eager",
            loss="labelled",
            device="cpu",
            **(OPTIONS if "r" in METHODS[method].options else {}),
        )

    step = RealStep(setup(3, 40, 0.25), folder, torch.device("cpu"))
    (batch,) = step.batches
    with FlopCounterMode(display=False) as seen:
        step.run()
    count = counter(setup(1, 16, 0.5))
    assert count.passed(3, 40, batch.keep.numel(), 3 * 40 * 40) == seen.get_total_flops()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_count_of_executed_steps_is_torchs(
    folder: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = {"packing": False, "bf16": False, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
    plan: Plan = api.plan_job(api.load_job(toy_job(tmp_path, folder, method, train=train), {}), brief=True)
    allowance: Allowance = bakeoff().allowances[1]
    asked = Asked("run", 1e-3, 0, 3, 1)
    run = TrainingRun(Run(Folder(tmp_path / "c").runs / "run"), gather(plan), asked, allowance, stop=lambda: False)
    run.model.set_attn_implementation("eager")
    monkeypatch.setattr(run.loop, "attention", lambda model: nullcontext())
    count = counter_of(run.plan)
    for done in range(asked.steps):
        with FlopCounterMode(display=False) as seen:
            list(run.loop._step(done))
        assert count.step(run.loop.shapes(done)) - count.update == seen.get_total_flops() > 0
