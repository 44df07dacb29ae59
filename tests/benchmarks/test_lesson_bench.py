"""The lesson's experiments: the rules that judge them, jobs that are done once, the pieces on models of seconds, and
the committed pages.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from benchmarks.lesson import stored, x3_forgetting, x6_alpha, x8_spectrum
from benchmarks.lesson.bench import HERE, PAGE
from benchmarks.lesson.codes import BITS, SYMBOLS, old_and_new, rows_of
from benchmarks.lesson.jobs import WAY, Bench, Job, Kind, NotRun, do_all, expected
from benchmarks.lesson.kinds import KINDS
from benchmarks.lesson.lists import Split
from benchmarks.lesson.number import of_items, of_seeds
from benchmarks.lesson.plot import Axes, draw, plots
from benchmarks.lesson.predictions import NAMES, read
from benchmarks.lesson.readme import readme
from benchmarks.lesson.result import EXPERIMENTS, experiment, jobs_of, judged, result_of
from benchmarks.lesson.scale import FULL, QUICK
from benchmarks.lesson.training import carried_out, config_of
from benchmarks.lesson.verdict import Condition, Rule, judge, over_items, over_seeds, together
from benchmarks.lesson.words import in_words

from rankwise.model.attach import attach
from rankwise.model.load import load_base
from rankwise.text.masks import IGNORE
from tests.tiny import tiny_llama

torch.set_num_threads(1)
RULE = Rule("interval", (Condition(">=", -5),), (Condition("<", -10),))


# -- rules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [
        ((-4.0, 1.0), "confirmed"),
        ((-30.0, -11.0), "refuted"),
        ((-8.0, -6.0), "cannot tell"),
        ((-12.0, 1.0), "cannot tell"),
        (None, "cannot tell"),
    ],
)
def test_an_interval_decides_only_when_it_lies_wholly_on_one_side(interval: Any, outcome: str) -> None:
    assert judge(RULE, [0.0], interval) == outcome


def test_every_seed_decides_where_a_number_is_exact() -> None:
    rule = Rule("every", (Condition("<", 1e-3),), (Condition(">=", 1e-3),))
    assert judge(rule, [1e-4, 2e-4], None) == "confirmed"
    assert judge(rule, [1e-2, 2e-2], None) == "refuted"
    assert judge(rule, [1e-4, 2e-2], None) == "cannot tell"


def test_a_prediction_of_several_things_falls_with_one() -> None:
    assert together(["confirmed", "confirmed"]) == "confirmed"
    assert together(["confirmed", "cannot tell"]) == "cannot tell"
    assert together(["confirmed", "refuted", "cannot tell"]) == "refuted"


def test_students_interval_of_three_seeds() -> None:
    low, high = over_seeds([1.0, 2.0, 3.0]) or (0, 0)
    assert (low, high) == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-3)  # t(0.975, 2) = 4.3027, s = 1
    assert over_seeds([1.0]) is None


def test_items_that_all_agree_still_leave_an_interval() -> None:
    low, high = over_items([(True, True)] * 192)
    assert low == pytest.approx(-high) and 0.005 < high < 0.02
    pairs = [(False, True)] * 40 + [(True, True)] * 60
    low, high = over_items(pairs)
    assert low < -0.4 < high < -0.25
    agreed = of_items([[True] * 64] * 3, [[True] * 64] * 3)
    assert agreed.values == [0, 0, 0] and agreed.interval is not None and agreed.interval[0] < 0 < agreed.interval[1]


def test_the_predictions_are_those_of_eight_experiments_and_have_readable_rules() -> None:
    predictions = read()
    assert tuple(predictions.of) == NAMES == tuple(EXPERIMENTS)
    for said in predictions.of.values():
        assert said.expected in ("confirmed", "refuted") and said.predicted
        assert any(test.headline for test in said.tests.values())
        for test in said.tests.values():
            assert test.rule.by in ("interval", "every") and test.rule.confirmed and test.rule.refuted
    with pytest.raises(ValueError, match="begins with one of"):
        Condition.read("about 3")


# -- jobs -----------------------------------------------------------------------------------------------------


def test_a_job_that_ended_is_not_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done: list[int] = []

    def does(bench: Bench, job: Job) -> dict[str, Any]:
        if job.of["seed"] == 2 and len(done) < 3:
            done.append(-1)
            raise KeyboardInterrupt
        done.append(job.of["seed"])
        return {"seed": job.of["seed"]}

    jobs = [Job("arm", {"seed": seed}) for seed in (0, 1, 2, 1)]

    def bench() -> Bench:
        return Bench(tmp_path, FULL, {"arm": Kind(does, 60.0, ("steps",))}, "hash")

    with pytest.raises(KeyboardInterrupt):
        do_all(bench(), jobs)
    assert done == [0, 1, -1]
    assert "3 jobs, 0 done before, 3 to do: about 3 minutes" in capsys.readouterr().err
    again = bench()
    do_all(again, jobs)
    assert done == [0, 1, -1, 2] and again.get(jobs[2]) == {"seed": 2}
    assert "3 jobs, 2 done before, 1 to do" in capsys.readouterr().err
    kept = again.record(jobs[0])
    assert kept is not None and kept["predictions"] == "hash" and kept["found"] == {"seed": 0}


def test_a_job_follows_from_its_settings_and_the_sizes_it_uses(tmp_path: Path) -> None:
    def named(**sizes: Any) -> str:
        scale = type(FULL)(**sizes)
        kinds = {"arm": Kind(lambda bench, job: {}, 1.0, ("steps",))}
        return Bench(tmp_path, scale, kinds, "hash").name(Job("arm", {"seed": 1}))

    assert named() == named(seeds=5) != named(steps=7)


def test_rows_of_a_result_are_taken_where_the_same_would_be_computed(tmp_path: Path) -> None:
    job = Job("knob", {"seed": 0, "r": 4})
    row = {"kind": "knob", "of": dict(job.of), "found": {"loss": 1.0}, "seconds": 1.0, "ended": "", "predictions": "p"}
    whole = {"way": WAY, "sizes": QUICK.sizes(), "rows": [row, {**row, "kind": "gone"}]}

    def taken(**changes: Any) -> tuple[int, Any]:
        bench = Bench(tmp_path / str(len(list(tmp_path.iterdir()))), QUICK, KINDS, "p")
        return bench.take({**whole, **changes}), bench.kept(job)

    assert taken() == (1, {"loss": 1.0})
    assert taken(way=WAY + 1) == (0, None)
    assert taken(sizes=QUICK.sizes() | {"knob_steps": 1}) == (0, None)
    assert taken(sizes=QUICK.sizes() | {"shares": []})[0] == 1  # which it does not use
    assert taken(rows=[{**row, "predictions": "others"}]) == (0, None)


def test_what_is_not_there_is_not_run_for_a_report(tmp_path: Path) -> None:
    bench = Bench(tmp_path, QUICK, KINDS, "hash", only_read=True)
    with pytest.raises(NotRun):
        bench.get(Job("base", {"seed": 0}))


def test_a_file_that_asks_for_quiet_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = tmp_path / "quiet"
    quiet.touch()
    monkeypatch.setattr("benchmarks.lesson.jobs.time.sleep", lambda seconds: quiet.unlink())
    Bench(tmp_path, QUICK, KINDS, "hash", pause=quiet).breathe()
    assert not quiet.exists()


def test_expected_time_is_known_before_and_learned(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FULL, {"arm": Kind(lambda b, j: {}, 60.0, ())}, "hash")
    jobs = [Job("arm", {"seed": seed}) for seed in range(3)]
    assert expected(bench, jobs) == 180
    bench.spent["arm"] = [10.0, 20.0]
    assert expected(bench, jobs) == 45


def test_the_counted_run_has_three_seeds_several_rates_and_shares_its_arms(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FULL, KINDS, "hash")
    every = jobs_of(bench, NAMES)
    names = [bench.name(job) for job in every]
    assert len(names) == len(set(names)) < sum(len(x.jobs(bench)) for x in EXPERIMENTS.values())
    assert FULL.seeds >= 3 and FULL.counted and not QUICK.counted
    assert all(2 <= len(rates) <= 3 for rates in (FULL.full_rates, FULL.lora_rates, FULL.fact_full_rates))
    seconds = expected(bench, every)
    assert seconds < 2.5 * 3600


# -- the tasks ------------------------------------------------------------------------------------------------


def test_lists_that_are_trained_on_chosen_on_and_tested_on_differ() -> None:
    one, other = Split.of(0, 20, 5, 10), Split.of(1, 20, 5, 10)
    asked = [item.asked for part in (one.train, one.dev, one.test) for item in part]
    assert len(set(asked)) == 35 and one == Split.of(0, 20, 5, 10) and one.test != other.test
    for item in one.test:
        said = json.loads(item.answer)
        assert item.asked == f"List: {', '.join(said['items'])}\nJSON:" and said["count"] == len(said["items"])


def test_facts_cannot_be_guessed_and_new_ones_are_new() -> None:
    old, new = old_and_new(0, 50, 20)
    assert len(dict(old + new)) == 70 and old_and_new(0, 50, 8)[1] == new[:8]
    (row,) = rows_of(new[:1])
    assert [SYMBOLS[i] for i in row.ids[1:6]] == [*new[0][0], ":"] and row.supervised == 4
    assert [SYMBOLS[i] for i in row.labels if i != IGNORE] == [*new[0][1]]


# -- training on models of seconds ----------------------------------------------------------------------------


def test_equal_tokens_end_a_run_and_looks_are_taken_where_asked(tmp_path: Path) -> None:
    rows = rows_of(old_and_new(0, 1, 12)[1])
    config = config_of("lora", 1e-2, 8, 0, 4, r=2, alpha=8.0)
    model = attach(load_base(tiny_llama(tmp_path / "model", dtype="fp32"), dtype="fp32"), config)
    found = carried_out(model, rows, config, pad_token_id=0, looks=(0, 2), look=lambda s: {"at": s}, most_tokens=145)
    length = len(rows[0].ids)
    assert found.steps == 145 // (4 * length) and found.tokens == found.steps * 4 * length
    assert [(look["step"], look["at"], look["tokens"]) for look in found.looks] == [(0, 0, 0), (2, 2, 8 * length)]
    assert found.losses[-1] < found.losses[0] and len(found.losses) == found.steps


SMALL = QUICK.__class__(
    **{
        **{name: getattr(QUICK, name) for name in QUICK.sizes()},
        "old_facts": 8,
        "old_epochs": 30,
        "facts": (4, 8),
        "ranks": (1, 4),
        "epochs": 40,
        "fact_batch": 8,
        "cuts": (1, 4, 16),
        "knob_steps": 5,
        "knob_rates": (1e-3, 4e-3),
        "knob_alphas": (8.0, 32.0),
    }
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The experiments on the small model, run."""
    bench = Bench(tmp_path_factory.mktemp("work"), SMALL, KINDS, read().hash)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANKWISE_CACHE", str(tmp_path_factory.mktemp("cache")))  # directions of bases are kept there
        for what in ("facts in full", "facts by LoRA"):
            bench.get(x8_spectrum.spectrum_job(bench, what, 0))
    do_all(bench, [*EXPERIMENTS["X2"].jobs(bench), *(j for j in x6_alpha.jobs(bench) if j.kind == "knob")])
    return bench


