"""The second step that is recorded from the first is the second step that runs."""

from typing import Any

import pytest

from rankwise.records.setup import Trace
from rankwise.trace import peaks, run
from rankwise.trace.lastruns import LastRuns
from rankwise.trace.run import run_step
from tests.trace.families import setup

CKPT: dict[str, Any] = {"gradient_checkpointing": True}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("llama", "full", {}),
    ("llama", "full", {"gradient_accumulation_steps": 2, "optim": "adamw_torch_fused", **CKPT}),
    ("llama", "full", {"dtype": "fp32", "autocast": "bf16", "optim": "adamw_bnb_8bit"}),
    ("llama", "lora", {"lora_dropout": 0.1, "gradient_accumulation_steps": 2, "stack": "4.45", **CKPT}),
    ("llama", "qlora", {"kbit_upcast": True, "gradient_accumulation_steps": 2}),
    ("llama", "prefix", {"num_virtual_tokens": 4}),
    ("mixtral", "full", {"optim": "adafactor"}),
    ("gemma2", "lora", {"parallel": "fsdp", "world_size": 4}),
    ("gpt2", "full", {"parallel": "zero2", "world_size": 2, "offload": "optimizer"}),
]


def traced(family: str, method: str, options: dict[str, Any], *, twice: bool) -> Trace:
    """`twice`: both steps run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peaks, "_last", LastRuns(1))
        if twice:
            patch.setattr(run._Step, "can_repeat", False)
        return peaks.trace(setup(family, method, **options))


@pytest.mark.parametrize(("family", "method", "options"), CASES)
def test_it_holds_and_does_the_same(family: str, method: str, options: dict[str, Any]) -> None:
    assert traced(family, method, options, twice=False) == traced(family, method, options, twice=True)


@pytest.mark.parametrize(
    ("method", "options", "repeated"),
    [
        ("lora", {}, True),
        ("full", {"optimizer_in_backward": True}, False),  # its update happens in the pass
        ("shadow", {"r": None}, False),  # it leaves a tensor behind that the next pass replaces
    ],
)
def test_a_step_that_could_differ_runs(method: str, options: dict[str, Any], repeated: bool) -> None:
    of = setup("llama", method, **options)
    assert run_step(of, 3).micro_batches == (1 if repeated else 2)
