"""What people ask for and is not supervised fine-tuning of text: other objectives, and models that read more than text.
It is refused by name, with the reason, because priced or trained as text it would be wrong.
"""

from collections.abc import Iterable, Mapping
from typing import Any

# Objective -> what its step needs that this one has not.
OTHER_TRAINING = {
    "dpo": "a second, frozen copy of the model and two answers a row",
    "ipo": "a second, frozen copy of the model and two answers a row",
    "orpo": "two answers a row",
    "simpo": "two answers a row",
    "cpo": "two answers a row",
    "kto": "a second, frozen copy of the model",
    "ppo": "a value model, a reward model and generation",
    "grpo": "generation of several answers a row",
    "rloo": "generation of several answers a row",
    "rm": "a scalar head in place of the vocabulary's",
    "reward": "a scalar head in place of the vocabulary's",
}
NOT_TEXT = ("vision_config", "audio_config", "vision_tower", "vit_config")
MEDIA = ("image", "images", "pixel_values", "video", "videos", "audio", "audios")
SUPERVISED = "supervised fine-tuning: rows with the answer that is to be learned"


def other_objective(name: str) -> str | None:
    """Why an objective of this name is not carried out; None for a name that is none."""
    needs = OTHER_TRAINING.get(name.lower())
    return None if needs is None else f"{name} is another objective than supervised fine-tuning: it needs {needs}"


def other_rows(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """(what a row is for or holds that is not trained, what to do); None where it may be a row of text to learn."""
    if held := [key for key in MEDIA if row.get(key)]:
        return f"the row holds {held[0]}, and only text is trained", "leave such rows out"
    if any(_is_media(part) for part in _parts(row)):
        return "a message holds an image, a video or a sound, and only text is trained", "leave such rows out"
    if "messages" in row or "conversations" in row:
        return None
    if "chosen" in row and "rejected" in row:
        what = "these are preference rows (chosen, rejected): DPO, ORPO and reward training learn from pairs of answers"
        return what, "to learn the better answers alone, rename chosen to completion and drop rejected"
    if isinstance(row.get("label"), bool) and "prompt" in row and "completion" in row:
        what = "these are rows of judged answers (prompt, completion, label): KTO learns from them, good and bad ones"
        return what, "to learn the good answers alone, keep the rows whose label is true and drop label"
    if set(row) == {"prompt"}:
        what = "these rows have a prompt and no answer: GRPO, PPO and RLOO generate answers and score them"
        return what, "add the answer that is to be learned as completion"
    return None


def _parts(row: Mapping[str, Any]) -> Iterable[Any]:
    """The parts of those messages that are lists of parts."""
    for key in ("messages", "conversations", "prompt", "completion"):
        turns = row.get(key)
        for turn in turns if isinstance(turns, list) else ():
            content = turn.get("content") if isinstance(turn, dict) else None
            yield from content if isinstance(content, list) else ()


def _is_media(part: Any) -> bool:
    kind = part.get("type") if isinstance(part, dict) else None
    return isinstance(kind, str) and kind.removesuffix("_url").removeprefix("input_") in MEDIA
