"""The files of each target: on file as they are, and read by the target's own library."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rankwise.cli.launching import Target
from rankwise.errors import PlanError, UsageError
from rankwise.launch.order import Files, Order, Wishes, order
from rankwise.launch.targets import TARGETS
from rankwise.observe.gpus import known_gpus
from rankwise.records.job import GeneralData
from tests.launch.orders import BYTES, PLAN, SHARED, double, hub, planned, single

GOLDEN = Path(__file__).parents[1] / "golden" / "launch"
Validate = Callable[[str, Path], str]


def made(target: str, nodes: int) -> Files:
    wanted: dict[str, str] = {} if target in ("kubernetes", "skypilot") else {"shared": SHARED}
    if target == "skypilot" and nodes > 1:
        wanted = {"shared": "team-volume"}
    return TARGETS[target]((single if nodes == 1 else double)(**wanted))


EVERY = [(target, nodes) for target in TARGETS for nodes in (1, 2)]
every_case = pytest.mark.parametrize(("target", "nodes"), EVERY)


def written(folder: Path, files: Files) -> Path:
    for name, text in files.texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


# -- golden files ----------------------------------------------------------------------------------


@every_case
def test_the_files_are_those_on_file(target: str, nodes: int) -> None:
    files, folder = made(target, nodes), GOLDEN / f"{target}-{nodes}"
    texts = {**files.texts, "start.txt": "\n".join([files.start, *files.notes]) + "\n"}
    if os.environ.get("RANKWISE_UPDATE_GOLDEN"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    assert {p.name: p.read_text(encoding="utf-8") for p in folder.iterdir()} == texts


def test_every_target_is_an_option_and_on_file() -> None:
    assert [t.value for t in Target] == list(TARGETS)
    assert {p.name for p in GOLDEN.iterdir()} == {f"{target}-{nodes}" for target, nodes in EVERY}


# -- what the targets' own libraries say -----------------------------------------------------------


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_train_job_is_one_of_kubeflow(nodes: int, tmp_path: Path, validate: Validate) -> None:
    folder = written(tmp_path, made("kubernetes", nodes))
    validate("trainjob", folder / "trainjob.yaml")
    validate("volume", folder / "volume.yaml")
    (pod,) = re.findall(r"<<'EOF'\n(.*)EOF", (folder / "upload.sh").read_text(), re.DOTALL)
    (folder / "pod.yaml").write_text(pod)
    validate("pod", folder / "pod.yaml")


def test_the_check_of_a_train_job_would_notice_a_key_that_is_none(tmp_path: Path, validate: Validate) -> None:
    text = made("kubernetes", 1).texts["trainjob.yaml"]
    (tmp_path / "wrong.yaml").write_text(text.replace("numNodes", "numberOfNodes"))
    with pytest.raises(AssertionError, match="numberOfNodes"):
        validate("trainjob", tmp_path / "wrong.yaml")


@pytest.mark.parametrize(
    ("nodes", "shared", "said"),
    [(1, None, "1 {'A100-80GB': 1}"), (1, "s3://team", "1 {'A100-80GB': 1}"), (2, "volume", "2 {'A100-80GB': 4}")],
)
def test_a_task_is_one_of_skypilot(
    nodes: int, shared: str | None, said: str, tmp_path: Path, validate: Validate
) -> None:
    wanted = (single if nodes == 1 else double)(shared=shared)
    text = TARGETS["skypilot"](wanted).texts["task.yaml"]
    for path in (wanted.plan, *wanted.needs):  # SkyPilot looks for what it is to copy
        (tmp_path / path.name).touch()
        text = text.replace(f": {path}\n", f": {tmp_path / path.name}\n")
    (tmp_path / "task.yaml").write_text(text)
    assert f"{wanted.name} {said}" in validate("skypilot", tmp_path / "task.yaml")


@pytest.mark.parametrize(
    ("nodes", "said"),
    [(1, "1 {'CPU': 8.0, 'GPU': 1.0} PACK"), (2, "2 {'CPU': 64.0, 'GPU': 8.0} STRICT_SPREAD")],
)
def test_a_script_is_one_of_ray(nodes: int, said: str, tmp_path: Path, validate: Validate) -> None:
    text = made("ray", nodes).texts["train_on_ray.py"].replace(SHARED, str(tmp_path))
    (tmp_path / "train_on_ray.py").write_text(text)
    assert validate("ray", tmp_path / "train_on_ray.py").splitlines()[-1] == said


@every_case
def test_a_script_of_shell_has_no_fault(target: str, nodes: int, tmp_path: Path, validators: Path) -> None:
    scripts = shell_scripts(made(target, nodes), tmp_path)
    for path in scripts:
        done = subprocess.run(
            [validators / "shellcheck", "--shell=bash", "--exclude=SC1091", path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert bool(scripts) == (target != "ray")


@every_case
def test_shell_and_python_parse(target: str, nodes: int, tmp_path: Path) -> None:
    files = made(target, nodes)
    for path in shell_scripts(files, tmp_path):
        subprocess.run(["bash", "-n", path], check=True)
    for name, text in files.texts.items():
        if name.endswith(".py"):
            compile(text, name, "exec")


def shell_scripts(files: Files, folder: Path) -> list[Path]:
    """Each script of the files, also those inside YAML, as a file."""
    found = {name: text for name, text in files.texts.items() if name.endswith((".sh", ".sbatch"))}
    for name, text in files.texts.items():
        document = yaml.safe_load(text) if name.endswith(".yaml") else {}
        found |= {f"{name}-{key}": document[key] for key in ("setup", "run") if key in document}
        if document.get("kind") == "TrainJob":
            found[f"{name}-command"] = document["spec"]["trainer"]["command"][-1]
    for name, text in found.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in found]


# -- what is asked for -----------------------------------------------------------------------------


def test_every_gpu_that_is_named_for_a_target_is_one_of_the_table() -> None:
    import tomllib

    table = tomllib.loads((Path(order.__code__.co_filename).with_name("accelerators.toml")).read_text())
    assert set(table) <= {gpu["name"] for gpu in known_gpus()} and len(table) > 25


@pytest.mark.parametrize("target", TARGETS)
def test_a_token_is_named_and_never_written(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_notforyou")
    files = TARGETS[target](hub())
    everything = "\n".join([*files.texts.values(), files.start, *files.notes])
    assert "hf_notforyou" not in everything
    assert ("HF_TOKEN" in everything) == (target != "slurm")  # sbatch hands the caller's environment on


@pytest.mark.parametrize("target", TARGETS)
def test_every_node_fetches_a_base_of_the_hub_and_nothing_of_it_is_copied(target: str) -> None:
    files = TARGETS[target](hub())
    text = "\n".join(files.texts.values())
    assert "locate" in text and "org/base-1b" in text and "org/rows" not in text


def test_the_extras_and_the_version_are_the_plans() -> None:
    made_for = planned(1, 1)
    config = made_for.verdict.config
    assert config is not None
    other_config = config.model_copy(update={"deepspeed": {"zero": 3}, "save_url": "s3://team/run"})
    verdict = made_for.verdict.model_copy(update={"config": other_config})
    tracked = made_for.job.model_copy(update={"train": made_for.job.train.model_copy(update={"report_to": "wandb"})})
    other = made_for.model_copy(update={"verdict": verdict, "job": tracked, "rankwise_version": "9.8.7"})
    asked = order(other, PLAN, "A100-80GB", BYTES, Wishes(shared=SHARED))
    assert asked.requirements == ("rankwise[deepspeed,trackers]==9.8.7", "s3fs") and asked.save_url == "s3://team/run"
    assert "pip install 'rankwise[deepspeed,trackers]==9.8.7' s3fs\n" in TARGETS["slurm"](asked).texts["train.sbatch"]


def test_the_limit_is_the_upper_end_of_the_estimate() -> None:
    estimate = planned(1, 1).chosen()
    assert estimate is not None and estimate.time.interval is not None
    limit = single().limit_seconds
    assert limit is not None and 0 <= limit - estimate.time.interval[1] - 1800 < 60
    assert single(hours=1.5).limit_seconds == 5400 and "--time=0-01:30:00" in slurm_text(
        single(hours=1.5, shared=SHARED)
    )


def slurm_text(wanted: Order) -> str:
    return TARGETS["slurm"](wanted).texts["train.sbatch"]


def test_without_an_estimate_of_time_no_limit_is_made_up() -> None:
    plan = planned(1, 1)
    unknown = tuple(
        e.model_copy(update={"time": e.time.model_copy(update={"interval": None, "train_seconds": None})})
        for e in plan.candidates
    )
    asked = order(plan.model_copy(update={"candidates": unknown}), PLAN, "A100-80GB", BYTES, Wishes(shared=SHARED))
    assert asked.limit_seconds is None
    assert (
        "--time" not in slurm_text(asked) and "LIMIT_SECONDS = None" in TARGETS["ray"](asked).texts["train_on_ray.py"]
    )


def test_an_accelerator_that_is_said_goes_everywhere() -> None:
    assert "--gres=gpu:tesla:1" in slurm_text(single(accelerator="tesla", shared=SHARED))
    texts = {t: "\n".join(TARGETS[t](single(accelerator="Mine", shared=SHARED)).texts.values()) for t in TARGETS}
    assert "accelerators: Mine:1" in texts["skypilot"]
    assert "nvidia.com/gpu.product: Mine" in texts["kubernetes"]
    assert 'ACCELERATOR_TYPE = "Mine"' in texts["ray"]


# -- what is refused -------------------------------------------------------------------------------


def test_rows_that_the_base_wrote_here_have_to_be_named() -> None:
    plan = planned(1, 1)
    general = GeneralData(self_generated=64)
    job = plan.job.model_copy(update={"data": plan.job.data.model_copy(update={"general": general})})
    files = {**plan.facts.data.files, "/home/me/.cache/rankwise/replay/1.jsonl": "0"}
    seen = plan.facts.model_copy(update={"data": plan.facts.data.model_copy(update={"files": files})})
    with pytest.raises(PlanError, match="into this machine's cache") as error:
        order(plan.model_copy(update={"job": job, "facts": seen}), PLAN, "A100-80GB", BYTES, Wishes(shared=SHARED))
    assert error.value.fix.endswith("again: /home/me/.cache/rankwise/replay/1.jsonl")


def of_gpu(gpu: str | None, **wishes: str) -> Order:
    from dataclasses import replace

    return replace(single(**wishes), gpu=gpu)


def test_what_a_target_cannot_start_is_refused() -> None:
    with pytest.raises(PlanError, match="no name that we know for RTX-2080-Ti-11GB"):
        TARGETS["skypilot"](of_gpu("RTX-2080-Ti-11GB"))
    for target in ("skypilot", "kubernetes"):
        with pytest.raises(PlanError, match="for the CPU of the machine that made it"):
            TARGETS[target](of_gpu(None))
    with pytest.raises(PlanError, match="MI300X"):
        TARGETS["kubernetes"](of_gpu("MI300X-192GB"))
    with pytest.raises(UsageError, match="a bucket is none"):
        TARGETS["skypilot"](double(shared="s3://team"))
    for target in ("slurm", "ray"):
        with pytest.raises(UsageError, match="not an absolute path"):
            TARGETS[target](single(shared="runs"))
        with pytest.raises(UsageError, match="--image"):
            TARGETS[target](single(shared=SHARED, image="mine:1"))


def test_a_gpu_without_a_usual_type_is_asked_for_without_one() -> None:
    files = TARGETS["slurm"](of_gpu("RTX-2080-Ti-11GB", shared=SHARED))
    assert "--gres=gpu:1\n" in files.texts["train.sbatch"] and any("any GPU" in note for note in files.notes)


def test_a_plan_for_a_cpu_asks_slurm_and_ray_for_no_gpu() -> None:
    assert "--gres" not in slurm_text(of_gpu(None, shared=SHARED))
    assert "USE_GPU = False" in TARGETS["ray"](of_gpu(None, shared=SHARED)).texts["train_on_ray.py"]
