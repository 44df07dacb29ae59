"""A person's own DeepSpeed JSON, read once."""

import json
from pathlib import Path
from typing import Any

from rankwise.errors import JobError

STAGES = (1, 2, 3)


def read_deepspeed(path: Path) -> dict[str, Any]:
    """The content of the file. Raises JobError: no JSON, or without a stage of ZeRO."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"train.deepspeed: {path} cannot be read: {error}") from None
    except json.JSONDecodeError as error:
        raise JobError(f"{path}:{error.lineno}: not JSON: {error.msg}", expected="DeepSpeed's configuration") from None
    zero = settings.get("zero_optimization") if isinstance(settings, dict) else None
    stage = zero.get("stage") if isinstance(zero, dict) else None
    if stage not in STAGES:
        raise JobError(
            f"{path}: zero_optimization.stage is {stage}",
            expected="1, 2 or 3",
            fix="set the stage; without one, use train.parallel: ddp and no file",
        )
    assert isinstance(settings, dict)
    return settings
