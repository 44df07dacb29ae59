"""The verbs. The only place, with worker.py, where stages meet: each verb is a list of stage calls.

Stages that need torch are imported inside the verbs that use them, so that planning and looking at results start at
once.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import yaml

from rankwise.decide.choose import choose, require_known_targets
from rankwise.errors import AnswerIsNo, ModelError, PlanError, RankwiseError, RunError, SpaceError, UsageError
from rankwise.estimate import changes
from rankwise.estimate.changes import Change
from rankwise.estimate.configure import configure, refuse_other_models
from rankwise.estimate.options import typed
from rankwise.estimate.price import price, price_configuration
from rankwise.estimate.traced import shapes_of
from rankwise.jobfile import read_job
from rankwise.methods import METHODS
from rankwise.model.locate import locate
from rankwise.observe.catalogue import find_architecture, nearest
from rankwise.observe.catalogue import rows as catalogue_rows
from rankwise.observe.data import observe_data
from rankwise.observe.described import describe_model
from rankwise.observe.devices import known_gpus, observe_device
from rankwise.observe.model import describe_facts, observe_model
from rankwise.records import (
    Artifact,
    Configuration,
    Estimate,
    Evaluation,
    Event,
    Facts,
    Job,
    Lineage,
    ModelFacts,
    Plan,
    TrainConfig,
    Verification,
)
from rankwise.records.base import content_hash
from rankwise.records.job import Hardware
from rankwise.records.selfcheck import Environment, SelfCheck
from rankwise.report.card import model_card
from rankwise.report.page import plan_page, run_page
from rankwise.store import (
    Run,
    cache_folder,
    hash_file,
    hash_folder,
    list_runs,
    new_run_folder,
    read_record,
    require_space,
    write_record,
    write_text,
)
from rankwise.text.dataset import PROOF_ROWS, Dataset, load_dataset
from rankwise.text.probes import read_probes
from rankwise.text.template import ChatText

Progress = Callable[[str, int, int], None]
LONGEST = 8192  # tokens; rows beyond it are counted as too long unless the job says otherwise


def quiet(what: str, done: int, total: int) -> None:
    """The progress callback that says nothing."""


# -- plan ------------------------------------------------------------------------------------------


def plan(job: Path | None = None, **options: Any) -> Plan:
    """Decide how to do a job.

    Args:
        job: a job file; None when the options say everything.
        options: job keys, dots written as double underscores (`hardware__count=2`); they win over the file.

    Raises:
        JobError, DataError, ModelError: the job, its data or its model cannot be read.
    """
    return plan_job(load_job(job, {k.replace("__", "."): v for k, v in options.items()}))


def load_job(job: Path | None, options: Mapping[str, Any]) -> Job:
    """A job from a file, from options by dotted key, or both. Raises JobError."""
    return read_job(job, options, METHODS)


def plan_job(job: Job, out: Path | None = None) -> Plan:
    """Observe what the job names, price every candidate, choose. `out`: where the run will be, for its free disk."""
    facts = observe(job, out)
    require_known_targets(job, facts)
    return choose(job, facts, price)


def observe(job: Job, out: Path | None = None) -> Facts:
    """Look at model, data and device once."""
    device = observe_device(job.hardware, out)
    model = _model_of(job)
    chat = ChatText.from_folder(model.path) if job.data.train else None
    limit = min(model.max_position_embeddings or LONGEST, LONGEST)
    data = observe_data(job, chat, job.train.max_length or limit, job.train.on_long or "drop")
    return Facts(model=model, data=data, device=device, job_hash=job.content_hash())


def _model_of(job: Job) -> ModelFacts:
    """From its files; data that is only described can be planned for a model that is only described, too."""
    known = find_architecture(job.model)
    if known is None or job.data.train or Path(job.model).expanduser().is_dir():
        return observe_model(job.model)
    return describe_facts(
        job.model,
        known.config,
        shapes_of(known.config),
        license=known.license,
        source=f"architecture {known.name} of the catalogue: {known.source}",
    )


def write_plan(decided: Plan, out: Path | None) -> Path:
    """Write job.yaml, facts.json, plan.json and report.html; returns the folder (default runs/<name>-<hash of the
    job>).
    """
    run = Run(out or Path("runs") / f"{decided.job.name or 'job'}-{decided.job_hash[:8]}")
    run.begin(decided)
    write_text(run.report_path, plan_page(decided))
    return run.folder


# -- estimate --------------------------------------------------------------------------------------


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
        return price_configuration(asked, observe_device(_hardware(asked)))


def _hardware(asked: Configuration) -> Hardware:
    return Hardware(gpu=asked.gpu, count=asked.gpus, nodes=asked.nodes)


def single_changes(asked: Configuration, before: Estimate, progress: Progress = quiet) -> list[Change]:
    """The single changes of a configuration that make it fit, or its peak clearly smaller; each is traced."""
    device = observe_device(_hardware(asked))
    names = sorted(known_gpus(), key=lambda g: g["memory_mib"])
    gpus = [observe_device(Hardware(gpu=g["name"], count=asked.gpus, nodes=asked.nodes)) for g in names]
    larger = [g for g in gpus if g.memory_bytes > device.memory_bytes] if asked.gpu else []
    return changes.single_changes(asked, before, device, larger, progress)


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


# -- train -----------------------------------------------------------------------------------------


def prepare(target: Path, out: Path | None, options: Mapping[str, Any]) -> Run:
    """A run folder that is ready to train: from a job (planned now) or from a plan.json (checked to be still true).

    Raises:
        PlanError: the plan is stale or described data that is not there.
        AnswerIsNo: nothing can run here.
        RunError, SpaceError: the folder is in use, the disk too small.
    """
    if target.is_dir() or target.suffix == ".json":
        decided = _plan_from_file(target, options)
    else:
        decided = plan_job(load_job(target, options), out)
    _refuse_unrunnable(decided)
    run = Run(out or new_run_folder(decided.job.name or "run"))
    estimate = decided.chosen()
    assert estimate is not None
    require_space(run.folder, estimate.storage.run_bytes, f"this run ({decided.verdict.candidate})")
    run.begin(decided)
    return run


def _plan_from_file(target: Path, options: Mapping[str, Any]) -> Plan:
    path = target / "plan.json" if target.is_dir() else target
    decided = read_record(path, Plan)
    if said := [key for key, value in options.items() if value is not None]:
        raise UsageError(
            f"a plan is carried out as it stands, but {', '.join(said)} would change it",
            fix="give the job instead of the plan, with these options",
        )
    _refuse_stale(decided, path)
    return decided


def _refuse_stale(decided: Plan, path: Path) -> None:
    """A plan holds only for the base, the data and the device that it was made for."""
    changed = []
    if _model_of(decided.job).weights_hash != decided.base_hash:
        changed.append("the base model")
    changed += [
        f"the data file {name}"
        for name, digest in decided.facts.data.files.items()
        if not Path(name).is_file() or hash_file(Path(name)) != digest
    ]
    if observe_device(decided.job.hardware).identity_hash != decided.hardware_hash:
        changed.append("the device")
    if changed:
        raise PlanError(
            f"{path} is stale: {', '.join(changed)} changed since it was made",
            fix="plan again with `rankwise plan` and the job file, or train from the job file, which plans again",
        )


def _refuse_unrunnable(decided: Plan) -> None:
    if decided.verdict.config is None:
        ways = [f.if_ for f in decided.flips] + [r.would_flip_if for r in decided.rejected if r.would_flip_if]
        why = "; ".join(f"{r.method}: {r.number or r.text}" for r in decided.rejected)
        if all(r.rule == "disk_fits" for r in decided.rejected):
            raise SpaceError(f"not enough disk for this run: {why}", fix=f"it would work if {ways[0]}" if ways else "")
        raise AnswerIsNo(f"nothing can run here: {why}", fix=f"it would work if {ways[0]}" if ways else "")
    device = decided.facts.device
    if device.kind == "gpu" and device.available_bytes is None:
        raise PlanError(
            f"this plan is for {device.name}, which this machine does not have",
            fix="train on such a machine, or drop hardware.gpu from the job to plan for this one",
        )
    if device.count > 1:
        raise PlanError(
            f"this plan is for {device.count} devices, and this version trains on one",
            fix="set hardware.count and hardware.nodes to 1",
        )
    if decided.facts.model.folder is None:
        raise PlanError(
            f"this plan is for {decided.job.model} by its config alone; its files were not looked at",
            fix="give data.train, so that the plan reads the model's files",
        )
    if decided.job.data.train is None:
        raise PlanError(
            "this plan describes its data (examples, tokens_per_example); there are no rows to train on",
            fix="give data.train",
        )


def train(run: Run, *, resume: bool = False) -> Iterator[Event]:
    """Train in a process of its own; yields events as they happen and leaves evidence.json behind.

    Raises:
        Interrupted: stopped on request. RankwiseError: what went wrong; the run can be resumed.
    """
    from rankwise.train.launch import launch

    if resume:
        _refuse_stale(run.plan(), run.plan_path)
        if run.state() == "finished":
            raise RunError(f"{run.folder} has finished; there is nothing to resume", fix="`rankwise show` shows it")
    with run.lock():
        pass  # say so here, in one sentence, when another process holds the folder
    yield from launch(run, resume=resume)


def latest_unfinished(root: Path) -> Run:
    """The newest run below `root` that can be resumed. Raises RunError when there is none."""
    for run in reversed(list_runs(root)):
        if run.state() in ("stopped", "killed", "failed"):
            return run
    raise RunError(f"no run in {root}/ can be resumed", fix="`rankwise runs` lists them")


# -- evaluate, merge, verify, chat -----------------------------------------------------------------


def evaluate(run: Run, progress: Progress = quiet) -> Evaluation:
    """Held-out loss, format, closed-book facts and general loss against the untouched base; added to evidence.json."""
    evidence = _finished(run).evidence()
    decided = run.plan()
    config, chat, data = _inputs(decided)
    tuned, as_base = _tuned(run, decided)
    found = _evaluate(decided.job, chat, data, tuned, as_base, config.autocast, progress)
    write_record(run.evidence_path, evidence.model_copy(update={"evaluation": found}))
    return found


def evaluate_model(model: str, job: Job, progress: Progress = quiet) -> Evaluation:
    """A model that did not come from a run, against the base that the job names, on the job's held-out rows and
    probes.
    """
    from rankwise.model.load import load_base

    decided = plan_job(job)
    config, chat, data = _inputs(decided)
    base = load_base(decided.facts.model.path, dtype=_dtype(decided))
    tuned = load_base(locate(model), dtype=_dtype(decided))
    return _evaluate(job, chat, data, tuned, lambda: _always(base), config.autocast, progress)


def _evaluate(
    job: Job,
    chat: ChatText,
    data: Dataset,
    tuned: Any,
    as_base: Callable[[], AbstractContextManager[Any]],
    autocast: str | None,
    progress: Progress,
) -> Evaluation:
    from rankwise.evaluate.pair import Pair, evaluate

    probes = read_probes(job.data.facts) if job.data.facts else []
    return evaluate(job, data, probes, Pair(chat, tuned, as_base, progress), autocast)


def merge(run: Run, out: Path | None = None) -> Path:
    """Fold the adapter into its base; returns the folder, which plain transformers loads. A full model is copied as
    it is.
    """
    from rankwise.export.merge import merge

    decided = _finished(run).plan()
    target = out or run.model
    if METHODS[decided.verdict.method].trains == "weights":
        if out is not None:
            _refuse_used(out)
            shutil.copytree(run.model, out)
        return target
    if out is not None:
        _refuse_used(out)
    merge(decided, run.adapter, target)
    write_text(target / "README.md", model_card(decided, merged=True))
    write_text(run.folder / "merged_to", str(target.resolve()))
    return target


def _refuse_used(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} is already in use", expected="a folder that is empty or not there yet")


def verify(run: Run) -> tuple[Verification, Artifact | None]:
    """Prove the run's files; writes artifact.json only when every check passed, and removes a stale one otherwise."""
    from rankwise.export.verify import Subject, verify
    from rankwise.model.load import load_base

    decided = _finished(run).plan()
    _, chat, data = _inputs(decided)
    tuned, as_base = _tuned(run, decided)
    adapter = run.adapter if METHODS[decided.verdict.method].trains == "adapter" else None
    merged = merged_folder(run) if adapter else None
    conversations = [row.messages[: _first_answer(row)] for row in data.held_out[:4] if row.text is None]
    outcome = verify(
        Subject(
            plan=decided,
            chat=chat,
            tuned=tuned,
            as_base=as_base,
            merged=load_base(merged, dtype=_dtype(decided)) if merged else None,
            rows=data.validation[:PROOF_ROWS],
            prompts=data.prompts(),
            conversations=conversations,
            trained_logits=run.proof / "trained_logits.safetensors",
            folders=[f for f in (adapter or run.model, merged) if f],
        )
    )
    if not outcome.passed:
        run.artifact_path.unlink(missing_ok=True)
        return outcome, None
    artifact = _artifact(run, decided, adapter, merged, outcome)
    write_record(run.artifact_path, artifact)
    return outcome, artifact


