"""`rankwise launch`"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rankwise.cli.completing import plans
from rankwise.cli.face import Json, command
from rankwise.cli.printing import print_json, print_lines, print_passage

SHARED_HELP = (
    "Where all nodes see the same files; the run lies there. slurm and ray: a folder (default: this one). skypilot: a "
    "volume, or for one node a bucket such as s3://name (default: a bucket of its own). kubernetes: a claim (default: "
    "one that volume.yaml makes)."
)
PACKAGE_HELP = "What pip installs there (default: the version that made the plan)."
HOURS_HELP = "Wall-clock limit of one start (default: the upper end of the plan's estimate, and half an hour)."
ACCELERATOR_HELP = (
    "What the GPU is called there: Slurm's gres type, SkyPilot's or Ray's name, the label of Kubernetes nodes."
)


class Target(StrEnum):
    """Where a plan can be started; a test holds it against launch.targets.TARGETS."""

    slurm = "slurm"
    skypilot = "skypilot"
    kubernetes = "kubernetes"
    ray = "ray"


@command
def launch(
    *,
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="A plan.json, or the folder that holds it.", autocompletion=plans)
    ],
    on: Annotated[Target, typer.Option("--on", help="Where it is to run.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the files (default launch/<run>-<on>).")] = None,
    shared: Annotated[str | None, typer.Option(help=SHARED_HELP)] = None,
    package: Annotated[str | None, typer.Option(help=PACKAGE_HELP)] = None,
    image: Annotated[str | None, typer.Option(help="Container image (skypilot, kubernetes).")] = None,
    hours: Annotated[float | None, typer.Option(min=0.01, help=HOURS_HELP)] = None,
    accelerator: Annotated[str | None, typer.Option(help=ACCELERATOR_HELP)] = None,
    as_json: Json = False,
) -> int:
    """Write the files that start a plan elsewhere. Example: `rankwise launch runs/first/plan.json --on slurm`"""
    from rankwise import api
    from rankwise.launch.order import Wishes

    wishes = Wishes(shared=shared, package=package, image=image, hours=hours, accelerator=accelerator)
    made = api.launch(plan, on.value, out, wishes)
    if as_json:
        print_json({"files": [str(file) for file in made.files], "start": made.start, "notes": list(made.notes)})
        return 0
    print_passage("Written", [str(file) for file in made.files])
    print_passage("What has to be so", made.notes)
    print_lines(f"Start: {made.start}")
    return 0
