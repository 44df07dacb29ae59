"""DeepSpeed's ZeRO: optimizer states (stage 1), gradients (2) and parameters (3) split over processes.

DeepSpeed's engine divides losses by its own count of micro-batches, steps, clips and counts by itself. Here it is told
at each backward pass whether it is the last of the step, given a loss that nobody divides again, and asked for the
norm before it steps, so that a step which is not finite leaves the weights alone.

Nothing of it is pickled: its own checkpoints hold whole Python objects, so the fp32 shares and the optimizer's states
are taken out as plain tensors, a file for each process, and read back with `weights_only=True`; weights stay
safetensors.
"""

import copy
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rankwise.model.trained import restore_weights
from rankwise.records import TrainConfig
from rankwise.train.engines.engine import MakeOptimizer
from rankwise.train.engines.group import Group
from rankwise.train.engines.sharded import Sharded


class Zero(Sharded):
    """DeepSpeedEngine of stage 1, 2 or 3. Below stage 3 every process has the whole model."""

    keeps_trials = False  # see try_backward

    def __init__(self, group: Group, config: TrainConfig, name: str):
        super().__init__(group, config)
        self.name, self.stage = name, int(name[-1])
        self.splits = self.stage == 3
        if group.device.type == "cpu":
            os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read when deepspeed is imported; else it looks for GPUs
        if shutil.which("ninja") is None:  # DeepSpeed compiles operators when it first needs them
            os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        assert config.deepspeed is not None
        self.settings = filled(config.deepspeed, config, group.world)
        self._partitioning: Any = None

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Under stage 3 `from_pretrained` splits each tensor as it comes, so that no process ever holds the model."""
        import deepspeed

        deepspeed.init_distributed()  # finds the process group that is there
        if self.splits:
            from transformers.integrations import HfDeepSpeedConfig

            # Kept alive until `close`: transformers and PEFT ask a weak reference to it whether parameters are split.
            self._partitioning = HfDeepSpeedConfig(without_auto(self.settings))
        yield

    def wrap(self, model: Any, make_optimizer: MakeOptimizer) -> None:
        import deepspeed

        self.bare = model
        self.optimizer = make_optimizer(model)
        self.settings = sized(self.settings, model.config.get_text_config().hidden_size)
        trained = [p for p in model.parameters() if p.requires_grad]
        self.module, *_ = deepspeed.initialize(
            model=model, model_parameters=trained, optimizer=self.optimizer, config=self.settings
        )

    # -- a step ------------------------------------------------------------------------------------

    def begin(self, passes: int) -> None:
        self._left = passes

    def backward(self, loss: Tensor) -> None:
        self._left -= 1
        self.module.set_gradient_accumulation_boundary(is_boundary=self._left == 0)
        self.module.backward(loss * self.group.world, scale_wrt_gas=False)  # its gradients are averages

    def try_backward(self, loss: Tensor) -> None:
        """DeepSpeed has no way to drop a gradient, so it is given one of zeros: the next step adds to that."""
        self.module.set_gradient_accumulation_boundary(is_boundary=False)
        self.module.backward(loss * 0.0, scale_wrt_gas=False)

    def clip(self) -> Tensor:
        """The norm alone: DeepSpeed clips when it steps. It says -1 for a norm that is not finite."""
        zero = self.module.optimizer
        if self.stage == 3:
            from deepspeed.runtime.utils import combine_grad_norm_groups  # as its own step does

            norm = combine_grad_norm_groups(zero._get_norm_groups())
        else:
            norm = zero.scaled_global_norm()
        found = torch.as_tensor(norm, dtype=torch.float32)
        return torch.where(found < 0, torch.tensor(math.inf, device=found.device), found)

    def step(self) -> None:
        self.module.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """DeepSpeed drops them when it steps."""

    # -- looking -----------------------------------------------------------------------------------

    def held_params(self) -> tuple[int, int]:
        parameters = list(self.bare.parameters())
        held = sum(p.ds_tensor.numel() if hasattr(p, "ds_tensor") else p.numel() for p in parameters)
        return held, sum(whole_size(p) for p in parameters)

    # -- what is kept ------------------------------------------------------------------------------

    def full_state(self, *, trained_only: bool) -> dict[str, Tensor] | None:
        if not self.splits:
            return None
        self._settle()
        return super().full_state(trained_only=trained_only)

    def gather(self, parameter: nn.Parameter) -> Tensor | None:
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().cpu().clone() if self.group.first else None

    def put(self, parameter: nn.Parameter, whole: Callable[[], Tensor]) -> None:
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0), torch.no_grad():
            if self.group.first:
                parameter.copy_(whole())

    def restore_weights(self, folder: Path) -> None:
        if self.splits:
            self._settle()
            super().restore_weights(folder)
        else:
            restore_weights(self.bare, folder)

    def _settle(self) -> None:
        """Under stage 3 a look at the model leaves parameters behind that were fetched ahead for a backward pass."""
        self.module.empty_partition_cache()

    def save_optimizer(self, folder: Path) -> None:
        """Not by torch's `state_dict`: its groups hold whatever piece DeepSpeed updated last."""
        shares = self._fp32_shares()
        said = {
            "fp32": [share.detach().cpu().clone() for share in shares],
            "state": [dict(self.optimizer.state.get(share, {})) for share in shares],
            "param_groups": [{k: v for k, v in g.items() if k != "params"} for g in self.optimizer.param_groups],
        }
        torch.save(said, self.own_optimizer_file(folder))

    def restore_optimizer(self, folder: Path) -> None:
        said = torch.load(self.own_optimizer_file(folder), weights_only=True)
        for share, saved, state in zip(self._fp32_shares(), said["fp32"], said["state"], strict=True):
            with torch.no_grad():
                share.copy_(saved)
            self.optimizer.state[share] = {
                key: value.to(share.device) if torch.is_tensor(value) and value.dim() else value
                for key, value in state.items()
            }
        for group, saved in zip(self.optimizer.param_groups, said["param_groups"], strict=True):
            group.update(saved)

    def _fp32_shares(self) -> list[Tensor]:
        """The weights that the optimizer changes: this process's part, in fp32, flat."""
        zero = self.module.optimizer
        found: list[Tensor] = zero.fp32_partitioned_groups_flat if self.splits else zero.single_partition_of_fp32_groups
        return found

    def close(self) -> None:
        self._partitioning = None
        self.module.destroy()