def test_bits_stored_are_those_beyond_guessing(small: Bench) -> None:
    found = small.get(stored.facts_job("full", None, 3e-3, 0, 4))
    assert found["wanted_bits"] == pytest.approx(4 * BITS)
    assert found["bits"] <= found["wanted_bits"] and found["trained_params"] > 300_000
    lora = small.get(stored.facts_job("lora", 4, 1e-2, 0, 8))
    assert lora["trained_params"] < found["trained_params"] / 10
    assert lora["bits"] > -5 and lora["bits_per_param"] == pytest.approx(lora["bits"] / lora["trained_params"])


def test_x2_is_judged_from_what_ran_and_others_are_said_to_be_missing(small: Bench) -> None:
    small.only_read = True
    result = result_of(small, read())
    x2, x1 = result["experiments"]["X2"], result["experiments"]["X1"]
    assert x2["missing"] == [] and x2["outcome"] == "cannot tell"  # of one seed nothing can be told
    assert len(x2["table"]) == 6 and all(len(test["values"]) == 1 for test in x2["tests"].values())
    assert x1["outcome"] == "not run" and x1["missing"] and not x1["tests"]
    assert result["metrics"] == {"confirmed": 0, "refuted": 0, "cannot_tell": 0, "not_run": 0}  # a smoke run
    page = readme(result)
    assert "nothing of it counts" in page and "Not run:" in page
    points = {name: svg.count("<circle") for name, svg in plots(result).items()}
    assert points.pop("x2-facts.svg") == 6 + 3 and set(points.values()) <= {0, 1} and len(points) == 4
    small.only_read = False


