"""What an hour of a GPU costs: our dated list (prices.toml), and a file of the user's own that goes before it."""

import datetime
import json
import math
import re
import statistics
import tomllib
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from rankwise.errors import JobError, UsageError
from rankwise.observe.gpus import match_gpu
from rankwise.records import Price, Record

RECENT = datetime.timedelta(days=730)
ENOUGH = 3  # recent lines; with fewer, older ones count as well
SIGNS = {"$": "USD", "€": "EUR", "£": "GBP", "₹": "INR"}
CODES = re.compile(r"\b(USD|EUR|GBP|CHF|JPY|CNY|INR)\b", re.IGNORECASE)
EXAMPLE = "a file like `{currency: USD, date: 2026-11-01, gpus: {A100-80GB: {on_demand: 1.79, spot: 0.9}}}`"


class Offer(Record):
    """One line of prices.toml: USD per hour of one GPU at one provider."""

    provider: str
    on_demand: float | None = Field(None, gt=0)
    spot: float | None = Field(None, gt=0)
    date: datetime.date
    source: str = Field(description="Where the provider says it, and who wrote it down.")


class PriceList(Record):
    """A user's own prices, in USD."""

    file: str
    date: str = Field(description="That the file gives, else the day it was last changed.")
    electricity_usd_per_kwh: float | None
    storage_usd_per_gb_month: float | None
    gpus: dict[str, Price] = Field(description="By the names of devices.toml.")
    notes: tuple[str, ...] = ()


# -- the price of one GPU --------------------------------------------------------------------------


def price_of(name: str, prices: PriceList | None = None) -> Price:
    """The price of a GPU by its name in devices.toml: the user's if the file names it, else ours.

    What neither knows is None. An entry of the user's file replaces ours as a whole: with `on_demand` alone, the spot
    price is unknown.
    """
    if prices is not None and name in prices.gpus:
        return prices.gpus[name]
    ours = _ours(name)
    if prices is None:
        return ours
    return ours.model_copy(update={"source": f"not in {prices.file}: {ours.source}"})


def offers_of(name: str) -> tuple[Offer, ...]:
    """The lines of our list for a GPU, cheapest first; empty where no provider's price was found."""
    return _list()[1].get(name, ())


def storage_price(prices: PriceList | None = None) -> tuple[float, str]:
    """USD per GB (10^9 bytes) and month of object storage, and its source: the user's, else a list price."""
    if prices is not None and prices.storage_usd_per_gb_month is not None:
        return prices.storage_usd_per_gb_month, f"{prices.file}, {prices.date}"
    storage = _list()[0]
    return storage["usd_per_gb_month"], f"{storage['source']} ({storage['date']})"


def _ours(name: str) -> Price:
    offers = offers_of(name)
    on_demand, said = _median([(o, o.on_demand) for o in offers if o.on_demand is not None])
    most = math.inf if on_demand is None else on_demand
    spot, said_spot = _median([(o, o.spot) for o in offers if o.spot is not None and o.spot < most])
    if spot is None and any(o.spot is not None for o in offers):
        said_spot = "published prices are above that"
    source = f"on demand: {said}; spot: {said_spot} (rankwise gpus --json lists them)"
    return Price(
        usd_per_hour=on_demand,
        spot_usd_per_hour=spot,
        source=source if offers else "no published price in USD was found",
    )


def _median(lines: Sequence[tuple[Offer, float]]) -> tuple[float | None, str]:
    """The median over the recent lines, or over all where these are few, and in words what it is the median of."""
    recent = [line for line in lines if line[0].date >= _newest() - RECENT]
    used = recent if len(recent) >= ENOUGH else lines
    if not used:
        return None, "no published price was found"
    dates = sorted({offer.date for offer, _ in used})
    when = f"{dates[0]}" if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    who = f"{used[0][0].provider}'s price" if len(used) == 1 else f"median of {len(used)} providers' prices"
    return round(statistics.median(usd for _, usd in used), 4), f"{who}, {when}"


