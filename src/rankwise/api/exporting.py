"""A run's proven artifact in a form that others load, and whether an engine would."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from rankwise.api.loading import text_of
from rankwise.api.origins import refresh_card
from rankwise.api.progress import Progress, quiet
from rankwise.decide.compatibility import refused
from rankwise.errors import AnswerIsNo, RunError, UsageError
from rankwise.files import folder_bytes, hash_file, hash_folder, publish_folder, require_space, write_record
from rankwise.methods import METHODS
from rankwise.records import Artifact, Check, EngineFit, Exported, Plan
from rankwise.store import Run
from rankwise.text.files import LICENCE_FILES
from rankwise.text.template import ChatText

Form = Literal["peft", "transformers", "gguf"]
Precision = Literal["bf16", "f16", "q8_0"]
ENGINES = ("vllm", "ollama")
ARTIFACT, CARD = "artifact.json", "README.md"


def export(
    run: Run, form: Form, out: Path | None = None, *, precision: Precision = "bf16", progress: Progress = quiet
) -> Exported:
    """Write a proven artifact as `form` to `out` (default RUN/export/FORM), all of it or nothing.

    Args:
        precision: of the matrices in a GGUF file.

    Raises:
        AnswerIsNo: there is no proven artifact of this form, its files changed since, or what was written does not read
            back.
        RunError: `out` is in use. SpaceError: the disk has no room. ModelError: it cannot be converted.
    """
    artifact = require_proven(run)
    source = _source(run, artifact, form)
    target = out or run.folder / "export" / form
    if target.exists() and (out is not None) and (not target.is_dir() or any(target.iterdir())):
        raise RunError(f"{target} is already in use", expected="a folder that is empty or not there yet")
    if form == "gguf":
        return _gguf(run, source, target, precision, progress)
    return _copy(run, artifact, source, target, form, progress)


def push(
    run: Run, repo: str, form: Form, *, private: bool, precision: Precision, progress: Progress = quiet
) -> Exported:
    """As `export`, to a repository of the Hugging Face hub; what is written for it here is removed again.

    Raises:
        HubError: no token, not reachable, or refused; nothing is written when it is plain from the start.
    """
    from rankwise.export.push import push, require_pushable

    require_pushable(repo)
    with tempfile.TemporaryDirectory(dir=run.folder, prefix=".push.") as place:
        made = export(run, form, Path(place) / form, precision=precision, progress=progress)
        url = push(Path(place) / form, repo, private=private)
    return made.model_copy(update={"folder": None, "url": url})


def require_proven(run: Run) -> Artifact:
    """The run's artifact, whose files are those that were proven. Raises AnswerIsNo with the reason otherwise."""
    artifact = run.artifact()
    if artifact is None or not artifact.verification.passed:
        raise AnswerIsNo(
            f"{run.folder} has no proven artifact, so nothing is exported",
            expected="a finished run whose files passed every check",
            fix=f"`rankwise verify {run.folder}` says which check fails",
        )
    changed = []
    for name, digest in artifact.files.items():
        file = run.folder / name  # an absolute name stays what it is
        if not name.endswith(f"/{CARD}") and (not file.is_file() or hash_file(file) != digest):
            changed.append(name)
    if changed:
        raise AnswerIsNo(
            f"{', '.join(changed[:3])} changed since the artifact was proven",
            expected="the files that passed the proof",
            fix=f"`rankwise verify {run.folder}` proves what is there now",
        )
    return artifact


def _source(run: Run, artifact: Artifact, form: Form) -> Path:
    named = artifact.adapter if form == "peft" else artifact.model
    if named is not None:
        return run.folder / named
    if form == "peft":
        raise AnswerIsNo(
            f"{run.folder} is a full model, and has no adapter", fix="export it with --to transformers or gguf"
        )
    if never := refused(artifact.method, "merge"):
        raise AnswerIsNo(
            f"an adapter of {artifact.method} cannot be one model with its base: {never.why}",
            fix="export it with --to peft, and load it on its base",
        )
    raise AnswerIsNo(
        f"{run.folder} has no merged model in its artifact", fix=f"`rankwise merge {run.folder}` makes and proves one"
    )


