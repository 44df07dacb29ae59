"""The ledger: each prediction of time that came to be measured on this machine, and the factor that follows from them.

One JSON line an entry, in `ledger.jsonl` of the cache folder; the environment variable RANKWISE_LEDGER names another
file, or says `off`: nothing is read and nothing is written then.

The factor is a location of log(actual / predicted): entries count by recency (half of it 10 entries back) and by how
near their size is to that of the work at hand; those that lie far from the median are pulled in (Huber's weights), so
that one run beside a busy neighbour moves little. The interval is the predictive one of a Student t whose variance is
pooled with a prior that is worth PRIOR_COUNT entries: a single calibration says little about other rows.
"""

import math
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from rankwise.estimate.memory import family
from rankwise.files import append_lines, cache_folder, cannot_append
from rankwise.records import Actual, DeviceFacts, Setup, TimeEstimate
from rankwise.records.ledger import Correction, Family, LedgerEntry, Quantity, Workload
from rankwise.store import now
from rankwise.version import __version__

VARIABLE = "RANKWISE_LEDGER"
# Raised when the formula of any quantity changes by more than rounding: factors on one say nothing of another.
FORMULA = 1
LATEST = 20  # entries that a factor is made from
HALF_LIFE = 10.0  # entries after which one counts half
# Standard deviation of log(actual / predicted) among workloads of one family on one device, before any was seen:
# lengths, batches and checkpointing differ from run to run, and so does what else the machine does. As sure as 4
# entries.
PRIOR_SPREAD = 0.12
PRIOR_COUNT = 4
OTHER_FAMILY = 0.15  # the same between the factors of two families, added in quadrature
DRIFT = 0.05  # the same for each factor of e between the sizes of two pieces of work
FAR = 100.0  # work that is so many times shorter or longer says nothing: there, other things take the time
HUBER = 1.5  # standard deviations from the median where an entry begins to be pulled in
COVERAGE = 0.9
NARROWEST = math.log(1.05)  # half the interval is never less than 5 %


def ledger_path() -> Path | None:
    """Where the ledger is; None when it is switched off."""
    said = os.environ.get(VARIABLE)
    if said == "off":
        return None
    return Path(said) if said else cache_folder() / "ledger.jsonl"


def append(*entries: LedgerEntry) -> int:
    """Add entries, all or none, on disk before this returns. Returns how many; 0 when the ledger is off.

    Raises:
        RunError: the file cannot be written. SpaceError: the disk is full.
    """
    path = ledger_path()
    if path is None or not entries:
        return 0
    try:
        append_lines(path, [entry.model_dump_json() for entry in entries])
    except OSError as error:
        raise cannot_append(path, error, "the ledger", VARIABLE) from None
    return len(entries)


def entries() -> tuple[LedgerEntry, ...]:
    """All entries that can be read, oldest first. Lines that are torn or not ours are left out: see `unreadable`."""
    return _read()[0]


def unreadable() -> int:
    """Lines of the ledger that are no entries of this version."""
    return _read()[1]


def _read() -> tuple[tuple[LedgerEntry, ...], int]:
    path = ledger_path()
    try:
        lines = path.read_bytes().splitlines() if path else []
    except OSError:
        return (), 0
    found, bad = [], 0
    for line in lines:
        if not line.strip():
            continue
        try:
            found.append(LedgerEntry.model_validate_json(line))
            _when(found[-1])
        except ValidationError:
            bad += 1
        except ValueError:  # no date
            found.pop()
            bad += 1
    return tuple(sorted(found, key=lambda e: (_when(e), e.model_dump_json()))), bad


def _when(entry: LedgerEntry) -> float:
    return datetime.fromisoformat(entry.at).timestamp()


def entry_of(
    device: DeviceFacts,
    method: str,
    quantity: Quantity,
    *,
    predicted: float,
    actual: float,
    model: str,
    work: Workload,
    source: str,
    corrected: float | None = None,
    parallel: str = "none",
) -> LedgerEntry:
    """One prediction beside what happened, now.

    Args:
        predicted: seconds by formula alone. corrected: seconds that were told; None: what would be told now.
    """
    of = family(method, parallel)
    if corrected is None:
        known = correction(device, of, quantity, near=predicted)
        corrected = predicted * (known.factor if known else 1.0)
    return LedgerEntry(
        at=now(),
        device=device.name,
        device_rate="measured" if device.matmul_measured else "datasheet",
        family=of,
        quantity=quantity,
        model=model,
        work=work,
        predicted=predicted,
        corrected=corrected,
        actual=actual,
        source=source,
        formula=FORMULA,
        rankwise_version=__version__,
    )


def workload_of(setup: Setup, mean_length: float) -> Workload:
    """What a training step's time depends on."""
    return Workload(
        method=setup.method,
        rows=setup.per_device_train_batch_size * setup.gradient_accumulation_steps,
        length=mean_length,
        dtype=f"{setup.dtype}/{setup.autocast}" if setup.autocast else setup.dtype,
        gradient_checkpointing=setup.gradient_checkpointing,
        loss=setup.loss,
        setup_hash=setup.content_hash(),
    )


