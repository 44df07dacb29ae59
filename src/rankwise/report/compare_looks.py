"""How the arms of a comparison look in every picture of it: one colour and one mark each, open where nothing trains."""

from dataclasses import dataclass

from rankwise.records import Bakeoff

MARKS = (  # Plotly's symbol, and the same as characters: filled and open
    ("circle", "●", "○"),
    ("square", "■", "□"),
    ("triangle-up", "▲", "△"),
    ("diamond", "◆", "◇"),
    ("triangle-down", "▼", "▽"),
    ("star", "★", "☆"),
    ("pentagon", "⬟", "⬠"),
)
COLORS = 8  # --arm-1 to --arm-8 of the page


@dataclass(frozen=True)
class Look:
    """How an arm looks wherever it is drawn."""

    arm: str
    color: str
    symbol: str
    sign: str


def looks(bakeoff: Bakeoff) -> dict[str, Look]:
    """Arm -> its look, in the order of the plan."""
    found = {}
    for number, allowance in enumerate(bakeoff.allowances):
        symbol, filled, hollow = MARKS[number % len(MARKS)]
        trained = allowance.arm.kind == "trained"
        color = f"var(--arm-{number % COLORS + 1})"
        name = allowance.arm.name
        found[name] = Look(name, color, symbol if trained else f"{symbol}-open", filled if trained else hollow)
    return found
