"""The libraries that check launch files, in an environment of their own."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def validators() -> Path:
    """The programs of that environment."""
    folder = Path(os.environ.get("RANKWISE_LAUNCH_VALIDATORS", ROOT / ".venv-launch")) / "bin"
    if not (folder / "python").exists():
        pytest.skip("the libraries that check launch files are not here: `make launch-validators` installs them")
    return folder


@pytest.fixture
def validate(validators: Path, tmp_path: Path) -> Callable[[str, Path], str]:
    """Let the target's own library read a file; returns what it prints, and fails with its words."""

    def read(kind: str, path: Path) -> str:
        done = subprocess.run(
            [validators / "python", ROOT / "tests" / "launch" / "validator.py", kind, path],
            env=os.environ | {"HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    return read
