"""Methods that train scales, rotations, frequencies or single entries of the weights."""

from typing import Any

from rankwise.methods.base import Method, Tuner


def _blocks(r: int) -> dict[str, Any]:
    """OFT's `r` is its number of blocks, and excludes a block size."""
    return {"r": r, "oft_block_size": 0}


# Keys, values and the inner activations of the MLP are scaled (Liu et al. 2022, arXiv 2205.05638).
IA3 = Method(name="ia3", trains="adapter", options=("adapter",), neutral=(".ia3_l.", 1.0))

LIGHT_TUNERS = (
    Tuner("ia3", "IA3"),
    Tuner("ln_tuning", "LN_TUNING"),
    Tuner("beft", "BEFT"),
    Tuner("fourierft", "FOURIERFT"),
    Tuner("waveft", "WAVEFT"),
    Tuner("c3a", "C3A", divides=("block_size", "both")),
    Tuner("road", "ROAD", divides=("group_size", "out")),
    Tuner("oft", "OFT", rank=_blocks, divides=("oft_block_size", "in")),
    Tuner("boft", "BOFT", divides=("boft_block_size", "in")),
    Tuner("hra", "HRA"),
    Tuner("psoft", "PSOFT", matrix_rank=True),
    Tuner("osf", "OSF", matrix_rank=True),
    Tuner("shira", "SHIRA"),
    Tuner("supertuning", "SUPERTUNING"),
    # Which tokens does not change a size, how many does: two, as for a new pair of turn markers.
    Tuner("trainable_tokens", "TRAINABLE_TOKENS", defaults={"token_indices": [0, 1]}),
    Tuner(
        "frod",
        "FROD",
        defaults={"progressbar": False},
        untraceable="attaching it decomposes the weights of all layers together on the host, so it needs their values",
    ),
)
