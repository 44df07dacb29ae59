"""The command line: options reach the job, one JSON document on standard output, exit codes as promised."""

import json
import types
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import Result
from pydantic import BaseModel
from typer.testing import CliRunner

from rankwise import api
from rankwise.api import actuals, observing, training
from rankwise.cli import app
from rankwise.jobfile import read_job
from rankwise.methods import METHODS
from rankwise.options import JOB_OPTIONS
from rankwise.records import DeviceFacts, Job
from rankwise.records.job import GeneralData
from rankwise.store import Run
from tests import builders
from tests.builders import GB, laptop, whole_run, write_job
from tests.tiny import tiny_llama

COMMANDS = [
    "plan",
    "estimate",
    "models",
    "gpus",
    "train",
    "eval",
    "watch",
    "merge",
    "verify",
    "export",
    "chat",
    "report",
    "show",
    "runs",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny")


def on(monkeypatch: pytest.MonkeyPatch, device: DeviceFacts) -> None:
    """Every verb of a job finds this device."""
    for verbs in (observing, training, actuals):
        monkeypatch.setattr(verbs, "observe_device", lambda *asked: device)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own, a cache of its own, and a device that needs no probing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    on(monkeypatch, laptop())
    return tmp_path


@pytest.fixture
def job(here: Path, tiny: Path) -> Path:
    return write_job(here / "work", f"goal: task\nmodel: {tiny}\ndata: {{train: rows.jsonl}}\nhardware: cpu\n")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def document(result: Result) -> Any:
    """The one JSON document on standard output; anything beside it makes this fail."""
    return json.loads(result.stdout)


def refused(code: int, *arguments: object) -> dict[str, Any]:
    """The error of a call, which must be the same with and without --json."""
    plain, with_json = run(*arguments), run(*arguments, "--json")
    assert (plain.exit_code, with_json.exit_code) == (code, code), plain.output
    error: dict[str, Any] = document(with_json)["error"]
    assert set(error) == {"kind", "what", "expected", "fix", "exit_code"} and error["exit_code"] == code
    assert plain.stdout == "" and "Traceback" not in plain.stderr
    return error


# -- every key of a job is an option -------------------------------------------------------------


def leaves(kind: type[BaseModel], before: str = "") -> set[str]:
    found = set()
    for name, field in kind.model_fields.items():
        choices = (field.annotation, *get_args(field.annotation))
        inner = [a for a in choices if isinstance(a, type) and issubclass(a, BaseModel)]
        found |= leaves(inner[0], f"{before}{name}.") if inner else {before + name}
    return found


def test_every_key_of_a_job_is_an_option_and_every_option_a_key() -> None:
    keys = [key for key, *_ in JOB_OPTIONS.values()]
    assert set(keys) == leaves(Job) - {"version"}
    assert len(keys) == len(set(keys)) == len(JOB_OPTIONS)


GIVEN: dict[str, tuple[str, Any]] = {
    "--name": ("clinic-2", "clinic-2"),
    "--goal": ("knowledge", "knowledge"),
    "--model": ("org/name", "org/name"),
    "--validation": ("0.25", 0.25),
    "--general-share": ("0.2", 0.2),
    "--gpu": ("T4", "T4"),
    "--gpus": ("2", 2),
    "--nodes": ("3", 3),
    "--budget-usd": ("12.5", 12.5),
    "--budget-hours": ("2", 2.0),
    "--method": ("qlora", "qlora"),
    "--rank": ("4", 4),
    "--alpha": ("8", 8.0),
    "--dropout": ("0.1", 0.1),
    "--targets": ("q_proj,v_proj", ("q_proj", "v_proj")),
    "--loraplus-lr-ratio": ("16", 16.0),
    "--prompt-length": ("8", 8),
    "--bottleneck": ("32", 32),
    "--variants": ("5", 5),
    "--forgetting-nats": ("0.5", 0.5),
    "--forgetting-action": ("stop", "stop"),
    "--forgetting-tasks": ("arc_easy, hellaswag", ("arc_easy", "hellaswag")),
    "--forgetting-limit": ("20", 20),
    "--watch-steps": ("10", 10),
    "--replay-allowed": ("", True),
    "--no-replay-allowed": ("", False),
    "--retrieval": ("possible", "possible"),
    "--regex": ("yes|no", "yes|no"),
    "--domain": ("code", "code"),
    "--base-loss": ("1.5", 1.5),
    "--new-tokens": ("40", 40),
    "--engine": ("vllm", "vllm"),
    "--new-token-rows": ("modules_to_save", "modules_to_save"),
    "--init-lora-weights": ("pissa_niter_4", "pissa_niter_4"),
    "--serving-format": ("fp8", "fp8"),
    "--context": ("2048", 2048),
    "--concurrency": ("3", 3),
    "--slots": ("2", 2),
    "--zipf": ("0.8", 0.8),
    "--pricing": ("spot", "spot"),
    "--runs": ("12", 12),
    "--sweep": ("6", 6),
    "--failure-rate": ("0.2", 0.2),
    "--energy": ("", True),
    "--no-energy": ("", False),
    "--write-bandwidth": ("2e8", 2e8),
    "--num-train-epochs": ("1.5", 1.5),
    "--max-steps": ("7", 7),
    "--learning-rate": ("1e-4", 1e-4),
    "--lr-scheduler-type": ("linear", "linear"),
    "--warmup-steps": ("0", 0),
    "--weight-decay": ("0.1", 0.1),
    "--max-grad-norm": ("0.5", 0.5),
    "--optim": ("sgd", "sgd"),
    "--per-device-train-batch-size": ("2", 2),
    "--gradient-accumulation-steps": ("3", 3),
    "--gradient-checkpointing": ("", True),
    "--no-gradient-checkpointing": ("", False),
    "--bf16": ("", True),
    "--no-bf16": ("", False),
    "--max-length": ("64", 64),
    "--on-long": ("truncate", "truncate"),
    "--eval-steps": ("5", 5),
    "--save-steps": ("6", 6),
    "--save-total-limit": ("4", 4),
    "--save-top-k": ("3", 3),
    "--save-url": ("file:///mnt/run", "file:///mnt/run"),
    "--logging-steps": ("2", 2),
    "--seed": ("0", 0),
    "--parallel": ("fsdp", "fsdp"),
    "--packing": ("", True),
    "--no-packing": ("", False),
    "--dtype": ("bf16", "bf16"),
    "--bf16-stochastic-round": ("", True),
    "--no-bf16-stochastic-round": ("", False),
    "--optimizer-in-backward": ("", True),
    "--no-optimizer-in-backward": ("", False),
    "--report-to": ("none", "none"),
}
FUNCTIONS = {"--metrics"}
FILES = {
    "--train",
    "--general",
    "--facts",
    "--forgetting-general",
    "--forgetting-questions",
    "--json-schema",
    "--prices",
    "--deepspeed",
    "--chat-template",
}
DESCRIBED = {"--examples", "--tokens-per-example"}
WITHOUT_A_CORPUS = {"--general-self-generated"}


def test_every_option_is_tried_below() -> None:
    positive = {flag for flag in GIVEN if not flag.startswith("--no-")}
    paths = {"--adapter", "--forgetting-tasks-path"}
    assert positive | FILES | FUNCTIONS | DESCRIBED | WITHOUT_A_CORPUS | paths == set(JOB_OPTIONS)
    assert {f"--no-{f[2:]}" for f, (_, kind, _) in JOB_OPTIONS.items() if kind is bool} == set(GIVEN) - positive


def planned(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Job:
    """The Job that a call makes, taken where planning would begin."""
    seen: list[Job] = []

    def stop(job: Job, *_: object) -> None:
        seen.append(job)
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "plan_job", stop)
    result = run("plan", *arguments)
    assert seen, result.output
    return seen[0]


def at(job: Job, key: str) -> Any:
    value: Any = job
    for part in key.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("flag", GIVEN)
def test_an_option_reaches_the_job(flag: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "goal: task\nmodel: embedded\nmethod: lora\ndata: {train: rows.jsonl, general: {path: rows.jsonl}}\n"
    path = write_job(here, text)
    said, value = GIVEN[flag]
    key = JOB_OPTIONS[flag.replace("--no-", "--")][0]
    assert at(planned(monkeypatch, path, flag, *([said] if said else [])), key) == value


def test_rows_for_replay_are_given_or_written_by_the_base(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_job(here, "goal: task\nmodel: embedded\ndata: {train: rows.jsonl}\n")
    said = ("--general-self-generated", "40", "--general-share", "0.2")
    assert planned(monkeypatch, path, *said).data.general == GeneralData(self_generated=40, share=0.2)
    both = run("plan", path, *said, "--general", str(here / "rows.jsonl"))
    assert both.exit_code == 2 and "either `path`" in both.output


@pytest.mark.parametrize("flag", sorted(FILES))
def test_a_file_given_as_an_option_reaches_the_job(flag: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_job(here / "there")
    (here / "mine.json").write_text("{}")
    assert at(planned(monkeypatch, path, flag, "mine.json"), JOB_OPTIONS[flag][0]) == (here / "mine.json").resolve()


def test_metrics_given_as_an_option_are_files_with_their_functions(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_job(here / "there")
    (here / "there" / "mine.py").write_text("def f(p, e, a):\n    return 1.0\n")
    job = planned(monkeypatch, path, "--metrics", "mine.py:f,mine.py:g")
    mine = (here / "there" / "mine.py").resolve()
    assert job.eval.metrics == (f"{mine}:f", f"{mine}:g")
    assert "no such file: no.py" in refused(2, "plan", path, "--metrics", "no.py:f")["what"]
    assert "is not FILE.py:FUNCTION" in refused(2, "plan", path, "--metrics", "mine.py")["what"]


def test_an_adapter_given_as_an_option_is_a_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_job(here / "there")
    (here / "there" / "first").mkdir()
    job = planned(monkeypatch, path, "--method", "lora", "--adapter", "first")
    assert job.method is not None and job.method.adapter == (here / "there" / "first").resolve()


def test_a_folder_of_tasks_given_as_an_option_reaches_the_job(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_job(here / "there")
    (here / "there" / "tasks").mkdir()
    given = ("--forgetting-tasks", "mine", "--forgetting-tasks-path", "tasks")
    assert planned(monkeypatch, path, *given).forgetting.tasks_path == (here / "there" / "tasks").resolve()
    for wrong, said in (
        (("--forgetting-tasks-path", "tasks"), "holds `tasks`"),
        ((*given[:3], "tsaks"), "tsaks"),
        ((*given, "--watch-steps", "0"), "has nobody look"),
    ):
        assert said in refused(2, "plan", path, *wrong)["what"]


def test_a_job_may_be_options_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    call = "--model embedded --goal instruction --gpu A100-80GB --gpus 2 --examples 200000 --tokens-per-example 512"
    job = planned(monkeypatch, *call.split(), "--variants", 5, "--budget-usd", 1000)
    assert (job.data.examples, job.data.tokens_per_example, job.hardware.count, job.variants) == (200_000, 512, 2, 5)


def test_a_validation_file_is_a_path(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_job(here)
    assert planned(monkeypatch, path, "--validation", "rows.jsonl").data.validation == (here / "rows.jsonl").resolve()


def test_help_shows_every_option() -> None:
    for name in ("plan", "train"):
        text = run(name, "--help").stdout
        assert [flag for flag in JOB_OPTIONS if flag[:16] not in text] == []


# -- plan: exit code 0 and 3 ---------------------------------------------------------------------


def test_a_plan_is_one_document_and_a_folder(job: Path, here: Path) -> None:
    result = run("plan", job, "--out", here / "out", "--json")
    assert result.exit_code == 0, result.stderr
    content = document(result)
    assert content["verdict"]["method"] == "lora" and len(content["candidates"]) == 11
    written = sorted(p.name for p in (here / "out").iterdir())
    assert written == ["facts.json", "job.yaml", "plan.json", "report.html"]
    assert json.loads((here / "out" / "plan.json").read_text()) == content
    assert read_job(here / "out" / "job.yaml", {}, METHODS).content_hash() == content["job_hash"]


def test_a_plan_in_words_names_verdict_and_files(job: Path) -> None:
    result = run("plan", job)
    assert result.exit_code == 0 and "LoRA" in result.stdout
    assert "plan.json" in result.stdout and "report.html" in result.stdout


def test_a_plan_may_be_made_again(job: Path) -> None:
    assert run("plan", job).exit_code == run("plan", job).exit_code == 0


def test_where_nothing_fits_the_plan_is_written_and_the_answer_is_no(
    job: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, laptop(memory_bytes=GB // 10))
    result = run("plan", job, "--out", here / "out", "--json")
    assert result.exit_code == 3
    assert document(result)["verdict"]["method"] == "none" and (here / "out" / "report.html").is_file()
    assert run("plan", job).exit_code == 3


def test_training_where_nothing_fits_says_what_would(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, laptop(memory_bytes=GB // 10))
    error = refused(3, "train", job)
    assert error["kind"] == "AnswerIsNo" and error["fix"].startswith("it would work if the device had ")
    error = refused(3, "train", job, "--method", "full")
    assert "None" not in error["fix"] and "the device had" in error["fix"]


def test_a_forced_method_that_does_not_fit_is_not_answered_with_nonsense(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--method", "full", "--budget-hours", "0.0000001")
    error = refused(3, "train", job, *options)
    assert error["fix"].startswith("it would work if the budget were ")


# -- exit code 2: the call or the job is wrong ---------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--bogus"], "--bogus"),
        (["--rank", "abc"], "--rank"),
        (["--rank", "0"], "option method."),
        (["--method", "lroa"], "no method 'lroa'"),
        (["--budget-usd", "-1"], "option budget.usd"),
        (["--train", "no.jsonl"], "option data.train"),
        (["--validation", "1.5"], "a share lies between 0 and 1"),
        (["--json-schema", "no.json", "--regex", "x"], "give either json_schema or regex"),
        (["--on-long", "dorp"], "train.on_long"),
        (["--method", "lora", "--targets", "c_attn"], "no linear layer"),
        (["--method", "lora", "--rank", "10000"], "method.r is 10000"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "train"])
def test_a_wrong_option_is_a_usage_error(command: str, options: list[str], said: str, job: Path) -> None:
    assert said in refused(2, command, job, *options)["what"]


@pytest.mark.parametrize("command", ["plan", "train"])
def test_a_wrong_job_file_is_a_usage_error(command: str, here: Path) -> None:
    assert "no such job file" in refused(2, command, here / "jbo.yaml")["what"]
    path = write_job(here, "goal: task\nmodel: embedded\ndata: {train: rows.jsonl}\nvaraints: 2\n")
    error = refused(2, command, path)
    assert error["what"].startswith(f"{path}:4: unknown key varaints") and error["fix"] == "did you mean variants?"


def test_nothing_at_all_is_a_usage_error() -> None:
    assert refused(2, "plan")["what"] == "nothing to plan"
    assert refused(2, "train")["what"] == "nothing to train"
    assert refused(2, "train", "runs/x", "--resume", "--seed", 3)["what"].startswith("a run is resumed as it was")
    assert "--json needs --prompt" in document(run("chat", _made(Path("x"), True), "--json"))["error"]["what"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--require", "fatcs>=0.6"], "nothing is named fatcs"),
        (["--require", "facts"], "cannot be read"),
        (["--judge", "http://localhost:1/v1"], "needs both --judge URL and --judge-model"),
        (["--judge", "ftp://host", "--judge-model", "m"], "judge's URL"),
        (["--judge", "http://h/v1", "--judge-model", "m", "--rubric", "no.txt"], "there is no file no.txt"),
    ],
)
def test_a_wrong_option_of_eval_is_told_before_anything_runs(options: list[str], said: str, here: Path) -> None:
    folder = _made(here / "runs" / "a", True)
    assert said in refused(2, "eval", folder, *options)["what"]


def test_two_runs_are_compared_and_a_model_is_none(here: Path, job: Path) -> None:
    error = refused(2, "eval", "embedded", "--job", job, "--against", "runs/a")
    assert "--against compares two runs" in error["what"]
    error = refused(2, "eval", "runs/a", "--tasks", "arc_easy", "--require", "facts>=0.6")
    assert "--require is about our own questions" in error["what"]


@pytest.mark.parametrize("command", ["show", "report", "merge", "verify", "chat", "eval"])
def test_a_missing_argument_is_a_usage_error(command: str) -> None:
    assert "Missing argument" in refused(2, command)["what"]


def test_an_unknown_command_is_a_usage_error() -> None:
    assert "plann" in refused(2, "plann")["what"]


# -- exit code 1: refused or failed --------------------------------------------------------------


def data_error(job: Path, content: str) -> dict[str, Any]:
    (job.parent / "rows.jsonl").write_text(content)
    return refused(1, "plan", job)


GOOD = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GOOD + "{nonsense\n", "rows.jsonl:2: "),
        ("", "rows.jsonl"),
        ("\n\n", "rows.jsonl"),
        (GOOD * 3 + '{"messages": [{"role": "user", "content": "q"}]}\n', "rows.jsonl:4: "),
    ],
    ids=["malformed", "empty", "blank", "no assistant turn"],
)
def test_bad_data_is_refused_with_its_line(job: Path, content: str, said: str) -> None:
    error = data_error(job, content)
    assert error["kind"] == "DataError" and said in error["what"]


def test_a_model_without_a_tokenizer_is_refused(job: Path, here: Path, tiny: Path) -> None:
    bare = here / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((tiny / name).read_bytes())
    error = refused(1, "plan", job, "--model", bare)
    assert error["kind"] == "ModelError" and "tokenizer.json" in error["what"]
    assert refused(1, "plan", job, "--model", "embeded")["fix"] == "did you mean `embedded`?"


def test_a_folder_in_use_is_refused(job: Path, here: Path) -> None:
    (here / "out").mkdir()
    (here / "out" / "thesis.txt").write_text("mine")
    for command in ("plan", "train"):
        assert "already in use" in refused(1, command, job, "--out", here / "out")["what"]
    assert (here / "out" / "thesis.txt").read_text() == "mine"


def test_planning_into_the_folder_of_the_job_does_not_write_over_it(here: Path, tiny: Path) -> None:
    text = f"goal: task # mine\nmodel: {tiny}\ndata: {{examples: 100, tokens_per_example: 50}}\nhardware: cpu\n"
    (here / "job.yaml").write_text(text)
    (here / "only").mkdir()
    path = (here / "job.yaml").rename(here / "only" / "job.yaml")
    assert "already in use" in refused(1, "plan", path, "--out", here / "only")["what"]
    assert path.read_text() == text


def test_too_small_a_disk_is_refused_before_the_first_byte(
    job: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rankwise import files

    free = types.SimpleNamespace(total=10, used=9, free=1)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: free)
    error = refused(1, "train", job, "--out", here / "out")
    assert error["kind"] == "SpaceError" and not (here / "out").exists()


def test_a_plan_is_not_trained_with_other_options(job: Path, here: Path) -> None:
    assert run("plan", job, "--out", here / "out").exit_code == 0
    error = refused(2, "train", here / "out" / "plan.json", "--seed", 4)
    assert "train.seed would change it" in error["what"]


def test_a_stale_plan_is_refused_and_says_what_changed(job: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("plan", job, "--out", here / "out").exit_code == 0
    rows = job.parent / "rows.jsonl"
    before = rows.read_text()
    rows.write_text(before + GOOD)
    assert "rows.jsonl changed" in refused(1, "train", here / "out" / "plan.json", "--out", here / "new")["what"]
    rows.write_text(before)
    on(monkeypatch, laptop(memory_bytes=32 * GB))
    error = refused(1, "train", here / "out")
    assert "the device changed" in error["what"] and "plan again" in error["fix"]


def test_a_plan_for_several_nodes_is_refused_rather_than_trained_on_one(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, laptop(count=2))
    monkeypatch.delenv("PET_NNODES", raising=False)
    verdict = document(run("plan", job, "--nodes", 2, "--json"))["verdict"]
    assert (verdict["parallel"], verdict["executable"]) == ("ddp", True)
    error = refused(1, "train", job, "--nodes", 2)
    assert "this plan is for 2 nodes, and nothing says which of them this is" in error["what"]
    assert "PET_NODE_RANK" in error["expected"]


def test_described_data_can_be_planned_but_not_trained(here: Path, tiny: Path) -> None:
    options = ["--goal", "task", "--model", tiny, "--examples", 1000, "--tokens-per-example", 60, "--gpu", "cpu"]
    assert document(run("plan", *options, "--json"))["verdict"]["confidence"] == "low"
    (here / "job.yaml").write_text(
        f"goal: task\nmodel: {tiny}\ndata: {{examples: 1000, tokens_per_example: 60}}\nhardware: cpu\n"
    )
    assert "describes its data" in refused(1, "train", here / "job.yaml")["what"]


@pytest.mark.parametrize("command", ["show", "report", "merge", "verify", "chat", "eval"])
def test_a_run_that_is_not_there_is_refused(command: str, here: Path) -> None:
    assert "there is no run nowhere" in refused(1, command, "nowhere")["what"]
    (here / "empty").mkdir()
    assert "is not a run folder" in refused(1, command, "empty")["what"]


def test_resuming_needs_a_run_that_can_be_resumed(here: Path) -> None:
    assert "can be resumed" in refused(1, "train", "--resume")["what"]


# -- looking at runs -----------------------------------------------------------------------------


def _made(folder: Path, done: bool) -> Path:
    """A run folder, trained or only planned."""
    run = Run(folder)
    plan = builders.plan()
    run.begin(plan)
    if done:
        from rankwise.files import write_record
        from rankwise.watch.evidence import summarise

        for event in whole_run():
            run.append(event)
        write_record(run.evidence_path, summarise(plan, whole_run()))
    return folder


def test_runs_lists_what_there_is(here: Path) -> None:
    assert document(run("runs", "--json")) == []
    _made(here / "runs" / "a", True)
    _made(here / "runs" / "b", False)
    (here / "runs" / "c").mkdir()
    (here / "runs" / "c" / "plan.json").write_text("{")
    found = {Path(r["run"]).name: r for r in document(run("runs", "--json"))}
    assert {n: r["state"] for n, r in found.items()} == {"a": "finished", "b": "planned", "c": "damaged"}
    assert found["a"]["best_validation_loss"] == 0.1 and found["a"]["proven"] is False
    assert run("runs").exit_code == 0 and "finished" in run("runs").stdout


def test_show_names_verdict_losses_and_state(here: Path) -> None:
    folder = _made(here / "runs" / "a", True)
    shown = document(run("show", "a", "--json"))
    assert shown == document(run("show", folder, "--json")) | {"run": "runs/a"}
    assert (shown["state"], shown["steps"], shown["losses"]["base_validation_loss"]) == ("finished", 20, 2.5)
    assert shown["verdict"]["method"] == "lora" and shown["artifact"] is None and shown["verification"] is None
    assert run("show", "a").exit_code == 0


def test_report_writes_the_page_from_the_folder_alone(here: Path) -> None:
    folder = _made(here / "runs" / "a", True)
    said = document(run("report", folder, "--json"))
    page = folder / "report.html"
    assert said == {"report": str(page), "bytes": page.stat().st_size}


@pytest.mark.parametrize("command", ["merge", "verify", "chat", "eval"])
def test_an_untrained_run_cannot_be_used(command: str, here: Path) -> None:
    folder = _made(here / "runs" / "a", False)
    error = refused(1, command, folder, *(["--prompt", "hi"] if command == "chat" else []))
    assert error["what"] == f"{folder} is planned, not finished"


def test_a_damaged_run_is_named(here: Path) -> None:
    folder = _made(here / "runs" / "a", False)
    (folder / "plan.json").write_text("{")
    assert "plan.json is damaged" in refused(1, "show", folder)["what"]


# -- the face itself -----------------------------------------------------------------------------


def test_every_command_has_json_help_and_an_example() -> None:
    for name in COMMANDS:
        text = run(name, "--help").stdout
        assert "--json" in text and "rankwise " in text
        assert "--debug" in text


def test_help_names_every_command() -> None:
    text = run("--help").stdout
    assert all(f" {name} " in text for name in COMMANDS)


def test_an_internal_error_is_one_sentence_unless_debug_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(api, "runs", broken)
    error = refused(1, "runs")
    assert error["what"] == "internal error: ZeroDivisionError: division by zero" and "--debug" in error["fix"]
    assert isinstance(run("runs", "--debug").exception, ZeroDivisionError)


def test_ctrl_c_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "runs", interrupted)
    assert refused(1, "runs")["kind"] == "Interrupted"
