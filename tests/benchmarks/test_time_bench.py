"""The benchmark of time: the fit finds what made the throughput, and each figure of the result by hand."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.time import bench, compare
from benchmarks.time.cases import Case, trace_of
from benchmarks.time.compare import ENOUGH, intervals, median, metrics, pairs
from benchmarks.time.fit import LIMIT, PRIOR, SHARES, Fit, Measured, fit, throughput
from benchmarks.time.readme import readme
from benchmarks.time.rows import Row, read_rows

from rankwise.estimate.efficiency import Efficiency
from rankwise.estimate.time import passes
from rankwise.records import Buckets, DeviceFacts, PhaseWork, Product, Setup, Trace
from tests import builders

AMPERE = builders.a100()
HOPPER = builders.a100(
    name="H100",
    compute_capability=9.0,
    matmul_flops={"bf16": 989e12, "fp32": 67e12},
    bandwidth=3350e9,
    link_bytes_per_second=450e9,
)
PRIORS = Efficiency(**{name: figure for name, (figure, _) in PRIOR.items()})
TRUE = Fit(
    replace(PRIORS, products=0.6, traffic=0.85, attention=0.6, launch=1.2e-5, unpacking=0.25, step=0.03),
    {
        "ampere": {"products": 0.75, "traffic": 0.85, "attention": 0.6},
        "hopper": {"products": 0.55, "traffic": 0.75, "attention": 0.4},
    },
)
NOTHING = PhaseWork(products=(), attention_flops=0, moved_bytes=0, unpacked_bytes=0, kernels=0)


def phase(size: float, **changes: float) -> PhaseWork:
    """`size` times a mixture of a large product, a thin fp32 one, attention, traffic, unpacking and kernels."""
    made: dict[str, float] = {
        "product": 1,
        "thin": 1,
        "attention": 1,
        "traffic": 1,
        "unpacking": 0,
        "kernels": 1,
    } | changes
    return PhaseWork(
        products=(
            Product(batch=1, m=4096, n=4096, k=4096, dtype="bf16", count=50 * size * made["product"]),
            Product(batch=1, m=4096, n=16, k=4096, dtype="fp32", count=20 * size * made["thin"]),
        ),
        attention_flops=1e12 * size * made["attention"],
        moved_bytes=2e10 * size * made["traffic"],
        unpacked_bytes=1e10 * size * made["unpacking"],
        kernels=1000 * made["kernels"],
    )


MIXTURES: list[dict[str, float]] = [
    {},
    {"product": 8},
    {"product": 8, "attention": 0, "traffic": 0.2},
    {"attention": 20},
    {"traffic": 10},
    {"kernels": 60},
    {"product": 0.1, "traffic": 0.1, "attention": 0.1, "kernels": 40},
    {"unpacking": 10},
    {"unpacking": 3, "product": 3},
    {"thin": 60},
    {"product": 0.05, "traffic": 0.05, "attention": 0.05, "kernels": 0.1},  # the host around a step alone
]


def case(at: int, mixture: dict[str, float], source: str, **changes: Any) -> Case:
    trace = Trace(
        buckets=Buckets(weights=1, gradients=0, optimizer=0, activations=0, logits=0, workspace=0),
        peak_allocated=1,
        peak_reserved=1,
        peak_phase="forward",
        peak_op="aten.mm",
        resident=1,
        eval_peak=None,
        save_peak=None,
        merge_peak=None,
        trainable_params=1000,
        total_params=10_000,
        flops={},
        work={"forward": phase(1, **mixture), "backward": phase(2, **mixture), "optimizer": NOTHING, "eval": NOTHING},
        parameter_bytes=20_000,
        trained_bytes=4000,
    )
    content: dict[str, Any] = {
        "config": {"model_type": "llama"},
        "method": "lora",
        "dtype": "bf16",
        "per_device_train_batch_size": 2,
        "max_length": 2048,
        "gradient_accumulation_steps": 2,
        "device": "gpu-8.0",
    }
    row = Row(f"{source}-{at}", source, "A", 1.0, {"model": "m"}, None, "")
    return Case(row, Setup(**(content | changes)), trace, "A100-80GB", 1, 2048.0)


def measured_by(
    of: Fit, source: str, device: DeviceFacts, skew: Callable[[int], float] = lambda at: 1.0
) -> list[Measured]:
    """One row a mixture, whose throughput is that of `of`, times `skew`."""
    made = []
    for at, mixture in enumerate(MIXTURES):
        found = Measured(case(at, mixture, source), device)
        tokens = throughput(found, of)
        assert tokens is not None
        made.append(Measured(replace(found.case, row=replace(found.case.row, measured=tokens * skew(at))), device))
    return made


@pytest.fixture(scope="module")
def rows() -> list[Measured]:
    return [
        *measured_by(TRUE, "one", AMPERE),
        *measured_by(TRUE, "two", HOPPER),
        *measured_by(TRUE, "three", AMPERE, lambda at: 1.02 if at % 2 else 0.98),
    ]


@pytest.fixture(scope="module")
def found(rows: list[Measured]) -> Fit:
    return fit(rows)


# -- the fit ---------------------------------------------------------------------------------------


def test_throughput_is_tokens_of_all_devices_by_the_products_own_step() -> None:
    one = case(0, {}, "one", world_size=4, parallel="ddp")
    device = builders.a100(count=4)
    step = passes(one.trace, one.setup, device, mean_length=2048, reached=TRUE.of(device))
    assert step is not None
    assert throughput(Measured(one, device), TRUE) == pytest.approx(2 * 2 * 4 * 2048 / step.total)
    assert throughput(Measured(one, builders.a100(count=4, bandwidth=None)), TRUE) is None


def test_the_fit_predicts_what_it_was_made_from(rows: list[Measured], found: Fit) -> None:
    errors = [(throughput(row, found) or 0) / (row.case.row.measured or 1) - 1 for row in rows]
    assert max(map(abs, errors)) < 0.10
    assert median(map(abs, errors)) < 0.03
    before = [(throughput(row, Fit(PRIORS, {})) or 0) / (row.case.row.measured or 1) - 1 for row in rows]
    assert median(map(abs, before)) > 0.10  # the priors alone do not


@pytest.mark.parametrize("capability", [8.0, 9.0])
def test_the_fit_finds_the_efficiencies(found: Fit, capability: float) -> None:
    device = builders.a100(compute_capability=capability)
    fitted, true = asdict(found.of(device)), asdict(TRUE.of(device))
    for name in ("products", "traffic", "attention", "launch", "unpacking", "step"):
        assert fitted[name] == pytest.approx(true[name], rel=0.15), name
    far = [abs(fitted[n] / true[n] - 1) < abs(PRIOR[n][0] / true[n] - 1) for n in ("launch", "unpacking", "step")]
    assert all(far)


def test_what_no_row_tells_stays_at_its_prior(found: Fit) -> None:
    for name in ("link", "overlap", "gptq_unpacking"):
        assert getattr(found.every, name) == pytest.approx(PRIOR[name][0])


def test_shares_stay_below_the_peak(rows: list[Measured]) -> None:
    fast = [
        Measured(replace(r.case, row=replace(r.case.row, measured=5 * (r.case.row.measured or 0))), r.device)
        for r in rows
    ]
    made = fit(fast)
    for device in (AMPERE, HOPPER):
        assert all(0 < getattr(made.of(device), name) <= LIMIT for name in SHARES)


def test_a_large_source_does_not_drown_a_small_one() -> None:
    """50 rows of a source count sqrt(50) times one row, not 50 times."""
    slow = Fit(replace(TRUE.every, products=0.5), {})
    few = measured_by(slow, "few", AMPERE)[1:3]
    many = measured_by(Fit(replace(TRUE.every, products=0.8), {}), "many", AMPERE)[1:3] * 25
    alone = fit([*few, *many]).of(AMPERE).products
    same_source = fit([*few, *[Measured(replace(m.case, row=replace(m.case.row, source="few")), AMPERE) for m in many]])
    assert alone < same_source.of(AMPERE).products < 0.8 + 0.05


# -- out of sample ---------------------------------------------------------------------------------


def test_a_source_takes_no_part_in_its_own_prediction(rows: list[Measured], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[str]] = []

    def watched(given: list[Measured]) -> Fit:
        asked.append({row.case.row.source for row in given})
        return TRUE

    monkeypatch.setattr(compare, "fit", watched)
    assert set(compare.folds(rows)) == {"one", "two", "three"}
    assert asked == [{"two", "three"}, {"one", "two"}, {"one", "three"}]  # without one, three, two


def test_pairs_hold_both_predictions(rows: list[Measured]) -> None:
    half = Fit(replace(TRUE.every, step=1.0), TRUE.by_generation)
    lines = pairs(rows, {"one": half, "two": TRUE, "three": TRUE}, TRUE)
    assert [line["id"] for line in lines] == [row.case.row.id for row in rows]
    for line, row in zip(lines, rows, strict=True):
        assert line["predicted"] == throughput(row, half if line["source"] == "one" else TRUE)
        assert line["error"] == pytest.approx(line["predicted"] / line["measured"] - 1)
        assert line["error_in_sample"] == pytest.approx((throughput(row, TRUE) or 0) / line["measured"] - 1)
        assert (line["family"], line["gpus"]) == ("adapter", 1)
    # Hopper's rows are of one source alone; Ampere's of two.
    assert {(line["source"], line["generation_seen"]) for line in lines} == {
        ("one", True),
        ("two", False),
        ("three", True),
    }


def pair(error: float, **more: Any) -> dict[str, Any]:
    """A row that measured 100 and was predicted `error` off."""
    return {
        "id": "x",
        "source": "one",
        "grade": "A",
        "gpu": "A100-80GB",
        "gpus": 1,
        "method": "lora",
        "family": "adapter",
        "measured": 100.0,
        "predicted": 100.0 * (1 + error),
        "error": error,
        "predicted_in_sample": 100.0,
        "error_in_sample": error / 2,
        "generation": "ampere",
        "generation_seen": True,
        **more,
    }


def test_metrics_by_hand() -> None:
    found = metrics(
        [pair(-0.1), pair(0.3), pair(0.2), pair(-0.5, source="two", grade="B"), pair(0.1, source="two", grade="B")]
    )
    assert found == pytest.approx(
        {
            "median_abs_error_out_of_sample": 0.2,
            "rows": 5,
            "median_abs_error_in_sample": 0.1,
            "p90_abs_error_out_of_sample": 0.3 + 0.6 * 0.2,
            "median_error_out_of_sample": 0.1,
            "median_of_source_medians": (0.2 + 0.3) / 2,
            "median_abs_error_out_of_sample_a": 0.2,
            "rows_a": 3,
            "median_abs_error_out_of_sample_b": 0.3,
            "rows_b": 2,
        }
    )


def test_intervals_are_of_durations_and_pool_small_families() -> None:
    many = [pair(at / 100) for at in range(21)]  # throughput too high by 0 to 20 %: so much longer it takes
    few = [pair(0.0, family="full") for _ in range(ENOUGH - 1)]
    unseen = [pair(1.0, generation_seen=False)]
    found = intervals([*many, *few, *unseen])
    assert found["seen"]["adapter"] == (pytest.approx(1.01), pytest.approx(1.19), 21)
    assert set(found["seen"]) == {"any", "adapter"} and found["seen"]["any"][2] == 21 + ENOUGH - 1
    assert found["unseen"] == {"any": (2.0, 2.0, 1)}
    assert intervals(many)["unseen"]["any"] == (0.5, 2.0, 0)  # a factor of two where nothing was seen


# -- from options to a result ----------------------------------------------------------------------

OPTIONS: dict[str, Any] = {
    "model": "smollm2-135m",
    "method": "lora",
    "rank": 8,
    "batch": 2,
    "seq_len": 128,
    "dtype": "bf16",
    "gpu": "A100-80GB",
    "gpus": 1,
    "parallel": "none",
}


def row(name: str, measured: float = 20_000.0, **changes: Any) -> Row:
    return Row(name, "a source", "A", measured, OPTIONS | changes, None, "")


def test_a_case_is_what_the_options_mean() -> None:
    made = trace_of(row("one", tokens_per_example=100, gpus=2, nodes=2, parallel="ddp"))
    assert made.refused is None
    assert (made.gpu, made.nodes, made.mean_length) == ("A100-80GB", 2, 100)
    assert (made.setup.world_size, made.setup.parallel, made.setup.device) == (4, "ddp", "gpu-8.0")
    assert made.trace.trainable_params > 0
    refused = trace_of(row("two", model="no-such-model"))
    assert refused.trace is None and refused.refused


def test_a_device_without_a_link_is_refused_with_its_reason() -> None:
    good, bad = trace_of(row("good")), trace_of(row("bad", gpu="RTX 4090", gpus=2, parallel="ddp"))
    unlinked = replace(bad, gpu="RTX 4090")
    kept, refused = bench.on_devices([good, unlinked, trace_of(row("ugly", model="no-such-model"))])
    known = kept[-1].device.link_bytes_per_second if len(kept) == 2 else None
    assert [m.case.row.id for m in kept] == (["good", "bad"] if known else ["good"])
    assert refused[-1]["id"] == "ugly" and all(r["reason"] for r in refused)


def test_efficiencies_are_written_as_estimate_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "EFFICIENCIES", tmp_path / "efficiencies.toml")
    lines = [pair(at / 100, source="one" if at % 2 else "two") for at in range(21)]
    bench.write_efficiencies(
        {
            "metrics": metrics(lines),
            "rows": lines,
            "fit": {"every": asdict(TRUE.every), "generation": TRUE.by_generation},
            "intervals": intervals(lines),
        }
    )
    table = tomllib.loads((tmp_path / "efficiencies.toml").read_text())
    assert Efficiency(**table["every"]) == TRUE.every
    assert table["generation"] == TRUE.by_generation
    assert table["interval"]["seen"]["adapter"] == pytest.approx([1.01, 1.19])
    assert table["interval"]["unseen"]["any"] == [0.5, 2.0]
    assert "21 published throughputs of 2 sources" in table["source"] and "10.0 %" in table["source"]


def test_the_page_tells_every_row_that_is_left_out(rows: list[Measured], found: Fit) -> None:
    lines = pairs(rows, dict.fromkeys(("one", "two", "three"), found), found)
    page = readme(
        {
            "table": "a table",
            "commit": "abc",
            "metrics": metrics(lines),
            "rows": lines,
            "fit": {"every": asdict(found.every), "generation": found.by_generation},
            "intervals": intervals(lines),
            "peers": [],
            "embedded": None,
            "unmapped": [{"id": "x", "reason": "compiled"}, {"id": "y", "reason": "compiled"}],
            "refused": [{"id": "z", "reason": "no such model"}],
        }
    )
    assert "| 2 | compiled |" in page and "| 1 | no such model |" in page
    assert f"| rows | {len(rows)} |" in page
    for section in ("## Result", "## By source", "## Efficiencies", "## Interval", "## The worst rows"):
        assert section in page
    assert "hopper" in page and "None" not in page


# -- the committed result --------------------------------------------------------------------------

RESULT = Path(bench.HERE) / "result.json"


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    return found


def test_the_page_is_what_the_result_says(result: dict[str, Any]) -> None:
    assert readme(result) == RESULT.with_name("README.md").read_text(encoding="utf-8")


def test_the_metrics_follow_from_the_raw_pairs(result: dict[str, Any]) -> None:
    rows = result["rows"]
    assert len(rows) > 300 and len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert row["error"] == pytest.approx(row["predicted"] / row["measured"] - 1), row["id"]
    assert metrics(rows) | result["embedded"]["metrics"] == pytest.approx(result["metrics"])
    assert result["metrics"]["median_abs_error_out_of_sample"] <= 0.20
    assert all(row["reason"] for row in [*result["unmapped"], *result["refused"]])
    told = {name: {k: tuple(v) for k, v in families.items()} for name, families in result["intervals"].items()}
    for name, families in intervals(rows).items():
        assert told[name].keys() == families.keys()
        assert all(told[name][kind] == pytest.approx(found) for kind, found in families.items())


def test_estimate_reads_the_committed_fit(result: dict[str, Any]) -> None:
    table = tomllib.loads(bench.EFFICIENCIES.read_text(encoding="utf-8"))
    assert table["every"] == pytest.approx(result["fit"]["every"], rel=1e-3)
    assert table["generation"].keys() == result["fit"]["generation"].keys()
    for name, own in table["generation"].items():
        assert own == pytest.approx(result["fit"]["generation"][name], rel=1e-3)


def test_the_committed_predictions_are_what_the_code_says_today(result: dict[str, Any]) -> None:
    committed = {row["id"]: row for row in result["rows"]}
    whole = Fit(Efficiency(**result["fit"]["every"]), result["fit"]["generation"])
    chosen = [row for row in read_rows(bench.SUBSET) if row.id in committed][::12][:8]
    assert len(chosen) >= 4
    kept, refused = bench.on_devices([trace_of(row) for row in chosen])
    assert not refused
    for found in kept:
        said = committed[found.case.row.id]
        assert throughput(found, whole) == pytest.approx(said["predicted_in_sample"], rel=1e-3), said["id"]
