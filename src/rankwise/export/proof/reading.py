"""The same text, the same ids: chat template, tokenizer, BOS, EOS and stop ids of each folder against training's.

Rankwise reads text by itself (and so does its gateway, from these folders); another server will read it with
transformers. All must come to the ids that training fed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from rankwise.records import Check
from rankwise.text.golden import GOLDEN_CHAT, golden, named_ids
from rankwise.text.template import ChatText


def reads_alike(folder: Path, trained: ChatText, new_tokens: Sequence[str]) -> list[Check]:
    """Checks of one folder's text files.

    Args:
        trained: the text that training used.
        new_tokens: tokens that the job added to the vocabulary.
    """
    try:
        ours = ChatText.from_folder(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a damaged tokenizer surfaces as whatever tokenizers, json or transformers raised
        return [_unreadable(folder, error)]
    return [_same_ids(folder, trained, ours, tokenizer, new_tokens), _same_stops(folder, trained, ours, tokenizer)]


def _unreadable(folder: Path, error: Exception) -> Check:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return Check(
        name=f"same_ids_{folder.name}",
        passed=False,
        number=f"it cannot be read: {first[:200]}",
        limit="all equal",
        text=f"Chat template and tokenizer of {folder.name}/.",
    )


def _same_ids(folder: Path, trained: ChatText, ours: ChatText, tokenizer: Any, new_tokens: Sequence[str]) -> Check:
    found, expected = golden(ours), golden(trained)
    apart = [] if len(found) == len(expected) else ["a chat template, which one side lacks"]
    for mine, theirs in zip(expected, found, strict=False):
        said = tokenizer.apply_chat_template(mine.messages, add_generation_prompt=True, return_dict=True)
        if not mine.ids == theirs.ids == tuple(said["input_ids"]):
            apart.append(repr(mine.messages[-1]["content"]))
    apart += [t for t in new_tokens if tokenizer(t, add_special_tokens=False)["input_ids"] != trained.encode(t)]
    what = f"{len(GOLDEN_CHAT)} golden conversations" if trained.has_template else "no chat template"
    more = f" and {len(new_tokens)} new tokens" if new_tokens else ""
    return Check(
        name=f"same_ids_{folder.name}",
        passed=not apart,
        number=f"{what}{more}: " + (f"different ids in {', '.join(apart)}" if apart else "all ids equal"),
        limit="all equal",
        text=f"Chat template and tokenizer of {folder.name}/, read by us and by transformers: the ids of training.",
    )


def _same_stops(folder: Path, trained: ChatText, ours: ChatText, tokenizer: Any) -> Check:
    """By name and by id. An adapter's folder has no generation_config.json: its stops are those of the base, and its
    own EOS must be among them. A BOS that training does not name is transformers' own default, and begins nothing.
    """
    expected, found = named_ids(trained), named_ids(ours)
    apart = [] if (found.bos, found.eos) == (expected.bos, expected.eos) else [f"found {found}"]
    if tokenizer.eos_token_id != trained.eos_token_id:
        apart.append(f"transformers reads EOS {tokenizer.eos_token} = {tokenizer.eos_token_id}")
    if expected.bos is not None and tokenizer.bos_token_id != trained.bos_token_id:
        apart.append(f"transformers reads BOS {tokenizer.bos_token} = {tokenizer.bos_token_id}")
    whole = (folder / "config.json").is_file()  # a server takes a whole model's stop ids from generation_config.json
    if not (found.stops == expected.stops if whole else set(found.stops) <= set(expected.stops)):
        apart.append(f"stops on {', '.join(map(str, found.stops))}")
    return Check(
        name=f"stop_ids_{folder.name}",
        passed=not apart,
        number=f"{'; '.join(apart)}; training had {expected}" if apart else str(found),
        limit="those of training",
        text=f"BOS, EOS and stop ids of {folder.name}/, by name and id, read by us and by transformers.",
    )