def _first_answer(row: Any) -> int:
    return next(i for i, message in enumerate(row.messages) if message["role"] == "assistant")


def merged_folder(run: Run) -> Path | None:
    """Where `merge` wrote to, if it still stands."""
    pointer = run.folder / "merged_to"
    folder = Path(pointer.read_text()) if pointer.is_file() else None
    return folder if folder and folder.is_dir() else None


def _artifact(run: Run, decided: Plan, adapter: Path | None, merged: Path | None, outcome: Verification) -> Artifact:
    model = merged if adapter else run.model
    assert decided.base_hash is not None  # nothing is trained without its files
    folders = [f for f in (adapter, model) if f]
    return Artifact(
        kind="model" if adapter is None else "adapter" if merged is None else "adapter+merged",
        method=decided.verdict.method,
        adapter=_relative(run, adapter),
        model=_relative(run, model),
        base=decided.job.model,
        license=decided.facts.model.license,
        files={f"{_relative(run, f)}/{name}": digest for f in folders for name, digest in hash_folder(f).items()},
        verification=outcome,
        lineage=Lineage(
            job=decided.job_hash,
            facts=content_hash(decided.facts.model_dump(mode="json")),
            plan=decided.content_hash(),
            base_weights=decided.base_hash,
            data=decided.data_hash,
            chat_template=decided.facts.model.template_hash,
        ),
    )


