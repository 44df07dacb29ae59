"""The architectures and GPUs that are known offline."""

from pathlib import Path
from typing import Any

from rankwise.errors import UsageError
from rankwise.observe.catalogue import find_architecture, nearest
from rankwise.observe.catalogue import rows as catalogue_rows
from rankwise.observe.devices import observe_device
from rankwise.observe.gpus import known_gpus
from rankwise.observe.prices import offers_of, read_prices
from rankwise.records.job import Hardware

NOT_OF_A_KIND = ("kind", "count", "cores", "available_bytes", "matmul_measured", "disk_free_bytes")  # of one machine


def models() -> list[dict[str, Any]]:
    """The architectures known offline, as `rankwise models --json` prints them."""
    return catalogue_rows()


def model(name: str) -> dict[str, Any]:
    """One architecture with its hub ids, its source and its config. Raises UsageError for an unknown name."""
    known = find_architecture(name)
    if known is None:
        close = nearest(name)
        raise UsageError(
            f"{name} is not in the catalogue",
            expected="a name from `rankwise models`, or a hub id of one of these families",
            fix=f"did you mean {' or '.join(close)}?" if close else "`rankwise models` lists them",
        )
    row = next(row for row in catalogue_rows() if row["name"] == known.name)
    more = {"hub_ids": list(known.hub_ids), "aliases": list(known.aliases), "source": known.source, "note": known.note}
    return row | more | {"config": known.config}


def gpus(prices: Path | None = None) -> list[dict[str, Any]]:
    """The GPUs known by name: bytes, FLOP/s, bytes per second, watts, and the price of an hour with the providers' own
    lines; a file of prices goes before ours. Raises UsageError for that file."""
    own = read_prices(prices) if prices else None
    rows = []
    for gpu in known_gpus():
        device = observe_device(Hardware(gpu=gpu["name"]), prices=own)
        row = device.model_dump(mode="json", exclude=set(NOT_OF_A_KIND))
        offers = [offer.model_dump(mode="json") for offer in offers_of(device.name)]
        rows.append(row | {"own_price": own is not None and device.name in own.gpus, "offers": offers})
    return rows
