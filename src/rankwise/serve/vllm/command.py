"""The server that is started: its arguments and environment, the same for GPU and CPU builds of vLLM."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rankwise.errors import UsageError
from rankwise.methods.unmerged import SLOT_RANKS, slot_rank
from rankwise.serve.vllm.interpreter import Interpreter

BASE = "base"  # the name under which the server knows the base; adapters are named tenant@version
HOST = "127.0.0.1"
# Of ours, not for its Python: what is on our path would be imported in the place of its own packages.
NOT_ITS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


@dataclass(frozen=True, kw_only=True)
class VllmOptions:
    """What a server is started with.

    Attributes:
        model: folder of the base.
        log: file that the server's output goes to.
        slots: adapters that one batch may mix (`--max-loras`); 0: the base alone.
        max_rank: largest rank of an adapter; it becomes the next one that vLLM has slots of.
        kept: adapters kept in the host's memory, slots included (`--max-cpu-loras`); None: twice the slots. What is
            beyond is read from its folder again when it is asked for.
        max_model_len: tokens of prompt and answer; None: the model's positions.
        max_num_seqs: requests in one batch.
        dtype: `auto`, or as vLLM names it.
        kv_cache_gib: of the key-value cache on a CPU; a GPU gives what `--gpu-memory-utilization` leaves.
        python: interpreter of vLLM's virtualenv; None: found.
        start_seconds: how long it may take to come up.
        arguments: more for vLLM, e.g. `--tensor-parallel-size 2`; they come last and win.
    """

    model: Path
    log: Path
    slots: int = 8
    max_rank: int = 16
    kept: int | None = None
    max_model_len: int | None = None
    max_num_seqs: int = 16
    dtype: str = "auto"
    kv_cache_gib: int = 2
    python: Path | None = None
    start_seconds: float = 600.0
    arguments: tuple[str, ...] = ()


def server_command(options: VllmOptions, interpreter: Interpreter, port: int) -> list[str]:
    """The arguments of the process; no secret is among them. Raises UsageError: a rank that vLLM has no slots of."""
    command = [str(interpreter.python), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(options.model), "--served-model-name", BASE, "--host", HOST, "--port", str(port)]
    command += ["--dtype", options.dtype, "--max-num-seqs", str(options.max_num_seqs)]
    # The model's generation_config.json would set temperature and penalties where a request leaves them out.
    command += ["--generation-config", "vllm", "--disable-uvicorn-access-log"]
    if options.max_model_len is not None:
        command += ["--max-model-len", str(options.max_model_len)]
    if interpreter.cpu:
        command += ["--enforce-eager"]  # nothing is compiled on a CPU in any case: it says so without trying
    return [*command, *_adapters(options, interpreter), *options.arguments]


def _adapters(options: VllmOptions, interpreter: Interpreter) -> list[str]:
    if options.slots == 0:
        return []
    rank = slot_rank(options.max_rank)
    if rank is None:
        raise UsageError(
            f"vLLM has no slots for adapters of rank {options.max_rank}",
            expected=f"at most {SLOT_RANKS[-1]}",
            fix="merge that adapter (`rankwise merge`), or serve it with --engine embedded",
        )
    kept = max(options.slots, 2 * options.slots if options.kept is None else options.kept)
    zeros = 1 if interpreter.cpu else 0  # the base as an adapter (null.py)
    slots = ["--enable-lora", "--max-loras", str(options.slots + zeros), "--max-lora-rank", str(rank)]
    return [*slots, "--max-cpu-loras", str(kept + zeros)]


def server_environment(
    options: VllmOptions, interpreter: Interpreter, key: str, ours: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Ours without what would lead its Python to our packages; the key is here, and not among the arguments."""
    environment = {name: value for name, value in ours.items() if name not in NOT_ITS}
    environment |= {
        "VLLM_API_KEY": key,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONSAFEPATH": "1",  # a file in the working folder would be imported in the place of a module of that name
        "PYTHONUNBUFFERED": "1",
    }
    if interpreter.cpu:
        environment["VLLM_CPU_KVCACHE_SPACE"] = str(options.kv_cache_gib)
    return environment