def _relative(run: Run, folder: Path | None) -> str | None:
    if folder is None:
        return None
    inside = folder.resolve().is_relative_to(run.folder.resolve())
    return str(folder.resolve().relative_to(run.folder.resolve())) if inside else str(folder.resolve())


def chat(run: Run, *, base: bool = False) -> Callable[[list[dict[str, str]], int], Iterator[str]]:
    """Load a run's model (or its untouched base) and return a function: (messages, max_new_tokens) -> pieces of the
    answer.
    """
    from rankwise.model.generate import stream

    decided = _finished(run).plan()
    text = ChatText.from_folder(decided.facts.model.path)
    tuned, as_base = _tuned(run, decided)

    def reply(messages: list[dict[str, str]], max_new_tokens: int) -> Iterator[str]:
        with as_base() if base else _always(tuned) as model:
            yield from stream(model, text, messages, max_new_tokens)

    return reply


def _inputs(decided: Plan) -> tuple[TrainConfig, ChatText, Dataset]:
    config = decided.verdict.config
    assert config is not None
    text = ChatText.from_folder(decided.facts.model.path)
    data = load_dataset(decided.job, text, max_length=config.max_length, on_long=config.on_long, seed=config.seed)
    return config, text, data


def _tuned(run: Run, decided: Plan) -> tuple[Any, Callable[[], AbstractContextManager[Any]]]:
    """(the tuned model, how to get the untouched base)."""
    from rankwise.model.attach import load_adapter, untouched
    from rankwise.model.load import load_base

    base_folder, dtype = decided.facts.model.path, _dtype(decided)
    if METHODS[decided.verdict.method].trains == "adapter":
        base = load_base(base_folder, dtype=dtype, four_bit=decided.verdict.method == "qlora")
        tuned = load_adapter(base, run.adapter)
        return tuned, lambda: untouched(tuned)
    tuned = load_base(run.model, dtype=dtype)
    return tuned, lambda: _always(load_base(base_folder, dtype=dtype))


