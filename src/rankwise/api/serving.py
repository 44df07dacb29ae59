"""`rankwise serve`: an engine, a gateway in front of it, and how many adapters lie in it."""

import contextlib
import functools
import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rankwise.api.tenancy import adapter_store, registry
from rankwise.errors import RankwiseError, UsageError
from rankwise.files import cache_folder
from rankwise.model.locate import locate
from rankwise.observe.model import weights_hash
from rankwise.text.template import ChatText
from rankwise.version import __version__

if TYPE_CHECKING:
    from rankwise.serve.engine import Engine
    from rankwise.serve.gateway.directory import Base
    from rankwise.serve.gateway.settings import Settings

ENOUGH = 0.95  # share of requests whose adapter is to be loaded already
FEWEST = 8  # slots, where memory lets them: vLLM's usual number
FEWEST_RANKS = 16  # of vLLM's slots: adapters that come while it runs are to fit as well
VLLM_DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
METRICS_TOKEN = "RANKWISE_METRICS_TOKEN"  # noqa: S105 - the name of a variable


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What `rankwise serve` was asked for.

    Attributes:
        engine_url: of a vLLM server that runs already; None: one is started.
        engine_python: interpreter that has vLLM, to start one; None: found.
        registry, adapters: as `rankwise tenants` takes them; None: this user's.
        slots: adapters at once; None: planned from `zipf` and the number of tenants.
        memory_gb: that the files of loaded adapters may have together.
        zipf: exponent of the popularity of tenants that the slots are planned with.
        max_batch: requests that are answered together.
        max_length: prompt and answer together; None: the model's positions.
        dtype: of the engine that is started; None: fp32 of the embedded one on a CPU, bf16 on a GPU, vLLM's own choice.
        four_bit, threads: of the embedded engine.
        device: of the embedded engine, or of a vLLM that runs already.
        start_seconds: for which a vLLM that is started may take to come up.
        limits: further numbers of the gateway's Settings, by their names.
    """

    model: str = "embedded"
    engine: Literal["embedded", "vllm"] = "embedded"
    engine_url: str | None = None
    engine_python: Path | None = None
    registry: str | None = None
    adapters: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    slots: int | None = None
    memory_gb: float = 1.0
    zipf: float = 1.0
    max_batch: int = 16
    max_length: int | None = None
    dtype: Literal["bf16", "fp32"] | None = None
    device: str = "cpu"
    four_bit: bool = False
    threads: int | None = None
    start_seconds: float = 600.0
    limits: Mapping[str, Any]


def serve(asked: Serving, ready: Callable[[dict[str, Any]], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        ready: called with the address, the process, the base, the engine and the slots once requests are answered.

    Raises:
        UsageError: options that exclude each other.
        ModelError: the base cannot be found or loaded.
        RegistryError, AdapterError: registry or store cannot be reached.
        RankwiseError: the address cannot be had, the engine did not come up, or a package is missing.
    """
    _check(asked)
    _require_packages()
    from rankwise.serve.gateway.gateway import Gateway
    from rankwise.serve.gateway.logs import log_to
    from rankwise.serve.gateway.server import run

    base = _base(asked.model)
    known, files = registry(asked.registry), adapter_store(asked.adapters)
    newest = [version for tenant in known.tenants() for version in tenant.versions[-1:]]
    sizes, ranks = [version.bytes for version in newest], [version.rank or 0 for version in newest]
    memory = round(asked.memory_gb * 1e9)
    slots = asked.slots or plan_slots(sizes, memory, asked.zipf)
    settings = _settings(asked, base.folder)
    log_to()
    gateway = Gateway(
        settings,
        engine=_engine(asked, base.folder, slots, settings.max_length, max([FEWEST_RANKS, *ranks])),
        registry=known,
        store=files,
        base=base,
        slots=slots,
        memory_bytes=memory,
        planned_hit_rate=functools.partial(_hit_rate, asked.zipf),
        metrics_token=os.environ.get(METRICS_TOKEN) or None,
    )

    def tell(host: str, port: int) -> None:
        ready(
            {
                "url": f"http://{f'[{host}]' if ':' in host else host}:{port}",
                "host": host,
                "port": port,
                "pid": os.getpid(),
                "version": __version__,
                "base": {"name": base.name, "folder": str(base.folder), "weights_hash": base.hash},
                "engine": asked.engine,
                "slots": slots,
                "max_length": settings.max_length,
                "tenants": len(sizes),
                "registry": known.shown,
                "adapters": files.root,
            }
        )

    with contextlib.closing(known):
        run(gateway, asked.host, asked.port, tell)