def test_what_is_cut_to_all_directions_keeps_its_quality(small: Bench) -> None:
    found = small.get(x8_spectrum.spectrum_job(small, "facts in full", 0))
    assert {int(cut) for cut in found["cut"]} == {1, 4, 16} and len(found["modules"]) == 21
    assert all(1 <= m["r90"] <= m["rank"] and m["effective_rank"] <= m["rank"] for m in found["modules"])
    adapter = small.get(x8_spectrum.spectrum_job(small, "facts by LoRA", 0))
    assert all(m["rank"] == 4 and m["r90"] <= 4 for m in adapter["modules"])
    assert x8_spectrum.needed({"whole": 1.0, "cut": {"1": 0.5, "4": 0.96, "16": 1.0}}) == 4
    assert x8_spectrum.needed({"whole": 1.0, "cut": {"1": 0.5, "4": 0.6}}) == 8


def test_the_same_seed_stores_the_same(small: Bench, tmp_path: Path) -> None:
    again = Bench(tmp_path, SMALL, KINDS, "hash")
    job = stored.knob_job(4, 32.0, 4e-3, 0)
    assert again.get(job) == small.get(job)


# -- what is made of curves -----------------------------------------------------------------------------------


def test_forgetting_is_compared_where_both_have_learned_as_much() -> None:
    slow = [(2.0, 0.0), (1.0, 0.1), (0.1, 0.2)]
    quick = [(2.0, 0.0), (0.1, 0.8), (0.01, 1.0)]
    assert x3_forgetting.rise_at(slow, 1.0) == pytest.approx(0.1)
    assert x3_forgetting.rise_at(slow, 0.01) is None
    levels = x3_forgetting.levels([slow], [quick])
    assert min(levels) == pytest.approx(0.1) and max(levels) == pytest.approx(1.0)
    assert x3_forgetting.gap([quick], [slow]) > 0.2
    assert x3_forgetting.gap([quick, slow], [slow]) == pytest.approx(0)  # the best of a side counts
    easy = [(0.6, 0.0), (0.1, 0.3)]  # a task that the base half knows: no level above where it starts
    assert max(x3_forgetting.levels([easy], [easy])) == pytest.approx(0.6) and x3_forgetting.gap([easy], [easy]) == 0


