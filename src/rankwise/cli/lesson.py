"""`rankwise tables`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from rankwise.cli.completing import gpu_names
from rankwise.cli.face import PRICES_HELP, Json, command
from rankwise.cli.printing import print_json, print_lines, print_passage, print_table, progress_bars


@command
def tables(
    *,
    only: Annotated[
        list[str] | None, typer.Option(metavar="PART", help="memory, cost or claims; may be given again. Default: all.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            help="One kind of GPU. Default: RTX-3090-24GB, A100-40GB and A100-80GB.", autocompletion=gpu_names
        ),
    ] = None,
    prices: Annotated[Path | None, typer.Option(metavar="FILE", help=PRICES_HELP)] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also a page, one HTML file. Default: none.")] = None,
    as_json: Json = False,
) -> int:
    """What fine-tuning needs and costs by size and method, beside what a lesson said. Example: `rankwise tables`

    The first call traces about 220 steps (some minutes); they are remembered, and the next takes seconds.
    """
    from rankwise import api

    with progress_bars(as_json) as progress:
        found = api.tables(only or (), gpu, prices, progress)
    page = api.write_tables(found, out) if out else None
    if as_json:
        print_json(found.contract())
        return 0
    _print_tables(found)
    if page:
        print_lines(f"Page: {page}")
    return 0


def _print_tables(found: Any) -> None:
    from rankwise.report import tables_words as words

    for title, heads, rows, cells in words.printed_tables(found):
        print_lines(title)
        print_table(heads, rows)
        print_passage("The lesson's table, cell by cell", [words.cell_line(cell) for cell in cells])
    for topic, claims in words.claims_by_topic(found.claims).items():
        print_lines(topic, *(f"  {line}" for claim in claims for line in words.claim_lines(claim)), "")
    if found.claims:
        print_lines(words.verdict_counts(found.claims), "")
    print_passage("Assumptions", [f"{name}: {text}" for name, text in found.assumptions.items()])
