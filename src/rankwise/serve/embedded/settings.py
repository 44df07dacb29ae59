"""What a person may choose of the embedded engine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one child process.

    Attributes:
        base: folder of the base model, as `model.locate` returned it.
        dtype: of weights and arithmetic; None: fp32 on a CPU, where it is faster at the few rows of a step and an
            answer does not depend on its neighbours; bf16 elsewhere, where the latter holds until near ties.
        device: a torch device such as `cpu` or `cuda:0`.
        four_bit: hold the base in NF4, as QLoRA trained on it.
        threads: of one product; None: torch's own choice.
        max_rows: requests that are answered together; others wait.
        prefill_tokens: prompt tokens (padding included) that are read between two steps of the running batch.
        kv_bytes: of keys and values of all rows together; a row is let in when it fits to its longest answer.
    """

    base: Path
    dtype: Literal["bf16", "fp32"] | None = None
    device: str = "cpu"
    four_bit: bool = False
    threads: int | None = None
    max_rows: int = 16
    prefill_tokens: int = 256
    kv_bytes: int = 2 << 30

    @property
    def precision(self) -> Literal["bf16", "fp32"]:
        """The dtype that is taken."""
        return self.dtype or ("fp32" if self.device == "cpu" else "bf16")
