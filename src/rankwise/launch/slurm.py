"""A batch script for Slurm. Nodes share their files: the run, the plan, the data and the environment lie in one place.

Sources: sbatch, srun and scontrol manual pages of Slurm 22.05 and later (--signal, --requeue, SLURM_NODEID,
SLURM_RESTART_COUNT); torch.distributed.run for the PET_ variables.
"""

from pathlib import Path

from rankwise.errors import UsageError
from rankwise.launch import shell
from rankwise.launch.accelerators import usual_name
from rankwise.launch.order import Files, Order
from rankwise.launch.shared import shared_folder
from rankwise.launch.shell import quote

REQUEUES = 10  # after which a run that its time limit stops again and again is left to a person
FIRST_PORT, PORTS = 20_000, 10_000  # two jobs that share a node should not meet


def files(order: Order) -> Files:
    """`train.sbatch`.

    Raises:
        UsageError: --shared is no absolute folder, or --image is given.
    """
    if order.wishes.image:
        raise UsageError(
            "--image is of no use to --on slurm: the script makes a virtual environment", fix="leave it out"
        )
    shared = shared_folder(order)
    text = shell.script(
        ["#!/bin/bash", *shell.heading(order, "Slurm batch script"), *_directives(order)],
        ["set -euo pipefail"],
        _environment(order, shared),
        shell.unless_finished(quote(shared / "runs" / order.run)),
        _rendezvous(order),
        _step(order),
        _wait(),
    )
    return Files({"train.sbatch": text}, "sbatch {folder}/train.sbatch", tuple(_notes(order, shared)))


def _directives(order: Order) -> list[str]:
    lines = [
        f"--job-name={order.name}",
        f"--nodes={order.nodes}",
        "--ntasks-per-node=1",  # it starts one process for each device itself
        f"--cpus-per-task={order.cores}",
        f"--mem={order.memory_gib}G",
    ]
    if order.gpu is not None:
        kind = usual_name(order, "slurm")
        lines.append(f"--gres=gpu:{f'{kind}:' if kind else ''}{order.per_node}")
    if order.limit_seconds is not None:
        lines += [f"--time={_clock(order.limit_seconds)}", f"--signal=B:USR1@{order.stop_seconds}"]
    # A restart appends to the log, which lies where sbatch was called: a folder that is not there would lose it.
    lines += ["--requeue", "--open-mode=append", "--output=%x-%j.log"]
    return [f"#SBATCH {line}" for line in lines]


def _clock(seconds: int) -> str:
    """D-HH:MM:SS."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours // 24}-{hours % 24:02}:{minute:02}:{second:02}"


def _environment(order: Order, shared: Path) -> list[str]:
    """Made once, on the first node, of the version that made the plan."""
    folder = shared / ".rankwise" / f"{order.name}-env"
    build = ['python3 -m venv "$environment"', '. "$environment/bin/activate"', *shell.install(order)]
    return [
        f"environment={quote(folder)}",
        'if [ ! -e "$environment/.complete" ]; then',
        *(f"  {line}" for line in build),
        '  touch "$environment/.complete"',
        "fi",
        '. "$environment/bin/activate"',
        *([f"export HF_HOME={quote(shared / '.rankwise' / 'huggingface')}"] if order.from_hub else []),
        *([f"export RANKWISE_CACHE={quote(shared / '.rankwise' / 'cache')}"] if order.model == "embedded" else []),
        *shell.fetch_base(order),
    ]


def _rendezvous(order: Order) -> list[str]:
    """The variables of torchrun, by which the nodes of a run find each other."""
    if order.nodes == 1:
        return []
    return [
        f"export PET_NNODES={order.nodes} PET_NPROC_PER_NODE={order.per_node}",
        'PET_MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        f"PET_MASTER_PORT=$(({FIRST_PORT} + SLURM_JOB_ID % {PORTS}))",
        "export PET_MASTER_ADDR PET_MASTER_PORT",
    ]


def _step(order: Order) -> list[str]:
    if order.nodes == 1:
        return [f"{shell.train(order)} &", "training=$!"]
    return [
        "# shellcheck disable=SC2016  # each node's own number, seen by that node",
        "srun --kill-on-bad-exit=1 bash -c 'PET_NODE_RANK=$SLURM_NODEID exec \"$@\"' node \\",
        f"  {shell.train(order)} &",
        "training=$!",
    ]


def _wait() -> list[str]:
    return [
        "# USR1 comes before the time limit: by a file named stop the run saves and stops, all nodes at one step, and",
        "# the job waits in line for its next turn. No signal is passed on: srun answers SIGTERM by killing its tasks.",
        "# A preempted job needs no help: Slurm sends SIGTERM to its processes itself.",
        "timed_out=",
        'trap \'timed_out=1; if [ -e "$run/events.jsonl" ]; then touch "$run/stop"; fi\' USR1',
        "trap : TERM",
        "code=0",
        'wait "$training" || code=$?',
        'while kill -0 "$training" 2>/dev/null; do code=0; wait "$training" || code=$?; done',
        f'if [ -n "$timed_out" ] && [ "$code" -ne 0 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {REQUEUES} ]; then',
        '  scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        'exit "$code"',
    ]


def _notes(order: Order, shared: Path) -> list[str]:
    kind = usual_name(order, "slurm")
    notes = [
        f"all nodes must see, at these paths: {', '.join(map(str, (order.plan, *order.needs, shared)))}",
        "python3 is 3.11 or later there, with venv; it makes the environment at the first start",
        "partition, account and other rules of the site go on the command line: sbatch --partition=… --account=…",
    ]
    if order.gpu is not None and kind is not None and order.wishes.accelerator is None:
        notes.append(f"the type of the GPU is asked for as {kind}; if your site calls it otherwise, say --accelerator")
    if order.gpu is not None and kind is None:
        notes.append(
            f"any GPU is asked for, since sites have no usual name for {order.gpu}; --accelerator names the type"
        )
    return notes
