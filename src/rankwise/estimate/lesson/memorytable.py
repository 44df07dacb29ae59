"""The lesson's memory table, computed: sizes x recipes, state of the whole model and the GPUs that it fits on."""

from collections.abc import Callable

from rankwise.estimate.lesson.desk import MODELS, RECIPES, Desk, Recipe, counted_gpus, counted_state
from rankwise.estimate.lesson.said import said_memory
from rankwise.records.tables import Fit, MemoryRow

COUNTED = "lesson's count"
COUNTED_WORDS = (
    "14 bytes a parameter (bf16 weights, fp32 gradients, fp32 Adam states, no master weights), state alone, spread "
    "evenly over any number of GPUs: no usual software runs it"
)


def memory_table(desk: Desk, progress: Callable[[str, int, int], None]) -> tuple[MemoryRow, ...]:
    """Rows by size: the lesson's own count, then every recipe. Raises what an estimate raises."""
    rows: list[MemoryRow] = []
    total = len(MODELS) * len(RECIPES)
    for size in MODELS:
        for way in RECIPES:
            if way is RECIPES[0]:
                rows.append(counted_row(desk, size))
            rows.append(memory_row(desk, size, way))
            progress("memory", sum(r.recipe != COUNTED for r in rows), total)
    return tuple(rows)


def memory_row(desk: Desk, size: str, way: Recipe) -> MemoryRow:
    """One recipe of one size."""
    model = MODELS[size]
    found = desk.priced(model, way, desk.large, 1)
    return MemoryRow(
        size=size,
        model=model,
        method=way.method,
        recipe=way.name,
        total_params=found.total_params,
        trainable_params=found.trainable_params,
        state_bytes=desk.state_bytes(model, way),
        fits=tuple(desk.fewest(model, way, gpu)[0] for gpu in desk.gpus),
        said=said_memory(size, way.method),
        source=found.sources["memory"],
    )


def counted_row(desk: Desk, size: str) -> MemoryRow:
    """Full fine-tuning by the lesson's arithmetic over the real number of parameters."""
    model, way = MODELS[size], RECIPES[0]
    found = desk.priced(model, way, desk.large, 1)
    state = counted_state(found.total_params)
    return MemoryRow(
        size=size,
        model=model,
        method=way.method,
        recipe=COUNTED,
        total_params=found.total_params,
        trainable_params=found.trainable_params,
        state_bytes=state,
        fits=tuple(_counted_fit(desk, gpu, state) for gpu in desk.gpus),
        said=said_memory(size, way.method),
        source="14 bytes x parameters of the transformers class",
    )


def _counted_fit(desk: Desk, gpu: str, state: int) -> Fit:
    capacity = desk.capacity(gpu)
    count = counted_gpus(state, capacity)
    return Fit(gpu=gpu, gpus=count, tried=count, parallel=None, peak_device=None, interval=None, capacity=capacity)
