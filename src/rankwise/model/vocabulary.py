"""New tokens of the vocabulary: rows of embedding and head for them, and how PEFT trains those.

Three ways, by the field of PEFT's LoraConfig that carries them out: `trainable_token_indices` trains the new rows
alone, `target_modules` puts LoRA on embedding and head, `modules_to_save` trains both whole. Tied weights stay tied:
the head then has no weights of its own to train.
"""

from collections.abc import Sequence
from typing import Any

import torch
from peft.utils.other import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel

from rankwise.errors import UsageError
from rankwise.methods.vocabulary import MODULES_TO_SAVE, TRAINABLE_ROWS
from rankwise.model.load import DTYPES, quiet_transformers
from rankwise.records import NewTokens


@torch.no_grad()
def extend(model: PreTrainedModel, new: NewTokens | None) -> PreTrainedModel:
    """The model with a row for every new token: the mean of the rows of the pieces that its text was read as before.

    transformers' own `mean_resizing` draws new rows around the mean of all; the mean of a word's pieces says something
    of the word, and is the same whenever the files are loaded.

    Args:
        new: None leaves the model as it is.
    """
    if new is None:
        return model
    rows = model.get_input_embeddings().weight.shape[0]
    if new.rows > rows:
        with quiet_transformers():
            model.resize_token_embeddings(new.rows, mean_resizing=False)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    for weight in {id(w): w for w in (embedding.weight, head.weight)}.values():
        for token, pieces in zip(new.ids, new.pieces, strict=True):
            known = [piece for piece in pieces if piece < rows] or slice(0, rows)
            weight[token] = weight[known].float().mean(dim=0).to(weight.dtype)
    return model


def cast_whole_modules(model: Any, dtype: str) -> None:
    """The trained copies of embedding and head in the precision of the base, in which PEFT loads them; they train in
    fp32.
    """
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            for parameter in module.modules_to_save.parameters():
                parameter.data = parameter.data.to(DTYPES[dtype])


def embedding_names(model: PreTrainedModel) -> list[str]:
    """Full names of the embedding and, where it has weights of its own, the head."""
    wanted = [model.get_input_embeddings()]
    if not model.config.get_text_config().tie_word_embeddings:
        wanted.append(model.get_output_embeddings())
    return [name for name, module in model.named_modules() if any(module is one for one in wanted)]


def vocabulary_fields(
    model: PreTrainedModel, way: str, ids: Sequence[int], targets: dict[str, nn.Module]
) -> dict[str, Any]:
    """Fields of PEFT's LoraConfig that train the new tokens `ids` beside the modules of `targets`.

    Raises:
        UsageError: LoRA on the embedding of a model with tied weights.
    """
    places = embedding_names(model)
    tied = len(places) == 1
    if way == TRAINABLE_ROWS:
        return {way: {name: list(ids) for name in places}}
    if way == MODULES_TO_SAVE:
        return {way: places, "ensure_weight_tying": tied}
    if tied:
        raise UsageError(TIED_TARGETS, fix="train.new_token_rows: trainable_token_indices, or modules_to_save")
    return {way: [*targets, *places]}


TIED_TARGETS = (
    "LoRA on the embedding of a model whose head is tied to it: PEFT 0.21 keeps two adapters for one matrix and merges "
    "both into it"
)


def trains_vocabulary(config: Any, model: PreTrainedModel) -> bool:
    """Does an adapter of this configuration train rows of the embedding?"""
    rows = getattr(config, "trainable_token_indices", None) or getattr(config, "modules_to_save", None)
    return bool(rows) or keeps_embeddings(config, model)


def keeps_embeddings(config: Any, model: PreTrainedModel) -> bool:
    """Must the adapter's file hold embedding and head, so that it loads on a base with rows of other values?"""
    targets = getattr(config, "target_modules", None)
    return not isinstance(targets, str) and not set(embedding_names(model)).isdisjoint(targets or ())
