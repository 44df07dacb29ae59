"""Price one configuration, its single changes, or a list of them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from rankwise.api.prices import own_prices, tariff_of
from rankwise.api.progress import Progress, quiet
from rankwise.errors import ModelError, RankwiseError, UnknownGpuError, UsageError
from rankwise.estimate import changes
from rankwise.estimate.changes import Change
from rankwise.estimate.configure import configure, refuse_other_models
from rankwise.estimate.options import typed
from rankwise.estimate.price import price_configuration
from rankwise.observe.described import describe_model
from rankwise.observe.devices import observe_device, unknown_gpu
from rankwise.observe.gpus import known_gpus
from rankwise.observe.prices import PriceList
from rankwise.records import Configuration, DeviceFacts, Estimate
from rankwise.records.job import Hardware


def estimate(**options: Any) -> Estimate:
    """Price one configuration: `estimate(model="llama-3-8b", method="qlora", gpu="A100-80GB")`.

    Args:
        options: the options of `rankwise estimate` with underscores; None counts as not said.

    Raises:
        UsageError: an option, a model or a combination that cannot be.
    """
    return price_asked(configuration(options))


def configuration(options: Mapping[str, Any]) -> Configuration:
    """Options -> what is priced, every default filled in. Raises UsageError."""
    said = typed({key: value for key, value in options.items() if key != "id"})
    if "model" not in said:
        raise UsageError("no model is named", fix="give --model; `rankwise models` lists those known offline")
    with _as_usage():
        described = describe_model(said["model"])
        refuse_other_models(described.config, said["model"])
        made = configure(said, described.config)
    label = options.get("id")
    return made.model_copy(
        update={"id": None if label is None else str(label), "notes": (*described.notes, *made.notes)}
    )


def price_asked(asked: Configuration) -> Estimate:
    """Price a configuration on the device that it names. Raises UsageError."""
    with _as_usage():
        prices = own_prices(asked.costs)
        asked, device = _device_of(asked, prices)
        priced = price_configuration(asked, device, tariff_of(prices))
    return priced if prices is None else priced.model_copy(update={"notes": (*priced.notes, *prices.notes)})


def _device_of(asked: Configuration, prices: PriceList | None) -> tuple[Configuration, DeviceFacts]:
    """A GPU that nobody knows leaves its fit, time and money unknown; all else is priced, and a note says so."""
    try:
        return asked, observe_device(hardware_of(asked), prices=prices)
    except UnknownGpuError as error:
        near = error.fix if error.fix.startswith("did you mean") else "`rankwise gpus` lists them"
        note = f"no GPU {asked.gpu} is known, so fit, time and money are unknown ({near})"
        return asked.model_copy(update={"notes": (*asked.notes, note)}), unknown_gpu(str(asked.gpu), asked.devices)


def hardware_of(asked: Configuration) -> Hardware:
    """The devices that a configuration names."""
    return Hardware(gpu=asked.gpu, count=asked.gpus, nodes=asked.nodes)


def single_changes(asked: Configuration, before: Estimate, progress: Progress = quiet) -> list[Change]:
    """The single changes of a configuration that make it fit, or its peak clearly smaller; each is traced."""
    prices = own_prices(asked.costs)
    device = observe_device(hardware_of(asked), prices=prices)
    names = sorted(known_gpus(), key=lambda g: g["memory_mib"])
    gpus = [observe_device(Hardware(gpu=g["name"], count=asked.gpus, nodes=asked.nodes), prices=prices) for g in names]
    larger = [g for g in gpus if (g.memory_bytes or 0) > (device.memory_bytes or 0)] if asked.gpu else []
    return changes.single_changes(asked, before, device, larger, tariff_of(prices), progress)


def estimate_batch(
    entries: Sequence[Mapping[str, Any]], progress: Progress = quiet
) -> Iterator[tuple[str | None, Estimate | RankwiseError]]:
    """Price a list of options in order: (id, estimate or what is wrong with the entry). No entry stops the others."""
    for done, entry in enumerate(entries, 1):
        label = entry.get("id")
        outcome: Estimate | RankwiseError
        try:
            outcome = price_asked(configuration(entry))
        except RankwiseError as error:
            outcome = error
        except Exception as error:
            outcome = RankwiseError(f"internal error: {type(error).__name__}: {error}", fix="please report it")
        progress("configurations", done, len(entries))
        yield None if label is None else str(label), outcome


def read_batch(path: Path) -> list[Mapping[str, Any]]:
    """A batch file: a YAML or JSON list of mappings. Raises UsageError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read: {error}", expected="a YAML or JSON list of mappings") from None
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise UsageError(f"{path} is not a list of mappings", expected='such as [{"id": "a", "model": "llama-3-8b"}]')
    return content


@contextmanager
def _as_usage() -> Iterator[None]:
    """A model that was named wrongly is a mistake in the call."""
    try:
        yield
    except ModelError as error:
        raise UsageError(error.what, expected=error.expected, fix=error.fix) from None
