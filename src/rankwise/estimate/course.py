"""How often a run validates and saves."""

import math

USUAL_TIMES = 4  # validations and checkpoints of a run where nothing is said, as `rankwise plan` sets them


def times(max_steps: int, every: int | None) -> int:
    """How often something happens that happens every so many steps, and at the end."""
    return math.ceil(max_steps / (every or math.ceil(max_steps / USUAL_TIMES)))
