"""What a run costs in USD: one run, what failures add to it, and all the runs until the model is right.

No storage and no serving (storage.py, serving.py). Rented GPUs include their electricity: `energy_usd` is what a
machine of one's own draws, and is in no sum.
"""

import math

from rankwise.records import Billing, CostOptions, DeviceFacts, Interval, MoneyEstimate, TimeEstimate

# Runs until a model is fit for use when nobody says: "Budget for at least 10-20 training runs" (the lesson). No study
# of the number was found.
USUAL_RUNS = (10.0, 20.0)
# Expected deaths in a piece, below which e^x - 1 = x (1 + x / 2) to the last digit.
FEW = 1e-6


def estimate_money(
    time: TimeEstimate,
    device: DeviceFacts,
    options: CostOptions,
    *,
    checkpoint_interval_seconds: float | None = None,
    electricity_usd_per_kwh: float | None = None,
) -> MoneyEstimate:
    """The money of one run and of all; what depends on something unknown is None.

    Args:
        checkpoint_interval_seconds: seconds of the run between two resumable checkpoints; None: it keeps none, and a
            run that dies starts again.
        electricity_usd_per_kwh: None: energy has no price.
    """
    hourly = device.price.at(options.pricing) if device.price else None
    runs = expected_runs(options)
    energy = energy_kwh(time, device) if options.energy else None
    return MoneyEstimate(
        usd_per_hour=hourly,
        runs=runs,
        energy_kwh=energy,
        energy_usd=None if energy is None or electricity_usd_per_kwh is None else energy * electricity_usd_per_kwh,
        **_paid(time, hourly, device.count, runs, failure_share(time, options, checkpoint_interval_seconds)),
    )


def _paid(
    time: TimeEstimate, hourly: float | None, count: int, runs: Interval, lost: float | None
) -> dict[str, float | Interval | None]:
    """The parts that need both a duration and a price."""
    if hourly is None or time.train_seconds is None:
        return {"train_usd": None, "interval": None}
    rate = hourly * count / 3600
    train = time.train_seconds * rate
    ends = None if time.interval is None else (time.interval[0] * rate, time.interval[1] * rate)
    if lost is None:
        return {"train_usd": train, "interval": ends}
    each = 1 + lost
    return {
        "train_usd": train,
        "interval": ends,
        "failures_usd": train * lost,
        "project_usd": sum(runs) / 2 * train * each,
        "project_interval": None if ends is None else (runs[0] * ends[0] * each, runs[1] * ends[1] * each),
    }


def expected_runs(options: CostOptions) -> Interval:
    """Training runs until the model is right, low and high; the project is priced at their middle.

    A sweep of k runs is k runs, and perhaps one more at the settings that won. Otherwise what the user says, or 10
    to 20.
    """
    if options.sweep is not None:
        return float(options.sweep), float(options.sweep + 1)
    if options.runs is not None:
        return float(options.runs), float(options.runs)
    return USUAL_RUNS


def failure_share(time: TimeEstimate, options: CostOptions, checkpoint_interval_seconds: float | None) -> float | None:
    """Expected extra time of one run for deaths and restarts, as a share of train_seconds.

    Deaths come at a constant rate h, so that the share p = failure_rate of runs of length T meets at least one:
    h = -ln(1 - p) / T. A run that dies is restarted, which takes R = load_seconds, and goes on from its last
    checkpoint, one every C seconds. A piece of length C that must be got through without a death takes
    (1/h + R) (e^(hC) - 1) on average (Daly 2006, Future Generation Computer Systems 22, without the time to write a
    checkpoint, which is in T; a restart itself does not die), and a run has T / C of them. For small hC a death costs
    half an interval and a restart. Without checkpoints C = T: p / (1 - p) restarts, each of which loses about half
    the run.

    Spot capacity is taken back more often than a machine fails: there, failure_rate is for the user to raise.

    Returns:
        None where the run's or the restart's seconds are unknown.
    """
    if options.failure_rate == 0:
        return 0.0
    length, restart = time.train_seconds, time.load_seconds
    if length is None or restart is None:
        return None
    if length == 0:
        return 0.0
    interval = min(checkpoint_interval_seconds or length, length)
    pieces = length / interval
    deaths = -math.log1p(-options.failure_rate) / pieces  # h C
    again = math.expm1(deaths)
    rework = deaths / 2 if deaths < FEW else again / deaths - 1
    return rework + pieces * again * restart / length


def energy_kwh(time: TimeEstimate, device: DeviceFacts) -> float | None:
    """Upper bound of what the devices draw in one run: their thermal design power all the time. Hosts, network and
    cooling are left out (a power usage effectiveness of 1). None where the power or the time is unknown."""
    if device.watts is None or time.train_seconds is None:
        return None
    return device.count * device.watts / 1000 * time.train_seconds / 3600


def money_source(device: DeviceFacts, options: CostOptions) -> str:
    """Where the price comes from, and what was assumed of runs and failures."""
    hourly = device.price.at(options.pricing) if device.price else None
    if device.price is None:
        price = f"no price of {device.name} is known"
    elif hourly is None:
        price = f"no {options.pricing} price of {device.name} is known ({device.price.source})"
    else:
        price = f"{device.name} at {hourly:.4g} USD an hour {options.pricing} ({device.price.source})"
    low, high = expected_runs(options)
    if options.sweep is not None:
        runs = f"a sweep of {options.sweep} runs and perhaps one more"
    elif options.runs is not None:
        runs = f"{options.runs} runs, as asked"
    else:
        runs = f"{low:.0f} to {high:.0f} runs, the lesson's figure"
    assumed = " (assumed)" if options.failure_rate == Billing.model_fields["failure_rate"].default else ""
    died = f"{options.failure_rate * 100:.3g} % of runs{assumed} die and resume from their last checkpoint"
    return f"{price}; {runs}; {died}"
