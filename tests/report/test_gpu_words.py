"""The table of `rankwise gpus`."""

import io
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from rankwise.observe.devices import observe_device
from rankwise.observe.gpus import known_gpus
from rankwise.observe.prices import offers_of
from rankwise.records.job import Hardware
from rankwise.report.gpu_words import GPU_HEADS, gpu_row, passage


def rows() -> list[dict[str, Any]]:
    found = [observe_device(Hardware(gpu=gpu["name"])).model_dump(mode="json") for gpu in known_gpus()]
    return [
        row | {"own_price": False, "offers": [o.model_dump(mode="json") for o in offers_of(row["name"])]}
        for row in found
    ]


def cells(name: str, **changes: Any) -> tuple[str, ...]:
    return gpu_row(next(row for row in rows() if row["name"] == name) | changes)


def test_a_row_has_units_that_its_head_names() -> None:
    assert cells("A100-80GB") == (
        "A100-80GB",
        "85",
        "312",
        "-",
        "19.5",
        "2,039",
        "NVLink 3",
        "1.79",
        "1.08",
        "7, 2026-11",
    )
    assert cells("T4-16GB")[2] == "65" and cells("P100-16GB")[2] == "-"  # fp16; no tensor cores
    assert cells("H800-80GB")[-3:] == ("unknown", "unknown", "-")
    assert cells("A100-80GB", own_price=True)[-1] == "yours"
    assert cells("A100-80GB", bandwidth=None, link=None)[5:7] == ("unknown", "unknown")


def test_every_row_is_one_line_of_120_characters_but_for_amds_link() -> None:
    table = Table(box=box.SIMPLE)
    for number, head in enumerate(GPU_HEADS):
        table.add_column(head, no_wrap=number == 0)
    for row in rows():
        table.add_row(*gpu_row(row))
    console = Console(width=120, file=io.StringIO())
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    lines = [line for line in console.file.getvalue().splitlines() if line.strip()]
    assert max(map(len, lines)) <= 120 and not any("…" in line for line in lines)
    assert len(lines) <= 3 + len(rows()) + 2


def test_the_passage_says_whose_16_bit_is_fp16_and_whose_prices_are_yours() -> None:
    mine = [row | {"own_price": row["name"] == "L4-24GB"} for row in rows()]
    told = "\n".join(passage(mine))
    assert "fp16 for T4-16GB, RTX-2080-Ti-11GB, V100-32GB, V100-16GB." in told
    assert "From your file: L4-24GB." in told and "From your file" not in "\n".join(passage(rows()))
