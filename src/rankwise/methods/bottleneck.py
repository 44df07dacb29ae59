"""Bottleneck adapters: a narrow layer with a residual path around it, placed into the frozen decoder layers.

Pfeiffer et al. 2020 (arXiv 2005.00247) put one after the MLP; Houlsby et al. 2019 (arXiv 1902.00751) one after
attention and one after the MLP.
"""

from rankwise.methods.base import Method, Tuner

PLACES = {"pfeiffer": ("mlp",), "houlsby": ("attention", "mlp")}
REDUCTION = 16  # hidden width over inner width, as in the `adapters` library

BOTTLENECK = Method(
    name="bottleneck", trains="adapter", options=("bottleneck_size", "adapter"), neutral=(".bottleneck.up.weight", 0.0)
)
BOTTLENECK_TUNER = Tuner("bottleneck", None)


def inner_width(hidden_size: int, bottleneck_size: int | None) -> int:
    return bottleneck_size or max(1, hidden_size // REDUCTION)


def params_per_adapter(hidden_size: int, width: int) -> int:
    """Down (hidden x width + width) and up (width x hidden + hidden)."""
    return 2 * hidden_size * width + width + hidden_size
