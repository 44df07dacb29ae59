"""QLoRA (Dettmers et al. 2023, arXiv 2305.14314): LoRA over a base whose linear weights are 4-bit NF4, doubly
quantised; and LoRA over other quantised bases.

Stored at 4.127 bit a weight: 4 for the code, 8/64 for the block scales, 32/(64*256) for their scales."""

from dataclasses import replace

from rankwise.methods.base import Tuner
from rankwise.methods.lora import LORA

NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)

QLORA = replace(LORA, name="qlora")
LORA_8BIT = replace(LORA, name="lora-8bit")

QUANTISED_TUNERS = (
    Tuner("qlora", "LORA", base="nf4", matrix_rank=True),
    Tuner("lora-8bit", "LORA", base="int8", matrix_rank=True),  # LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339)
    Tuner("gptq-lora", "LORA", base="gptq", matrix_rank=True),  # GPTQ (Frantar et al. 2022, arXiv 2210.17323)
)
