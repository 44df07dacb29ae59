"""A Slurm cluster of two nodes without GPUs on this machine, by Debian's slurmctld and slurmd, while a test lasts."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NODES = ("n1", "n2")
NEEDED = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")


def program(name: str) -> str | None:
    """Debian installs the daemons under another name, too."""
    return shutil.which(name) or shutil.which(f"{name}-wlm")


def missing() -> list[str]:
    return [name for name in NEEDED if program(name) is None]


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Yields the environment in which sbatch and its like speak to it."""
    folder.mkdir(parents=True)
    (folder / "slurm.conf").write_text(_configuration(folder))
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    commands = [[program("slurmctld"), "-D"], *([program("slurmd"), "-D", "-N", node] for node in NODES)]
    daemons = []
    try:
        for number, command in enumerate(commands):
            with (folder / f"{number}.out").open("w") as out:
                daemons.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out))
            time.sleep(2)
        ready(environment)
        yield environment
    finally:
        subprocess.run(["scancel", "--full", "--user=root"], env=environment, check=False, capture_output=True)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(60)


def ready(environment: dict[str, str]) -> None:
    for _ in range(60):
        states = ask(environment, "sinfo", "--noheader", "--Node", "--format=%T").split()
        if states == ["idle"] * len(NODES):
            return
        time.sleep(1)
    raise AssertionError(f"the nodes are {states}")


def ask(environment: dict[str, str], *command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _configuration(folder: Path) -> str:
    for name in ("state", *NODES):
        (folder / name).mkdir()
    host = socket.gethostname().split(".")[0]
    plugins = Path(program("slurmctld") or "").resolve().parents[1] / "lib" / "x86_64-linux-gnu" / "slurm-wlm"
    nodes = [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={_port()} CPUs=64 RealMemory=100000"
        for node in NODES
    ]
    return "\n".join(
        [
            "ClusterName=proof",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmctldPort={_port()}",
            "AuthType=auth/none",
            "CredType=cred/none",
            "AuthInfo=cred_expire=5",  # a requeued job waits as long
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SwitchType=switch/none",
            "MpiDefault=none",
            "JobAcctGatherType=jobacct_gather/none",
            "AccountingStorageType=accounting_storage/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core_Memory",
            "SchedulerType=sched/builtin",
            "SlurmdParameters=config_overrides",  # this machine need not have what the nodes claim
            "ReturnToService=2",
            "SlurmUser=root",
            "SlurmdUser=root",
            f"StateSaveLocation={folder / 'state'}",
            f"SlurmdSpoolDir={folder}/%n",
            f"SlurmctldPidFile={folder / 'slurmctld.pid'}",
            f"SlurmdPidFile={folder}/%n.pid",
            f"SlurmctldLogFile={folder / 'slurmctld.log'}",
            f"SlurmdLogFile={folder}/%n.log",
            *([f"PluginDir={plugins}"] if plugins.is_dir() else []),
            *nodes,
            f"PartitionName=main Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE State=UP",
            "",
        ]
    )