@contextmanager
def _always(model: Any) -> Iterator[Any]:
    yield model


def _dtype(decided: Plan) -> Any:
    """Inference runs in the precision of the frozen base; a full model was saved in that of the base's files."""
    config = decided.verdict.config
    assert config is not None
    if METHODS[config.method].trains == "adapter":
        return config.dtype
    return "bf16" if config.autocast == "bf16" and decided.facts.model.dtype == "bf16" else "fp32"


def _finished(run: Run) -> Run:
    state = run.state()
    if state != "finished":
        raise RunError(
            f"{run.folder} is {state}, not finished",
            fix=f"continue with `rankwise train {run.folder} --resume`" if state != "planned" else "train it first",
        )
    return run


# -- look ------------------------------------------------------------------------------------------


def report(run: Run) -> Path:
    """Write report.html from the folder alone; returns its path."""
    decided, state = run.plan(), run.state()
    if state == "planned":
        write_text(run.report_path, plan_page(decided))
        return run.report_path
    evidence = run.evidence() if run.evidence_path.is_file() else None
    write_text(
        run.report_path, run_page(decided, run.events(), evidence, run.artifact(), state, folder=str(run.folder))
    )
    return run.report_path


def show(run: Run) -> dict[str, Any]:
    """What `rankwise show --json` prints: verdict, losses, evaluation, verification and artifact of one run."""
    decided, artifact = run.plan(), run.artifact()
    evidence = run.evidence() if run.evidence_path.is_file() else None
    fields = ("first_loss", "final_loss", "base_validation_loss", "best_validation_loss", "final_validation_loss")
    return {
        "run": str(run.folder),
        "state": run.state(),
        "verdict": decided.verdict.model_dump(mode="json"),
        "losses": {name: getattr(evidence, name) for name in fields} if evidence else None,
        "steps": evidence.steps if evidence else None,
        "actuals": [a.model_dump(mode="json") for a in evidence.actuals] if evidence else None,
        "findings": [f.model_dump(mode="json") for f in evidence.findings] if evidence else None,
        "evaluation": evidence.evaluation.model_dump(mode="json") if evidence and evidence.evaluation else None,
        "verification": artifact.verification.model_dump(mode="json") if artifact else None,
        "artifact": artifact.model_dump(mode="json", exclude={"verification"}) if artifact else None,
        "report": str(run.report_path) if run.report_path.is_file() else None,
    }


