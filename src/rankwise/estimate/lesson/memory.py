"""What the lesson said of memory, traced."""

from collections.abc import Callable

from rankwise.estimate.lesson.counts import base_bytes, stored
from rankwise.estimate.lesson.desk import LARGE, MEDIUM, MODELS, RECIPES, SMALL, Desk, Recipe, counted_state, recipe
from rankwise.estimate.lesson.said import said_memory
from rankwise.records import Estimate
from rankwise.records.tables import Figure

# 8-bit AdamW whose states move to the host when the card is full: bitsandbytes' paged optimizer.
PAGED = Recipe("paged 8-bit AdamW", "full", {"optimizer": "paged_adamw_8bit"}, "none", "fsdp", 2, "")
OFFLOADED = Recipe("ZeRO-3 with offload", "full", {"offload": "all"}, "zero3", "zero3", 2, "")


def peak(name: str, found: Estimate) -> Figure:
    return Figure(name=name, value=found.memory.peak_device, unit="B", interval=found.memory.interval)


def gpus(name: str, desk: Desk, size: str, way: Recipe, gpu: str) -> Figure:
    fit, _ = desk.fewest(MODELS[size], way, gpu)
    return Figure(name=name, value=fit.gpus if fit.gpus is not None else f"more than {fit.tried}", unit="GPUs")


def full_7b(desk: Desk) -> list[Figure]:
    model = MODELS["7B"]
    names = {"pure bf16": "in pure bf16", "autocast": "fp32 weights under autocast", "ZeRO-3": "DeepSpeed ZeRO-3"}
    found = [
        stored(f"state {said}" if name == "pure bf16" else f"state, {said}", desk.state_bytes(model, recipe(name)))
        for name, said in names.items()
    ]
    return [*found, stored("by the lesson's 14 bytes a parameter", _counted(desk, "7B"))]


def _counted(desk: Desk, size: str) -> int:
    return counted_state(desk.priced(MODELS[size], RECIPES[0], desk.large, 1).total_params)


def _fill(desk: Desk, size: str) -> Figure:
    """How much of the lesson's cards its own state takes."""
    said = said_memory(size, "full")
    assert said is not None
    share = _counted(desk, size) / (said.gpus * desk.capacity(said.gpu))
    return Figure(name=f"{size} fills {said.gpus}x {said.gpu} to", value=share, unit="share")


def full_34b(desk: Desk) -> list[Figure]:
    share = _fill(desk, "34B").model_copy(update={"name": "share of 6x A100-80GB before any activation"})
    return [stored("state at 14 bytes a parameter", _counted(desk, "34B")), share, *_fewest_full(desk, "34B")]


def full_70b(desk: Desk) -> list[Figure]:
    return [stored("state at 14 bytes a parameter", _counted(desk, "70B")), *_fewest_full(desk, "70B")]


def _fewest_full(desk: Desk, size: str) -> list[Figure]:
    return [
        gpus("fewest A100-80GB, DeepSpeed ZeRO-3", desk, size, recipe("ZeRO-3"), LARGE),
        gpus("fewest A100-80GB, fp32 weights under autocast", desk, size, recipe("autocast"), LARGE),
    ]


def fills(desk: Desk) -> list[Figure]:
    return [_fill(desk, size) for size in ("7B", "13B", "34B", "70B")]


def lora_7b(desk: Desk) -> list[Figure]:
    found = desk.priced(MODELS["7B"], recipe("LoRA"), MEDIUM, 1)
    return [
        peak("LoRA r=16, 7B, peak on one A100-40GB", found),
        gpus("fewest A100-40GB", desk, "7B", recipe("LoRA"), MEDIUM),
    ]


def lora_larger(desk: Desk) -> list[Figure]:
    cells = (("13B", MEDIUM), ("34B", LARGE), ("70B", LARGE))
    return [gpus(f"{size}, fewest {gpu}", desk, size, recipe("LoRA"), gpu) for size, gpu in cells]


def qlora_small(desk: Desk) -> list[Figure]:
    return [peak(f"{size}, peak", desk.priced(MODELS[size], recipe("QLoRA"), LARGE, 1)) for size in ("7B", "13B")]


