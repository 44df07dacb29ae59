"""What every record promises: frozen, strict, finite, equal after a round trip, hashed by content alone."""

import json
import tempfile
import types
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

import rankwise.records as records
from rankwise.decide.configure import Rung
from rankwise.decide.ladder import candidate_of
from rankwise.decide.recipes import BY_NAME
from rankwise.estimate.configure import configure
from rankwise.estimate.traced import shapes_of, traced
from rankwise.records import (
    EVENT,
    AdapterFacts,
    AdapterFile,
    Audit,
    BenchmarkScores,
    Comparison,
    Evaluation,
    Evidence,
    Flip,
    Job,
    NewTokens,
    Plan,
    Record,
    ServingLoad,
    Slots,
    Verdict,
    content_hash,
)
from rankwise.text.formats import Row
from rankwise.text.masks import encode_row
from rankwise.text.template import ChatText
from rankwise.train.audit.audit import Material, audit
from rankwise.train.audit.reading import NOTHING, Encodings
from rankwise.watch.evidence import summarise
from tests import builders
from tests.tiny import tiny_tokenizer


def _evaluation() -> Evaluation:
    compared = Comparison(
        metric="format",
        unit="share",
        items=48,
        base=0.02,
        base_interval=(0.0, 0.1),
        tuned=0.99,
        tuned_interval=(0.9, 1.0),
        difference=0.97,
        difference_interval=(0.9, 1.0),
        answer="better",
        source="paired bootstrap",
    )
    answer = records.Answer(kind="format", prompt="p", expected="e", base="b", tuned="t", base_ok=False, tuned_ok=True)
    half = records.Bin(low=0.0, high=0.5, items=1, confidence=0.4, accuracy=1.0)
    plot = records.Reliability(kind="answers", base=(half,), tuned=(half,))
    length = records.Measurement(value=9.0, interval=(8.0, 10.0), unit="tokens", items=48, source="counted")
    tendency = records.Tendency(name="answer_length", base=length, tuned=length)
    return Evaluation(
        comparisons=(compared,),
        answers=(answer,),
        reliability=(plot,),
        tendencies=(tendency,),
        seconds=3.0,
        notes=("few items",),
    )


def _gate() -> records.Gate:
    return records.Gate(
        requirement="facts>=0.6", name="facts", comparison=">=", limit=0.6, value=0.03, unit="share", met=False
    )


def _offer() -> records.Offer:
    return records.Offer(
        gpu="A100-80GB",
        count=1,
        candidate="lora-r8",
        method="lora",
        parallel="none",
        peak_device=10**9,
        capacity=8 * 10**10,
        train_seconds=60.0,
        usd=0.1,
        usd_interval=(0.05, 0.2),
        why="cheapest that fits lora",
        source="built by hand",
    )


def _audit() -> Audit:
    """What `rankwise check` says of six rows, of which one is there twice."""
    with tempfile.TemporaryDirectory() as folder:
        tiny_tokenizer(Path(folder))
        chat = ChatText.from_folder(Path(folder))
    said = [({"role": "user", "content": f"question {n % 5}"}, {"role": "assistant", "content": "x"}) for n in range(6)]
    rows = [Row(turns, None, line, Path("rows.jsonl")) for line, turns in enumerate(said, 1)]
    encoded = [encode_row(row, chat) for row in rows]
    given = Material("messages", Encodings(rows, encoded, [1] * len(rows)), NOTHING, [])
    return audit(given, chat, model="tiny", max_length=None, on_long="drop", progress=lambda what, done, total: None)


