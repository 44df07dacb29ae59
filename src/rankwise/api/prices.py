"""What a GPU's hour, a stored byte and a kWh cost, from a person's file where there is one."""

from rankwise.observe.prices import PriceList, read_prices, storage_price
from rankwise.records import Billing, Tariff


def own_prices(costs: Billing) -> PriceList | None:
    """The person's file of prices. Raises UsageError."""
    return read_prices(costs.prices) if costs.prices else None


def tariff_of(prices: PriceList | None) -> Tariff:
    """What storage and electricity cost; `prices` goes before ours."""
    storage, source = storage_price(prices)
    electricity = prices.electricity_usd_per_kwh if prices else None
    return Tariff(usd_per_gb_month=storage, electricity_usd_per_kwh=electricity, source=source)
