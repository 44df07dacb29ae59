"""How large the experiments are: the counted run, and a smoke run that proves only that everything runs."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Scale:
    """Sizes of all experiments; a result names the one that it was made with.

    Attributes:
        counted: may an outcome be told from it?
        seeds: each draws its own data, order and first values of adapters.
        steps: of an arm on the embedded model; `looks` are the steps at which held-out and general loss are taken.
        longer: factor of the steps of the arm that is compared at equal FLOPs (X7).
        batch: rows of a step there.
        train, dev, test: rows of the format task; `train` are as many as an arm without replay takes once.
        general, replay: rows that the base wrote, to measure forgetting
            and to train on.
        full_rates, lora_rates: learning rates of which the one with the least held-out loss is taken.
        old_facts: that the tiny model is pretrained on, for `old_epochs`; `facts` are the sets of new ones.
        ranks, epochs: of the adapters that learn new facts; `fact_batch` rows a step.
        fact_full_rates, fact_lora_rates: of which the one is taken that stores most on the first seed.
        knob_*: the grid of X6.
        shares: of replay (X4), of all supervised tokens.
        rounds: of timed forward passes (X5).
        cuts: ranks to which a difference is cut (X8).
    """

    counted: bool = True
    seeds: int = 3
    steps: int = 32
    looks: tuple[int, ...] = (2, 6, 12, 20, 32, 48)
    longer: float = 1.5
    batch: int = 6
    train: int = 192
    dev: int = 24
    test: int = 64
    general: int = 16
    replay: int = 40
    full_rates: tuple[float, ...] = (1e-4, 3e-5)
    lora_rates: tuple[float, ...] = (1e-3, 3e-4)
    old_facts: int = 1024
    old_epochs: int = 120
    facts: tuple[int, ...] = (256, 1024, 2048)
    ranks: tuple[int, ...] = (1, 4, 16)
    epochs: int = 80
    fact_batch: int = 128
    fact_full_rates: tuple[float, ...] = (3e-3, 1e-3)
    fact_lora_rates: tuple[float, ...] = (6e-3, 2e-3)
    knob_ranks: tuple[int, ...] = (4, 32)
    knob_alphas: tuple[float, ...] = (8.0, 32.0, 128.0)
    knob_rates: tuple[float, ...] = (1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
    knob_steps: int = 40
    shares: tuple[float, ...] = (0.01, 0.05, 0.25)
    rounds: int = 34
    cuts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)

    def sizes(self) -> dict[str, Any]:
        """As JSON has them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


FULL = Scale()
QUICK = Scale(
    counted=False,
    seeds=1,
    steps=2,
    looks=(1, 2, 3),
    train=12,
    dev=2,
    test=3,
    general=3,
    replay=3,
    full_rates=(1e-4,),
    lora_rates=(1e-3,),
    old_facts=32,
    old_epochs=3,
    facts=(16, 32),
    ranks=(1, 4),
    epochs=3,
    fact_batch=16,
    fact_full_rates=(3e-3,),
    fact_lora_rates=(1e-2,),
    knob_ranks=(4, 8),
    knob_alphas=(8.0, 32.0),
    knob_rates=(1e-3, 4e-3),
    knob_steps=6,
    shares=(0.05, 0.25),
    rounds=2,
    cuts=(1, 4, 16),
)
