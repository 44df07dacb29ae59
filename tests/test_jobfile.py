"""A job file becomes a Job, or one error with the line and the nearest valid key. Exit code 2."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankwise.errors import JobError
from rankwise.jobfile import read_job
from rankwise.methods import METHODS
from rankwise.records import Job
from rankwise.store import job_yaml
from tests.builders import write_job

BASE = "goal: task\nmodel: embedded\ndata: {train: rows.jsonl}\n"  # three lines; what a test adds starts on line 4


def read(path: Path | None, **options: Any) -> Job:
    return read_job(path, {k.replace("__", "."): v for k, v in options.items()}, METHODS)


def refusal(folder: Path, text: str, **options: Any) -> JobError:
    """The error of a job file; every one has exit code 2 and starts where the fault is."""
    with pytest.raises(JobError) as caught:
        read(write_job(folder, text), **options)
    assert caught.value.exit_code == 2
    return caught.value


def test_a_small_job_is_small(tmp_path: Path) -> None:
    job = read(write_job(tmp_path / "clinic"))
    assert (job.goal, job.model, job.name) == ("task", "embedded", "clinic")
    assert job.data.train == (tmp_path / "clinic" / "rows.jsonl").resolve()
    assert job.method is None and job.variants == 1 and job.data.validation == 0.1


EXAMPLE = """
goal: instruction            # instruction | knowledge | task | unsure (then `diagnose` measures it)
model: embedded              # hub id | local folder | embedded | an architecture from `rankwise models`
data:
  train: clinic/train.jsonl  # messages | alpaca | sharegpt | prompt/completion | text
  validation: 0.1            # share or path
  general: {path: general.jsonl, share: 0.05}   # replay, share of *target tokens*
  facts: clinic/facts.jsonl  # closed-book probes: question, answer[, choices]
