"""`rankwise export`"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from rankwise.cli.face import Json, RunFolder, command
from rankwise.cli.printing import notes, print_json, print_lines, print_passage, progress_bars
from rankwise.errors import UsageError

Target = Literal["peft", "transformers", "gguf", "hub"]
Shape = Literal["peft", "transformers", "gguf"]
Precision = Literal["bf16", "f16", "q8_0"]
EngineName = Literal["vllm", "ollama"]


@command
def export(
    *,
    run: RunFolder,
    to: Annotated[Target | None, typer.Option("--to", help="What to write; hub pushes to --repo.")] = None,
    check: Annotated[
        EngineName | None, typer.Option("--check", help="Would this engine load it? Writes nothing.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write (default RUN/export/FORM).")] = None,
    precision: Annotated[Precision, typer.Option(help="Of the matrices in a GGUF file.")] = "bf16",
    repo: Annotated[str | None, typer.Option(metavar="ORG/NAME", help="Repository of the hub (--to hub).")] = None,
    shape: Annotated[Shape | None, typer.Option(help="What to push (default: the adapter, else the model).")] = None,
    public: Annotated[bool, typer.Option("--public", help="Make the repository public (default: private).")] = False,
    as_json: Json = False,
) -> int:
    """Write a proven artifact as others load it. Example: `rankwise export RUN --to gguf --out clinic-gguf`

    With --check instead: would an engine load it? Example: `rankwise export RUN --check vllm`
    """
    from rankwise import api

    opened = api.open_run(run)
    if (to is None) == (check is None):
        raise UsageError("export needs one of --to and --check", expected="--to FORM, or --check ENGINE")
    if to is None:
        return _print_fit(api.check_engine(opened, str(check)), as_json)
    _refuse_mixed(to, repo, shape, public, out)
    with progress_bars(as_json) as progress:
        if to == "hub" and repo is not None:
            form: Shape = shape or ("peft" if opened.adapter.is_dir() else "transformers")
            made = api.push(opened, repo, form, private=not public, precision=precision, progress=progress)
        elif to != "hub":
            made = api.export(opened, to, out, precision=precision, progress=progress)
    _print_exported(made, as_json)
    return 0


def _refuse_mixed(to: Target, repo: str | None, shape: Shape | None, public: bool, out: Path | None) -> None:
    if to == "hub" and repo is None:
        raise UsageError("--to hub needs a repository", fix="add --repo ORG/NAME")
    if to == "hub" and out is not None:
        raise UsageError("--to hub writes no folder", fix="leave --out away, or export to a folder first")
    given = [name for name, value in (("--repo", repo), ("--shape", shape), ("--public", public)) if value]
    if to != "hub" and given:
        raise UsageError(f"{', '.join(given)} is about the hub", fix="add --to hub, or leave it away")


def _print_exported(made: Any, as_json: bool) -> None:
    from rankwise.report import words

    if as_json:
        print_json(made.model_dump(mode="json"))
        return
    print_lines(f"Exported to {made.url or made.folder}: {len(made.files)} files, {made.bytes / 1e6:,.1f} MB.")
    print_passage("Read back", [words.check_line(c) for c in made.checks])
    print_passage("To be known", list(made.notes))


def _print_fit(fit: Any, as_json: bool) -> int:
    from rankwise.report import words

    if as_json:
        print_json(fit.model_dump(mode="json"))
    else:
        print_lines(f"{fit.engine} {'loads' if fit.loads else 'does NOT load'} this {fit.form} ({fit.source}).")
        print_passage("Looked at", [words.check_line(c) for c in fit.checks])
        print_passage("With", list(fit.options))
        print_passage("What to do", list(fit.advice))
    for failed in (c for c in fit.checks if not c.passed):
        notes.print(f"[bold yellow]answer:[/] {escape(f'{failed.name}: {failed.number}')}")
    return 0 if fit.loads else 3
