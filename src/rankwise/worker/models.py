"""The model of a plan: loaded, with its method attached, and put together again after it was split."""

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed

from rankwise.methods import METHODS, TUNERS
from rankwise.model.attach import attach
from rankwise.model.load import load_base
from rankwise.model.trained import restore_weights
from rankwise.model.vocabulary import extend
from rankwise.records import Plan, TrainConfig
from rankwise.train.engines.engine import Engine


def whole_model(plan: Plan, config: TrainConfig, engine: Engine) -> Any:
    """The trained model, to be published and looked at by the first process; None in the others. One that was split is
    put together from memory on the CPU, where its proof is checked as well.
    """
    state = engine.full_state(trained_only=METHODS[config.method].trains == "adapter")
    engine.close()
    if not engine.group.first:
        return None
    if state is None:
        return engine.bare
    model = _attached(plan, config, "cpu", None)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name in parameters.keys() & state.keys():
            parameters[name].copy_(state[name])
    return model


def model_to_train(plan: Plan, config: TrainConfig, engine: Engine, resumed: Path | None) -> Any:
    """With the weights of a checkpoint, or else of the base and of the adapter that it goes on from."""
    set_seed(config.seed)  # the adapter's initial values and dropout follow from it
    with engine.loading():
        model = _attached(plan, config, str(engine.loads_on), resumed)
    if config.adapter and resumed is None:
        restore_weights(model, Path(config.adapter))
    if engine.group.rank > 0:
        set_seed(config.seed + engine.group.rank)  # dropout of its own
    return model


def _attached(plan: Plan, config: TrainConfig, device: str, resumed: Path | None) -> Any:
    base = load_base(
        plan.facts.model.path,
        dtype=config.dtype,
        four_bit=TUNERS[config.method].base == "nf4",
        eight_bit=TUNERS[config.method].base == "int8",
        device=device,
    )
    return attach(extend(base, plan.facts.new_tokens), config, resumed=resumed)
