"""The price list, the one price that comes of it, and a user's own file."""

import datetime
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rankwise.errors import UsageError
from rankwise.observe import prices as module
from rankwise.observe.gpus import known_gpus
from rankwise.observe.prices import Offer, offers_of, price_of, read_prices, storage_price

NAMES = [gpu["name"] for gpu in known_gpus()]
WITHOUT = {"H800-80GB", "A800-80GB", "RTX-4070-Ti-SUPER-16GB", "RTX-2080-Ti-11GB"}


def write(tmp_path: Path, content: Any, name: str = "prices.yaml") -> Path:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


def fault(path: Path) -> UsageError:
    with pytest.raises(UsageError) as error:
        read_prices(path)
    assert str(path) in error.value.what and error.value.exit_code == 2
    return error.value


# -- our list --------------------------------------------------------------------------------------


def test_every_line_is_of_a_known_gpu_dated_and_sourced() -> None:
    _, offers = module._list()
    assert set(offers) == set(NAMES) - WITHOUT
    for gpu, lines in offers.items():
        assert len({line.provider for line in lines}) == len(lines), gpu
        for line in lines:
            assert datetime.date(2023, 1, 1) < line.date <= datetime.date(2026, 11, 22)
            assert "; via " in line.source and (line.on_demand or line.spot)
            assert line.on_demand is None or line.spot is None or line.spot < line.on_demand


@pytest.mark.parametrize("name", NAMES)
def test_the_price_lies_among_the_offers_and_says_of_how_many(name: str) -> None:
    price, offers = price_of(name), offers_of(name)
    asked = [o.on_demand for o in offers if o.on_demand is not None]
    if name in WITHOUT:
        assert (price.usd_per_hour, price.spot_usd_per_hour, offers) == (None, None, ())
        assert "no published price" in price.source
        return
    assert price.usd_per_hour is not None and min(asked) <= price.usd_per_hour <= max(asked)
    assert price.spot_usd_per_hour is None or price.spot_usd_per_hour < price.usd_per_hour
    assert max(o.date for o in offers if o.on_demand).isoformat() in price.source


def test_the_price_is_the_median_of_the_recent_lines() -> None:
    asked = [o.on_demand for o in offers_of("A100-80GB") if o.on_demand]
    assert len(asked) == 7 and price_of("A100-80GB").usd_per_hour == statistics.median(asked) == 1.79
    assert "median of 7 providers" in price_of("A100-80GB").source
    # three of four lines of the L4 are less than two years old; of the T4, two, so that the old ones count
    assert "median of 3 providers" in price_of("L4-24GB").source
    assert "median of 6 providers" in price_of("T4-16GB").source


def test_a_spot_price_above_the_price_on_demand_is_not_used() -> None:
    assert any(o.spot == 6.571 for o in offers_of("H100-80GB"))
    price = price_of("H100-80GB")
    assert price.usd_per_hour == 3.99 and price.spot_usd_per_hour is None and "above that" in price.source


@given(
    st.lists(st.tuples(st.floats(0.01, 100), st.integers(0, 2000)), min_size=1, max_size=12),
)
def test_old_lines_count_only_where_recent_ones_are_few(lines: list[tuple[float, int]]) -> None:
    newest = module._newest()
    offers = [
        (Offer(provider=str(n), date=newest - datetime.timedelta(days=age), source="x"), usd)
        for n, (usd, age) in enumerate(lines)
    ]
    recent = [usd for usd, age in lines if age <= 730]
    used = recent if len(recent) >= 3 else [usd for usd, _ in lines]
    found, said = module._median(offers)
    assert found == pytest.approx(statistics.median(used), abs=1e-4)
    assert (f"median of {len(used)}" in said) == (len(used) > 1)


def test_storage_has_a_dated_list_price() -> None:
    usd, source = storage_price()
    assert usd == 0.023 and "S3" in source and "2016-12-01" in source


# -- the user's file -------------------------------------------------------------------------------