def _whole() -> list[Record]:
    plan = builders.plan(builders.job(train={"seed": 3}, method={"name": "lora", "r": 4}), builders.facts_to_watch())
    *unwatched, last = builders.whole_run()
    evidence = summarise(plan, [*unwatched, builders.watched(20), last])
    evidence = evidence.model_copy(update={"evaluation": _evaluation()})
    evidence = evidence.model_copy(update={"benchmarks": builders.benchmarks()})
    events = [*builders.whole_run(5), builders.stopped(3)]
    asked = configure({"model": "embedded"}, builders.smollm2().config)
    traces = [traced(asked.setup("gpu-8.0")), shapes_of(asked.config)]
    candidate = candidate_of(builders.job(), builders.facts(), BY_NAME["lora"], Rung())
    return [
        plan,
        evidence,
        builders.artifact(),
        *events,
        builders.failed(),
        builders.rehearsed(),
        builders.watched(),
        builders.acted(),
        builders.spectrum(),
        builders.watching(),
        builders.bakeoff(),
        builders.trial(),
        builders.outcome(),
        builders.tenant(),
        builders.merge(),
        builders.change(),
        builders.exported(),
        builders.engine_fit(),
        builders.past(),
        builders.a100(),
        builders.diagnosis(prompting=0.5),
        _audit(),
        _gate(),
        _offer(),
        candidate,
        asked,
        asked.setup("cpu"),
        *traces,
        ServingLoad(),
        AdapterFile(bytes=36_715_216),
        NewTokens(ids=(320, 321), pieces=((5, 6), (7,)), rows=322),
        AdapterFacts(
            folder="/runs/first/adapter",
            method="lora",
            r=8,
            lora_alpha=16.0,
            target_modules=("q_proj", "v_proj"),
            num_virtual_tokens=None,
            bottleneck_size=None,
        ),
        BenchmarkScores(scores=(builders.benchmark_score(),), notes=()),
        Slots(slots=8, zipf=1.0, hit_rate=0.9, interval=(0.89, 0.91), miss_seconds=None, active_tenants=4.8),
    ]


def _inside(value: Any) -> list[Record]:
    """A record and every record that it holds."""
    if isinstance(value, Record):
        return [value, *(r for name in type(value).model_fields for r in _inside(getattr(value, name)))]
    if isinstance(value, tuple | dict):
        return [r for item in (value.values() if isinstance(value, dict) else value) for r in _inside(item)]
    return []


SAMPLES = {type(r).__name__: r for whole in _whole() for r in _inside(whole)}
KINDS = [v for v in vars(records).values() if isinstance(v, type) and issubclass(v, Record) and v is not Record]
every_record = pytest.mark.parametrize("record", SAMPLES.values(), ids=SAMPLES)


def test_no_kind_of_record_is_left_out_here() -> None:
    assert {k.__name__ for k in KINDS} <= set(SAMPLES)
    assert len(SAMPLES) >= 40