def test_the_best_rate_lies_between_the_points_of_the_grid() -> None:
    exact = {2.0**n: 1.0 + 0.1 * (n - 0.25) ** 2 for n in range(-3, 4)}
    assert x6_alpha.best_rate(exact) == pytest.approx(0.25, abs=0.02)
    assert x6_alpha.best_rate({1.0: 3.0, 2.0: 2.0, 4.0: 1.0}) == 2  # at the edge, the edge


def test_the_first_steps_fall_is_told_by_its_power() -> None:
    steps = [
        {"r": r, "alpha": alpha, "rate": rate, "before": 1.0, "after": 1.0 - 2 * alpha * rate}
        for r in (4, 32)
        for alpha in (8.0, 32.0)
        for rate in (3e-4, 1e-3, 3e-3)
    ]
    assert x6_alpha.slope(steps) == pytest.approx(1.0)
    assert x6_alpha.across(steps, 4, 32) == pytest.approx(0.0)
    assert x6_alpha.slope(steps[:2]) is None


@pytest.mark.prove
@pytest.mark.embedded
def test_the_smoke_run_is_killed_and_goes_on_through_all_eight(tmp_path: Path) -> None:
    """QUICK=1 on the embedded model, about four minutes of one thread."""
    command = [sys.executable, "-m", "benchmarks.lesson.bench", "--work", str(tmp_path)]
    environment = os.environ | {"QUICK": "1", "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, cwd=HERE.parents[1], env=environment, stderr=subprocess.DEVNULL)
    while len(list(tmp_path.glob("arm-*.json"))) < 2:
        assert first.poll() is None
        time.sleep(0.2)
    first.kill()
    first.wait()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    done = subprocess.run(command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.count("ran (not counted)") == 8
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())
    result = json.loads((tmp_path / "result.json").read_text())
    assert not any(one["missing"] for one in result["experiments"].values()) and sum(result["metrics"].values()) == 0


# -- pages ----------------------------------------------------------------------------------------------------


def test_a_drawing_has_every_point_and_leaves_out_what_a_log_axis_lacks() -> None:
    svg = draw([("a", [(1, 1), (10, 2)]), ("b", [(0, 3), (100, 4)])], Axes("x", "y & z", log_x=True))
    circles = [e for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("circle")]
    assert len(circles) == 3 + 2  # points, and one a name
    assert all(0 <= float(c.attrib["cx"]) <= 760 and 0 <= float(c.attrib["cy"]) <= 420 for c in circles)


def test_a_page_tells_every_outcome_in_words() -> None:
    result = outcomes("refuted", "cannot tell", "confirmed")
    page = in_words(result)
    assert "It does not hold here." in page and "These seeds cannot tell." in page and "It holds here." in page
    assert "Sentences that did not hold:" in page and "Where the prediction itself was not met:" in page
    assert "It has not been run." in page and "came out otherwise than foreseen:" in page


def outcomes(*some: str) -> dict[str, Any]:
    """A result with these outcomes, and nothing run beside."""
    predictions = read()
    bench = Bench(Path("nowhere"), FULL, KINDS, predictions.hash, only_read=True)
    found = {name: experiment(bench, name, said) for name, said in predictions.of.items()}
    for name, outcome in zip(found, some, strict=False):
        tests = {k: judged(m, of_seeds([1.0, 1.5, 2.0])) for k, m in predictions.of[name].tests.items()}
        found[name] |= {"outcome": outcome, "missing": [], "tests": tests, "table": [{"arm": "full", "rate": 1e-4}]}
    metrics = {"confirmed": 1, "refuted": 1, "cannot_tell": 1, "not_run": 5}
    return {"metrics": metrics, "experiments": found, "sizes": FULL.sizes(), "counted": True}


def test_the_pages_are_those_of_the_committed_result() -> None:
    found = json.loads((HERE / "result.json").read_text(encoding="utf-8"))
    assert found["counted"]
    assert (HERE / "README.md").read_text(encoding="utf-8") == readme(found)
    assert PAGE.read_text(encoding="utf-8") == in_words(found)
    for name, svg in plots(found).items():
        assert (HERE / name).read_text(encoding="utf-8") == svg
    outcomes_ = [one["outcome"] for one in found["experiments"].values()]
    for outcome in ("confirmed", "refuted", "cannot tell", "not run"):
        assert found["metrics"][outcome.replace(" ", "_")] == outcomes_.count(outcome)
    said = read()
    for name, one in found["experiments"].items():
        for key, test in one["tests"].items():
            rule = said.of[name].tests[key].rule
            interval = tuple(test["interval"]) if test["interval"] else None
            assert test["outcome"] == judge(rule, test["values"], interval), (name, key)