WHOLE = {
    "currency": "USD",
    "date": "2026-11-01",
    "electricity_usd_per_kwh": 0.12,
    "storage_usd_per_gb_month": 0.02,
    "gpus": {"A100 80GB": {"on_demand": 1.5, "spot": 0.9}, "rtx4090": {"on_demand": 0.3}, "Tesla T4": {"spot": 0.1}},
}
TOML = """
currency = "USD"
date = 2026-11-01
electricity_usd_per_kwh = 0.12
storage_usd_per_gb_month = 0.02
[gpus."A100 80GB"]
on_demand = 1.5
spot = 0.9
[gpus]
rtx4090 = 0.3
"Tesla T4" = { spot = 0.1 }
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.yaml", yaml.safe_dump(WHOLE)),
        ("p.yml", yaml.safe_dump(WHOLE)),
        ("p.json", json.dumps(WHOLE)),
        ("p.toml", TOML),
    ],
)
def test_three_formats_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    found = read_prices(write(tmp_path, text, name))
    assert (found.date, found.electricity_usd_per_kwh, found.storage_usd_per_gb_month) == ("2026-11-01", 0.12, 0.02)
    paid = {gpu: (p.usd_per_hour, p.spot_usd_per_hour) for gpu, p in found.gpus.items()}
    assert paid == {"A100-80GB": (1.5, 0.9), "RTX-4090-24GB": (0.3, None), "T4-16GB": (None, 0.1)}
    assert storage_price(found)[0] == 0.02


def test_a_partial_file_keeps_our_prices_for_the_rest_and_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, {"date": "2026-11-01", "gpus": {"A100-80GB": {"on_demand": 1.0}, "H200": None}})
    own = read_prices(path)
    mine = price_of("A100-80GB", own)
    assert (mine.usd_per_hour, mine.spot_usd_per_hour) == (1.0, None)  # not our spot price beside their own
    assert mine.source == f"{path}, 2026-11-01"
    rest = price_of("L4-24GB", own)
    assert rest.usd_per_hour == price_of("L4-24GB").usd_per_hour and rest.source.startswith(f"not in {path}: on demand")
    assert price_of("H200-141GB", own).usd_per_hour is None  # null is unknown, not our price
    assert price_of("H800-80GB", own).usd_per_hour is None
    assert storage_price(own) == storage_price()


def test_another_currency_is_counted_in_usd(tmp_path: Path) -> None:
    path = write(tmp_path, "currency: EUR\nusd_per_unit: 1.1\ngpus: {l4: {on_demand: 2, spot: 1.0}}\n")
    price = read_prices(path).gpus["L4-24GB"]
    assert price.usd_per_hour == pytest.approx(2.2) and price.spot_usd_per_hour == pytest.approx(1.1)
    assert "EUR at 1.1 USD" in price.source
    again = read_prices(write(tmp_path, "currency: €\nusd_per_unit: 1.1\ngpus: {l4: 2}\n"))
    assert again.gpus["L4-24GB"].usd_per_hour == pytest.approx(2.2)


def test_a_file_without_a_date_has_the_day_it_was_changed(tmp_path: Path) -> None:
    found = read_prices(write(tmp_path, "gpus: {l4: 1}\n"))
    assert found.date == f"changed {datetime.date.today()}"


def test_spot_above_on_demand_is_told(tmp_path: Path) -> None:
    found = read_prices(write(tmp_path, "gpus: {l4: {on_demand: 1, spot: 2}}\n"))
    assert found.notes and "spot costs more" in found.notes[0]
    assert "spot costs more" in price_of("L4-24GB", found).source


@pytest.mark.parametrize("bad", ["-1", "0", ".nan", ".inf", "-.inf", "true", "[1]", "'1.79'", "cheap"])
@pytest.mark.parametrize("key", ["on_demand", "spot"])
def test_a_price_that_is_no_positive_number_is_refused(tmp_path: Path, bad: str, key: str) -> None:
    error = fault(write(tmp_path, f"gpus: {{A100-80GB: {{{key}: {bad}}}}}\n"))
    assert f"gpus.A100-80GB.{key}" in error.what and (error.fix or error.expected)


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-2", "0", '"2"', "false"])
def test_json_too(tmp_path: Path, bad: str) -> None:
    error = fault(write(tmp_path, f'{{"gpus": {{"L4": {{"on_demand": {bad}}}}}}}', "p.json"))
    assert "gpus.L4.on_demand" in error.what


@pytest.mark.parametrize("key", ["electricity_usd_per_kwh", "storage_usd_per_gb_month", "usd_per_unit"])
@pytest.mark.parametrize("bad", ["-0.1", "0", ".nan", "'0.12'"])
def test_the_other_prices_are_checked_as_well(tmp_path: Path, key: str, bad: str) -> None:
    assert key in fault(write(tmp_path, f"currency: EUR\n{key}: {bad}\n")).what


@pytest.mark.parametrize("written", ["€2.10", "2.10 EUR", "2,10 eur", "£2"])
def test_a_mix_of_currencies_is_refused_and_says_what_to_write(tmp_path: Path, written: str) -> None:
    error = fault(write(tmp_path, {"gpus": {"A100-80GB": {"on_demand": written}}}))
    code = "GBP" if "£" in written else "EUR"
    assert f"{code} in a file of USD" in error.what and "gpus.A100-80GB.on_demand" in error.what
    assert "write USD as a number" in error.fix and f"currency: {code}" in error.fix


def test_dollars_in_a_file_of_euros_are_a_mix_too(tmp_path: Path) -> None:
    error = fault(write(tmp_path, {"currency": "EUR", "usd_per_unit": 1.1, "gpus": {"L4": {"spot": "$1"}}}))
    assert "USD in a file of EUR" in error.what
    plain = fault(write(tmp_path, {"gpus": {"L4": {"spot": "$1"}}}))
    assert "text" in plain.what and "without quotes or sign" in plain.fix


def test_euros_need_their_rate_and_dollars_have_none(tmp_path: Path) -> None:
    error = fault(write(tmp_path, "currency: EUR\ngpus: {l4: 1}\n"))
    assert "EUR" in error.what and "usd_per_unit" in error.fix
    assert "usd_per_unit is 1.08" in fault(write(tmp_path, "usd_per_unit: 1.08\ngpus: {l4: 1}\n")).what
    assert read_prices(write(tmp_path, "usd_per_unit: 1\ngpus: {l4: 1}\n")).gpus
    assert "currency" in fault(write(tmp_path, "currency: dollars\ngpus: {l4: 1}\n")).what
    assert "currency" in fault(write(tmp_path, "currency: 3\ngpus: {l4: 1}\n")).what


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gpus: {A1000-80GB: 1}\n", "A100"),
        ("gpus: {A100: 1}\n", "A100-80GB or A100-40GB"),
        ("gpus: {l4: 1, L4-24GB: 2}\n", "keep one"),
        ("gpus: {l4: {}}\n", "on_demand, spot or both"),
        ("gpus: {l4: {price: 1}}\n", "remove it"),
        ("prices: {l4: 1}\n", "remove it"),
        ("gpus: [l4]\n", "null"),
    ],
)
def test_names_and_keys(tmp_path: Path, text: str, told: str) -> None:
    error = fault(write(tmp_path, text))
    assert told in error.fix or told in error.expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.yaml", "gpus: {l4: 1, l4: 2}\n"),
        ("p.yaml", "gpus: {l4: 1\n"),
        ("p.yaml", "- 1\n"),
        ("p.yaml", ""),
        ("p.json", '{"gpus": {"l4": 1, "l4": 2}}'),
        ("p.json", "{"),
        ("p.toml", "gpus = "),
        ("p.csv", "l4,1"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, text: str) -> None:
    error = fault(write(tmp_path, text, name))
    assert error.expected or error.fix


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for name, said in (("none.yaml", "No such file"), ("none.toml", "No such file"), ("bytes.yaml", "not valid YAML")):
        assert said in fault(tmp_path / name).what


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3)
    )
)
def test_any_value_is_a_price_or_one_clear_error(value: Any) -> None:
    path = Path(__file__).parent  # not read: only named in errors
    content = {"gpus": {"L4": {"on_demand": value}}}
    try:
        file = module._File.model_validate(content)
    except module.ValidationError as error:
        assert module._fault(path, error.errors(include_url=False)[0], content).what
        return
    assert file.gpus["L4"].on_demand is None or 0 < file.gpus["L4"].on_demand < float("inf")
