"""One self-contained HTML file for a plan or a run: no network, no server, safe whatever a model or a row says."""

import base64
import gzip
import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from rankwise.files import cache_folder, write_text
from rankwise.records import Artifact, Event, Evidence, Finding, Plan
from rankwise.report import charts, glossary, speeds, words
from rankwise.report.pareto import not_drawn_sentence, pareto_figures
from rankwise.report.reliability_chart import reliability_figures
from rankwise.report.rows import plan_view, run_view
from rankwise.report.watch_rows import watch_figures, watch_view

TEMPLATES = Path(__file__).parent / "templates"
LONGEST = 1000  # characters of one answer; the whole stands in evidence.json


class Payload(NamedTuple):
    """Plotly as it travels inside a page."""

    packed: str
    csp_hash: str


def plan_page(plan: Plan) -> str:
    """The page of a plan."""
    context = plan_context(plan)
    return render("plan.html.j2", context, version=plan.rankwise_version, figures=context.pop("figures"))


def plan_context(plan: Plan) -> dict[str, Any]:
    """What the templates of a plan show; `figures` are the Pareto charts by id."""
    figures = pareto_figures(plan)
    view = {"plan": plan, "view": plan_view(plan), "panels": list(figures)}
    return view | {"not_drawn": not_drawn_sentence(plan), "figures": figures}


def run_page(
    plan: Plan,
    events: Sequence[Event],
    evidence: Evidence | None,
    artifact: Artifact | None,
    state: str,
    *,
    folder: Path | str = "RUN",
    findings: Sequence[Finding] = (),
) -> str:
    """The page of a run in any state; what is missing is named with the command that makes it.

    Args:
        events: as `Run.events()` gives them.
        state: as `Run.state()` gives it.
        folder: how commands on the page name the run.
        findings: so far, of a run without evidence.
    """
    view = plan_view(plan)
    run = run_view(plan, events, evidence, artifact, state, folder, findings)
    curves = charts.training_curves(events)
    reliability = reliability_figures(evidence.evaluation if evidence else None)
    figures = ({"curves-data": curves} if curves else {}) | watch_figures(events, evidence) | reliability
    context = {"plan": plan, "view": view, "run": run, "evidence": evidence, "artifact": artifact}
    context |= {"watch": watch_view(events), "reliability": list(reliability)}
    return render("run.html.j2", context, version=plan.rankwise_version, figures=figures)


def render(
    template: str, context: dict[str, Any], *, version: str, figures: Mapping[str, dict[str, Any]] | None = None
) -> str:
    """A template as one file.

    Args:
        version: of the program that made what is shown.
        figures: Plotly figures by the id that `data-chart` names.
    """
    script = "\n".join((TEMPLATES / name).read_text(encoding="utf-8").strip() for name in ("charts.js", "page.js"))
    payload = plotly_payload() if figures else None
    allowed = [_csp_hash(script)] + ([payload.csp_hash] if payload else [])
    return (
        environment()
        .get_template(template)
        .render(
            **context,
            version=version,
            figures=figures or {},
            css=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8").strip()),  # noqa: S704 our own file
            script=Markup(script),  # noqa: S704 our own file
            script_hashes=allowed,
            payload=payload,
        )
    )


@cache
def plotly_payload() -> Payload:
    """plotly.min.js, packed: 4.8 MB become 2.0 MB; the page inflates it when it opens.

    A higher level of gzip takes more than twice as long for 4 % less. Packed once for each file, by its hash, and kept.
    A page lets the script of that hash alone run, which is taken of the file itself: one that was changed in the cache
    draws nothing.
    """
    source = (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    digest = hashlib.sha256(source)
    kept = cache_folder() / "plotly" / f"{digest.hexdigest()}.b64"
    csp_hash = f"sha256-{base64.b64encode(digest.digest()).decode()}"
    with suppress(OSError, ValueError):
        return Payload(kept.read_text(encoding="ascii"), csp_hash)
    packed = base64.b64encode(gzip.compress(source, 4, mtime=0)).decode()
    with suppress(OSError):  # a cache that cannot be written costs a moment
        write_text(kept, packed)
    return Payload(packed, csp_hash)


def _csp_hash(script: str) -> str:
    """The page lets only scripts with these hashes run, so that even a missed escape would do nothing."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def environment(*folders: Path) -> Environment:
    """The templates, filters and words of reports; templates in `folders` may use and extend those of reports."""
    environment = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scaled = ("size", "size_range", "duration", "duration_range", "usd", "usd_range", "rate", "count", "nats", "plain")
    numbers = {name: _typeset(getattr(words, name)) for name in (*scaled, "flops", "share", "points", "learning_rate")}
    numbers["short_hash"] = _typeset(words.short_hash)
    environment.filters.update(numbers)
    environment.filters.update(prose=prose, headline=headline, clip=clip, typeset=typography, stored=words.stored_bytes)
    environment.globals.update({name: _typeset(getattr(words, name)) for name in ("measured", "difference", "bounds")})
    environment.filters["cited"] = lambda evidence: [words.cited(e).id for e in evidence]
    environment.globals.update(words=words, charts=charts, glossary=glossary, speeds=speeds)
    return environment


def _typeset(write: Any) -> Any:
    def written(*args: Any, **kwargs: Any) -> str:
        return typography(write(*args, **kwargs))

    return written


def typography(text: str) -> str:
    """Arrows, true minus signs, multiplication signs, and no line break between a number and its unit."""
    text = text.replace(" -> ", "\u00a0→ ").replace(" x ", " × ")
    text = re.sub(r"(?<![\w.])-(?=\d)", "−", text)
    return re.sub(
        r"(?<=\d) (?=(?:%|GB|MB|kB|TB|B|[MGTPE]FLOP|s|min|h|d|days|nats|points|USD|tokens/s)(?!\w))", "\u00a0", text
    )


def prose(text: str) -> Markup:
    """A sentence of ours as HTML: escaped, `commands` as code (kept to the letter), the rest typeset."""
    pieces = re.split(r"`([^`]+)`", text)
    code = Markup("<code>{}</code>")
    html = [code.format(p) if i % 2 else escape(typography(p)) for i, p in enumerate(pieces)]
    return Markup("").join(html)


def headline(text: str) -> Markup:
    """Prose in which what stands in brackets steps back: the sentence reads first, its numbers second."""
    html = re.sub(r" (\([^()]*\))", r' <span class="aside">\1</span>', str(prose(text)))
    return Markup(html)  # noqa: S704 prose() escaped every character; only our own span was added


def clip(text: str, where: str = "evidence.json") -> str:
    """A long answer cut, with the number of characters left out and where they stand."""
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]} … ({len(text) - LONGEST:,} more characters in {where})"
