"""The optimizer of a run: Hugging Face's class for its name, over the groups that Hugging Face's Trainer makes."""

from types import SimpleNamespace
from typing import Any

from peft.optimizers import create_loraplus_optimizer
from torch import Tensor
from torch.optim import Optimizer
from transformers import Trainer, TrainingArguments

from rankwise.records import TrainConfig
from rankwise.updates import Group, OneByOne


def make_optimizer(model: Any, config: TrainConfig) -> Optimizer:
    """Over what trains. One parameter at a time where it steps in the backward pass or rounds stochastically."""
    if config.loraplus_lr_ratio is not None:  # B and vectors have a rate of their own, as PEFT groups them
        made: Optimizer = create_loraplus_optimizer(
            model,
            _class(config),
            lr=config.learning_rate,
            loraplus_lr_ratio=config.loraplus_lr_ratio,
            loraplus_weight_decay=config.weight_decay,
        )
        return made
    return _over(_groups(model, config), config)


def _class(config: TrainConfig) -> Any:
    """What PEFT calls as it would a class."""

    def made(groups: list[Group], **options: Any) -> Optimizer:
        return _over(groups, config)

    return made


def _over(groups: list[Group], config: TrainConfig) -> Optimizer:
    kind, options = hugging_faces(config.optim, config.learning_rate)
    if not (config.optimizer_in_backward or config.bf16_stochastic_round):
        optimizer: Optimizer = kind(groups, **options)
        return optimizer

    def make(tensors: list[Tensor]) -> Optimizer:
        single: Optimizer = kind(tensors, **options)
        return single

    return OneByOne(
        groups,
        make,
        in_backward=config.optimizer_in_backward,
        stochastic=config.bf16_stochastic_round,
        seed=config.seed,
    )


def hugging_faces(optim: str, rate: float) -> tuple[Any, dict[str, Any]]:
    """Class and arguments that Hugging Face's Trainer takes for its `optim` name, at its default betas and epsilon."""
    usual = {f.name: f.default for f in TrainingArguments.__dataclass_fields__.values()}
    names = ("adam_beta1", "adam_beta2", "adam_epsilon", "optim_args")
    said = SimpleNamespace(optim=optim, learning_rate=rate, **{name: usual[name] for name in names})
    kind, options = Trainer.get_optimizer_cls_and_kwargs(said)
    return kind, options


def _groups(model: Any, config: TrainConfig) -> list[Group]:
    """What decays and what does not: biases and norms do not, by the names and classes of Hugging Face's Trainer."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not config.weight_decay:
        return [{"params": [*trained.values()], "weight_decay": 0.0}]
    decaying = set(Trainer.get_decay_parameter_names(None, model))  # its method looks at nothing but the model
    groups: list[Group] = [
        {"params": [p for name, p in trained.items() if name in decaying], "weight_decay": config.weight_decay},
        {"params": [p for name, p in trained.items() if name not in decaying], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
