"""Prompt methods: learned vectors before the input (prompt tuning, Lester et al. 2021, arXiv 2104.08691; p-tuning, Liu
et al. 2021, arXiv 2103.10385) or before the keys and values of every layer (prefix tuning, Li and Liang 2021, arXiv
2101.00190; LLaMA-Adapter, Zhang et al. 2023, arXiv 2303.16199).
"""

from dataclasses import replace

from rankwise.methods.base import Method, Tuner

PROMPT = Method(name="prompt", trains="adapter", options=("num_virtual_tokens", "adapter"))
PREFIX = replace(PROMPT, name="prefix")
P_TUNING = replace(PROMPT, name="p_tuning", encodes=True)

# PEFT refuses the two whose vectors stand in the key-value cache where a module checkpoints (peft_model.py).
PROMPT_TUNERS = (
    Tuner("prompt", "PROMPT_TUNING"),
    Tuner("prefix", "PREFIX_TUNING", spans_layers=True, checkpointing=False),
    Tuner("prompt_tuning", "PROMPT_TUNING"),
    Tuner("prefix_tuning", "PREFIX_TUNING", spans_layers=True, checkpointing=False),
    Tuner("p_tuning", "P_TUNING"),
    Tuner("multitask_prompt_tuning", "MULTITASK_PROMPT_TUNING"),
    Tuner("cartridge", "CARTRIDGE", spans_layers=True, checkpointing=False),
    # PEFT wants a number of layers; attach fills in all of them.
    Tuner("adaption_prompt", "ADAPTION_PROMPT"),
    Tuner(
        "cpt",
        "CPT",
        untraceable="its loss and its projection pick positions by the values of labels and weights, so their sizes "
        "are not known before the data are",
    ),
)
