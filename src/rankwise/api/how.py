"""How decisions are made, as a page: `python -m rankwise.api.how > docs/how-it-decides.md`."""

import sys

from rankwise.decide.compatibility import refusals
from rankwise.decide.quality import priors
from rankwise.decide.rulebook import evidence, rules
from rankwise.report import rules_words
from rankwise.report.decision_tables import decision_tables


def how_it_decides() -> str:
    """docs/how-it-decides.md: every rule with its numbers, its evidence and the other side, and the tables."""
    return rules_words.how_it_decides(rules(), evidence()) + "\n" + decision_tables(refusals(), priors())


if __name__ == "__main__":
    sys.stdout.write(how_it_decides())