def models() -> list[dict[str, Any]]:
    """The architectures known offline, as `rankwise models --json` prints them."""
    return catalogue_rows()


def model(name: str) -> dict[str, Any]:
    """One architecture with its hub ids, its source and its config. Raises UsageError for an unknown name."""
    known = find_architecture(name)
    if known is None:
        close = nearest(name)
        raise UsageError(
            f"{name} is not in the catalogue",
            expected="a name from `rankwise models`, or a hub id of one of these families",
            fix=f"did you mean {' or '.join(close)}?" if close else "`rankwise models` lists them",
        )
    row = next(row for row in catalogue_rows() if row["name"] == known.name)
    more = {"hub_ids": list(known.hub_ids), "aliases": list(known.aliases), "source": known.source, "note": known.note}
    return row | more | {"config": known.config}


def gpus() -> list[dict[str, Any]]:
    """The GPUs known by name: bytes, FLOP/s, and what a process takes beside its tensors."""
    devices = [observe_device(Hardware(gpu=g["name"])) for g in known_gpus()]
    kept = ("name", "memory_bytes", "matmul_flops", "bf16", "compute_capability", "context_bytes", "source")
    return [d.model_dump(mode="json", include=set(kept)) for d in devices]


def runs(root: Path) -> list[dict[str, Any]]:
    """One line a run below `root`, oldest first."""
    return [_line(run) for run in list_runs(root)]


