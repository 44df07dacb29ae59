"""Every optimizer that `train` has, on an adapter and on all weights: real runs of a few steps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from rankwise.decide.recipes import EXECUTED
from rankwise.errors import JobError, TrainingError
from rankwise.estimate.price import setup_of
from rankwise.files import folder_bytes
from rankwise.model.attach import attach
from rankwise.records import Candidate, Plan, Validation
from rankwise.store import Run
from rankwise.trace.peaks import trace
from rankwise.train.optimizers import make_optimizer
from rankwise.worker import models
from tests.conformance.test_methods import HEADERS
from tests.tiny import tiny_config
from tests.training import carry_out, losses, published, toy_model, toy_run, trained, weights

ON_CPU = [name for name in EXECUTED if not name.startswith("paged")]
# Rates at which a tiny model learns in six steps, (full, lora).
RATES = {"sgd": (3e-1, 3.0), "lion_8bit": (2e-3, 5e-3), "adafactor": (1e-2, 2e-2)}
PURE = {"dtype": "bf16"}
WITHIN = {"optimizer_in_backward": True}
WAYS = {
    "lora": ("lora", {}),
    "full": ("full", {}),
    "full in bf16": ("full", PURE),
    "full in backward": ("full", WITHIN),
    "full in bf16 and backward": ("full", PURE | WITHIN),
}
CELLS = [
    *((optim, way) for optim in ON_CPU for way in ("lora", "full")),
    *((optim, "full in bf16") for optim in ("adamw_torch_fused", "adamw_8bit", "adafactor")),
    *((optim, "full in backward") for optim in ("adamw_torch_fused", "adamw_8bit")),
    ("adamw_8bit", "full in bf16 and backward"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Matrices of 4,096 elements and more, which bitsandbytes keeps states of 8 bits for, and smaller ones."""
    return toy_model(tmp_path_factory.mktemp("model"), hidden=128, intermediate=256, layers=1)


def asked(optim: str, way: str) -> tuple[Any, dict[str, Any]]:
    method, said = WAYS[way]
    rate = RATES.get(optim, (1e-2, 2e-2))[method == "lora"]
    return ({"name": "lora", "r": 32} if method == "lora" else method), {"optim": optim, "learning_rate": rate} | said


# One of each kind of state and of each way; every cell is in `make prove`.
USUAL = [
    ("adamw_torch_fused", "lora"),
    ("adamw_8bit", "lora"),
    ("adafactor", "full"),
    ("lion_8bit", "full"),
    ("sgd", "full"),
    ("adamw_torch_fused", "full in bf16"),
    ("adamw_torch_fused", "full in backward"),
]


@pytest.fixture(
    scope="module",
    params=[pytest.param(cell, marks=() if cell in USUAL else pytest.mark.prove) for cell in CELLS],
    ids=lambda cell: " ".join(cell),
)
def cell(request: pytest.FixtureRequest) -> tuple[str, str]:
    found: tuple[str, str] = request.param
    return found


