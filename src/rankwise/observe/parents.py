"""What a job goes on from: an adapter that it names, or a model that an earlier run left. Torch-free."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from rankwise.errors import ModelError
from rankwise.files import read_record
from rankwise.records import AdapterFacts, Lineage, ModelFacts, Parent, Plan
from rankwise.store import LINEAGE
from rankwise.text.hashes import cached_hash

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
METHODS = {"IA3": "ia3", "PROMPT_TUNING": "prompt", "PREFIX_TUNING": "prefix", "P_TUNING": "p_tuning"}


def observe_adapter(path: Path, base: ModelFacts) -> tuple[AdapterFacts, Parent]:
    """An adapter's shape and lineage.

    Args:
        path: a folder that PEFT's save_pretrained wrote, a checkpoint, or a run folder, whose adapter is taken.
        base: what the job puts it on.

    Raises:
        ModelError: there is no adapter, it is of a kind that is not trained here, or it belongs on another base.
    """
    folder = path / "adapter" if (path / "plan.json").is_file() else path
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(
                f"method.adapter {path}: {folder} holds no adapter: {name} is missing",
                expected="a finished run, a checkpoint of one, or a folder written by PEFT's save_pretrained",
            )
    try:
        written: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{folder / CONFIG} is damaged: {error}", fix="copy the adapter again") from None
    if written.get("trainable_token_indices") or written.get("modules_to_save"):
        raise ModelError(
            f"the adapter {folder} trains rows of the vocabulary, and is not gone on from",
            fix="merge it, and train the merged model, whose tokenizer has its tokens",
        )
    if written.get("target_parameters"):
        raise ModelError(
            f"the adapter {folder} trains parameters that are no linear layer's (target_parameters: the experts of a "
            "layer, as one), and is not gone on from",
            fix="merge it with PEFT's merge_and_unload, and train the merged model",
        )
    lineage = lineage_in(folder)
    if lineage is not None and base.weights_hash not in (None, lineage.base_weights):
        raise ModelError(
            f"the adapter {folder} was trained on another base than {base.name}",
            expected=f"base weights of sha256 {lineage.base_weights[:12]}…, found {(base.weights_hash or '')[:12]}…",
            fix="name the base that the adapter was trained on as `model`",
        )
    parent = Parent(kind="adapter", folder=str(folder), weights=cached_hash(folder / WEIGHTS), lineage=lineage)
    return _adapter_facts(folder, written, base), parent


def parent_of_model(model: ModelFacts) -> Parent | None:
    """What a base model was made from, where a run of ours made it."""
    if model.folder is None or model.weights_hash is None:
        return None
    lineage = lineage_in(model.path)
    if lineage is None:
        return None
    return Parent(kind="model", folder=model.folder, weights=model.weights_hash, lineage=lineage)


def lineage_in(folder: Path) -> Lineage | None:
    """From lineage.json in the folder, else from the plan of the run that the folder is a checkpoint of."""
    if (folder / LINEAGE).is_file():
        return read_record(folder / LINEAGE, Lineage)
    run = folder.resolve().parent.parent
    if folder.name.startswith("checkpoint-") and (run / "plan.json").is_file():
        return read_record(run / "plan.json", Plan).lineage()
    return None


def _adapter_facts(folder: Path, written: dict[str, Any], base: ModelFacts) -> AdapterFacts:
    return AdapterFacts(
        folder=str(folder),
        method=_method(folder, written),
        r=written.get("r"),
        lora_alpha=written.get("lora_alpha"),
        target_modules=_targets(written.get("target_modules"), base),
        num_virtual_tokens=written.get("num_virtual_tokens"),
        bottleneck_size=written.get("bottleneck_size"),
    )


def _targets(written: list[str] | str | None, base: ModelFacts) -> str | tuple[str, ...] | None:
    """As a job would say it: PEFT writes out the full names of all modules where a job said `all-linear`."""
    if not isinstance(written, list):
        return written
    listed, there = Counter(name.rpartition(".")[2] for name in written), Counter[str]()
    for shape in base.linears:
        there[shape.name] += shape.count
    if any("." in name for name in written) and any(count != there[name] for name, count in listed.items()):
        return tuple(sorted(written))  # some layers alone
    return "all-linear" if listed.keys() == there.keys() else tuple(sorted(listed))


def _method(folder: Path, written: dict[str, Any]) -> str:
    kind = written.get("peft_type") or written.get("type")
    if kind == "LORA":
        return "dora" if written.get("use_dora") else "rslora" if written.get("use_rslora") else "lora"
    if kind == "RANKWISE_BOTTLENECK":
        return "bottleneck"
    if kind not in METHODS:
        raise ModelError(
            f"the adapter {folder} is of the kind {kind}, which is not trained here",
            expected="LoRA, rsLoRA, DoRA, IA3, prompt or prefix tuning, or a bottleneck adapter",
        )
    return METHODS[kind]
