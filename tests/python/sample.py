"""What a person writes, for a type checker: tests/python/test_typed.py runs mypy over it."""

from pathlib import Path
from typing import assert_type

import rankwise as rw
from rankwise.records import Artifact, Audit, Estimate, Evaluation, Plan, Verification
from rankwise.store import Run

plan = rw.plan("job.yaml", gpu="A100-80GB", gpus=2, method="lora")
assert_type(plan, Plan)
assert_type(plan.verdict.method, str)
assert_type(rw.estimate(model="gpt2", method="qlora", gpu="L4"), Estimate)
assert_type(rw.check(Path("rows.jsonl"), model="embedded"), Audit)
run = rw.train({"goal": "task", "model": "embedded"}, out="runs/first", seed=1)
assert_type(run, Run)
assert_type(rw.evaluate(run), Evaluation)
assert_type(rw.merge("runs/first"), Path)
assert_type(rw.verify(run), tuple[Verification, Artifact | None])
rw.plan("job.yaml", metod="lora")  # WRONG
rw.plan("job.yaml", gpus="two")  # WRONG
rw.export(run, "onnx")  # WRONG
