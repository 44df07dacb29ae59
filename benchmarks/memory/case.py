"""One published run as the other estimators see it: options of `rankwise estimate`, and a config.json on disk."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class RefusedError(Exception):
    """The peer cannot say this row; the message is the reason."""


@dataclass(frozen=True)
class Case:
    """One row for the peers: options of `rankwise estimate`, and the folder that holds its config.json."""

    options: Mapping[str, Any]
    config: Mapping[str, Any]
    gpu: str
    folder: str

    @property
    def model(self) -> str:
        return str(self.options["model"])

    @property
    def method(self) -> str:
        return str(self.options["method"])

    @property
    def batch(self) -> int:
        return int(self.options.get("batch", 1))

    @property
    def seq_len(self) -> int:
        return int(self.options["seq_len"])

    @property
    def rank(self) -> int:
        return int(self.options.get("rank", 16))

    @property
    def dtype(self) -> str:
        return str(self.options.get("dtype", "bf16"))

    @property
    def amp(self) -> bool:
        return bool(self.options.get("amp", False))

    @property
    def checkpointing(self) -> bool:
        return bool(self.options.get("gradient_checkpointing", False))

    @property
    def optimizer(self) -> str:
        return str(self.options.get("optimizer", "adamw_torch"))

    @property
    def attn(self) -> str:
        return str(self.options.get("attn", "sdpa"))

    @property
    def parallel(self) -> str:
        return str(self.options.get("parallel", "none"))

    @property
    def gpus(self) -> int:
        return int(self.options.get("gpus", 1))

    @property
    def targets(self) -> frozenset[str] | str:
        """Names of the adapted modules that the model has, or all-linear, or the method's default (empty)."""
        text = str(self.options.get("targets", ""))
        absent = {"c_attn", "query_key_value", "W_pack", "attn.c_proj", "w1", "w2"} if "q_proj" in text else set()
        return text if text == "all-linear" else frozenset(filter(None, text.split(","))) - absent

    def of_methods(self, *methods: str) -> None:
        """Refuse every other method."""
        if self.method not in methods:
            raise RefusedError(f"no {self.method}")

    def on_one_gpu(self) -> None:
        """Refuse sharding and offload; replicas (DDP) hold what one GPU holds."""
        if self.parallel not in ("none", "ddp") or self.options.get("offload", "none") != "none":
            raise RefusedError("no sharding or offload")

    def of_optimizers(self, names: Mapping[str, str]) -> str:
        """The peer's name of the row's optimizer: the entry of `names` whose pattern fits first."""
        for pattern, name in names.items():
            if re.search(pattern, self.optimizer):
                return name
        raise RefusedError(f"no optimizer {self.optimizer}")
