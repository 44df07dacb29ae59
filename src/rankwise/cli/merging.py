"""`rankwise merge`"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from rankwise.cli.completing import run_folders
from rankwise.cli.face import Json, command
from rankwise.cli.judging import print_verification
from rankwise.cli.printing import notes, print_actual, print_json, print_lines, progress_bars
from rankwise.errors import UsageError
from rankwise.records.merging import Rounding

Runs = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN...",
        help="A run folder, or its name below runs/; several are blended.",
        autocompletion=run_folders,
    ),
]


@command
def merge(
    *,
    runs: Runs,
    out: Annotated[Path | None, typer.Option(help="Folder of the merged model (default RUN/model).")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Of several runs, such as 0.7,0.3 (default equal shares).", show_default=False)
    ] = None,
    how: Annotated[
        str | None,
        typer.Option(metavar="WAY", help="Of several runs: linear (default), ties, dare_linear or dare_ties."),
    ] = None,
    density: Annotated[
        float | None, typer.Option(help="TIES and DARE: share of each update that is kept, such as 0.5.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="DARE: of what is dropped (default 0).", show_default=False)] = None,
    rounding: Annotated[
        Rounding | None,
        typer.Option(
            metavar="WAY",
            help="Of changed weights to 16 bits: stochastic (default), or nearest (PEFT's bits; loses small changes).",
            show_default=False,
        ),
    ] = None,
    undo: Annotated[
        Path | None, typer.Option(metavar="MERGED", help="Take RUN's adapter out of this folder again, into --out.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Fold the adapter into its base and prove that nothing changed. Example: `rankwise merge RUN --out merged`

    Several by weights: `rankwise merge RUN RUN2 --weights 0.7,0.3 --how ties --density 0.5 --out DIR`; back to the
    base's weights: `rankwise merge RUN --undo MERGED --out DIR`
    """
    blending = {"--weights": weights, "--how": how, "--density": density, "--seed": seed}
    given = [name for name, value in blending.items() if value is not None]
    if len(runs) == 1 and given:
        raise UsageError(f"{given[0]} is about several runs, and one was given", fix="name the other runs, too")
    if undo is not None:
        if len(runs) > 1:
            raise UsageError("--undo takes one run's adapter out of its merged folder, and several runs were given")
        if rounding is not None:
            raise UsageError("--rounding is how a merge rounds; --undo takes the way that merge.json names")
        return _undo(runs[0], undo, _required(out, "--undo"), as_json)
    way: Rounding = rounding or "stochastic"
    if len(runs) > 1:
        shares = _numbers(weights) if weights is not None else ()
        asked = {"weights": shares, "how": how or "linear", "density": density, "seed": seed or 0, "rounding": way}
        return _blend(runs, _required(out, "a merge of several runs"), asked, as_json)
    return _merge(runs[0], out, way, as_json)


def _required(out: Path | None, what: str) -> Path:
    if out is None:
        raise UsageError(f"{what} needs a folder to write to", fix="--out DIR")
    return out


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--weights {text}", expected="a number for each run, such as 0.7,0.3") from None


def _merge(run: Path, out: Path | None, rounding: Rounding, as_json: bool) -> int:
    from rankwise import api

    opened = api.open_run(run)
    with progress_bars(as_json) as progress:
        folder = api.merge(opened, out, progress, rounding=rounding)
    done = api.merge_record(folder)
    notes.print(f"merged into {escape(str(folder))}; comparing it with the adapter")
    outcome, artifact = api.verify(opened)
    api.report(opened)
    took = api.actual(opened, "merge_seconds")
    more = {
        "model": str(folder),
        "time": took.model_dump(mode="json") if took else None,
        "merge": done.model_dump(mode="json") if done else None,
    }
    if not as_json and done:
        _print_sentences(done)
    code = print_verification(opened, outcome, artifact, as_json, more)
    if not as_json:
        print_actual(opened, "merge_seconds")
    return code


def _blend(runs: list[Path], out: Path, asked: dict[str, Any], as_json: bool) -> int:
    from rankwise import api

    opened = [api.open_run(run) for run in runs]
    with progress_bars(as_json) as progress:
        done = api.merge_weighted(opened, out, **asked, progress=progress)
    _print_done(done, out, as_json)
    if not as_json:
        print_lines("No proof covers a blend: it is none of the models that were trained. `rankwise eval` judges it.")
    return 0


def _undo(run: Path, merged: Path, out: Path, as_json: bool) -> int:
    from rankwise import api

    with progress_bars(as_json) as progress:
        done = api.unmerge(api.open_run(run), merged, out, progress)
    _print_done(done, out, as_json)
    return 0


def _print_done(done: Any, out: Path, as_json: bool) -> None:
    if as_json:
        print_json({"model": str(out), "merge": done.model_dump(mode="json")})
    else:
        _print_sentences(done)
        print_lines(f"Model: {out}")


def _print_sentences(done: Any) -> None:
    from rankwise.report.merge_words import merge_sentences

    print_lines(*merge_sentences(done), "")
