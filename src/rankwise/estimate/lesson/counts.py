"""Parameters and bytes of adapters and 4-bit bases: counted on the real classes."""

from collections.abc import Callable

from rankwise.estimate.lesson.desk import Desk
from rankwise.records import Estimate
from rankwise.records.tables import Figure

QKVO = "q_proj,k_proj,v_proj,o_proj"
LAYERS = 32  # q_proj of Llama-2-7B: as many 4096 x 4096 matrices
ADAPTER = "llama-3-8b"


def params(name: str, count: float) -> Figure:
    return Figure(name=name, value=count, unit="parameters")


def stored(name: str, size: int | None) -> Figure:
    return Figure(name=name, value=size, unit="B")


def base_bytes(found: Estimate) -> int:
    """Weights of the frozen base, without the fp32 adapter."""
    return found.memory.weights - 4 * found.trainable_params


def rank_on_a_matrix(desk: Desk) -> list[Figure]:
    def one(rank: int) -> float:
        found = desk.price("llama-2-7b", "lora", rank=rank, targets="q_proj").trainable_params
        return found // LAYERS if found % LAYERS == 0 else found / LAYERS

    return [params(f"r={rank}, one 4096x4096 matrix", one(rank)) for rank in (8, 16)]


def base_parameters(desk: Desk) -> list[Figure]:
    return [params("parameters of Llama-3-8B", desk.price(ADAPTER, "full").total_params)]


def all_linear(desk: Desk) -> list[Figure]:
    r16 = desk.price(ADAPTER, "lora", rank=16)
    return [
        params("trained, r=16", r16.trainable_params),
        params("with the base, r=16", r16.total_params),
        Figure(name="share, r=16", value=r16.trainable_params / r16.total_params, unit="share"),
        params("trained, r=32", desk.price(ADAPTER, "lora", rank=32).trainable_params),
    ]


def attention_only(desk: Desk) -> list[Figure]:
    qkvo, every = (desk.price(ADAPTER, "qlora", rank=64, targets=t) for t in (QKVO, "all-linear"))
    return [
        params("trained, r=64 on q, k, v, o", qkvo.trainable_params),
        params("with the base", qkvo.total_params),
        Figure(name="share", value=qkvo.trainable_params / qkvo.total_params, unit="share"),
        params("trained, r=64 on all seven", every.trainable_params),
        params("base and r=64 on all seven", every.total_params),
    ]


def adapter_files(desk: Desk) -> list[Figure]:
    def size(**options: object) -> int | None:
        return desk.price(ADAPTER, "lora", **options).storage.adapter_bytes

    return [
        stored("adapter r=16, fp32", size(rank=16)),
        stored("adapter r=16, bf16", size(rank=16, adapter_dtype="bf16")),
        stored("adapter r=64 on q, k, v, o, fp32", size(rank=64, targets=QKVO)),
    ]


def four_bit_8b(desk: Desk) -> list[Figure]:
    return _four_bit(desk, ADAPTER, "Llama-3-8B")


def four_bit_70b(desk: Desk) -> list[Figure]:
    return _four_bit(desk, "llama-3-70b", "Llama-3-70B")


def _four_bit(desk: Desk, model: str, name: str) -> list[Figure]:
    plain = desk.price(model, "qlora", rank=16, kbit_upcast=False)
    prepared = desk.price(model, "qlora", rank=16, dtype="fp16")  # in bf16 TRL turns them back
    return [
        stored(f"NF4 weights of {name}", base_bytes(plain)),
        stored("with embedding and head in fp32, as PEFT prepares them", base_bytes(prepared)),
    ]


def eight_bit_70b(desk: Desk) -> list[Figure]:
    found = desk.price("llama-3-70b", "lora-8bit", rank=16, kbit_upcast=False)
    return [stored("8-bit weights of Llama-3-70B", base_bytes(found))]


def query_and_value(desk: Desk) -> list[Figure]:
    def trained(model: str) -> int:
        return desk.price(model, "lora", rank=16, targets="q_proj,v_proj").trainable_params

    count = trained(ADAPTER)
    return [
        params("parameters, Llama-3-8B", count),
        params("parameters, Llama-2-7B", trained("llama-2-7b")),
        stored("gradients, Llama-3-8B", 4 * count),
        stored("Adam states, Llama-3-8B", 8 * count),
    ]


def attention_only_bytes(desk: Desk) -> list[Figure]:
    count = desk.price(ADAPTER, "qlora", rank=64, targets=QKVO).trainable_params
    return [stored("adapter weights, fp32", 4 * count), stored("Adam states", 8 * count)]


def adapter_by_rank(desk: Desk) -> list[Figure]:
    return [
        stored(
            f"adapter r={rank}, 8B, bf16",
            desk.price(ADAPTER, "lora", rank=rank, adapter_dtype="bf16").storage.adapter_bytes,
        )
        for rank in (16, 256)
    ]


CHECKS: dict[str, Callable[[Desk], list[Figure]]] = {
    "9": query_and_value,
    "10": attention_only_bytes,
    "21": rank_on_a_matrix,
    "N1": base_parameters,
    "N2": all_linear,
    "N3": attention_only,
    "N4": adapter_files,
    "N5": four_bit_8b,
    "N6": four_bit_70b,
    "N7": eight_bit_70b,
    "F17": adapter_by_rank,
}
