"""How decisions are made, as a page: `python -m rankwise.api.how > docs/how-it-decides.md`."""

import sys

from rankwise.decide.rulebook import evidence, rules
from rankwise.report import rules_words


def how_it_decides() -> str:
    """docs/how-it-decides.md: every rule with its numbers, its evidence and the other side."""
    return rules_words.how_it_decides(rules(), evidence())


if __name__ == "__main__":
    sys.stdout.write(how_it_decides())