def is_loopback(host: str) -> bool:
    """Is this machine alone reached by it?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def plan_slots(sizes: list[int], memory: int, zipf: float) -> int:
    """The fewest slots with which ENOUGH requests find their adapter loaded, within memory.

    Args:
        sizes: bytes of each tenant's adapter.
        memory: bytes for all that are loaded.
    """
    tenants = max(1, len(sizes))
    most = max(1, memory * tenants // max(1, sum(sizes))) if sizes else FEWEST
    low, high = 1, tenants
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _hit_rate(zipf, tenants, middle) >= ENOUGH else (middle + 1, high)
    return min(most, max(FEWEST, low))


@functools.lru_cache(256)
def _hit_rate(zipf: float, tenants: int, slots: int) -> float:
    from rankwise.estimate.popularity import simulate_slots

    return simulate_slots(max(1, tenants), slots, zipf)[0]


def _check(asked: Serving) -> None:
    if asked.engine_url is not None and asked.engine != "vllm":
        raise UsageError("--engine-url names a vLLM server that runs already", fix="add --engine vllm")
    if asked.engine_python is not None and (asked.engine != "vllm" or asked.engine_url is not None):
        raise UsageError("--engine-python starts a vLLM server", fix="add --engine vllm, and no --engine-url")
    if asked.engine == "vllm":
        _check_vllm(asked)


def _check_vllm(asked: Serving) -> None:
    """An option that would be left aside without a word is refused."""
    if asked.four_bit or asked.threads is not None:
        raise UsageError(
            "--four-bit and --threads are of the embedded engine",
            expected="neither with --engine vllm",
            fix="leave them out; vLLM takes as many threads as the machine has (VLLM_CPU_OMP_THREADS_BIND)",
        )
    if asked.engine_url is not None and asked.dtype is not None:
        raise UsageError("--dtype cannot change a vLLM that runs already", fix="start that server with its own --dtype")
    if asked.engine_url is None and asked.device != "cpu":
        raise UsageError(
            f"--device {asked.device} does not say where a vLLM that is started here runs: its build does",
            fix="leave --device out; CUDA_VISIBLE_DEVICES picks a GPU",
        )


def _require_packages() -> None:
    for package in ("fastapi", "uvicorn", "prometheus_client", "httpx"):
        try:
            __import__(package)
        except ModuleNotFoundError:
            raise RankwiseError(f"`rankwise serve` needs {package}", fix="pip install 'rankwise[serve]'") from None


def _base(name: str) -> "Base":
    from rankwise.serve.gateway.directory import Base

    folder = locate(name)
    return Base(name, folder, weights_hash(folder), ChatText.from_folder(folder))


def _settings(asked: Serving, base: Path) -> "Settings":
    from rankwise.observe.model import observe_model
    from rankwise.serve.gateway.settings import Settings

    positions = observe_model(str(base)).max_position_embeddings
    wanted = asked.max_length
    if positions is not None and wanted is not None and wanted > positions:
        raise UsageError(
            f"--max-length {wanted} is more than the model's {positions} positions",
            fix=f"at most {positions} may be asked for",
        )
    return Settings(max_length=wanted or positions or 2048, **asked.limits)


def _engine(asked: Serving, base: Path, slots: int, max_length: int, max_rank: int) -> "Engine":
    folder = cache_folder() / "serve"
    folder.mkdir(parents=True, exist_ok=True)
    log_file = folder / f"engine-{os.getpid()}.log"
    if asked.engine == "vllm":
        return _vllm(asked, base, slots, max_length, max_rank, log_file)
    from rankwise.serve.embedded.engine import EmbeddedEngine
    from rankwise.serve.embedded.settings import Settings

    settings = Settings(
        base,
        dtype=asked.dtype,
        device=asked.device,
        four_bit=asked.four_bit,
        threads=asked.threads,
        max_rows=asked.max_batch,
    )
    return EmbeddedEngine(settings, log_file)


def _vllm(asked: Serving, base: Path, slots: int, max_length: int, max_rank: int, log_file: Path) -> "Engine":
    from rankwise.serve.gateway.logs import log
    from rankwise.serve.vllm import VllmEngine, VllmOptions

    def tell(line: str) -> None:
        log("engine", says=line)

    if asked.engine_url is not None:
        url = asked.engine_url
        gpu = asked.device != "cpu"
        return VllmEngine.attached(url, base, max_model_len=max_length, batch=asked.max_batch, gpu=gpu, tell=tell)
    options = VllmOptions(
        model=base,
        python=asked.engine_python,
        log=log_file,
        slots=slots,
        max_rank=max_rank,
        max_model_len=max_length,
        max_num_seqs=asked.max_batch,
        dtype=VLLM_DTYPES.get(asked.dtype or "", "auto"),
        start_seconds=asked.start_seconds,
    )
    return VllmEngine.supervised(options, tell)
