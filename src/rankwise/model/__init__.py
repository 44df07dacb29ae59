"""Models: find, load, attach a method, generate, measure likelihood. `locate` is torch-free; the others are not.

bitsandbytes (pulled in by PEFT) warns at import on CPUs with AVX512-BF16 that an optional kernel from
`kernels-community` is not there. It is not needed, so exactly that record is dropped, before PEFT is imported here.
PEFT 0.21 asks transformers 5.23 for an attribute by its old name, and transformers warns whoever is looking: dropped
as well. So is PEFT's word that it ignores position ids after a learned prompt: `generate` never pads such rows; and
DeepSpeed's, on standard output, that there is no GPU.
"""

import logging
import warnings


def _is_not_the_kernel_hint(record: logging.LogRecord) -> bool:
    return "kernels-community" not in str(record.msg)


def _is_not_the_choice_of_device(record: logging.LogRecord) -> bool:
    return "Setting accelerator to CPU" not in str(record.msg)


logging.getLogger("DeepSpeed").addFilter(_is_not_the_choice_of_device)
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_not_the_kernel_hint)
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
warnings.filterwarnings("ignore", message="Position ids are not supported for parameter efficient tuning")