@every_record
def test_it_is_frozen(record: Record) -> None:
    name = next(iter(type(record).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(record, name, getattr(record, name))


@every_record
def test_an_unknown_key_is_refused(record: Record) -> None:
    with pytest.raises(ValidationError, match="surprise"):
        type(record).model_validate(record.model_dump(mode="json") | {"surprise": 1})


@every_record
def test_json_to_record_to_json_is_the_same(record: Record) -> None:
    text = record.model_dump_json(by_alias=True)
    again = type(record).model_validate(json.loads(text))
    assert again == record
    assert again.model_dump_json(by_alias=True) == text
    assert again.content_hash() == record.content_hash()


def _takes_float(annotation: Any) -> bool:
    if get_origin(annotation) in (types.UnionType, None):
        return annotation is float or float in get_args(annotation)
    return False


FLOATS = [
    (record, name)
    for record in SAMPLES.values()
    for name, field in type(record).model_fields.items()
    if _takes_float(field.annotation)
]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("record", "name"), FLOATS, ids=[f"{type(r).__name__}.{n}" for r, n in FLOATS])
def test_a_number_that_is_none_is_refused(record: Record, name: str, bad: float) -> None:
    with pytest.raises(ValidationError):
        type(record).model_validate({**record.model_dump(), name: bad})


def test_most_float_fields_were_found() -> None:
    assert len(FLOATS) > 40


def test_nan_inside_a_tuple_or_a_mapping_is_refused_too() -> None:
    comparison = SAMPLES["Comparison"].model_dump()
    with pytest.raises(ValidationError):
        Comparison.model_validate(comparison | {"base_interval": (0.0, float("nan"))})
    device = SAMPLES["DeviceFacts"].model_dump()
    with pytest.raises(ValidationError):
        records.DeviceFacts.model_validate(device | {"matmul_flops": {"bf16": float("nan")}})


@pytest.mark.parametrize("kind", [type(r) for r in SAMPLES.values()], ids=SAMPLES)
def test_a_description_is_a_sentence_where_there_is_one(kind: type[BaseModel]) -> None:
    for name, field in kind.model_fields.items():
        if field.description is not None:
            assert field.description.strip().endswith((".", ")", "…")) or " " in field.description, name
            assert field.description.strip(), name


def test_every_key_of_a_job_is_described() -> None:
    for kind in (type(r) for r in _inside(Job.model_validate(_full_job()))):
        assert all(field.description for field in kind.model_fields.values()), kind


def _full_job() -> dict[str, Any]:
    return builders.job(method="lora").model_dump(mode="json")


def test_records_that_are_files_carry_their_version() -> None:
    versions = {Job: 1, records.Facts: 1, Plan: 2, Evidence: 1, records.Artifact: 1, records.Diagnosis: 1}
    versions |= {records.Audit: 1}
    assert {kind: kind.model_fields["version"].default for kind in versions} == versions


def test_an_event_is_known_by_its_name() -> None:
    for event in builders.whole_run(5):
        assert EVENT.validate_json(event.model_dump_json()) == event
    with pytest.raises(ValidationError):
        EVENT.validate_python({"event": "dance", "time": builders.TIME})


PLACE = {"axis": "budget.usd", "at": 2.5, "now": 1.0, "unit": "USD"}
FLIP = Flip.model_validate({"if": "it rained", "then": "none"} | PLACE)


def test_a_flip_is_written_with_the_word_if() -> None:
    assert json.loads(FLIP.model_dump_json()) == {"if": "it rained", "then": "none"} | PLACE


def test_the_plan_contract_has_the_promised_keys() -> None:
    contract = builders.plan().contract()
    promised = {"verdict", "runner_up", "reasons", "rejected", "flips", "warnings", "questions", "candidates"}
    assert promised | {"job_hash"} <= set(contract)
    assert set(contract["verdict"]) >= {"method", "parallel", "config", "confidence", "first_try"}
    assert set(contract["reasons"][0]) >= {"rule", "text", "number", "evidence"}
    assert set(contract["rejected"][0]) >= {"method", "rule", "number", "would_flip_if"}
    assert set(contract["flips"][0]) >= {"if", "then"}
    memory = "weights gradients optimizer activations logits workspace peak_allocated peak_reserved peak_device"
    more = "peak_phase peak_op eval_peak save_peak merge_peak capacity interval fits"
    estimate = contract["candidates"][0]
    assert set(estimate["memory"]) == set(f"{memory} {more}".split())
    time = "flops_per_token flops tokens_per_second step_seconds train_seconds interval"
    assert set(estimate["time"]) >= set(time.split())
    assert set(estimate["money"]) >= {"train_usd", "interval"}
    assert set(estimate["storage"]) >= {"checkpoint_bytes", "adapter_bytes", "run_bytes", "usd_per_month"}
    assert set(estimate["serving"]) >= {"base_bytes", "per_variant_bytes", "all_variants_bytes"}
    assert set(estimate["velocity"]) >= {"turnaround_seconds", "runs_per_week", "runs_per_usd"}


def test_a_plan_finds_its_estimates_by_name() -> None:
    plan = builders.plan()
    assert plan.estimate("lora-r8").id == "lora-r8" and plan.chosen() == plan.estimate(plan.verdict.candidate or "")
    with pytest.raises(KeyError):
        plan.estimate("nothing")
    none = plan.verdict.model_copy(update={"candidate": None, "config": None, "method": "none"})
    assert isinstance(none, Verdict) and plan.model_copy(update={"verdict": none}).chosen() is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _turned(value: Any) -> Any:
    """The same value with the keys of every mapping in reverse order."""
    if isinstance(value, dict):
        return {k: _turned(v) for k, v in reversed(value.items())}
    return [_turned(v) for v in value] if isinstance(value, list) else value


@given(VALUES)
def test_the_order_of_keys_does_not_change_a_hash(value: Any) -> None:
    assert content_hash(_turned(value)) == content_hash(value)


@given(VALUES, VALUES)
def test_other_content_has_another_hash(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (content_hash(one) == content_hash(other)) == same


def test_a_hash_refuses_what_json_cannot_hold() -> None:
    with pytest.raises(ValueError):
        content_hash({"x": float("nan")})


def test_the_identity_of_a_device_forgets_what_changes_by_itself() -> None:
    device = builders.laptop()
    later = builders.laptop(matmul_flops={"bf16": 1.0}, available_bytes=1, disk_free_bytes=None, source="another day")
    assert later.identity_hash == device.identity_hash
    gpu = builders.a100()
    assert builders.a100(price=None, bandwidth=None, link=None, watts=1.0).identity_hash == gpu.identity_hash
    assert builders.laptop(memory_bytes=1).identity_hash != device.identity_hash
    assert builders.laptop(bf16=False).identity_hash != device.identity_hash