@cache
def _list() -> tuple[dict[str, Any], dict[str, tuple[Offer, ...]]]:
    content = tomllib.loads(Path(__file__).with_name("prices.toml").read_text(encoding="utf-8"))
    said = {key: f"{s['at']}; via {s['via']}" for key, s in content["sources"].items()}
    offers = {
        gpu: tuple(sorted((Offer(**line | {"source": said[line["source"]]}) for line in lines), key=_cheapness))
        for gpu, lines in content["offers"].items()
    }
    return content["storage"], offers


def _cheapness(offer: Offer) -> tuple[float, float]:
    return offer.on_demand or math.inf, offer.spot or math.inf


@cache
def _newest() -> datetime.date:
    return max(offer.date for offers in _list()[1].values() for offer in offers)


# -- the user's file -------------------------------------------------------------------------------


class _Entry(Record):
    on_demand: float | None = Field(None, gt=0, strict=True)
    spot: float | None = Field(None, gt=0, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _one_number(cls, value: Any) -> Any:
        """`A100-80GB: 1.79` is the on-demand price."""
        return value if isinstance(value, dict) else {"on_demand": value}


def _code(currency: Any) -> Any:
    return _currency_in(currency) or currency if isinstance(currency, str) else currency


class _File(Record):
    currency: Annotated[str, BeforeValidator(_code), Field(pattern=r"^[A-Z]{3}$")] = "USD"
    usd_per_unit: float | None = Field(None, gt=0, strict=True)
    date: datetime.date | None = None
    electricity_usd_per_kwh: float | None = Field(None, gt=0, strict=True)
    storage_usd_per_gb_month: float | None = Field(None, gt=0, strict=True)
    gpus: dict[str, _Entry] = Field(default_factory=dict)


def read_prices(path: Path) -> PriceList:
    """A file of prices: TOML, YAML or JSON, by its ending.

    Keys: `currency` (USD), `usd_per_unit` (USD that one unit of another currency is worth), `date`,
    `electricity_usd_per_kwh`, `storage_usd_per_gb_month`, and `gpus`, which maps GPU names, loosely written, to
    `{on_demand, spot}` per hour of one GPU or to the on-demand price alone. null is unknown.

    Raises:
        UsageError: no such file, not of its format, an unknown key or GPU, a key given twice, a price that is not a
            positive number, or a mix of currencies. The file and the key are named.
    """
    content = _load(path)
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        raise _fault(path, error.errors(include_url=False)[0], content) from None
    rate = _usd_per_unit(path, file)
    when = file.date.isoformat() if file.date else f"changed {datetime.date.fromtimestamp(path.stat().st_mtime)}"
    said = f"{path}, {when}" + ("" if file.currency == "USD" else f", {file.currency} at {rate:g} USD")
    gpus: dict[str, Price] = {}
    notes = []
    for written, entry in file.gpus.items():
        name = _known_name(path, written)
        if name in gpus:
            raise UsageError(f"{path}: gpus.{written}: {name} is given twice", fix="keep one")
        if not entry.model_fields_set:
            raise UsageError(
                f"{path}: gpus.{written} has no price", fix="write on_demand, spot or both; null is unknown"
            )
        dear = entry.on_demand is not None and entry.spot is not None and entry.spot > entry.on_demand
        if dear:
            notes.append(f"{path}: gpus.{written}: spot costs more than on demand")
        gpus[name] = Price(
            usd_per_hour=entry.on_demand and entry.on_demand * rate,
            spot_usd_per_hour=entry.spot and entry.spot * rate,
            source=said + ("; spot costs more than on demand" if dear else ""),
        )
    return PriceList(
        file=str(path),
        date=when,
        electricity_usd_per_kwh=file.electricity_usd_per_kwh,
        storage_usd_per_gb_month=file.storage_usd_per_gb_month,
        gpus=gpus,
        notes=tuple(notes),
    )


def _known_name(path: Path, written: str) -> str:
    try:
        return str(match_gpu(written)["name"])
    except JobError as error:
        what = error.what.removeprefix(f"hardware.gpu {written}: ")
        raise UsageError(f"{path}: gpus.{written}: {what}", expected=error.expected, fix=error.fix) from None


def _usd_per_unit(path: Path, file: _File) -> float:
    if file.currency == "USD":
        if file.usd_per_unit not in (None, 1):
            raise UsageError(
                f"{path}: usd_per_unit is {file.usd_per_unit:g}, and the prices are in USD",
                fix="name the currency in `currency`, or leave usd_per_unit out",
            )
        return 1.0
    if file.usd_per_unit is None:
        raise UsageError(
            f"{path}: the prices are in {file.currency}, and everything else is counted in USD",
            expected="`usd_per_unit`: what one unit of that currency is worth in USD",
            fix="add for example `usd_per_unit: 1.08`, or write the prices in USD",
        )
    return file.usd_per_unit


def _fault(path: Path, error: Any, content: Any) -> UsageError:
    """What pydantic found, in the words of the file."""
    loc = [str(part) for part in error["loc"]]
    key, value = ".".join(loc), error["input"]
    if error["type"] == "extra_forbidden":
        return UsageError(f"{path}: unknown key {key}", expected=EXAMPLE, fix="remove it")
    if isinstance(value, str) and (other := _currency_in(value)):
        stated = _code(content.get("currency", "USD"))
        if other != stated:
            return UsageError(
                f"{path}: {key} is {value!r}: {other} in a file of {stated}",
                expected="one currency in a file, and numbers without a sign",
                fix=f"write {stated} as a number, or `currency: {other}` with `usd_per_unit` and all prices in {other}",
            )
    if isinstance(value, str) and error["type"] == "float_type":
        return UsageError(
            f"{path}: {key} is the text {value!r}", expected="a number", fix="write 1.79, without quotes or sign"
        )
    what = {
        "float_type": f"is {value!r}, which is no number",
        "greater_than": f"is {value!r}; a price is above 0",
        "finite_number": f"is {value!r}, which is no number",
        "string_pattern_mismatch": f"is {value!r}; a currency is three capitals such as USD",
        "dict_type": f"is {value!r}, which is no mapping",
    }.get(error["type"], f"is {value!r}: {error['msg']}")
    return UsageError(
        f"{path}: {key or 'the file'} {what}", expected=EXAMPLE, fix="write null, or leave it out, if it is unknown"
    )


def _currency_in(text: str) -> str | None:
    """The currency that a price is written with: `€2.10`, `2.10 EUR`."""
    code = CODES.search(text)
    return code[0].upper() if code else next((c for sign, c in SIGNS.items() if sign in text), None)


# -- its three formats -----------------------------------------------------------------------------


def _load(path: Path) -> Any:
    readers: dict[str, Callable[[str], Any]] = {
        ".toml": tomllib.loads,
        ".json": lambda text: json.loads(text, object_pairs_hook=_once),
        ".yaml": _yaml,
        ".yml": _yaml,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path}: a file of prices is TOML, YAML or JSON", fix=f"name it {path.stem}.yaml")
    try:
        content = reader(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", fix="give the path of a file of prices") from None
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: not valid {path.suffix[1:].upper()}: {error}", expected=EXAMPLE) from None
    if not isinstance(content, dict):
        raise UsageError(f"{path}: a file of prices is a mapping of keys", expected=EXAMPLE)
    return content


def _once(pairs: list[tuple[Hashable, Any]]) -> dict[Hashable, Any]:
    """A mapping; a key given twice would silently lose one price, so it is refused."""
    keys = [key for key, _ in pairs]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is given twice")
    return dict(pairs)


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        return _once(
            [(self.construct_object(k, deep=True), self.construct_object(v, deep=True)) for k, v in node.value]
        )


def _yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