def _copy(run: Run, artifact: Artifact, source: Path, target: Path, form: Form, progress: Progress) -> Exported:
    """The published folder with today's card, and the artifact's record beside it."""
    from rankwise.export.copies import copy_published

    size = folder_bytes(source)
    require_space(target.parent, size, f"the export ({form})")
    with publish_folder(target) as folder:
        copy_published(source, folder, _counted(progress, f"copy to {target.name}", size))
        refresh_card(run, folder)
        adapter = form == "peft"
        record = artifact.model_copy(
            update={
                "kind": "adapter" if adapter else "model",
                "adapter": "." if adapter else None,
                "model": None if adapter else ".",
                "files": hash_folder(folder),
            }
        )
        write_record(folder / ARTIFACT, record)
    return _exported(form, target, size, (), ())


def _gguf(run: Run, source: Path, target: Path, precision: Precision, progress: Progress) -> Exported:
    """One file, its Modelfile, card and licence; published only where it reads back as the model it was made of."""
    from rankwise.export.gguf.converter import convert, converter_folder, predicted_bytes
    from rankwise.export.gguf.modelfile import NAME, modelfile
    from rankwise.export.gguf.readback import adds_bos, logits_kept, text_kept

    converter_folder()
    chat = ChatText.from_folder(source)
    size = predicted_bytes(source, precision)
    require_space(target.parent, size, "the GGUF file")
    name = f"{run.plan().job.name or run.name}-{precision}.gguf".replace("/", "-")
    with publish_folder(target) as folder:
        convert(source, folder / name, precision, _counted(progress, f"convert to {name}", size))
        read, untold = logits_kept(folder / name, source, chat, precision)
        checks = tuple(c for c in (text_kept(folder / name, chat), read) if c is not None)
        _require_kept(checks)
        licence = next((source / f for f in LICENCE_FILES if (source / f).is_file()), None)
        text, notes = modelfile(name, chat, adds_bos=adds_bos(folder / name), licence=licence)
        (folder / NAME).write_text(text, encoding="utf-8")
        for file in (CARD, "lineage.json", *LICENCE_FILES):
            if (source / file).is_file():
                (folder / file).write_bytes((source / file).read_bytes())
        refresh_card(run, folder)
    return _exported("gguf", target, size, checks, (*notes, *([untold] if untold else [])))


def _require_kept(checks: tuple[Check, ...]) -> None:
    if failed := [c for c in checks if not c.passed]:
        said = "; ".join(f"{c.name}: {c.number} (limit {c.limit})" for c in failed)
        raise AnswerIsNo(f"the GGUF file is not the model it was made of: {said}", fix="export with --to transformers")


def _counted(progress: Progress, what: str, total: int) -> Callable[[int], None]:
    """Bytes as megabytes, the last of them said once."""
    whole = max(1, round(total / 1e6))

    def tell(done: int) -> None:
        progress(f"{what} (MB)", min(whole, round(done / 1e6)), whole)

    return tell


def _exported(form: Form, target: Path, predicted: int, checks: tuple[Check, ...], notes: tuple[str, ...]) -> Exported:
    files = tuple(str(p.relative_to(target)) for p in sorted(target.rglob("*")) if p.is_file())
    return Exported(
        form=form,
        folder=str(target),
        files=files,
        bytes=folder_bytes(target),
        predicted_bytes=predicted,
        checks=checks,
        notes=notes,
    )


def check_engine(run: Run, engine: str) -> EngineFit:
    """Can `engine` load what the run published? Nothing is started, and nothing has to be proven yet.

    Raises:
        UsageError: no such engine. RunError: the run has published nothing.
    """
    from rankwise.export.engines import Wanted, ollama_fit, vllm_fit

    if engine not in ENGINES:
        raise UsageError(f"no limits of {engine!r} are known", expected=" or ".join(ENGINES))
    decided: Plan = run.plan()
    adapter = METHODS[decided.verdict.method].trains == "adapter"
    folder = run.adapter if adapter else run.model
    if not folder.is_dir():
        raise RunError(f"{run.folder} has published nothing yet", fix=f"`rankwise train {run.folder}`")
    unmerged, never = refused(decided.verdict.method, "vllm unmerged"), refused(decided.verdict.method, "merge")
    wanted = Wanted(
        adapter=folder if adapter else None,
        base=decided.facts.model,
        refused=unmerged.why if unmerged else "",
        unmergeable=never.why if never else "",
        chat=ChatText.from_folder(folder),
        base_chat=text_of(decided) if decided.facts.new_tokens else ChatText.from_folder(decided.facts.model.path),
        rows=decided.facts.new_tokens.rows if decided.facts.new_tokens else None,
    )
    return vllm_fit(wanted) if engine == "vllm" else ollama_fit(wanted)
