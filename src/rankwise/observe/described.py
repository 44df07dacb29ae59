"""A model known by its config alone: enough to price it, not to train it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankwise.errors import UsageError
from rankwise.hub import HUB_ID
from rankwise.observe.catalogue import Architecture, find_architecture, gptq_group, nearest, read_config

EMBEDDED = "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class Described:
    """A model's config, where it was found, and what the catalogue knows beside it."""

    config: dict[str, Any]
    source: str
    architecture: Architecture | None
    notes: tuple[str, ...] = ()


def describe_model(name: str) -> Described:
    """The config that a name means: a JSON file, a local folder, `embedded`, a name or hub id of the catalogue, or a
    model of the hub (downloaded, or in its cache; the weights are not).

    Raises:
        UsageError: no such model; the nearest names are offered.
        ModelError: a config that cannot be read.
    """
    path = Path(name).expanduser()
    if path.is_dir() and (path / "config.json").is_file():
        path = path / "config.json"
    if path.is_file():
        return _plain(read_config(path), str(path))
    known = find_architecture(EMBEDDED if name == "embedded" else name)
    if known is not None:
        notes = (known.note,) if known.note else ()
        stored = {"quantization_config": group} if (group := gptq_group(name)) else {}
        return Described(
            known.config | stored, f"architecture {known.name} of the catalogue: {known.source}", known, notes
        )
    if HUB_ID.fullmatch(name) and (found := _from_hub(name)):
        return _plain(read_config(found), f"config.json of {name} on the Hugging Face hub")
    near = nearest(name)
    raise UsageError(
        f"{name}: no such folder or file, not in the catalogue, and not to be had from the Hugging Face hub",
        expected="a hub id, a model's folder, a config.json, `embedded`, or a name from `rankwise models`",
        fix=f"did you mean {' or '.join(near)}?" if near else "`rankwise models` lists what is known offline",
    )


def _plain(config: dict[str, Any], source: str) -> Described:
    """Without its quantisation, but for the group size of GPTQ: the method says how a base is kept."""
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    stored = config.get("quantization_config")
    notes = ("the stored weights are quantised; the base is priced as the method keeps it",) if stored else ()
    if stored and stored.get("quant_method") == "gptq" and "group_size" in stored:
        plain["quantization_config"] = {"group_size": stored["group_size"]}  # gptq-lora keeps its scales
    return Described(plain, source, None, notes)


def _from_hub(name: str) -> Path | None:
    """config.json of a hub id, None where it cannot be had. huggingface_hub reads HF_HUB_OFFLINE, HF_HOME, HF_TOKEN."""
    from huggingface_hub import hf_hub_download  # here, as in `model.locate`

    try:
        return Path(hf_hub_download(name, "config.json"))
    except (OSError, ValueError):  # not there, gated, offline, no network: each is a kind of these
        return None