hardware: {gpu: A100-80GB, count: 2, nodes: 1}  # or: cpu
budget: {usd: 500, hours: 24}
method: null                 # force one
variants: 5                  # tenants that each get their own model
forgetting: {budget_nats: 0.03, action: warn, replay_allowed: true}
retrieval: possible          # possible | no
format: {json_schema: answer.schema.json}       # or regex
serving: {engine: vllm}
train: {num_train_epochs: 3, max_length: 2048, on_long: drop, seed: 0, report_to: none}
"""


def test_the_example_of_the_design_is_a_job(tmp_path: Path) -> None:
    (tmp_path / "clinic").mkdir()
    for name in ("clinic/train.jsonl", "clinic/facts.jsonl", "general.jsonl", "answer.schema.json"):
        (tmp_path / name).write_text("{}\n")
    job = read(write_job(tmp_path, EXAMPLE))
    assert (job.hardware.gpu, job.hardware.count, job.budget.usd, job.variants) == ("A100-80GB", 2, 500, 5)
    assert job.data.general and job.data.general.path == (tmp_path / "general.jsonl").resolve()
    assert job.format and job.format.json_schema == (tmp_path / "answer.schema.json").resolve()
    assert (job.serving.engine, job.retrieval, job.train.on_long, job.train.seed) == ("vllm", "possible", "drop", 0)


@pytest.mark.parametrize(("said", "read_as"), [("no", "no"), ("'no'", "no"), ("possible", "possible"), ("null", None)])
def test_a_bare_no_to_retrieval_is_no(tmp_path: Path, said: str, read_as: str | None) -> None:
    job = read(write_job(tmp_path, f"goal: knowledge\nmodel: embedded\ndata: {{examples: 5}}\nretrieval: {said}\n"))
    assert job.retrieval == read_as


UNKNOWN = [
    ("varaints: 2", "varaints", "variants"),
    ("modle: x", "modle", "model"),
    ("hardware: {gpuu: cpu}", "hardware.gpuu", "gpu"),
    ("budget: {usdd: 1}", "budget.usdd", "usd"),
    ("method: {name: lora, lora_alfa: 3}", "method.lora_alfa", "lora_alpha"),
    ("forgetting: {budget_nat: 1}", "forgetting.budget_nat", "budget_nats"),
    ("format: {regexp: x}", "format.regexp", "regex"),
    ("serving: {engin: vllm}", "serving.engin", "engine"),
    ("train: {learning_rat: 1}", "train.learning_rat", "learning_rate"),
    ("train:\n  seed: 1\n  max_lenght: 3", "train.max_lenght", "max_length"),
]


@pytest.mark.parametrize(("text", "key", "nearest"), UNKNOWN, ids=[key for _, key, _ in UNKNOWN])
def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_key(
    tmp_path: Path, text: str, key: str, nearest: str
) -> None:
    error = refusal(tmp_path, BASE + text + "\n")
    line = 4 + text.count("\n")
    assert error.what.splitlines()[0] == f"{tmp_path / 'job.yaml'}:{line}: unknown key {key}"
    assert error.fix == f"did you mean {nearest}?"
    assert nearest in error.expected


@pytest.mark.parametrize(
    ("data", "key", "nearest"),
    [
        ("{train: rows.jsonl, validaton: 0.2}", "data.validaton", "validation"),
        ("{train: rows.jsonl, general: {path: rows.jsonl, shar: 0.1}}", "data.general.shar", "share"),
    ],
)
def test_an_unknown_key_below_data_is_refused(tmp_path: Path, data: str, key: str, nearest: str) -> None:
    error = refusal(tmp_path, f"goal: task\nmodel: embedded\ndata: {data}\n")
    assert f"job.yaml:3: unknown key {key}" in error.what and error.fix == f"did you mean {nearest}?"


def test_a_key_like_no_other_is_to_be_removed(tmp_path: Path) -> None:
    assert refusal(tmp_path, BASE + "qqqq: 1\n").fix == "remove it"


def test_a_mistyped_key_is_named_before_the_key_that_it_leaves_missing(tmp_path: Path) -> None:
    error = refusal(tmp_path, BASE.replace("goal", "gaol"))
    assert error.what.startswith(f"{tmp_path / 'job.yaml'}:1: unknown key gaol")
    assert error.fix == "did you mean goal?" and "goal is missing" in error.what


def test_all_faults_are_told_each_with_its_hint(tmp_path: Path) -> None:
    error = refusal(tmp_path, BASE + "varaints: 2\nhardware: {gpuu: x}\n")
    assert "job.yaml:5: unknown key hardware.gpuu\n" in error.what and error.fix == "did you mean gpu?"
    assert "job.yaml:4: unknown key varaints (did you mean variants?)" in error.what


@pytest.mark.parametrize("text", ["goal: knowledge\n", "train: {seed: 1, seed: 2}\n", "train:\n  seed: 1\n  seed: 2\n"])
def test_a_key_given_twice_is_refused(tmp_path: Path, text: str) -> None:
    error = refusal(tmp_path, BASE + text)
    assert f"job.yaml:{4 + max(0, text.count(chr(10)) - 1)}: " in error.what and "is given twice" in error.what


@pytest.mark.parametrize("text", ["method: lroa", "method: {name: lroa}", "method:\n  r: 4\n  name: lroa"])
def test_a_mistyped_method_is_refused_with_the_nearest(tmp_path: Path, text: str) -> None:
    error = refusal(tmp_path, BASE + text + "\n")
    assert f"job.yaml:{4 + text.count(chr(10))}: there is no method 'lroa'" in error.what
    assert error.fix == "did you mean lora?" and "one of bottleneck, dora, full, ia3, lora, " in error.expected


def test_a_mistyped_method_from_an_option_names_the_option(tmp_path: Path) -> None:
    assert refusal(tmp_path, BASE, method__name="lroa").what.startswith("option method.name: ")
    assert refusal(tmp_path, BASE + "method: lora\n", method__name="lroa").what.startswith("option method.name: ")


VALUES = [
    ("method: {name: lora, r: 0}", "method.r is 0", "greater than or equal to 1"),
    ("method: {name: lora, r: 2.5}", "method.r is 2.5", "integer"),
    ("method: {name: lora, lora_dropout: 1}", "method.lora_dropout is 1", "less than 1"),
    ("method: {name: lora, target_modules: 5}", "method.target_modules is 5", "string"),
    ("method: [lora]", "method is ['lora']", "dictionary"),
    ("budget: {usd: -1}", "budget.usd is -1", "greater than 0"),
    ("budget: {hours: 0}", "budget.hours is 0", "greater than 0"),
    ("budget: {hours: ten}", "budget.hours is 'ten'", "number"),
    ("hardware: {count: 0}", "hardware.count is 0", "greater than or equal to 1"),
    ("hardware: 5", "hardware is 5", "dictionary"),
    ("variants: 0", "variants is 0", "greater than or equal to 1"),
    ("forgetting: {budget_nats: .nan}", "forgetting.budget_nats is nan", "finite"),
    ("forgetting: {action: stopp}", "forgetting.action is 'stopp'", ""),
    ("retrieval: perhaps", "retrieval is 'perhaps'", ""),
    ("retrieval: yes", "retrieval is True", ""),
    ("train: {learning_rate: .inf}", "train.learning_rate is inf", "finite"),
    ("train: {seed: -1}", "train.seed is -1", "greater than or equal to 0"),
    ("train: {on_long: dorp}", "train.on_long is 'dorp'", ""),
    ("train: {report_to: weights-and-biases}", "train.report_to is 'weights-and-biases'", ""),
    ("train: hello", "train is 'hello'", "dictionary"),
    ("format: {regex: '('}", "format.regex is '('", "not a regular expression"),
    ("format: {}", "format is {}", "give either json_schema or regex"),
    ("format: {json_schema: rows.jsonl, regex: x}", "format is", "give either json_schema or regex"),
    ("name: ../up", "name is '../up'", "pattern"),
    ("version: 2", "version is 2", ""),
]


@pytest.mark.parametrize(("text", "said", "why"), VALUES, ids=[text for text, *_ in VALUES])
def test_a_wrong_value_is_refused_with_its_line(tmp_path: Path, text: str, said: str, why: str) -> None:
    error = refusal(tmp_path, BASE + text + "\n")
    assert error.what.startswith(f"{tmp_path / 'job.yaml'}:4: {said}") and why in error.what
    assert "\nalso" not in error.what


DATA = [
    ("{train: rows.jsonl, validation: 2}", "a share lies between 0 and 1"),
    ("{train: rows.jsonl, validation: 0}", "a share lies between 0 and 1"),
    ("{train: rows.jsonl, validation: .nan}", "data.validation is nan"),
    ("{train: rows.jsonl, general: {path: rows.jsonl, share: 1}}", "data.general.share is 1"),
    ("{train: rows.jsonl, general: {path: rows.jsonl, share: -0.1}}", "data.general.share is -0.1"),
    ("{train: rows.jsonl, examples: 5}", "describe data that is not there yet"),
    ("{tokens_per_example: 5}", "give `train` (a file), or describe the data"),
    ("{examples: 0, tokens_per_example: 5}", "data.examples is 0"),
    ("{}", "give `train` (a file)"),
]


@pytest.mark.parametrize(("data", "why"), DATA, ids=[d for d, _ in DATA])
def test_a_share_out_of_range_or_data_said_twice_is_refused(tmp_path: Path, data: str, why: str) -> None:
    error = refusal(tmp_path, f"goal: task\nmodel: embedded\ndata: {data}\n")
    assert error.what.startswith(f"{tmp_path / 'job.yaml'}:3: data") and why in error.what


@pytest.mark.parametrize("key", ["goal", "model", "data"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    text = "".join(line + "\n" for line in BASE.splitlines() if not line.startswith(key))
    error = refusal(tmp_path, text)
    assert f"{key} is missing" in error.what and error.fix == f"add `{key}: …`"


def test_a_goal_that_is_none_is_refused_with_the_nearest(tmp_path: Path) -> None:
    error = refusal(tmp_path, BASE.replace("task", "instructoin"))
    assert "job.yaml:1: goal is 'instructoin'" in error.what and error.fix == "did you mean instruction?"


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("data: {train: row.jsonl}", 3, "data.train"),
        ("data:\n  train: rows.jsonl\n  validation: row.jsonl", 5, "data.validation"),
        ("data:\n  train: rows.jsonl\n  facts: row.jsonl", 5, "data.facts"),
        ("data:\n  train: rows.jsonl\n  general: {path: row.jsonl}", 5, "data.general.path"),
        ("data: {train: rows.jsonl}\nformat: {json_schema: row.jsonl}", 4, "format.json_schema"),
    ],
)
def test_a_missing_data_file_is_refused_with_line_and_nearest_name(
    tmp_path: Path, text: str, line: int, key: str
) -> None:
    error = refusal(tmp_path, f"goal: task\nmodel: embedded\n{text}\n")
    assert error.what == f"{tmp_path / 'job.yaml'}:{line}: {key}: no such file: row.jsonl"
    assert error.fix == "did you mean rows.jsonl?"


def test_a_folder_may_hold_rows_but_is_no_schema(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    read_ = read(write_job(tmp_path, BASE.replace("rows.jsonl", "rows")))
    assert read_.data.train == (tmp_path / "rows").resolve()
    schema = refusal(tmp_path, BASE + "format: {json_schema: rows}\n")
    assert "format.json_schema: no such file: rows" in schema.what and schema.expected == "a file that exists"


def test_a_split_of_a_folder_is_taken_from_the_jobs_folder(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    job = read(write_job(tmp_path, BASE.replace("rows.jsonl", "rows:test")))
    assert job.data.train == Path(f"{(tmp_path / 'rows').resolve()}:test")


@pytest.mark.parametrize("name", ["org/name", "org/name:test", "org/name-v1.5"])
def test_a_dataset_of_the_hub_stays_as_it_is_written(tmp_path: Path, name: str) -> None:
    data = f"{{train: '{name}', validation: '{name}', facts: '{name}', general: {{path: '{name}'}}}}"
    job = read(write_job(tmp_path, f"goal: task\nmodel: embedded\ndata: {data}\n"))
    found = [job.data.train, job.data.validation, job.data.facts, job.data.general and job.data.general.path]
    assert found == [Path(name)] * 4
    again = tmp_path / "again.yaml"
    again.write_text(job_yaml(job))
    assert read(again).model_copy(update={"name": job.name}) == job
    assert read(again).model_copy(update={"name": job.name}).content_hash() == job.content_hash()


@pytest.mark.parametrize("name", ["org/rows.jsonl", "org/rows.parquet", "rows", "org/inner/rows"])
def test_a_missing_file_is_not_taken_for_a_dataset(tmp_path: Path, name: str) -> None:
    error = refusal(tmp_path, BASE.replace("rows.jsonl", name))
    assert f"no such file: {name}" in error.what and "org/name:split" in error.expected


def test_a_slip_in_a_folder_that_is_here_is_not_taken_for_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "clinic" / "training").mkdir(parents=True)
    assert refusal(tmp_path, BASE.replace("rows.jsonl", "clinic/trainig")).fix == "did you mean clinic/training?"


def test_a_missing_file_given_by_an_option_names_the_option(tmp_path: Path) -> None:
    assert refusal(tmp_path, BASE, data__train="row.jsonl").what.startswith("option data.train: ")


def test_paths_are_taken_from_the_jobs_folder_then_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_job(tmp_path / "there", BASE.replace("rows.jsonl", "other.jsonl"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "other.jsonl").write_text("{}")
    assert read(path).data.train == (here / "other.jsonl").resolve()
    (tmp_path / "there" / "other.jsonl").write_text("{}")
    assert read(path).data.train == (tmp_path / "there" / "other.jsonl").resolve()
    assert read(Path("../there/job.yaml")).data.train == (tmp_path / "there" / "other.jsonl").resolve()


def test_a_model_folder_is_found_from_the_job_and_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_job(tmp_path / "there", BASE.replace("embedded", "tiny"))
    (tmp_path / "here" / "tiny").mkdir(parents=True)
    (tmp_path / "here" / "tiny" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "here")
    assert read(path).model == str((tmp_path / "here" / "tiny").resolve())
    (tmp_path / "there" / "tiny").mkdir()
    (tmp_path / "there" / "tiny" / "config.json").write_text("{}")
    assert read(path).model == str((tmp_path / "there" / "tiny").resolve())


def test_options_alone_are_a_job() -> None:
    job = read(None, goal="task", model="embedded", data__examples=100, data__tokens_per_example=50)
    assert (job.name, job.data.examples, job.data.train) == ("job", 100, None)


def test_options_win_over_the_file_and_keep_the_rest(tmp_path: Path) -> None:
    path = write_job(tmp_path, BASE + "train: {seed: 1, max_steps: 5}\nbudget: {usd: 3}\n")
    job = read(path, train__seed=9, budget__usd=None, budget__hours=2)
    assert (job.train.seed, job.train.max_steps, job.budget.usd, job.budget.hours) == (9, 5, 3, 2)


def test_options_lie_over_the_short_forms(tmp_path: Path) -> None:
    path = write_job(tmp_path, BASE + "hardware: cpu\nmethod: lora\n")
    job = read(path, hardware__count=2, method__r=4)
    assert (job.hardware.gpu, job.hardware.count) == ("cpu", 2)
    assert job.method and (job.method.name, job.method.r) == ("lora", 4)
    other = read(path, method__name="full", hardware__gpu="T4")
    assert other.method and other.method.name == "full" and other.hardware.gpu == "T4"


def test_options_lie_over_null_and_nothing(tmp_path: Path) -> None:
    job = read(write_job(tmp_path, BASE + "method: null\n"), method__name="qlora", data__general__path="rows.jsonl")
    assert job.method and job.method.name == "qlora"
    assert job.data.general and job.data.general.path.name == "rows.jsonl"


@pytest.mark.parametrize("block", ["hardware: 5", "hardware: [a]", "train: hello", "data: 3"])
def test_an_option_over_a_block_that_is_none_still_ends_in_a_clear_error(tmp_path: Path, block: str) -> None:
    text = BASE.replace("data: {train: rows.jsonl}", "") if block.startswith("data") else BASE
    error = refusal(tmp_path, text + block + "\n", hardware__count=2, train__seed=1, data__validation=0.2)
    assert f": {block.split(':')[0]} is " in error.what


def test_a_wrong_option_names_itself_not_the_file(tmp_path: Path) -> None:
    error = refusal(tmp_path, BASE + "method: {name: lora, r: 4}\n", method__r=0)
    assert error.what.startswith("option method.r: method.r is 0")


def test_an_option_that_was_not_given_is_not_blamed(tmp_path: Path) -> None:
    assert "job.yaml:4" in refusal(tmp_path, BASE + "variants: 0\n", variants=None).what


BROKEN = {
    "empty": (b"", "a job is a mapping of keys"),
    "comment only": (b"# nothing\n", "a job is a mapping of keys"),
    "list": (b"- goal\n- model\n", "a job is a mapping of keys"),
    "word": (b"goal\n", "a job is a mapping of keys"),
    "latin-1": ("goal: täsk\n".encode("latin-1"), "not UTF-8 text"),
    "utf-16": ("goal: task\n".encode("utf-16"), "not UTF-8 text"),
    "nul": (b"goal: t\x00sk\n", "not valid YAML"),
    "open bracket": (b"goal: task\ndata: [\n", ":3: not valid YAML"),
    "tab": (b"data:\n\ttrain: x\n", ":2: not valid YAML"),
    "two documents": (b"goal: task\n---\ngoal: task\n", ":2: not valid YAML"),
    "python object": (b"goal: !!python/object/apply:os.getcwd []\n", ":1: not valid YAML"),
    "circle": (b"data: &d {general: *d}\n", "nested without end"),
}


@pytest.mark.parametrize(("content", "why"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_job_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    with pytest.raises(JobError) as caught:
        read(path)
    assert why in caught.value.what and str(path) in caught.value.what and caught.value.exit_code == 2


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = write_job(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(path).goal == "task"


def test_a_missing_job_file_offers_the_nearest(tmp_path: Path) -> None:
    write_job(tmp_path)
    with pytest.raises(JobError, match="no such job file") as caught:
        read(tmp_path / "jbo.yaml")
    assert caught.value.fix == f"did you mean {tmp_path / 'job.yaml'}?"


@pytest.mark.parametrize(
    ("file", "name"), [("my job.yaml", "my-job"), ("ä.yaml", "job"), ("_x.yaml", "x"), ("clinic-2.yaml", "clinic-2")]
)
def test_a_name_from_a_file_is_one_that_a_job_may_have(tmp_path: Path, file: str, name: str) -> None:
    path = write_job(tmp_path).rename(tmp_path / file)
    job = read(path)
    assert job.name == name
    assert Job.model_validate(job.model_dump(mode="json")) == job


def test_a_job_written_to_a_run_folder_reads_as_the_same_job(tmp_path: Path) -> None:
    text = "method: {name: lora, r: 4, target_modules: [q_proj, v_proj]}\nhardware: cpu\nformat: {regex: 'a\\d'}\n"
    job = read(write_job(tmp_path, BASE + text + "train: {seed: 0, learning_rate: 1.0e-4}\n"))
    (tmp_path / "again.yaml").write_text(job_yaml(job))
    assert read(tmp_path / "again.yaml") == job


FULL: dict[str, Any] = {
    "goal": "instruction",
    "model": "embedded",
    "data": {"train": "rows.jsonl", "validation": 0.2, "general": {"path": "rows.jsonl", "share": 0.1}},
    "hardware": {"gpu": "cpu", "count": 1},
    "method": {"name": "lora", "r": 4, "lora_alpha": 8},
    "forgetting": {"budget_nats": 0.1, "action": "warn"},
    "train": {"seed": 1, "max_steps": 3, "learning_rate": 0.001},
}


def _shuffled(value: Any, order: random.Random) -> Any:
    if not isinstance(value, dict):
        return value
    keys = order.sample(list(value), len(value))
    return {key: _shuffled(value[key], order) for key in keys}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 10**6))
def test_the_order_of_keys_in_the_file_does_not_change_the_job(tmp_path: Path, seed: int) -> None:
    first = read(write_job(tmp_path, yaml.safe_dump(FULL, sort_keys=False)))
    again = read(write_job(tmp_path, yaml.safe_dump(_shuffled(FULL, random.Random(seed)), sort_keys=False)))
    assert again.content_hash() == first.content_hash()


def test_json_is_yaml_too(tmp_path: Path) -> None:
    assert read(write_job(tmp_path, json.dumps(FULL))).train.seed == 1
