"""`rankwise ui`"""

from pathlib import Path
from typing import Annotated

import typer

from rankwise.cli.face import Json, command
from rankwise.cli.printing import notes, print_json, print_lines
from rankwise.cli.tenants import Where, without_password
from rankwise.errors import RankwiseError


@command
def ui(
    *,
    root: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Whose runs, comparisons and data are shown (default: here)."),
    ] = Path(),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8420,
    registry: Where = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
    as_json: Json = False,
) -> int:
    """Pages to plan, look and compare in a browser, on this machine alone. Example: `rankwise ui`"""
    try:
        from rankwise.app.server import serve
    except ModuleNotFoundError as error:
        raise RankwiseError(f"`rankwise ui` needs {error.name}", fix="pip install 'rankwise[ui]'") from None

    def ready(address: str) -> None:
        if as_json:
            print_json({"url": address, "root": str(root.resolve())})
        else:
            print_lines(f"Open {address}", "Ctrl-C ends it.")
        if not no_open and not _opened(address):
            notes.print("no browser could be opened; the address works in any on this machine")

    serve(root, port, ready, without_password(registry))
    return 0


def _opened(address: str) -> bool:
    import webbrowser

    return webbrowser.open(address)
