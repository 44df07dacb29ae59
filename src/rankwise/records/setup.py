"""Setup: everything that sets the memory of one training step, and what a trace of that step found."""

from typing import Any, Literal

from pydantic import Field

from rankwise.records.base import Record

Dtype = Literal["bf16", "fp16", "fp32"]
Arithmetic = Literal["bf16", "fp16"]
Loss = Literal["full-logits", "upcast-logits", "shifted-logits", "fast-ce", "chunked", "fused-linear", "labelled"]
Stack = Literal["today", "4.48", "4.45", "litgpt"]
Attention = Literal["flash", "sdpa", "eager"]
Parallel = Literal["none", "ddp", "zero1", "zero2", "zero3", "fsdp"]
Offload = Literal["none", "optimizer", "all"]


class Setup(Record):
    """One training step as it would run on one device. Lengths in tokens, `config` by Hugging Face names."""

    config: dict[str, Any] = Field(description="The model's config.json, with its `architectures`.")
    method: str = Field(description="A `--method` name.")
    r: int | None = Field(None, description="Rank of the adapter.")
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    target_modules: str | tuple[str, ...] | None = None
    num_virtual_tokens: int | None = Field(None, description="Prompt and prefix methods: learned positions.")
    bottleneck_size: int | None = Field(None, description="Bottleneck adapters: their inner width.")
    new_tokens: int = Field(0, description="Rows of embedding and head for tokens that the base does not have.")
    new_token_rows: str | None = Field(None, description="PEFT's field that trains them.")
    dtype: Dtype = Field(description="Of the loaded weights, and of the arithmetic without autocast.")
    autocast: Arithmetic | None = Field(None, description="Arithmetic where it differs from dtype.")
    adapter_dtype: Dtype = "fp32"
    cast_inputs: bool = Field(True, description="PEFT's: a LoRA layer's input is cast to the dtype of its matrices.")
    optim: str = "adamw_torch"
    optimizer_in_backward: bool = Field(
        False, description="Each parameter is updated as soon as its gradient is there, which is then freed."
    )
    bf16_stochastic_round: bool = Field(
        False, description="bf16 weights are updated in fp32, a part at a time, and rounded up or down by chance."
    )
    per_device_train_batch_size: int
    max_length: int = Field(description="Padded or packed length of a row.")
    labelled_share: float = Field(1.0, description="Share of positions with a label; matters for loss=labelled alone.")
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    attn_implementation: Attention = "sdpa"
    loss: Loss = "full-logits"
    stack: Stack | None = Field(None, description="Software of the run; None: the one that `loss` is usually met with.")
    kbit_upcast: bool = Field(False, description="PEFT's k-bit preparation: what is not quantised turns fp32.")
    double_quant: bool = Field(True, description="NF4: block scales are quantised once more.")
    parallel: Parallel = "none"
    offload: Offload = "none"
    world_size: int = Field(1, description="Devices over all nodes.")
    capacity: int | None = Field(None, description="Bytes that the GPU's allocator can take; None: without end.")
    device: str = Field("gpu", description="`cpu`, or `gpu` with its compute capability, e.g. `gpu-8.0`.")


class Buckets(Record):
    """Bytes alive at the peak, by what they are; they add up to `peak_allocated`."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    workspace: int


class Product(Record):
    """Equal matrix products, (m, k) x (k, n), `batch` in one kernel."""

    batch: int
    m: int
    n: int
    k: int
    dtype: str = Field(description="Of the arithmetic: bf16, fp16, fp32, int8.")
    count: float = Field(description="How many; a micro-batch of several has the mean.")


class PhaseWork(Record):
    """What a device does in one phase of a micro-batch (optimizer: of a step). A multiply-add counts as two."""

    products: tuple[Product, ...]
    attention_flops: float
    moved_bytes: float = Field(description="Read and written outside of products, attention's operands among them.")
    unpacked_bytes: float = Field(description="Read and written while quantised weights are rebuilt.")
    kernels: float = Field(description="Launches.")


class AdapterFile(Record):
    """What an adapter takes on disk."""

    bytes: int | None = Field(description="Of adapter_model.safetensors, header included; None without an adapter.")


class Trace(Record):
    """What one device holds during a step. Bytes as PyTorch's caching allocator counts them (rounded up to blocks)."""

    buckets: Buckets
    peak_allocated: int
    peak_reserved: int
    peak_phase: str
    peak_op: str = Field(description="Operation whose output made the peak.")
    resident: int = Field(description="Weights and optimizer state between two steps.")
    eval_peak: int | None = Field(description="A forward pass without gradients, same batch, same loss.")
    save_peak: int | None = Field(description="While the state is written.")
    merge_peak: int | None = Field(description="Of the host, at most, in `rankwise merge`; None without a merge.")
    trainable_params: int
    total_params: int
    flops: dict[str, int] = Field(description="forward, backward, optimizer: of one micro-batch, multiply-add as two.")
    work: dict[str, PhaseWork] = Field(description="forward, backward, eval: of one micro-batch; optimizer: of a step.")
    parameter_bytes: int = Field(description="Of all parameters before sharding, as they are held.")
    trained_bytes: int = Field(description="Of the trained ones among them.")
    notes: tuple[str, ...] = ()
