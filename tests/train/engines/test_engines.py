"""Two real processes carry plans out by each engine, and end where one process ends."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rankwise import api
from rankwise.records import Rehearsed, SpectrumSeen, Started, Step, Validation, Watched
from rankwise.store import Run
from tests.train.engines.two import carry, missing_for_deepspeed, needs_deepspeed, planned
from tests.training import carry_out, published, toy_model

LORA = {"name": "lora", "r": 4, "lora_dropout": 0.0}
METHODS: dict[str, Any] = {
    "full": "full",
    "lora": LORA,
    "dora": {"name": "dora", "r": 4},
    "ia3": "ia3",
    "prompt": "prompt",
}
# In `make test`; the others run in `make prove`.
USUAL = (("ddp", "lora"), ("fsdp", "lora"), ("zero3", "full"))
PROVED = (
    ("fsdp", "full"),
    ("zero3", "lora"),
    ("ddp", "full"),
    ("ddp", "dora"),
    ("ddp", "ia3"),
    ("ddp", "prompt"),
    ("zero1", "full"),
    ("zero2", "full"),
    ("zero2", "lora"),
    ("fsdp", "dora"),
)
CLASSES = {
    "ddp": "DistributedDataParallel",
    "fsdp": "FSDPModule",
    **{f"zero{n}": f"DeepSpeedEngine, ZeRO stage {n}" for n in (1, 2, 3)},
}


def runnable(parallel: str) -> bool:
    return not (parallel.startswith("zero") and missing_for_deepspeed())


class Both:
    """Runs of one process, and of two, by (parallel, method)."""

    def __init__(self, root: Path, model: Path, cells: Any):
        self.root, self.cells = root, [cell for cell in cells if runnable(cell[0])]
        self.model = model
        self.two = {cell: planned(root / "-".join(cell), model, METHODS[cell[1]], cell[0]) for cell in self.cells}
        self.resumed = {cell: Run(run.folder.with_name("resumed")) for cell, run in self.two.items()}
        for cell, run in self.resumed.items():
            shutil.copytree(self.two[cell].folder, run.folder)
        work: list[list[Any]] = [["run", str(run.folder)] for run in self.two.values()]
        for cell, run in self.resumed.items():
            work += [["run", str(run.folder), False, 2], ["run", str(run.folder), True]]
            if cell[1] in ("full", "lora"):
                checkpoint = self.two[cell].checkpoints / "checkpoint-3"
                work.append(["generate", str(run.folder), str(checkpoint), str(self.said(cell))])
        if ("fsdp", "lora") in self.cells:
            work.append(["faults", str(self.two["fsdp", "lora"].folder), str(root / "faults.json")])
        carry(work, root)
        self.one: dict[str, Run] = {}

    def said(self, cell: tuple[str, str]) -> Path:
        """Where the generated tokens of a cell are."""
        return self.root / f"{'-'.join(cell)}.json"

    def alone(self, method: str) -> Run:
        """The run of one process with the same rows in every step."""
        if method not in self.one:
            self.one[method] = planned(self.root / f"one-{method}", self.model, METHODS[method], None)
            carry_out(self.one[method])
        return self.one[method]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def usual(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    return Both(tmp_path_factory.mktemp("usual"), model, USUAL)


@pytest.fixture(scope="module")
def proved(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    return Both(tmp_path_factory.mktemp("proved"), model, PROVED)


def cells(which: Any) -> Any:
    return pytest.mark.parametrize(
        "cell",
        [pytest.param(cell, marks=needs_deepspeed if cell[0].startswith("zero") else ()) for cell in which],
        ids="-".join,
    )


def of(events: Any, kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def equal_to_one_process(both: Both, cell: tuple[str, str]) -> None:
    """2 processes x 2 rows x 2 passes are 1 process x 8 rows, in losses, norms and counts, though rows differ in length
    and the last step has a row for one process only.
    """
    parallel, method = cell
    two, one = both.two[cell].events(), both.alone(method).events()
    steps, others = of(two, Step), of(one, Step)
    assert [s.supervised_tokens for s in steps] == [s.supervised_tokens for s in others] and len(steps) == 3
    assert [s.tokens for s in steps] == [s.tokens for s in others] and steps[-1].tokens < 40
    assert [s.loss for s in steps] == pytest.approx([s.loss for s in others], rel=1e-5)
    (tried,) = of(two, Rehearsed)  # rows one by one over both processes, and short ones here, long ones there
    assert tried.accumulation_gap is None if parallel.startswith("zero") else tried.accumulation_gap < 1e-4
    assert [s.grad_norm for s in steps] == pytest.approx([s.grad_norm for s in others], rel=1e-4)
    assert [v.loss for v in of(two, Validation)] == pytest.approx([v.loss for v in of(one, Validation)], rel=1e-5)
    right = [[(v.fact_tokens, v.other_accuracy) for v in of(events, Validation)] for events in (two, one)]
    assert right[0] == right[1] and None not in right[0][0]
    spectra = [of(events, SpectrumSeen)[-1:] for events in (two, one)]
    if method in ("lora", "dora"):  # of the whole adapter, whoever holds parts of it
        norms = [{m.module: m.norm for m in seen.modules} for (seen,) in spectra]
        assert norms[0] == pytest.approx(norms[1], rel=1e-3) and len(norms[0]) == 14
    started = of(two, Started)[0]
    assert (started.world_size, started.engine, started.device) == (2, CLASSES[parallel], "cpu")
    share = started.local_params / of(one, Started)[0].local_params
    assert 0.5 <= share < 0.55 if parallel in ("fsdp", "zero3") else share == 1
    assert both.two[cell].state() == "finished" and both.two[cell].evidence().steps == 3


def same_after_resume(both: Both, cell: tuple[str, str]) -> None:
    """Both stop when one is asked to; what they do afterwards is what the unbroken run does, bit for bit."""
    broken, whole = both.resumed[cell].events(), both.two[cell].events()
    raw = both.resumed[cell].raw_events()
    assert [e.step for e in raw if e.event == "stopped"] == [2]
    assert [e.step for e in of(raw, Started)] == [0, 2]
    assert [s.loss for s in of(broken, Step)] == [s.loss for s in of(whole, Step)]
    assert [v.loss for v in of(broken, Validation)] == [v.loss for v in of(whole, Validation)]
    assert [(w.step, w.slices, w.kl) for w in of(broken, Watched)] == [
        (w.step, w.slices, w.kl) for w in of(whole, Watched)
    ]
    one, other = (load_file(next(published(r).glob("*.safetensors"))) for r in (both.resumed[cell], both.two[cell]))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def plain(both: Both, folder: Path, method: str) -> Any:
    """Loaded by transformers or PEFT alone, in fp32."""
    if method == "full":
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(both.model, dtype=torch.float32), folder)


def loads_and_is_proven(both: Both, cell: tuple[str, str]) -> None:
    run, alone = both.two[cell], both.alone(cell[1])
    outcome, artifact = api.verify(run)
    assert outcome.passed and artifact is not None, [c for c in outcome.checks if not c.passed]
    ids = torch.tensor([[5, 17, 40, 9, 33]])
    with torch.no_grad():
        ours, theirs = (plain(both, published(r), cell[1]).eval()(input_ids=ids).logits for r in (run, alone))
    assert torch.allclose(ours, theirs, atol=2e-2 if cell[1] == "full" else 1e-3)  # a full model is saved in bf16


@cells(USUAL)
def test_two_processes_learn_what_one_learns(usual: Both, cell: tuple[str, str]) -> None:
    equal_to_one_process(usual, cell)


@cells(USUAL)
def test_two_processes_see_the_forgetting_that_one_sees(usual: Both, cell: tuple[str, str]) -> None:
    two, one = of(usual.two[cell].events(), Watched), of(usual.alone(cell[1]).events(), Watched)
    assert [w.step for w in two] == [w.step for w in one] == [0, 1, 2, 3]
    for ours, theirs in zip(two, one, strict=True):
        assert [s.name for s in ours.slices] == ["general text", "general questions"]
        assert [s.items for s in ours.slices] == [7, 7]  # which two processes cannot halve
        assert [s.value for s in ours.slices] == pytest.approx([s.value for s in theirs.slices], rel=1e-4)
        assert ours.kl == pytest.approx(theirs.kl, rel=1e-2, abs=1e-6)
    assert abs(two[-1].slices[0].difference) > 1e-3 and two[-1].kl > 0


@cells(USUAL)
def test_two_processes_go_on_where_they_stopped(usual: Both, cell: tuple[str, str]) -> None:
    same_after_resume(usual, cell)


@cells(USUAL)
def test_what_two_processes_publish_loads_plainly(usual: Both, cell: tuple[str, str]) -> None:
    loads_and_is_proven(usual, cell)


@cells(USUAL)
def test_a_model_generates_as_it_is_spread(usual: Both, cell: tuple[str, str]) -> None:
    said = json.loads(usual.said(cell).read_text())
    model = plain(usual, usual.two[cell].checkpoints / "checkpoint-3", cell[1])
    ids = torch.tensor([[5, 17, 40, 9, 33]])
    alone = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    assert said == alone[0].tolist()


def test_a_start_that_went_wrong_is_caught(usual: Both) -> None:
    said = json.loads((usual.root / "faults.json").read_text())
    whole = f"{of(usual.two['fsdp', 'lora'].events(), Started)[0].total_params:,}"
    assert said == {
        "unsplit": f"what runs is not what was planned: the share of a process is {whole}",
        "ddp in its place": "what runs is not what was planned: the engine is DistributedDataParallel",
        "another device": "what runs is not what was planned: the device is cpu",
        "as planned": "",
    }


@pytest.mark.prove
@cells(PROVED)
def test_every_other_engine_learns_what_one_process_learns(proved: Both, cell: tuple[str, str]) -> None:
    equal_to_one_process(proved, cell)
    same_after_resume(proved, cell)
    loads_and_is_proven(proved, cell)