def training_entries(
    clock: TimeEstimate,
    device: DeviceFacts,
    setup: Setup,
    mean_length: float,
    actuals: Sequence[Actual],
    *,
    model: str,
    source: str,
) -> tuple[LedgerEntry, ...]:
    """The mean step and the whole of a run that has ended, beside what its plan told; nothing where it told nothing."""
    if clock.step_seconds is None:
        return ()
    factor = clock.correction or 1.0
    watching = (clock.watch.seconds if clock.watch else None) or 0.0  # which has a factor of its own
    beside = (clock.load_seconds or 0.0) + (clock.save_seconds or 0.0) + watching  # parts that this factor is not in
    said: list[tuple[Quantity, float, float | None]] = [("step", clock.step_seconds / factor, clock.step_seconds)]
    if clock.train_seconds is not None:
        said.append(("train", beside + (clock.train_seconds - beside) / factor, clock.train_seconds))
    took = {a.quantity: a.actual for a in actuals}
    return tuple(
        entry_of(
            device,
            setup.method,
            quantity,
            predicted=raw,
            corrected=told,
            actual=actual,
            model=model,
            work=workload_of(setup, mean_length),
            source=source,
            parallel=setup.parallel,
        )
        for quantity, raw, told in said
        if (actual := took.get(f"{quantity}_seconds"))
    )


# -- the factor ------------------------------------------------------------------------------------


def correction(device: DeviceFacts, of: Family, quantity: Quantity, near: float | None = None) -> Correction | None:
    """What to multiply seconds by formula with, for a family of methods on a device; None when nothing was measured.

    Where only other families of the device were measured, their factor is used with a wider interval.

    Args:
        of: `estimate.memory.family` of the method.
        near: seconds by formula of the work that is to be predicted; entries of like size count more.
    """
    known, bad = _read()
    wanted = (device.name, "measured" if device.matmul_measured else "datasheet", quantity, FORMULA)
    here = [
        e
        for e in known
        if (e.device, e.device_rate, e.quantity, e.formula) == wanted and abs(_distance(e, near)) <= math.log(FAR)
    ]
    own = [e for e in here if e.family == of]
    found = own or here
    return fitted(found[-LATEST:], near, of_other_family=not own, skipped=bad) if found else None


def _distance(entry: LedgerEntry, near: float | None) -> float:
    return 0.0 if near is None else math.log(entry.predicted / near)


def fitted(
    found: Sequence[LedgerEntry], near: float | None = None, *, of_other_family: bool = False, skipped: int = 0
) -> Correction:
    """The correction that entries (oldest first, at least one) speak for."""
    from scipy.special import stdtrit  # a quarter of a second, which an estimate without a ledger need not wait for

    logs = [math.log(e.actual / e.predicted) for e in found]
    apart = [_distance(e, near) for e in found]
    weights = [0.5 ** ((len(found) - 1 - i) / HALF_LIFE) / (1 + (d / math.log(10)) ** 2) for i, d in enumerate(apart)]
    location, variance, count = _robust(logs, weights)
    variance *= 1 + 1 / count
    variance += DRIFT**2 * _mean([d * d for d in apart], weights) + (OTHER_FAMILY**2 if of_other_family else 0.0)
    quantile = float(stdtrit(PRIOR_COUNT + count - 1, (1 + COVERAGE) / 2))
    half = max(NARROWEST, quantile * math.sqrt(variance))
    return Correction(
        factor=math.exp(location),
        low=math.exp(-half),
        high=math.exp(half),
        count=len(found),
        source=_words(found, of_other_family, skipped),
    )


def _robust(logs: Sequence[float], weights: Sequence[float]) -> tuple[float, float, float]:
    """(location, variance pooled with the prior, effective number) of weighted values."""
    middle = median(logs)
    near = max(PRIOR_SPREAD, 1.4826 * median(abs(x - middle) for x in logs))
    pulled = [w * min(1.0, HUBER * near / max(abs(x - middle), 1e-12)) for w, x in zip(weights, logs, strict=True)]
    location = _mean(logs, pulled)
    count = sum(weights) ** 2 / sum(w * w for w in weights)
    around = _mean([(x - location) ** 2 for x in logs], pulled)
    pooled = (PRIOR_COUNT * PRIOR_SPREAD**2 + count * around) / (PRIOR_COUNT + count - 1)
    return location, pooled, count


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(w * x for w, x in zip(weights, values, strict=True)) / sum(weights)


def _words(found: Sequence[LedgerEntry], of_other_family: bool, skipped: int) -> str:
    """2 calibrations and 15 runs on AMD EPYC (2 cores), last 2026-11-22."""
    kinds = {"calibrate": "calibration", "doctor": "self-check step"}
    counts: dict[str, int] = {}
    for entry in found:
        kind = kinds.get(entry.source, "run")
        counts[kind] = counts.get(kind, 0) + 1
    said = " and ".join(f"{n} {kind}{'s' * (n > 1)}" for kind, n in counts.items())
    families = sorted({e.family for e in found})
    other = f" of {' and '.join(families)} methods (none of this family yet)" if of_other_family else ""
    left = f"; {skipped} unreadable line{'s' * (skipped > 1)} of the ledger left out" if skipped else ""
    return f"{said} on {found[-1].device}{other}, last {found[-1].at[:10]}{left}"
