"""The registry: versions, promotion, roll-back, keys, limits, usage; the same on SQLite and on PostgreSQL."""

import sqlite3
import stat
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from rankwise.errors import AnswerIsNo, RegistryError, UnknownTenant
from rankwise.records import Limits
from rankwise.serve.database import default_url
from rankwise.serve.registry import Registry
from tests.builders import sha
from tests.serve.databases import MISSED, added, empty_database


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.prove)])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    if request.param == "sqlite":
        yield Registry(str(tmp_path / "deep" / "registry.sqlite"))
        return
    opened = Registry(empty_database(request.getfixturevalue("postgres_server")))
    yield opened
    opened.close()


def test_versions_are_counted_for_each_tenant_and_never_change(registry: Registry) -> None:
    names = [added(registry, "clinic").name, added(registry, "shop").name, added(registry, "clinic").name]
    assert names == ["clinic@1", "shop@1", "clinic@2"]
    first = registry.tenant("clinic").versions[0]
    assert first.sha256 == sha("a") and registry.tenant("clinic").active is None
    assert [t.name for t in registry.tenants()] == ["clinic", "shop"]


def test_promotion_takes_the_newest_or_the_one_that_is_named(registry: Registry) -> None:
    for _ in range(3):
        added(registry)
    assert registry.promote("clinic").active == 3
    assert registry.promote("clinic", 1).active == 1
    assert registry.promote("clinic", 1).active == 1
    assert [c.action for c in registry.history("clinic")] == ["added"] * 3 + ["promoted"] * 2
    with pytest.raises(RegistryError, match="no version 7"):
        registry.promote("clinic", 7)


@pytest.mark.parametrize("gates", [(MISSED,), (MISSED, MISSED), ()], ids=["missed", "two", "none"])
def test_a_version_without_a_passed_gate_is_not_promoted(registry: Registry, gates: tuple[object, ...]) -> None:
    added(registry)
    registry.promote("clinic")
    added(registry, gates=gates)
    before = registry.revision()
    with pytest.raises(
        AnswerIsNo, match=r"facts is 0.7 \(share\), required is facts>=0.9" if gates else "nothing was required"
    ):
        registry.promote("clinic")
    assert registry.tenant("clinic").active == 1
    assert registry.revision() == before


def test_rolling_back_twice_goes_further_back(registry: Registry) -> None:
    for _ in range(3):
        added(registry)
    for version in (1, 3, 2):
        registry.promote("clinic", version)
    assert registry.roll_back("clinic").active == 3
    assert registry.roll_back("clinic").active == 1
    with pytest.raises(AnswerIsNo, match="no version of clinic answered before version 1"):
        registry.roll_back("clinic")
    registry.promote("clinic", 2)
    assert registry.roll_back("clinic").active == 1
    last = registry.history("clinic")[-1]
    assert (last.action, last.version, last.before) == ("rolled back", 1, 2)


def test_a_removed_tenant_has_no_service_and_keeps_its_history(registry: Registry) -> None:
    added(registry)
    registry.promote("clinic")
    key = registry.new_key("clinic")
    registry.set_limits("clinic", Limits(tokens_per_day=10))
    registry.remove("clinic")
    assert registry.tenants() == [] and registry.tenant_of_key(key) is None
    for question in (registry.tenant, registry.limits, registry.promote, registry.roll_back, registry.new_key):
        with pytest.raises(UnknownTenant, match="was removed"):
            question("clinic")
    assert [c.action for c in registry.history("clinic")] == ["added", "promoted", "removed"]

    back = added(registry)
    assert back.version == 2 and registry.tenant("clinic").active is None
    assert registry.tenant_of_key(key) is None and registry.limits("clinic").tokens_per_day == 10
    registry.promote("clinic")
    with pytest.raises(AnswerIsNo):  # what answered before the removal is not gone back to
        registry.roll_back("clinic")
    assert registry.history("clinic")[3].action == "restored"


