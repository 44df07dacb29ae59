"""The FLOPs of a plan are those of the step: for every method, a real step under torch's own counter.

Attention runs eagerly: the counter knows no kernel of the CPU's fused attention. Nor does it know bitsandbytes' product
with a 4-bit weight, which is told to it here. With 8-bit weights bitsandbytes trains on a CPU by rebuilding the weight
and multiplying as torch does; of its int8 product on a GPU nothing is proven here.
"""

import math
from pathlib import Path

import bitsandbytes  # noqa: F401  (registers its operators)
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rankwise.estimate.measured import RealStep
from rankwise.methods import METHODS
from rankwise.observe.model import observe_model
from rankwise.records.setup import Setup
from rankwise.trace import peaks
from tests.training import toy_model

# 2 m n k of A (…, k) by a weight of (n, k), as torch counts a matrix product.
BITSANDBYTES = {
    torch.ops.bitsandbytes.gemm_4bit: lambda a, packed, shape, *_, **__: 2 * math.prod(a[:-1]) * math.prod(shape)
}
OPTIONS = {"r": 4, "target_modules": "all-linear"}


@pytest.fixture(scope="module", params=["tied", pytest.param("untied", marks=pytest.mark.prove)])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp(request.param), tied=request.param == "tied")


@pytest.mark.parametrize("recomputing", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_flops_of_a_real_step_are_those_of_the_trace(folder: Path, method: str, recomputing: bool) -> None:
    if recomputing and (method == "prefix" or folder.name.startswith("untied")):
        pytest.skip("PEFT's prefixes refuse it; the head plays no part in it")
    setup = Setup(
        config=observe_model(str(folder)).config,
        method=method,
        dtype="fp32" if method == "full" else "bf16",
        autocast="bf16",
        per_device_train_batch_size=2,
        max_length=24,
        labelled_share=0.5,
        attn_implementation="eager",
        gradient_checkpointing=recomputing,
        loss="labelled",
        device="cpu",
        **(OPTIONS if "r" in METHODS[method].options else {}),
    )
    traced = peaks.trace(setup).flops
    step = RealStep(setup, folder, torch.device("cpu"))
    with FlopCounterMode(display=False, custom_mapping=BITSANDBYTES) as counter:
        step.run()
    assert counter.get_total_flops() == traced["forward"] + traced["backward"]
