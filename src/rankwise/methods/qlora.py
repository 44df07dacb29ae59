"""QLoRA (Dettmers et al. 2023, arXiv 2305.14314): LoRA over a base whose linear weights are 4-bit NF4, doubly
quantised.

Stored at 4.127 bit a weight: 4 for the code, 8/64 for the block scales, 32/(64*256) for their scales."""

from dataclasses import replace

from rankwise.methods.lora import LORA

NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)

QLORA = replace(LORA, name="qlora", base_bits=4)