def qlora_large(desk: Desk) -> list[Figure]:
    found = []
    for size in ("34B", "70B"):
        priced = desk.priced(MODELS[size], recipe("QLoRA"), LARGE, 1)
        plain = desk.price(MODELS[size], "qlora", rank=16, kbit_upcast=False)
        found += [
            stored(f"{size}, 4-bit weights, embedding and head", base_bytes(plain)),
            peak(f"{size}, peak", priced),
        ]
    return [*found, gpus("70B, fewest A100-80GB", desk, "70B", recipe("QLoRA"), LARGE)]


def full_on_one_card(desk: Desk) -> list[Figure]:
    return [
        gpus("fewest A100-80GB, pure bf16, fused AdamW", desk, "7B", recipe("pure bf16"), LARGE),
        gpus("fewest A100-40GB, bf16, paged 8-bit AdamW", desk, "7B", PAGED, MEDIUM),
        peak("peak, bf16, paged 8-bit AdamW", desk.priced(MODELS["7B"], PAGED, MEDIUM, 1)),
    ]


def full_with_offload(desk: Desk) -> list[Figure]:
    on_eight = desk.priced(MODELS["70B"], OFFLOADED, LARGE, 8)
    return [
        peak("peak of one of 8 A100-80GB, ZeRO-3 with offload to the CPU", on_eight),
        Figure(
            name="fewest A100-80GB, ZeRO-3 with offload to the CPU",
            value=8 if on_eight.memory.fits else "more than 8",
            unit="GPUs",
        ),
        gpus("fewest A100-80GB, ZeRO-3 without", desk, "70B", recipe("ZeRO-3"), LARGE),
    ]


def gpt2_on_a_v100(desk: Desk) -> list[Figure]:
    options = {"amp": True, "dtype": "fp16", "seq_len": 1024, "optimizer": "adamw_torch_fused"}
    way = Recipe("fp16", "full", options, "none", "fsdp", 4, "")
    found = []
    for gpu in ("V100-32GB", "V100-16GB"):
        priced = desk.priced("gpt2-xl", way, gpu, 1)
        fits = 1 if priced.memory.fits else "more than 1"
        found.append(Figure(name=f"GPT-2 1.5B, fewest {gpu}", value=fits, unit="GPUs"))
    return [peak("peak, fp32 weights under fp16 autocast, one row of 1,024 tokens", priced), *found]


def rounding_up(desk: Desk) -> list[Figure]:
    return [gpus("LoRA 34B, fewest A100-80GB", desk, "34B", recipe("LoRA"), LARGE)]


def more_than_state(desk: Desk) -> list[Figure]:
    long = desk.price("llama-3-8b", "lora", rank=16, seq_len=8192)
    short = desk.price("llama-3-8b", "lora", rank=16, seq_len=512)
    ratio = long.memory.peak_device / short.memory.peak_device
    return [
        stored("logits at the peak, LoRA 8B, one row of 8,192 tokens", long.memory.logits),
        Figure(name="peak, 8,192 tokens over 512 tokens", value=ratio, unit="ratio"),
    ]


def bytes_per_parameter(desk: Desk) -> list[Figure]:
    def one(name: str, method: str, rank: int) -> Figure:
        way = recipe("LoRA" if method == "lora" else "QLoRA")
        found = desk.price("llama-3-8b", method, rank=rank)
        assert found.memory.save_peak is not None
        state = found.memory.save_peak + way.gradient_bytes * found.trainable_params
        return Figure(name=name, value=state / (found.total_params - found.trainable_params), unit="B/parameter")

    return [
        one("LoRA r=16, 8B", "lora", 16),
        one("LoRA r=256, 8B", "lora", 256),
        one("QLoRA r=16, 8B", "qlora", 16),
    ]


def other_cards(desk: Desk) -> list[Figure]:
    return [
        gpus(f"QLoRA 7B, fewest {SMALL}", desk, "7B", recipe("QLoRA"), SMALL),
        gpus(f"LoRA 7B, fewest {MEDIUM}", desk, "7B", recipe("LoRA"), MEDIUM),
    ]


CHECKS: dict[str, Callable[[Desk], list[Figure]]] = {
    "1": full_7b,
    "2": full_34b,
    "3": full_70b,
    "4": fills,
    "5": lora_7b,
    "6": lora_larger,
    "7": qlora_small,
    "8": qlora_large,
    "11": full_on_one_card,
    "12": full_with_offload,
    "50": gpt2_on_a_v100,
    "F11": rounding_up,
    "F12": more_than_state,
    "F13": bytes_per_parameter,
    "F14": other_cards,
}
