"""Configuration: one way to train, as the options of `rankwise estimate` say it, every default filled in."""

from typing import Any, Literal

from pydantic import Field

from rankwise.records.base import Record
from rankwise.records.costs import CostOptions
from rankwise.records.facts import LinearShape
from rankwise.records.setup import Attention, Dtype, Loss, Offload, Parallel, Setup, Stack


class Shapes(Record):
    """Weight matrices of a model class built from a config."""

    total_params: int = Field(description="Parameters, tied ones counted once.")
    linears: tuple[LinearShape, ...] = Field(description="Linear layers inside the blocks (no embedding, no head).")
    tied: bool = Field(description="Is the head the embedding?")


class Configuration(Record):
    """What `rankwise estimate` prices. Names are those of its options; lengths in tokens."""

    id: str | None = Field(None, description="Free name of an entry of a batch file.")
    model: str = Field(description="As the person named it.")
    config: dict[str, Any] = Field(description="The model's config.json.")
    method: str
    rank: int | None
    alpha: float | None
    dropout: float
    targets: str | tuple[str, ...] | None
    dtype: Dtype
    amp: bool = Field(description="fp32 weights, arithmetic in `dtype`.")
    autocast: Literal["none", "bf16", "fp16"] = Field(description="Arithmetic over weights of another dtype.")
    adapter_dtype: Dtype
    optimizer: str
    optimizer_in_backward: bool = Field(False, description="Gradients are used and freed in the backward pass.")
    bf16_stochastic_round: bool = Field(False, description="Updates of bf16 weights are rounded by chance.")
    batch: int = Field(description="Rows in one forward pass on one device.")
    seq_len: int = Field(description="Padded or packed length of a row.")
    grad_accum: int
    gradient_checkpointing: bool
    attn: Attention
    loss: Loss
    stack: Stack | None = Field(None, description="None: the one that `loss` is usually met with.")
    kbit_upcast: bool
    double_quant: bool
    prompt_length: int | None
    bottleneck: int | None
    parallel: Parallel
    offload: Offload
    gpus: int = Field(description="Devices a node.")
    nodes: int
    gpu: str | None = Field(description="None: this machine.")
    examples: int | None
    epochs: float
    tokens_per_example: int | None = Field(description="Mean real length; None: rows are full.")
    costs: CostOptions
    notes: tuple[str, ...] = Field((), description="What was assumed or ignored.")

    @property
    def devices(self) -> int:
        return self.gpus * self.nodes

    def setup(self, device: str) -> Setup:
        """The training step that this configuration means on `device` (`cpu`, or `gpu-<compute capability>`)."""
        autocast = self.dtype if self.amp else None if self.autocast == "none" else self.autocast
        return Setup(
            config=self.config,
            method=self.method,
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.targets,
            num_virtual_tokens=self.prompt_length,
            bottleneck_size=self.bottleneck,
            dtype="fp32" if self.amp else self.dtype,
            autocast=None if autocast == "fp32" else autocast,
            adapter_dtype=self.adapter_dtype,
            cast_inputs=self.loss != "labelled" or autocast in (None, "fp32"),  # `rankwise train` leaves it to autocast
            optim=self.optimizer,
            optimizer_in_backward=self.optimizer_in_backward,
            bf16_stochastic_round=self.bf16_stochastic_round,
            per_device_train_batch_size=self.batch,
            max_length=self.seq_len,
            gradient_accumulation_steps=self.grad_accum,
            gradient_checkpointing=self.gradient_checkpointing,
            attn_implementation=self.attn,
            loss=self.loss,
            stack=self.stack,
            kbit_upcast=self.kbit_upcast,
            double_quant=self.double_quant,
            parallel=self.parallel,
            offload=self.offload,
            world_size=self.devices,
            device=device,
        )