def whole_size(parameter: Any) -> int:
    """Numbers of a parameter, split by ZeRO-3 or not."""
    return int(getattr(parameter, "ds_numel", None) or parameter.numel())


# -- DeepSpeed's JSON ------------------------------------------------------------------------------


def filled(settings: dict[str, Any], config: TrainConfig, world: int) -> dict[str, Any]:
    """`auto` replaced by the run's values, as transformers' Trainer does (its HfTrainerDeepSpeedConfig)."""
    found = copy.deepcopy(settings)
    batch, accumulation = config.per_device_train_batch_size, config.gradient_accumulation_steps
    values = {
        "train_micro_batch_size_per_gpu": batch,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": batch * accumulation * world,
        "gradient_clipping": config.max_grad_norm,
    }
    found |= values  # those that are no `auto` were held against the job when it was planned
    bf16 = {"enabled": config.dtype == "bf16" and config.autocast is None}
    found["bf16"] = found.get("bf16", {}) | bf16
    found.setdefault("zero_allow_untested_optimizer", True)  # SGD is torch's, too
    found.setdefault("steps_per_print", sys.maxsize)  # never: progress is told by events
    return found


def sized(settings: dict[str, Any], hidden_size: int) -> dict[str, Any]:
    """`auto` buckets by the width of the model, as transformers' Trainer sizes them."""
    values = {
        "reduce_bucket_size": hidden_size * hidden_size,
        "stage3_prefetch_bucket_size": int(0.9 * hidden_size * hidden_size),
        "stage3_param_persistence_threshold": 10 * hidden_size,
    }
    zero = dict(settings["zero_optimization"])
    zero |= {key: value for key, value in values.items() if zero.get(key) == "auto"}
    return settings | {"zero_optimization": zero}


def without_auto(settings: dict[str, Any]) -> dict[str, Any]:
    """For splitting while the model is loaded, before its width is known: the buckets play no part in it."""
    zero = {key: value for key, value in settings["zero_optimization"].items() if value != "auto"}
    return settings | {"zero_optimization": zero}
