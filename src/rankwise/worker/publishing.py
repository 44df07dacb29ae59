"""What a run leaves: the adapter or the model, and what proves it."""

from typing import Any

import torch
from safetensors.torch import save_file

from rankwise.files import publish_folder, write_record
from rankwise.methods import METHODS
from rankwise.methods.vocabulary import MODULES_TO_SAVE
from rankwise.model.attach import allow_packing
from rankwise.model.likelihood import final_logits
from rankwise.model.load import quiet_transformers
from rankwise.model.trained import publish_weights
from rankwise.model.vocabulary import cast_whole_modules
from rankwise.records import Plan
from rankwise.report.card import model_card
from rankwise.store import LINEAGE, Run
from rankwise.text.dataset import Dataset
from rankwise.text.files import copy_licence, copy_text_files
from rankwise.text.template import ChatText


def publish(run: Run, plan: Plan, model: Any, data: Dataset, chat: ChatText) -> None:
    """adapter/ (plain PEFT) or model/ (plain transformers), and the logits of the trained model on a few held-out
    prompts.
    """
    config = plan.verdict.config
    assert config is not None
    full = METHODS[config.method].trains == "weights"
    if full and plan.facts.model.dtype == "bf16":
        cast_weights(model, torch.bfloat16)  # saved, and proven, in the precision of the base
    if config.new_token_rows == MODULES_TO_SAVE:
        cast_whole_modules(model, config.dtype)
    with publish_folder(run.model if full else run.adapter) as folder, quiet_transformers():
        publish_weights(model, folder)
        copy_text_files(plan.facts.model.path, folder, plan.job.chat_template)
        copy_licence(plan.facts.model.path, folder)
        if config.new_token_ids:
            chat.save_tokenizer(folder)
        write_record(folder / LINEAGE, plan.lineage())
        (folder / "README.md").write_text(model_card(plan), encoding="utf-8")  # PEFT's own is an empty form
    if full and config.autocast is None:
        cast_weights(model, torch.float32)  # the arithmetic that the files will be used in
    allow_packing(model, True)
    prompts = data.prompts()
    with publish_folder(run.proof) as folder:
        save_file({"logits": final_logits(model, prompts).contiguous()}, folder / "trained_logits.safetensors")


def cast_weights(model: Any, dtype: torch.dtype) -> None:
    """Not `model.to(dtype)`: that would round buffers too (rotary frequencies), which a reload computes in fp32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
