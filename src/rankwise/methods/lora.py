"""LoRA (Hu et al. 2021, arXiv 2106.09685): W x + (alpha / r) B A x with A (r x in) and B (out x r) trained, W
frozen; and what else writes an update of a matrix as a product of smaller ones.
"""

from dataclasses import replace

from rankwise.methods.base import Method, Tuner, targeted
from rankwise.records import ModelFacts


def lora_params(facts: ModelFacts, r: int, target_modules: str | tuple[str, ...] | None) -> int:
    """r x (in + out) for each targeted matrix."""
    return r * sum((s.in_features + s.out_features) * s.count for s in targeted(facts, target_modules))


LORA = Method(
    name="lora",
    trains="adapter",
    # LoRA+ (Hayou et al. 2024, arXiv 2402.12354) is any of these with a higher learning rate for B.
    options=("r", "lora_alpha", "lora_dropout", "target_modules", "adapter", "loraplus_lr_ratio"),
    neutral=(".lora_B.", 0.0),
)
RSLORA = replace(LORA, name="rslora")  # scaled by alpha / sqrt(r): Kalajdzievski 2023, arXiv 2312.03732
DORA = replace(LORA, name="dora")  # and the length of each row of W trains: Liu et al. 2024, arXiv 2402.09353
# A and B begin as the largest singular values and vectors of W: Meng et al. 2024, arXiv 2404.02948.
PISSA = replace(LORA, name="pissa", options=(*LORA.options, "init_lora_weights"))


def _adalora_ranks(r: int) -> dict[str, int]:
    """It starts wider than it ends; PEFT's own defaults are 12 and 8."""
    return {"target_r": r, "init_r": r * 12 // 8}


LORA_TUNERS = (
    Tuner("lora", "LORA", matrix_rank=True),
    Tuner("dora", "LORA", fixed={"use_dora": True}, matrix_rank=True),
    Tuner("rslora", "LORA", fixed={"use_rslora": True}, matrix_rank=True),
    Tuner("pissa", "LORA", matrix_rank=True, residual=True),  # attached as LoRA, then decomposed (model/pissa.py)
    # PEFT refuses AdaLoRA without the length of its schedule, which changes no size.
    # Its loss has a term over the adapters of all layers.
    Tuner(
        "adalora",
        "ADALORA",
        defaults={"total_step": 1000},
        rank=_adalora_ranks,
        matrix_rank=True,
        spans_layers=True,
    ),
    Tuner("loha", "LOHA", matrix_rank=True),
    Tuner("lokr", "LOKR"),
    Tuner("hira", "HIRA", matrix_rank=True),
    Tuner("gralora", "GRALORA", matrix_rank=True),
    Tuner("delora", "DELORA", matrix_rank=True),
    Tuner("deft", "DEFT", matrix_rank=True),
    Tuner("glora", "GLORA", matrix_rank=True),
    Tuner("miss", "MISS"),
    # PEFT hands the task ids to the layers by hooks, which are gone when checkpointing computes a layer again.
    Tuner("poly", "POLY", matrix_rank=True, checkpointing=False),
    # One A serves `stride_A` neighbouring layers and a pool of B serves all of them.
    Tuner("lily", "LILY", matrix_rank=True),
    Tuner("peanut", "PEANUT"),
    # A, B (or a bank of vectors) are drawn once and shared by all layers.
    Tuner("vera", "VERA"),
    Tuner("pvera", "PVERA"),
    Tuner("randlora", "RANDLORA"),
    Tuner("vblora", "VBLORA", divides=("vector_length", "both")),
    Tuner("tinylora", "TINYLORA", spans_layers=True),  # the projections of all layers stand in one list
    Tuner("unilora", "UNILORA"),
    # A small model of `shadow_num_hidden_layers` layers runs beside the frozen one.
    Tuner("shadow", "SHADOW"),
    Tuner(
        "adamss",
        "ADAMSS",
        untraceable="its subspaces are clusters of the weights' singular vectors, found by scikit-learn's k-means: "
        "their number and sizes depend on the values of the weights",
    ),
    Tuner(
        "xlora",
        "XLORA",
        untraceable="it mixes LoRA adapters that are already trained and is given their folders, which an estimate "
        "does not have",
    ),
)
