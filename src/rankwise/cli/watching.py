"""`rankwise watch`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from rankwise.cli.completing import run_folders
from rankwise.cli.face import Json, command
from rankwise.cli.printing import print_json, print_lines, print_passage, print_table, progress_bars
from rankwise.errors import UsageError

FOLDER_HELP = "A run, output of transformers' Trainer, an adapter of PEFT, or a whole model."
LOOKED_AT, SHRINK = "What is looked at", "A smaller adapter"  # headings in --help


@command
def watch(
    *,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help=FOLDER_HELP, autocompletion=run_folders)],
    base: Annotated[
        str | None,
        typer.Option(
            help="Hub id, folder or `embedded`. Default: what the run or the adapter names.", rich_help_panel=LOOKED_AT
        ),
    ] = None,
    adapter_only: Annotated[
        bool,
        typer.Option(
            "--adapter-only",
            help="Leave the base alone: seconds, but no norm ratios and no intruders.",
            rich_help_panel=LOOKED_AT,
        ),
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Rows of the task for the held-out loss. Default: those of a run of ours.", rich_help_panel=LOOKED_AT
        ),
    ] = None,
    forgetting: Annotated[
        bool,
        typer.Option(
            "--forgetting", help="Ask base and tuned model general texts and questions.", rich_help_panel=LOOKED_AT
        ),
    ] = False,
    general: Annotated[
        Path | None,
        typer.Option(help="Everyday rows for --forgetting, in the place of our own sets.", rich_help_panel=LOOKED_AT),
    ] = None,
    truncate: Annotated[
        bool,
        typer.Option(
            "--truncate", help="How much of the gain is left at ranks 1, 2, 4, ...?", rich_help_panel=LOOKED_AT
        ),
    ] = False,
    shrink: Annotated[
        int | None,
        typer.Option(min=1, help="Write the adapter at this rank to --out, and prove it.", rich_help_panel=SHRINK),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the shrunk adapter.", rich_help_panel=SHRINK)] = None,
    page: Annotated[Path | None, typer.Option(help="Write what was found as an HTML page to this file.")] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Follow a run of ours while another process trains it, and do nothing else.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Spectra, findings and forgetting of a run, ours or another tool's. Example: `rankwise watch outputs --base M`

    Exit code 3: a finding is a fault, or a shrunk adapter did not pass its proof. The base's directions are computed
    once a base and remembered.
    """
    from rankwise import api

    if (shrink is None) != (out is None):
        raise UsageError("--shrink and --out belong together", fix="`--shrink 4 --out smaller`")
    where = api.watched_folder(folder)
    if live:
        _refuse_beside_live(base, data, general, shrink, page, adapter_only or None, truncate or None)
        return _follow(where, as_json)
    with progress_bars(as_json) as progress:
        found = api.watch(
            where,
            base=base,
            data=data,
            general=general,
            forgetting=forgetting,
            adapter_only=adapter_only,
            truncate=truncate or shrink is not None,
            also=(shrink,) if shrink else (),
            progress=progress,
        )
        if shrink is not None and out is not None:
            shrunk, _ = api.shrink(api.open_run(where), shrink, out)
            found = found.model_copy(update={"shrunk": shrunk})
    if found.kind == "run" and (where / "evidence.json").is_file():
        api.report(api.open_run(where))
    written = api.write_watching(found, page) if page else None
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _print_watching(found)
        if written:
            print_lines(f"Page: {written.resolve()}")
    failed = any(f.level == "fault" for f in found.findings) or (found.shrunk is not None and not found.shrunk.passed)
    return 3 if failed else 0


def _refuse_beside_live(*others: Any) -> None:
    if any(other is not None for other in others):
        raise UsageError("--live follows the events of a run and reads no weights", fix="give it alone, then without")


def _follow(where: Path, as_json: bool) -> int:
    from rankwise import api
    from rankwise.cli.live import show_live

    run = api.open_run(where)
    show_live(run.name, run.plan(), api.follow(run), lambda: None)
    if as_json:
        print_json(api.show(run))
    return 0


def _print_watching(found: Any) -> None:
    from rankwise.report import spectrum_words as say
    from rankwise.report import words
    from rankwise.report.watch_words import watched_sentence

    print_lines(*say.watching_lines(found), "", *say.spectrum_lines(found.spectrum, found.no_spectrum))
    if found.modules:
        print_table(say.HEADS, say.kind_rows(found.modules))
        print_lines(*say.condition_lines(found.modules), "")
    print_passage("Findings", [words.finding_line(f) for f in found.findings])
    print_passage("Beside its base", [words.comparison_line(c) for c in found.comparisons])
    if found.forgetting:
        print_lines(watched_sentence(found.forgetting), "")
    if found.truncation:
        print_lines(say.truncation_sentence(found.truncation))
        print_table(say.TRUNCATION_HEADS, say.truncation_rows(found.truncation))
    if found.shrunk:
        print_lines(say.shrunk_sentence(found.shrunk), "")
    print_passage("Notes", list(found.notes))
