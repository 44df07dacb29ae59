"""What `rankwise watch` found, as one self-contained HTML file."""

from rankwise.records import Watching
from rankwise.report import spectrum_words
from rankwise.report.page import render
from rankwise.report.watch_words import watched_sentence

TERMS = (
    ("Update", "What training added to a weight matrix: s B A for LoRA, the difference of weights otherwise."),
    ("Effective rank", "exp of the entropy of the energies: how many directions it would take if all were as strong."),
    ("First direction", "Share of the update's energy (squared norm) in its strongest direction."),
    ("Norm ratio", "Frobenius norm of the update over that of the weight it is added to."),
    (
        "Intruder",
        "One of the strongest directions of the tuned weight that lies far from all known ones of the base's "
        "(Shuttleworth et al. 2024, arXiv 2410.21228).",
    ),
)


def watch_page(found: Watching, *, version: str) -> str:
    """The page, from the record alone."""
    context = {"found": found, "say": spectrum_words, "forgot": watched_sentence, "terms": TERMS}
    return render("watch.html.j2", context, version=version)