@pytest.fixture(scope="module")
def run(cell: tuple[str, str], model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    method, said = asked(*cell)
    return trained(tmp_path_factory.mktemp("run"), model, method, train=said)


def config_of(run: Run) -> Any:
    return run.plan().verdict.config


def test_it_is_carried_out_as_asked_and_learns(run: Run, cell: tuple[str, str]) -> None:
    optim, way = cell
    config = config_of(run)
    pure, within = "bf16" in way, "backward" in way
    assert (config.optim, config.optimizer_in_backward, config.bf16_stochastic_round) == (optim, within, pure)
    assert (config.dtype == "bf16" and config.autocast is None) == pure
    found = {e.step: e.loss for e in run.events() if isinstance(e, Validation)}
    assert min(found.values()) < found[0]


def test_stopped_and_resumed_is_the_unbroken_run(run: Run, cell: tuple[str, str], model: Path, tmp_path: Path) -> None:
    method, said = asked(*cell)
    broken = toy_run(tmp_path, model, method, train=said)
    carry_out(broken, stop_after=3)
    carry_out(broken, resume=True)
    assert losses(broken.events()) == losses(run.events())
    assert weights(published(broken)) == weights(published(run))


def test_a_checkpoint_has_the_predicted_bytes(run: Run) -> None:
    estimate = run.plan().chosen()
    assert estimate is not None
    predicted = estimate.storage.checkpoint_bytes
    for path in run.checkpoints.glob("checkpoint-*"):
        assert 0.98 * predicted <= folder_bytes(path) <= 1.02 * predicted + HEADERS


def test_the_traced_states_are_the_real_ones(run: Run) -> None:
    saved = torch.load(run.checkpoints / "checkpoint-6" / "optimizer.pt", weights_only=True)
    assert trace(setup_of(run.plan().facts, candidate(run.plan()))).buckets.optimizer == held(
        saved["state"], counts=config_of(run).optim in ("adamw_torch_fused", "adafactor")
    )


def held(state: Any, *, counts: bool) -> int:
    """Bytes of every storage in an optimizer's state once.

    Args:
        counts: single numbers too: step counts of the fused kernel and Adafactor's RMS lie on the device, the step
            counts of others on the host.
    """
    found: dict[int, int] = {}

    def look(value: Any) -> None:
        if isinstance(value, dict):
            for inner in value.values():
                look(inner)
        elif isinstance(value, torch.Tensor) and (value.dim() or counts):
            found[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()

    look(state)
    return sum(found.values())


def candidate(plan: Plan) -> Candidate:
    verdict = plan.verdict
    assert verdict.config is not None and verdict.candidate is not None
    return Candidate(id=verdict.candidate, recipe="any", method=verdict.method, parallel="none", config=verdict.config)


# -- what Hugging Face's Trainer would make --------------------------------------------------------


@pytest.mark.parametrize("optim", EXECUTED)
def test_class_arguments_and_what_decays_are_the_trainers(optim: str, model: Path, tmp_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(model)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), optim=optim, weight_decay=0.1, learning_rate=1e-3, use_cpu=True, report_to=[]
    )
    theirs = Trainer(base, arguments).create_optimizer()
    ours = make_optimizer(base, tiny_config("full", optim=optim, weight_decay=0.1, learning_rate=1e-3))
    assert type(ours) is type(theirs)
    shapes = [
        [(sorted(p.shape for p in g["params"]), {k: v for k, v in g.items() if k != "params"}) for g in o.param_groups]
        for o in (ours, theirs)
    ]
    assert shapes[0] == shapes[1] and [g["weight_decay"] for g in ours.param_groups] == [0.1, 0.0]


def test_norms_do_not_decay_and_matrices_do(model: Path, tmp_path: Path) -> None:
    """Two runs of one step that decay alone tells apart."""
    runs = [
        trained(tmp_path / str(decay), model, "full", train={"weight_decay": decay, "optim": "sgd", "max_steps": 1})
        for decay in (0.0, 0.5)
    ]
    plain, decayed = (load_file(run.checkpoints / "checkpoint-1" / "model.safetensors") for run in runs)
    same = {name for name in plain if torch.equal(plain[name], decayed[name])}
    assert same == {name for name in plain if "norm" in name}


# -- when numbers stop being finite ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("optim", "way"),
    [*((optim, "full") for optim in ON_CPU), ("adamw_8bit", "full in backward"), ("adamw_torch", "full in bf16")],
)
def test_numbers_that_are_not_finite_leave_the_weights_alone(
    optim: str, way: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step's rate throws the weights out of all bounds, and the second step's gradient is not finite. Where
    the optimizer steps in the backward pass, what came before the first such gradient has been used, and that is said.
    """
    kept: list[Any] = []
    monkeypatch.setattr(models, "attach", lambda *given, **more: kept.append(attach(*given, **more)) or kept[0])
    _, said = asked(optim, way)
    rate = {"learning_rate": 1e30, "eval_steps": 100, "save_steps": 1}
    run = toy_run(tmp_path, model, "full", train=said | rate)
    with pytest.raises(TrainingError, match=r"step 2: loss is .*, gradient norm is (nan|inf)") as caught:
        carry_out(run)
    assert "train.learning_rate" in caught.value.fix
    assert [path.name for path in run.checkpoints.glob("checkpoint-*")] == ["checkpoint-1"]
    before = load_file(run.checkpoints / "checkpoint-1" / "model.safetensors")
    now = dict(kept[0].named_parameters())
    changed = sum(not torch.equal(now[name], tensor) for name, tensor in before.items())
    if changed:
        assert "backward" in way and f"{changed} of {len(now)} weight tensors were updated" in caught.value.what
    else:
        assert "the weights were not touched by this step" in caught.value.what


# -- what is refused -------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "paged states on a CPU": ("full", {"optim": "paged_adamw_8bit"}, "a paged optimizer on a CPU"),
    "the same for an adapter": ("lora", {"optim": "paged_adamw_32bit"}, "a paged optimizer on a CPU"),
    "accumulation": ("full", WITHIN | {"gradient_accumulation_steps": 2}, "gradient_accumulation"),
    "clipping": ("full", WITHIN | {"max_grad_norm": 1.0}, "max_grad_norm"),
    "two precisions": ("full", PURE | {"bf16": False}, "train.bf16 is false"),
    "nothing to round": ("full", {"bf16_stochastic_round": True}, "train.dtype: bf16"),
    "nothing of an adapter to round": ("lora", PURE | {"bf16_stochastic_round": True}, "method: full"),
    "an optimizer that is not known": ("full", {"optim": "adamw_torchh"}, "adamw_torch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_go_together_is_refused_by_name(name: str, model: Path, tmp_path: Path) -> None:
    method, said, words = REFUSED[name]
    with pytest.raises(JobError) as caught:
        toy_run(tmp_path, model, method, train=said)
    assert words in str(caught.value) and caught.value.fix
