"""What `rankwise gpus` prints: one line a GPU, and where its price comes from."""

from collections.abc import Mapping, Sequence
from typing import Any

from rankwise.report.quantities import UNKNOWN, count

# Two lines where that keeps the table within 120 characters.
GPU_HEADS = (
    "name",
    "memory\nGB",
    "16-bit\nTFLOP/s",
    "fp8",
    "fp32",
    "memory\nGB/s",
    "link",
    "USD/h",
    "spot\nUSD/h",
    "offers,\nnewest",
)
NONE = "-"


def gpu_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of one GPU; `-` is hardware that it does not have, `unknown` what nobody published."""
    price, flops, offers = row["price"], row["matmul_flops"], row["offers"]
    newest = max((offer["date"][:7] for offer in offers), default="")
    return (
        row["name"],
        f"{row['memory_bytes'] / 1e9:.0f}",
        _tera(flops.get("bf16", flops.get("fp16"))),
        _tera(flops.get("fp8")),
        _tera(flops.get("fp32")),
        UNKNOWN if row["bandwidth"] is None else count(row["bandwidth"] / 1e9),
        (row["link"] or UNKNOWN).removesuffix(" x16"),
        _usd(price["usd_per_hour"]),
        _usd(price["spot_usd_per_hour"]),
        "yours" if row["own_price"] else f"{len(offers)}, {newest}" if offers else NONE,
    )


def passage(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the columns mean, and how the prices were found."""
    fp16 = [row["name"] for row in rows if "bf16" not in row["matmul_flops"] and "fp16" in row["matmul_flops"]]
    own = [row["name"] for row in rows if row["own_price"]]
    return [
        "Datasheet peaks without sparsity, with fp32 accumulation. 16-bit is bf16; fp16 for " + ", ".join(fp16) + ".",
        "Memory is what CUDA offers a process, in 10^9 bytes. The link joins the GPUs of a machine; PCIe has 16 lanes.",
        "USD per hour of one GPU, without tax: a median of the offers; beside it their number and the newest month.",
        f"An {UNKNOWN} price was published nowhere that we looked, or as spot above the price on demand.",
        "--prices FILE puts yours before ours.",
        *([f"From your file: {', '.join(own)}."] if own else []),
        "--json has every provider's price with its date and source, the watts, and the CUDA context of a process.",
    ]


def _tera(flops: float | None) -> str:
    return NONE if flops is None else f"{flops / 1e12:.4g}"


def _usd(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"
