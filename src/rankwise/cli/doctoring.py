"""`rankwise doctor`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from rankwise.cli.face import Json, command
from rankwise.cli.printing import print_json, print_lines, print_passage, print_table, progress_bars
from rankwise.errors import UsageError


@command
def doctor(
    *,
    gpu: Annotated[bool, typer.Option("--gpu", help="Real steps on the GPU, compared with the traces.")] = False,
    cpu: Annotated[bool, typer.Option("--cpu", help="The same on the processor (a few minutes).")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the self-check's file (default: the cache).")] = None,
    as_json: Json = False,
) -> int:
    """What a run would find here; exit code 3 when something is wrong. Example: `rankwise doctor --gpu --out ledger`"""
    from rankwise import api

    if gpu and cpu:
        raise UsageError("--gpu and --cpu are two self-checks", fix="choose one")
    if gpu or cpu:
        with progress_bars(as_json) as progress:
            checked, path = api.doctor(gpu=gpu, out=out, progress=progress)
        return _print_self_check(checked, path, as_json)
    found = api.environment()
    if as_json:
        print_json({**found.model_dump(mode="json"), "sound": found.sound})
        return 0 if found.sound else 3
    _print_environment(found)
    return 0 if found.sound else 3


def _print_environment(found: Any) -> None:
    from rankwise.records.selfcheck import NEVER_RUN_ON_GPU
    from rankwise.report import doctor_words as words

    print_table(words.CONDITION_HEADS, [words.condition_row(c) for c in found.conditions])
    print_passage("Never run on a GPU by us", NEVER_RUN_ON_GPU)


def _print_self_check(found: Any, path: Path, as_json: bool) -> int:
    from rankwise.report import doctor_words as words

    sound = all(c.ok is not False for c in found.conditions)
    if as_json:
        print_json({**found.model_dump(mode="json"), "file": str(path), "sound": sound})
        return 0 if sound else 3
    print_table(words.STEP_HEADS, [words.step_row(r) for r in found.rows])
    print_table(words.CONDITION_HEADS, [words.condition_row(c) for c in found.conditions])
    print_passage("Never run on a GPU by us", found.never_run_on_gpu)
    print_lines(words.self_check_sentence(found), f"File: {path}")
    return 0 if sound else 3
