"""What is no supervised fine-tuning of text is refused at plan time, by name and with the reason."""

import json
from pathlib import Path
from typing import Any

import pytest

from rankwise import api
from rankwise.errors import DataError, JobError, ModelError
from rankwise.methods import METHODS
from rankwise.unsupported import OTHER_TRAINING, other_rows
from tests.tiny import tiny_llama
from tests.training import cli, toy_job, write_jsonl

TURNS = [{"role": "user", "content": "a cat?"}, {"role": "assistant", "content": "a cat"}]
PICTURE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, TURNS[1]]


@pytest.mark.parametrize("name", OTHER_TRAINING)
def test_other_objectives_are_refused_by_name(name: str) -> None:
    with pytest.raises(JobError) as caught:
        api.plan(goal="instruction", model="llama-3-8b", data__examples=100, method=name)
    assert f"{name} is another objective" in caught.value.what and OTHER_TRAINING[name] in caught.value.what
    assert caught.value.exit_code == 2 and "lora" in caught.value.expected and not set(METHODS) & set(OTHER_TRAINING)


def test_the_command_line_refuses_it_too(tmp_path: Path) -> None:
    done = cli("plan", "--model", "llama-3-8b", "--goal", "task", "--examples", 100, "--method", "DPO", cwd=tmp_path)
    assert done.returncode == 2 and "DPO is another objective" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference rows"),
        ({"chosen": TURNS, "rejected": TURNS}, "preference rows"),
        ({"prompt": "a", "completion": "b", "label": False}, "KTO"),
        ({"prompt": "a"}, "GRPO, PPO and RLOO"),
        ({"messages": TURNS, "images": ["cat.png"]}, "holds images, and only text"),
        ({"messages": PICTURE}, "a message holds an image"),
        ({"instruction": "a", "output": "b", "image": "cat.png"}, "holds image, and only text"),
    ],
)
def test_rows_for_something_else_are_refused_with_their_line(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    good = {key: TURNS if key == "messages" else "x" for key in row if key not in ("images", "image")}
    rows = [row] if "chosen" in row or "label" in row or list(row) == ["prompt"] else [good, row]
    write_jsonl(tmp_path / "train.jsonl", rows)
    with pytest.raises(DataError, match=said) as caught:
        api.plan(toy_job(tmp_path, tiny_llama(tmp_path / "model")))
    assert f"train.jsonl:{len(rows)}" in str(caught.value) and caught.value.fix


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TURNS, "chosen": TURNS, "rejected": TURNS},
        {"prompt": "a", "completion": "b", "label": "positive"},
        {"messages": TURNS, "images": [], "audio": None},
    ],
)
def test_rows_with_an_answer_to_learn_are_not(row: dict[str, Any]) -> None:
    assert other_rows(row) is None


def test_a_vision_model_is_refused(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"vision_config": {"hidden_size": 8}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"vision or audio model \(vision_config in its config\.json\)") as caught:
        api.plan(toy_job(tmp_path, folder))
    assert caught.value.exit_code == 1 and caught.value.fix == "name its text-only counterpart"
