"""Links to what is no page: source files and folders of the repository, shown as pages of their own.

A page links to `../src/rankwise/decide/rules.toml` as it would in an editor. On the site the file stands at
`source/src/rankwise/decide/rules.toml.html`; a folder at `source/FOLDER/index.html`, with the files it holds.
"""

from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.osutil import relative_uri

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 400_000  # bytes of a file that is shown; of a larger one its beginning

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - Rankwise</title><link rel="stylesheet" href="{up}_static/source.css"></head>
<body><header><a href="{up}docs/index.html">Rankwise</a> <span>{title}</span></header>
<main>{body}</main></body></html>
"""


class Outside(SphinxTransform):
    """Turns links that MyST took for downloads, or could not resolve, into links to `source/`."""

    default_priority = 900

    def apply(self, **_: Any) -> None:
        for node in [
            *self.document.findall(addnodes.download_reference),
            *self.document.findall(addnodes.pending_xref),
        ]:
            target = unquote(node["reftarget"]).partition("#")[0]
            there = (ROOT / self.env.docname).parent.joinpath(target).resolve()
            if not target or not there.exists() or not there.is_relative_to(ROOT) or _is_page(self.env, there):
                continue
            uri = address(there)
            shown(self.env).setdefault(self.env.docname, set()).add(there)
            here = self.app.builder.get_target_uri(self.env.docname)
            node.replace_self(nodes.reference("", "", *node.children, refuri=relative_uri(here, uri), internal=True))


def _is_page(env: Any, there: Path) -> bool:
    return there.suffix == ".md" and str(there.relative_to(ROOT).with_suffix("")) in env.found_docs


def shown(env: Any) -> dict[str, set[Path]]:
    """Page -> the files and folders it links to; kept with Sphinx's own memory of the pages."""
    if not hasattr(env, "rankwise_shown"):
        env.rankwise_shown = {}
    kept: dict[str, set[Path]] = env.rankwise_shown
    return kept


def address(there: Path) -> str:
    """Where a file or folder of the repository stands on the site."""
    path = there.relative_to(ROOT).as_posix()
    return f"source/{path}/index.html" if there.is_dir() else f"source/{path}.html"


def write_all(app: Sphinx, failed: Exception | None) -> None:
    if failed is not None or app.builder.format != "html":
        return
    linked = {there for some in shown(app.env).values() for there in some}
    for folder in [there for there in linked if there.is_dir()]:
        linked |= {file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")}
    for there in sorted(linked):
        target = Path(app.outdir) / address(there)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_page(there, linked), encoding="utf-8")
    (Path(app.outdir) / "index.html").write_text(
        '<!doctype html><meta charset="utf-8"><title>Rankwise</title>'
        '<meta http-equiv="refresh" content="0; url=docs/index.html"><a href="docs/index.html">Rankwise</a>\n'
    )


def _page(there: Path, linked: set[Path]) -> str:
    up = "../" * address(there).count("/")
    body = _listing(there, linked) if there.is_dir() else _lines(there)
    return PAGE.format(title=escape(there.relative_to(ROOT).as_posix()), up=up, body=body)


def _listing(folder: Path, linked: set[Path]) -> str:
    def line(entry: Path) -> str:
        name = escape(entry.name + ("/" if entry.is_dir() else ""))
        target = f"{entry.name}/index.html" if entry.is_dir() else f"{entry.name}.html"
        return f'<li><a href="{escape(target)}">{name}</a></li>' if entry in linked else f"<li>{name}</li>"

    entries = [e for e in sorted(folder.iterdir()) if not e.name.startswith(".") and e.name != "__pycache__"]
    return f"<ul>{''.join(map(line, entries))}</ul>"


def _lines(file: Path) -> str:
    text = file.read_bytes()[:LARGEST].decode("utf-8", errors="replace")
    rows = (f'<span id="L{n}">{escape(line)}</span>' for n, line in enumerate(text.splitlines(), 1))
    more = "<p>The rest is left out here.</p>" if file.stat().st_size > LARGEST else ""
    return "<pre>{}</pre>{}".format("\n".join(rows), more)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(Outside)
    app.connect("env-purge-doc", lambda app, env, name: shown(env).pop(name, None))
    app.connect("build-finished", write_all)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
