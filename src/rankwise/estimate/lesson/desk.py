"""Where tables ask: every estimate and plan of them goes through the product's own verbs, and is asked for once."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rankwise.errors import RankwiseError
from rankwise.estimate.lesson.said import said_number
from rankwise.records import Estimate, Plan
from rankwise.records.tables import Fit

Options = Mapping[str, Any]

# One row of 2,048 tokens with checkpointing: the step that a team starts with when memory is short.
STEP: dict[str, Any] = {"batch": 1, "seq_len": 2048, "gradient_checkpointing": True}
COUNTS = (1, 2, 4, 8, 16, 32, 64)
LARGE = "A100-80GB"
MEDIUM = "A100-40GB"
SMALL = "RTX-3090-24GB"
GPUS = (SMALL, MEDIUM, LARGE)

# The lesson's sizes and the models that stand for them; 70B is the Llama-3 of its story.
MODELS = {
    "7B": "llama-2-7b",
    "8B": "llama-3-8b",
    "13B": "llama-2-13b",
    "34B": "codellama-34b",
    "70B": "llama-3-70b",
}


@dataclass(frozen=True)
class Recipe:
    """One way to train, as options of `rankwise estimate`.

    Attributes:
        single: how it runs on one GPU; several: how it is spread over more.
        gradient_bytes: of one trained parameter's gradient, at the most that is alive in a step.
        words: for the reader.
    """

    name: str
    method: str
    options: Options
    single: str
    several: str
    gradient_bytes: int
    words: str


RECIPES = (
    Recipe(
        "pure bf16",
        "full",
        {"optimizer": "adamw_torch_fused"},
        "none",
        "fsdp",
        2,
        "weights, gradients and fused AdamW's states in bf16 (8 bytes a parameter), FSDP over several GPUs; at rates "
        "below 1e-4 bf16 rounds many updates away",
    ),
    Recipe(
        "autocast",
        "full",
        {"amp": True, "optimizer": "adamw_torch_fused"},
        "none",
        "fsdp",
        4,
        "fp32 weights, gradients and fused AdamW's states, bf16 arithmetic (16 bytes a parameter), FSDP over several",
    ),
    Recipe(
        "ZeRO-3",
        "full",
        {},
        "zero3",
        "zero3",
        6,
        "DeepSpeed ZeRO-3 in bf16 with fp32 master weights and states, as in the lesson's own code (16 bytes a "
        "parameter, 20 while the step reads gradients in fp32)",
    ),
    Recipe(
        "LoRA",
        "lora",
        {"rank": 16},
        "none",
        "fsdp",
        4,
        "r = 16 on all linear layers in fp32 over a frozen bf16 base, AdamW; FSDP over several GPUs",
    ),
    Recipe(
        "QLoRA",
        "qlora",
        {"rank": 16},
        "none",
        "fsdp",
        4,
        "r = 16 on all linear layers in fp32 over an NF4 base with double quantisation, prepared as PEFT and "
        "TRL do (norms in fp32, embedding and head in bf16), AdamW; FSDP over several GPUs",
    ),
)


def recipe(name: str) -> Recipe:
    """The recipe of that name. Raises KeyError."""
    return {r.name: r for r in RECIPES}[name]


class Desk:
    """Prices and plans.

    Args:
        estimate: options of `rankwise estimate` -> Estimate.
        plan: keys of a job, dots written as double underscores -> Plan.
        gpus: the kinds of GPU of the memory table.
        large: the GPU of the cost table.
        more: options that hold for every estimate, such as a price file.
    """

    def __init__(
        self,
        estimate: Callable[[Options], Estimate],
        plan: Callable[[Options], Plan],
        *,
        gpus: tuple[str, ...] = GPUS,
        large: str = LARGE,
        more: Options | None = None,
    ) -> None:
        self._estimate, self._plan = estimate, plan
        self.gpus, self.large = gpus, large
        self._more = dict(more or {})
        self._known: dict[str, Estimate | Plan | RankwiseError] = {}

    def price(self, model: str, method: str, **options: Any) -> Estimate:
        """One configuration; STEP and one GPU of the cost table's kind where nothing else is said."""
        asked = {"gpu": self.large, **STEP, **self._more, "model": model, "method": method, **options}
        found = self._once("estimate", asked, self._estimate)
        assert isinstance(found, Estimate)
        return found

    def plan(self, **options: Any) -> Plan:
        """One plan. Raises RankwiseError as the verb does."""
        found = self._once("plan", options, self._plan)
        assert isinstance(found, Plan)
        return found

    def fewest(self, model: str, way: Recipe, gpu: str, **options: Any) -> tuple[Fit, Estimate | None]:
        """The fewest GPUs of COUNTS on which it fits, and its estimate there (None: nowhere).

        What even a perfect split of the state leaves no room for is not traced.
        """
        state = self.state_bytes(model, way)
        capacity = self.capacity(gpu)
        for count in COUNTS:
            if state / count > capacity:
                continue
            found = self.priced(model, way, gpu, count, **options)
            if found.memory.fits:
                return _fit(gpu, count, way.single if count == 1 else way.several, found), found
        nothing = Fit(
            gpu=gpu, gpus=None, tried=COUNTS[-1], parallel=None, peak_device=None, interval=None, capacity=capacity
        )
        return nothing, None

    def capacity(self, gpu: str) -> int:
        """Bytes that one GPU of that kind offers, read off a small estimate that every table needs."""
        smallest = RECIPES[-1]
        return self.price(MODELS["7B"], smallest.method, **smallest.options, gpu=gpu).memory.room

    def priced(self, model: str, way: Recipe, gpu: str, count: int, **options: Any) -> Estimate:
        """A recipe on `count` GPUs."""
        parallel = way.single if count == 1 else way.several
        more = {**way.options, "gpu": gpu, "gpus": count, "parallel": parallel, **options}
        return self.price(model, way.method, **more)

    def state_bytes(self, model: str, way: Recipe) -> int:
        """Weights, optimizer state and gradients of the whole model, as one device would hold them."""
        found = self.priced(model, way, self.large, 1)
        assert found.memory.save_peak is not None
        return found.memory.save_peak + way.gradient_bytes * found.trainable_params

    def _once(self, kind: str, asked: Options, verb: Callable[[Options], Any]) -> Estimate | Plan:
        key = json.dumps([kind, asked], sort_keys=True, default=str)
        if key not in self._known:
            try:
                self._known[key] = verb(asked)
            except RankwiseError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, RankwiseError):
            raise found
        return found


def _fit(gpu: str, count: int, parallel: str, found: Estimate) -> Fit:
    memory = found.memory
    return Fit(
        gpu=gpu,
        gpus=count,
        tried=count,
        parallel=parallel,
        peak_device=memory.peak_device,
        interval=memory.interval,
        capacity=memory.room,
    )


def counted_state(total_params: int) -> int:
    """The lesson's own count: 14 bytes a parameter."""
    return round(said_number("bytes_per_param") * total_params)


def counted_gpus(state: int, capacity: int) -> int:
    """GPUs that the state alone would fill, rounded up."""
    return math.ceil(state / capacity)
