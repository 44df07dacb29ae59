"""The site builds without a warning, and every link inside of it leads somewhere, to the very heading."""

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import rankwise
from rankwise import records
from rankwise.cli import app
from tests.docs.blocks import PAGES, ROOT, name

CONFIGURATION = ROOT / "docs" / "site"


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", str(CONFIGURATION)]
    return subprocess.run([*call, str(source), str(out)], capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


class Links(HTMLParser):
    """What a page can be linked at, and where it links to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.anchors, self.links = set[str](), list[str]()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key in ("id", "name") and value:
                self.anchors.add(value)
            elif key in ("href", "src") and value:
                self.links.append(value)


def broken(site: Path) -> Iterator[str]:
    """Links inside of the site that lead nowhere."""
    files = [page for page in site.rglob("*.html") if "_static" not in page.parts]  # templates of the theme lie there
    pages = {page.resolve(): Links(page) for page in files}
    for page, found in pages.items():
        for link in found.links:
            if re.match(r"[a-z]+:|//", link):
                continue
            path, _, anchor = unquote(link).partition("#")
            there = (page.parent / path.partition("?")[0]).resolve() if path else page
            if not there.is_file() or (anchor and there in pages and anchor not in pages[there].anchors):
                yield f"{page.relative_to(site.resolve())}: {link}"


def test_every_link_inside_leads_somewhere(site: Path) -> None:
    assert not list(broken(site))
    assert len(list(site.rglob("*.html"))) > 300  # pages, and the files of the repository that they link to


def test_a_link_that_leads_nowhere_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "there.html").write_text('<h1 id="here">x</h1>')
    (tmp_path / "page.html").write_text(
        '<a href="there.html#here">x</a><a href="there.html#gone">x</a><a href="no.html">x</a>'
    )
    assert sorted(broken(tmp_path)) == ["page.html: no.html", "page.html: there.html#gone"]


@pytest.mark.parametrize("link", ["gone.md", "index.md#gone", "../src/gone.py"])
def test_the_build_refuses_a_link_that_leads_nowhere(link: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Index\n\n[x]({link})\n")
    done = build(tmp_path, tmp_path / "out")
    assert done.returncode == 1 and "gone" in done.stderr


def test_every_page_of_the_repository_is_a_page_of_the_site(site: Path) -> None:
    missing = [name(page) for page in PAGES if not (site / name(page)).with_suffix(".html").is_file()]
    assert not missing


def test_the_reference_has_every_verb_command_and_record(site: Path) -> None:
    def headings(page: str) -> set[str]:
        return set(re.findall(r"<h2>(.*?)<a", (site / "docs" / page).read_text(encoding="utf-8")))

    verbs = {
        n for n in rankwise.__all__ if callable(getattr(rankwise, n)) and not isinstance(getattr(rankwise, n), type)
    }
    assert verbs <= headings("api.html")
    assert {c.name or c.callback.__name__ for c in app.registered_commands if c.callback} <= {
        heading.removeprefix("rankwise ") for heading in headings("commands.html")
    }
    kept = {
        n
        for n in records.__all__
        if isinstance(getattr(records, n), type) and hasattr(getattr(records, n), "model_fields")
    }
    assert kept - {"Record"} <= headings("records.html")


def test_generated_pages_hold_no_unmade_mark(site: Path) -> None:
    assert not [page for page in (site / "docs").rglob("*.html") if "made here:" in page.read_text(encoding="utf-8")]