def _line(run: Run) -> dict[str, Any]:
    try:
        decided = run.plan()
        evidence = run.evidence() if run.evidence_path.is_file() else None
    except RunError as error:
        return {"run": str(run.folder), "state": "damaged", "what": error.what}
    return {
        "run": str(run.folder),
        "state": run.state(),
        "model": decided.job.model,
        "method": decided.verdict.method,
        "candidate": decided.verdict.candidate,
        "steps": evidence.steps if evidence else None,
        "base_validation_loss": evidence.base_validation_loss if evidence else None,
        "best_validation_loss": evidence.best_validation_loss if evidence else None,
        "proven": run.artifact_path.is_file(),
    }


def open_run(folder: Path) -> Run:
    """A run by its folder, or by its name below runs/. Raises RunError."""
    if not folder.exists() and (Path("runs") / folder).is_dir():
        folder = Path("runs") / folder
    if not folder.exists():
        raise RunError(f"there is no run {folder}", fix="`rankwise runs` lists the runs of this folder")
    return Run.open(folder)


# -- doctor ----------------------------------------------------------------------------------------


def environment() -> Environment:
    """What a run would find here: versions, memory, disk, GPUs, caches. No torch, and less than a second."""
    from rankwise.observe.environment import observe_environment

    return observe_environment()


def doctor(*, gpu: bool, out: Path | None = None, progress: Progress = quiet) -> tuple[SelfCheck, Path]:
    """Run small real steps and the kernels they need on the GPU (or the CPU), compare them with the traces, and write
    what was found. Returns it with its file, which is in `out` or the cache folder.

    Raises:
        RankwiseError: no GPU where one is asked for.
        ModelError: the embedded model is missing.
    """
    if gpu:
        _require_gpu()
    from rankwise.estimate.selfcheck import Subject, require_device, self_check, write

    device = "cuda:0" if gpu else "cpu"
    require_device(device)
    folder = locate("embedded")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    subjects = [Subject("embedded", config, folder, rows=4 if gpu else 2, length=512 if gpu else 128)]
    if gpu and (larger := find_architecture("llama-3.2-1b")):
        subjects.append(Subject(larger.name, larger.config, None, rows=2, length=1024))
    facts = observe_device(Hardware(gpu=None if gpu else "cpu"))
    found = self_check(device, facts, subjects, progress)
    return found, write(found, out or cache_folder())


def _require_gpu() -> None:
    """Before torch is imported: a machine without a GPU is told in a moment."""
    found = environment()
    if not found.gpus:
        raise RankwiseError(
            "no CUDA GPU: nvidia-smi is missing or lists none, so the GPU self-check cannot run here",
            expected="an NVIDIA GPU with its driver, and a torch built for CUDA",
            fix="run `rankwise doctor --gpu` on the GPU machine; `rankwise doctor --cpu` runs the same steps here",
        )
