"""A run's adapter cut to a lower rank, proven as every artifact is."""

import tempfile
import time
from pathlib import Path
from typing import Any

from rankwise.api.loading import load_inputs, load_tuned, require_finished
from rankwise.api.origins import checks_on_disk, concluded
from rankwise.decide.compatibility import refused
from rankwise.errors import RunError
from rankwise.files import hash_folder, publish_folder, write_record
from rankwise.records import Artifact, Check, Lineage, Parent, Plan, Shrunk, Verification
from rankwise.report.card import model_card
from rankwise.store import LINEAGE, Run
from rankwise.text.dataset import PROOF_ROWS, Dataset
from rankwise.text.files import copy_licence, copy_text_files
from rankwise.text.hashes import cached_hash
from rankwise.text.template import ChatText


def shrink(run: Run, rank: int, out: Path) -> tuple[Shrunk, Verification]:
    """Write the strongest `rank` directions of a run's adapter to `out`, an adapter that plain PEFT loads.

    `out` has the lineage of the run with the whole adapter as its parent; artifact.json is there only if every check of
    the proof passed.

    Raises:
        RunError: not finished, or `out` is in use.
        ModelError, UsageError: no LoRA adapter, or a rank that is none below its own.
    """
    from rankwise.export.shrink import write_shrunk
    from rankwise.model.adapterproducts import WEIGHTS, AdapterFolder

    decided = require_finished(run).plan()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} is already in use", expected="a folder that is empty or not there yet")
    adapter = AdapterFolder.open(run.adapter)
    lineage = decided.lineage()
    parent = Parent(
        kind="adapter", folder=str(run.adapter), weights=cached_hash(run.adapter / WEIGHTS), lineage=lineage
    )
    lineage = lineage.model_copy(update={"parent": parent})
    with publish_folder(out) as folder:
        write_shrunk(adapter, rank, folder)
        copy_text_files(run.adapter, folder)
        copy_licence(run.adapter, folder)
        write_record(folder / LINEAGE, lineage)
        card = f"{model_card(decided)}\nCut to its {rank} strongest directions after training.\n"
        (folder / "README.md").write_text(card, encoding="utf-8")
    outcome = _proof(run, decided, rank, out, lineage)
    if outcome.passed:
        artifact = Artifact(
            kind="adapter",
            method=decided.verdict.method,
            adapter=str(out.resolve()),
            model=None,
            base=decided.job.model,
            license=decided.facts.model.license,
            files={f"{out.resolve()}/{name}": digest for name, digest in hash_folder(out).items()},
            verification=outcome,
            lineage=lineage,
        )
        write_record(out / "artifact.json", artifact)
    size = (out / WEIGHTS).stat().st_size
    return Shrunk(folder=str(out), rank=rank, adapter_bytes=size, passed=outcome.passed), outcome


def _proof(run: Run, decided: Plan, rank: int, folder: Path, lineage: Lineage) -> Verification:
    """The files on disk, then against the run's own adapter, cut in memory to the same directions."""
    from rankwise.export.proof import loadable

    _, chat, data = load_inputs(decided)
    began = time.monotonic()
    checks = checks_on_disk(decided, chat, [folder], lineage, None)
    if loadable(checks):
        checks += _against_cut(run, decided, rank, folder, chat, data)
    return concluded(checks, began)


def _against_cut(run: Run, decided: Plan, rank: int, folder: Path, chat: ChatText, data: Dataset) -> list[Check]:
    from safetensors.torch import save_file

    from rankwise.evaluate.truncation import Truncated
    from rankwise.export.proof import Subject, when_loaded
    from rankwise.model.adapterproducts import live_products
    from rankwise.model.likelihood import final_logits

    prompts = data.prompts()
    with tempfile.TemporaryDirectory() as place:
        logits = Path(place) / "logits.safetensors"
        whole: Any = load_tuned(run, decided)[0]
        with Truncated(whole, list(live_products(whole))) as model:
            model.cut(rank)
            save_file({"logits": final_logits(whole, prompts).contiguous()}, logits)
        del whole
        tuned, as_base = load_tuned(run, decided, adapter=folder)
        return when_loaded(
            Subject(
                plan=decided,
                chat=chat,
                tuned=tuned,
                as_base=as_base,
                merged=None,
                unmerged=never.why if (never := refused(decided.verdict.method, "merge")) else "",
                rows=data.validation[:PROOF_ROWS],
                prompts=prompts,
                conversations=[],
                trained_logits=logits,
                shrunk=True,
            )
        )
