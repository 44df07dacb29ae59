"""The command line: arguments -> api -> lines. No decisions.

Results go to standard output, progress and errors to standard error; with --json there is one JSON document on
standard output and nothing else. Exit codes: 0 done, 1 refused or failed, 2 usage, 3 it ran and the answer is no."""

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup
from typer.exceptions import TyperException

from rankwise.errors import AnswerIsNo, Interrupted, RankwiseError, UsageError
from rankwise.options import estimate_options, job_options, sign


class Commands(TyperGroup):
    """The group of commands; under --json a call that cannot be parsed is told in JSON, too."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        given = sys.argv[1:] if args is None else list(args)
        if "--json" not in given:
            return super().main(args, *more, **extra)
        try:
            sys.exit(super().main(args, *more, **{**extra, "standalone_mode": False}))
        except TyperException as error:
            what = getattr(error, "format_message", error.__str__)()
            sys.exit(_say_error(UsageError(what, fix="`rankwise COMMAND --help` lists the options"), as_json=True))


app = typer.Typer(
    name="rankwise",
    cls=Commands,
    help="Full fine-tuning, LoRA, QLoRA, or none at all? A computed answer, a guarded run, a proven artifact.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
WIDE = 240  # characters of a line that goes to a file or a pipe, where nothing has to be wrapped
notes = Console(stderr=True, highlight=False, soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", envvar="RANKWISE_DEBUG")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or its name below runs/.")]


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Register a command: errors become one message and an exit code, what it returns becomes the JSON document."""

    @functools.wraps(function)
    def face(**arguments: Any) -> None:
        as_json, debug = arguments["as_json"], arguments.pop("debug")
        try:
            code = function(**arguments) or 0
        except RankwiseError as error:
            if debug:
                raise
            code = _say_error(error, as_json)
        except KeyboardInterrupt:
            code = _say_error(Interrupted("stopped by Ctrl-C"), as_json)
        except BrokenPipeError:  # the reader of our output has gone (`| head`); there is nobody to tell
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        except Exception as error:
            if debug:
                raise
            what = f"internal error: {type(error).__name__}: {error}"
            code = _say_error(RankwiseError(what, fix="--debug shows where; please report it"), as_json)
        raise typer.Exit(code)

    debug = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)
    sign(face, [*inspect.signature(function).parameters.values(), debug])
    return app.command(name=function.__name__.rstrip("_"))(face)