def test_a_key_is_its_tenants_alone_and_is_kept_as_a_hash(registry: Registry) -> None:
    added(registry, "clinic")
    added(registry, "shop")
    one, other, shop = registry.new_key("clinic"), registry.new_key("clinic"), registry.new_key("shop")
    assert [registry.tenant_of_key(k) for k in (one, other, shop)] == ["clinic", "clinic", "shop"]
    assert registry.tenant("clinic").keys == 2
    number, _, secret = one.removeprefix("rk-").partition("-")
    assert len(bytes.fromhex(secret)) == 32
    forged = shop.replace("rk-2-", f"rk-{number}-")
    for wrong in (forged, one[:-1], one + "0", one.upper(), "", "rk-", f"rk-{10**12}-{secret}", "rk-1-" + "é" * 64):
        assert registry.tenant_of_key(wrong) is None
    assert registry.revoke_key(one) and not registry.revoke_key(one)
    assert registry.tenant_of_key(one) is None and registry.tenant_of_key(other) == "clinic"
    assert registry.revoke_keys("clinic") == 1 and registry.tenant_of_key(other) is None
    assert registry.tenant_of_key(shop) == "shop"


def test_no_key_is_in_the_file(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path / "r.sqlite"))
    added(registry)
    secret = registry.new_key("clinic").rpartition("-")[2].encode()
    registry.close()
    assert all(secret not in path.read_bytes() for path in tmp_path.iterdir())
    assert stat.S_IMODE((tmp_path / "r.sqlite").stat().st_mode) == 0o600


def test_the_revision_grows_with_every_change_and_with_no_question_or_usage(registry: Registry) -> None:
    changes = [
        lambda: added(registry),
        lambda: registry.promote("clinic"),
        lambda: added(registry),
        lambda: registry.promote("clinic"),
        lambda: registry.roll_back("clinic"),
        lambda: registry.new_key("clinic"),
        lambda: registry.revoke_keys("clinic"),
        lambda: registry.set_limits("clinic", Limits(requests_per_minute=3)),
        lambda: registry.remove("clinic"),
    ]
    seen = [registry.revision()]
    for change in changes:
        change()
        seen.append(registry.revision())
    assert seen == list(range(10))
    registry.add_tokens("clinic", date(2026, 11, 23), 1, 1)
    registry.history("clinic")
    assert registry.revision() == 9


def test_tokens_are_summed_by_day(registry: Registry) -> None:
    added(registry)
    today = datetime.now(UTC).date()
    assert registry.tokens_today("clinic") == 0
    assert registry.add_tokens("clinic", today, 3, 4) == 7
    assert registry.add_tokens("clinic", today, 1, 0) == 8
    assert registry.add_tokens("clinic", date(2020, 2, 29), 100, 0) == 100
    assert registry.tokens_today("clinic") == 8
    with pytest.raises(UnknownTenant):
        registry.add_tokens("nobody", today, 1, 1)


def test_requirements_are_kept_until_others_are_given(registry: Registry) -> None:
    assert registry.requirements("clinic") == []
    added(registry, requirements=["facts>=0.6"])
    added(registry)
    assert registry.requirements("clinic") == ["facts>=0.6"]
    added(registry, requirements=["format>=90%"])
    assert registry.requirements("clinic") == ["format>=90%"]


@pytest.mark.parametrize("name", ["", "Clinic", "a b", "../x", "a/b", "a@1", "-a", ".a", "x" * 64, "clinic\n", "é"])
def test_names_that_could_be_paths_or_other_models_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RegistryError, match="cannot be the name"):
        added(Registry(str(tmp_path / "r.sqlite")), name)


def test_another_programs_database_and_a_newer_one_are_refused(tmp_path: Path) -> None:
    newer = tmp_path / "newer.sqlite"
    Registry(str(newer)).close()
    with sqlite3.connect(newer) as connection:
        connection.execute("UPDATE rankwise_state SET schema = 2")
    with pytest.raises(RegistryError, match="schema 2"):
        Registry(str(newer))
    text = tmp_path / "notes.txt"
    text.write_text("no database " * 100)
    with pytest.raises(RegistryError, match="not a registry"):
        Registry(str(text))
    assert text.read_text() == "no database " * 100


@pytest.mark.parametrize("url", ["mysql://h/d", "sqlite://", "sqlite:///:memory:", "nonsense://"])
def test_urls_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(RegistryError):
        Registry(url)


def test_a_server_that_does_not_answer_is_told_without_its_password() -> None:
    with pytest.raises(RegistryError) as error:
        Registry("postgresql://rankwise:sesame@127.0.0.1:1/x")
    assert "sesame" not in str(error.value) and "127.0.0.1:1" in str(error.value)


def test_the_default_lies_in_the_users_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANKWISE_REGISTRY", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_url() == "/data/rankwise/registry.sqlite"
    monkeypatch.setenv("RANKWISE_REGISTRY", "postgresql://h/d")
    assert default_url() == "postgresql://h/d"