def _say_error(error: RankwiseError, as_json: bool) -> int:
    if as_json:
        _print_json({"error": error.to_json()})
    colour = "yellow" if isinstance(error, AnswerIsNo | Interrupted) else "red"
    word = "answer" if isinstance(error, AnswerIsNo) else "stopped" if isinstance(error, Interrupted) else "error"
    notes.print(f"[bold {colour}]{word}:[/] {escape(str(error))}")
    return error.exit_code


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _print(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")


@contextmanager
def _progress(as_json: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each piece of work on a terminal, one line when it is done elsewhere."""
    if not notes.is_terminal:

        def plain(what: str, done: int, total: int) -> None:
            if done == total:
                notes.print(f"  {what}: {done} of {total}")

        yield plain
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=notes) as bars:
        tasks: dict[str, Any] = {}

        def bar(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield bar


@command
@job_options
def plan(
    *,
    job: Annotated[Path | None, typer.Argument(metavar="JOB", help="A job file (YAML).")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for plan.json and report.html.")] = None,
    as_json: Json = False,
    options: dict[str, Any],
) -> int:
    """The call: verdict, reasons with evidence, rejected options, flip points. Example: `rankwise plan job.yaml`"""
    from rankwise import api
    from rankwise.report import words

    if job is None and not options:
        raise UsageError("nothing to plan", fix="give a job file, or options such as --model, --goal and --train")
    decided = api.plan_job(api.load_job(job, options), out)
    folder = api.write_plan(decided, out)
    if as_json:
        _print_json(decided.contract())
    else:
        _print(words.verdict_sentence(decided), "")
        for passage in words.plan_lines(decided):
            _print_passage(passage.title, passage.lines)
        _print(f"Plan: {folder / 'plan.json'}", f"Page: {folder / 'report.html'}")
    return 0 if decided.verdict.config else 3


@command
@estimate_options
def estimate(
    *,
    batch_file: Annotated[
        Path | None,
        typer.Option(
            help="Price a YAML or JSON list of mappings: option names with underscores, and a free `id`. Options on "
            "the command line hold for every entry that does not say otherwise."
        ),
    ] = None,
    as_json: Json = False,
    options: dict[str, Any],
) -> int:
    """One configuration priced before any GPU is rented. Example: `rankwise estimate --model llama-3-8b --gpu L4`

    Exit code 3: it does not fit into the GPU that was named. A batch file exits with 0 once it was read; what is wrong
    with an entry stands in its place in the list.
    """
    from rankwise import api

    if batch_file is not None:
        return _estimate_batch(batch_file, options, as_json)
    asked = api.configuration(options)
    found = api.price_asked(asked)
    if as_json:
        _print_json(found.model_dump(mode="json"))
    else:
        _print_estimate(asked, found)
    return 0 if found.memory.fits or asked.gpu is None else 3


def _print_estimate(asked: Any, found: Any) -> None:
    """The peak as bars; where it does not fit, the single changes that would help."""
    from rich.table import Table

    from rankwise import api
    from rankwise.report import estimate_words as words

    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=WIDE)
    _print(words.title(asked, found), "")
    peak = Table(box=None, show_header=False, pad_edge=False)
    peak.add_column(style="bold")
    peak.add_column(justify="right")
    peak.add_column(style="cyan")
    for row in words.memory_rows(found):
        peak.add_row(row.name, row.bytes, escape(row.beside), style=None if row.is_part else "default")
    console.print(peak)
    _print("", *words.estimate_lines(found), "")
    _print_passage("Notes", found.notes)
    if found.memory.fits:
        return
    with _progress(False) as progress:
        changes = api.single_changes(asked, found, progress)
    table = Table("one change", "peak on the device", "against now", "", box=None, pad_edge=False)
    for change in changes:
        table.add_row(*words.change_row(change.words, change.estimate, found))
    if changes:
        console.print(table)
    else:
        _print("No single change makes it fit, or the peak 3 % smaller.")


def _estimate_batch(path: Path, options: dict[str, Any], as_json: bool) -> int:
    """A list in the file's order. Without --json the same list: a batch is read by programs."""
    from rankwise import api

    entries = [{**options, **entry} for entry in api.read_batch(path)]
    answers = []
    with _progress(as_json) as progress:
        for label, outcome in api.estimate_batch(entries, progress):
            if isinstance(outcome, RankwiseError):
                answers.append({"id": label, "error": outcome.to_json()})
            else:
                answers.append(outcome.model_dump(mode="json"))
    _print_json(answers)
    return 0


def _print_passage(title: str, lines: Sequence[str]) -> None:
    if lines:
        _print(title, *(f"  - {line}" for line in lines), "")


@command
@job_options
def train(
    *,
    target: Annotated[
        Path | None, typer.Argument(metavar="JOB|PLAN|RUN", help="A job file, a plan.json, or with --resume a run.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder (default runs/<name>-<time>).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run from its last checkpoint.")] = False,
    as_json: Json = False,
    options: dict[str, Any],
) -> int:
    """Carry a plan out, with live progress. Example: `rankwise train job.yaml --out runs/first`"""
    from rankwise import api

    run = _run_to_train(target, out, resume, options)
    notes.print(f"run {escape(str(run.folder))}")
    _watch(api.train(run, resume=resume), run.plan().verdict.config)
    api.report(run)
    if as_json:
        _print_json(api.show(run))
    else:
        _print_outcome(run)
    return 0


def _run_to_train(target: Path | None, out: Path | None, resume: bool, options: dict[str, Any]) -> Any:
    from rankwise import api

    if not resume:
        if target is None:
            raise UsageError("nothing to train", fix="give a job file or a plan.json; --resume continues a run")
        return api.prepare(target, out, options)
    if options:
        raise UsageError(
            f"a run is resumed as it was planned; {', '.join(options)} cannot change", fix="start a new run"
        )
    if target is not None and target.is_file():
        target = None if out else target.parent  # `train JOB --out RUN --resume`: the run is what counts
    folder = out or target
    return api.open_run(folder) if folder else api.latest_unfinished(Path("runs"))


def _watch(events: Iterator[Any], config: Any) -> None:
    """Print a run as it happens: a live bar on a terminal, plain lines elsewhere."""
    from rankwise.report import words

    every, total = config.logging_steps, config.max_steps
    if not notes.is_terminal:
        every = max(every, total // 20)
    with _progress(False) if notes.is_terminal else _no_bar() as bar:
        for event in events:
            if event.event == "step":
                bar("training", event.step, total)
                if event.step % every and event.step not in (1, total):
                    continue
            notes.print(escape(words.event_line(event, total)))


@contextmanager
def _no_bar() -> Iterator[Callable[[str, int, int], None]]:
    yield lambda what, done, total: None


def _print_outcome(run: Any) -> None:
    from rankwise.report import words

    artifact = run.artifact()
    lines = words.outcome_lines(
        run.evidence(),
        artifact.verification if artifact else None,
        budget_nats=run.plan().job.forgetting.budget_nats,
        folder=run.folder,
    )
    _print(*lines)
    _print_passage("Predicted and actual", [words.actual_line(a) for a in run.evidence().actuals])
    _print_passage("Findings", [words.finding_line(f) for f in run.evidence().findings])
    _print(f"Run: {run.folder}", f"Page: {run.report_path}")


@command
def eval_(
    *,
    target: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run, or with --job any model.")],
    job: Annotated[Path | None, typer.Option(help="Job whose base, rows and probes a MODEL is judged on.")] = None,
    as_json: Json = False,
) -> int:
    """Format, facts, held-out and general loss, against the untouched base. Example: `rankwise eval RUN`"""
    from rankwise import api
    from rankwise.report import words

    with _progress(as_json) as progress:
        if job is not None:
            asked = api.load_job(job, {})
            found = api.evaluate_model(target, asked, progress)
        else:
            run = api.open_run(Path(target))
            asked = run.plan().job
            found = api.evaluate(run, progress)
            api.report(run)
    if as_json:
        _print_json(found.model_dump(mode="json"))
        return 0
    _print(words.knows_or_sounds(found), words.forgetting_sentence(found, asked.forgetting.budget_nats), "")
    _print_passage("Tuned against the untouched base", [words.comparison_line(c) for c in found.comparisons])
    _print_passage("Not measured", list(found.notes))
    return 0


@command
def merge(
    *,
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(help="Folder of the merged model (default RUN/model).")] = None,
    as_json: Json = False,
) -> int:
    """Fold the adapter into its base and prove that nothing changed. Example: `rankwise merge RUN --out merged`"""
    from rankwise import api

    opened = api.open_run(run)
    folder = api.merge(opened, out)
    notes.print(f"merged into {escape(str(folder))}; comparing it with the adapter")
    outcome, artifact = api.verify(opened)
    api.report(opened)
    return _print_verification(opened, outcome, artifact, as_json, {"model": str(folder)})


@command
def verify(*, run: RunFolder, as_json: Json = False) -> int:
    """Prove the saved files; exit code 3 when a check fails. Example: `rankwise verify RUN`"""
    from rankwise import api

    opened = api.open_run(run)
    outcome, artifact = api.verify(opened)
    api.report(opened)
    return _print_verification(opened, outcome, artifact, as_json, {})


def _print_verification(run: Any, outcome: Any, artifact: Any, as_json: bool, more: dict[str, Any]) -> int:
    from rankwise.report import words

    if as_json:
        found = artifact.model_dump(mode="json", exclude={"verification"}) if artifact else None
        _print_json({**more, "verification": outcome.model_dump(mode="json"), "artifact": found})
    else:
        _print(words.proof_sentence(outcome, run.folder), *(f"  - {words.check_line(c)}" for c in outcome.checks))
        _print(f"Artifact: {run.artifact_path}" if artifact else "No artifact was published.")
    return 0 if outcome.passed else 3


@command
def chat(
    *,
    run: RunFolder,
    prompt: Annotated[str | None, typer.Option(help="One question; without it a conversation begins.")] = None,
    base: Annotated[bool, typer.Option("--base", help="Talk to the untouched base instead.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 256,
    as_json: Json = False,
) -> int:
    """Talk to a run's model. Example: `rankwise chat RUN --prompt "Hello"`"""
    from rankwise import api

    opened = api.open_run(run)
    if as_json and prompt is None:
        raise UsageError("--json needs --prompt: a conversation has no single answer")
    reply = api.chat(opened, base=base)
    if prompt is None:
        return _converse(reply, max_new_tokens)
    pieces = []
    for piece in reply([{"role": "user", "content": prompt}], max_new_tokens):
        pieces.append(piece)
        if not as_json:
            sys.stdout.write(piece)
            sys.stdout.flush()
    _print_json({"prompt": prompt, "answer": "".join(pieces), "base": base}) if as_json else _print("")
    return 0


def _converse(reply: Callable[[list[dict[str, str]], int], Iterator[str]], max_new_tokens: int) -> int:
    """Turns until end of input; Ctrl-C ends an answer, a second one the conversation."""
    notes.print("Ctrl-D ends the conversation, Ctrl-C an answer.")
    messages: list[dict[str, str]] = []
    while True:
        try:
            said = input("you> ").strip()
        except (EOFError, KeyboardInterrupt):
            _print("")
            return 0
        if not said:
            continue
        messages.append({"role": "user", "content": said})
        pieces: list[str] = []
        try:
            for piece in reply(messages, max_new_tokens):
                pieces.append(piece)
                sys.stdout.write(piece)
                sys.stdout.flush()
        except KeyboardInterrupt:
            notes.print("(stopped)")
        _print("")
        messages.append({"role": "assistant", "content": "".join(pieces)})


@command
def report(*, run: RunFolder, as_json: Json = False) -> int:
    """Write the run's page: one self-contained HTML file. Example: `rankwise report RUN`"""
    from rankwise import api

    opened = api.open_run(run)
    path = api.report(opened)
    if as_json:
        _print_json({"report": str(path), "bytes": path.stat().st_size})
    else:
        if opened.evidence_path.is_file() and (found := opened.evidence().evaluation):
            _print_answers(found)
        _print(f"Page: {path.resolve()}")
    return 0


def _print_answers(found: Any) -> None:
    """Three answers before and after, the ones that changed first."""
    changed = sorted(found.answers, key=lambda a: (a.base_ok == a.tuned_ok, a.kind != "format"))
    for shown in changed[:3]:
        mark = {True: "ok", False: "not ok"}
        _print(
            f"asked:  {shown.prompt}",
            f"before: {_one_line(shown.base)}  ({mark[shown.base_ok]})",
            f"after:  {_one_line(shown.tuned)}  ({mark[shown.tuned_ok]})",
            "",
        )


def _one_line(text: str, most: int = 200) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


@command
def show(*, run: RunFolder, as_json: Json = False) -> int:
    """Verdict, losses, verification and artifact of one run. Example: `rankwise show RUN --json`"""
    from rankwise import api
    from rankwise.report import words

    opened = api.open_run(run)
    if as_json:
        _print_json(api.show(opened))
        return 0
    decided, state, events = opened.plan(), opened.state(), opened.events()
    step = max((getattr(e, "step", 0) for e in events), default=0)
    total = decided.verdict.config.max_steps if decided.verdict.config else None
    _print(words.verdict_sentence(decided), words.state_sentence(state, step, total, opened.folder), "")
    if opened.evidence_path.is_file():
        _print_outcome(opened)
    return 0


@command
def runs(
    *,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where runs are kept.")] = Path("runs"),
    as_json: Json = False,
) -> int:
    """The runs of this folder. Example: `rankwise runs`"""
    from rich import box
    from rich.table import Table

    from rankwise import api

    found = api.runs(folder)
    if as_json:
        _print_json(found)
        return 0
    if not found:
        _print(f"No runs in {folder}/ yet. `rankwise train JOB` makes one.")
        return 0
    columns = ("run", "state", "method", "steps", "base_validation_loss", "best_validation_loss", "proven")
    heads = ("run", "state", "method", "steps", "base loss [nats]", "best loss [nats]", "proven")
    table = Table(*heads, box=box.SIMPLE)
    for line in found:
        table.add_row(*(_cell(line.get(column)) for column in columns))
    Console(highlight=False).print(table)
    return 0


@command
def models(
    *,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A name or hub id; empty: all of them.")] = None,
    as_json: Json = False,
) -> int:
    """The architectures known offline, or one of them in full. Example: `rankwise models llama-3-8b`"""
    from rankwise import api
    from rankwise.report.quantities import plain

    if name is not None:
        one = api.model(name)
        if as_json:
            _print_json(one)
            return 0
        for key, value in one.items():
            if key != "config" and value not in (None, []):
                _print(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
        return 0
    found = api.models()
    if as_json:
        _print_json(found)
        return 0
    heads = ("name", "parameters", "layers", "hidden", "heads", "kv heads", "vocabulary", "positions", "license")
    shape = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads")
    keys = (*shape, "vocab_size", "max_position_embeddings")
    rows = [
        (row["name"], f"{plain(row['total_params'] / 1e9)} B", *(row[k] for k in keys), row["license"]) for row in found
    ]
    _print_table(heads, rows)
    return 0


@command
def gpus(*, as_json: Json = False) -> int:
    """The GPUs known by name, with memory, datasheet rates and context. Example: `rankwise gpus --json`"""
    from rankwise import api
    from rankwise.report.quantities import size

    found = api.gpus()
    if as_json:
        _print_json(found)
        return 0
    heads = ("name", "memory", "bf16 TFLOP/s", "fp32 TFLOP/s", "compute capability", "context", "source")
    rows = []
    for row in found:
        rates = [row["matmul_flops"].get(dtype) for dtype in ("bf16", "fp32")]
        context = size(row["context_bytes"][1]) if row["context_bytes"] else None
        tera = [None if rate is None else f"{rate / 1e12:.4g}" for rate in rates]
        capability = None if row["compute_capability"] is None else f"{row['compute_capability']:.1f}"
        rows.append((row["name"], size(row["memory_bytes"]), *tera, capability, context, row["source"]))
    _print_table(heads, rows)
    return 0


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """As wide as it needs to be where nobody's terminal would wrap it."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for number, head in enumerate(heads):
        table.add_column(head, no_wrap=number == 0)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console = Console(highlight=False)
    (console if console.is_terminal else Console(highlight=False, width=WIDE)).print(table)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    return "unknown" if value is None else escape(str(value))


@command
def doctor(
    *,
    gpu: Annotated[bool, typer.Option("--gpu", help="Real steps on the GPU, compared with the traces.")] = False,
    cpu: Annotated[bool, typer.Option("--cpu", help="The same on the processor (a few minutes).")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the self-check's file (default: the cache).")] = None,
    as_json: Json = False,
) -> int:
    """What a run would find here; exit code 3 when something is wrong. Example: `rankwise doctor --gpu --out ledger`"""
    from rankwise import api

    if gpu and cpu:
        raise UsageError("--gpu and --cpu are two self-checks", fix="choose one")
    if gpu or cpu:
        with _progress(as_json) as progress:
            checked, path = api.doctor(gpu=gpu, out=out, progress=progress)
        return _print_self_check(checked, path, as_json)
    found = api.environment()
    if as_json:
        _print_json({**found.model_dump(mode="json"), "sound": found.sound})
        return 0 if found.sound else 3
    _print_environment(found)
    return 0 if found.sound else 3


def _print_environment(found: Any) -> None:
    from rankwise.records.selfcheck import NEVER_RUN_ON_GPU
    from rankwise.report import doctor_words as words

    _print_table(words.CONDITION_HEADS, [words.condition_row(c) for c in found.conditions])
    _print_passage("Never run on a GPU by us", NEVER_RUN_ON_GPU)


def _print_self_check(found: Any, path: Path, as_json: bool) -> int:
    from rankwise.report import doctor_words as words

    sound = all(c.ok is not False for c in found.conditions)
    if as_json:
        _print_json({**found.model_dump(mode="json"), "file": str(path), "sound": sound})
        return 0 if sound else 3
    _print_table(words.STEP_HEADS, [words.step_row(r) for r in found.rows])
    _print_table(words.CONDITION_HEADS, [words.condition_row(c) for c in found.conditions])
    _print_passage("Never run on a GPU by us", found.never_run_on_gpu)
    _print(words.self_check_sentence(found), f"File: {path}")
    return 0 if sound else 3


@app.callback(invoke_without_command=False)
def _root() -> None:
    pass


def main() -> None:
    """The `rankwise` command."""
    app()


if __name__ == "__main__":
    main()
