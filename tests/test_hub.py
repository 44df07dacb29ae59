"""Ids of the hub and what its errors become; what is found in its cache is tested where it is read."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from rankwise.errors import DataError, ModelError
from rankwise.hub import dataset_id, snapshot, split_of


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("tatsu-lab/alpaca", "tatsu-lab/alpaca"),
        ("org/name:test", "org/name"),
        ("org/name-v1.5", "org/name-v1.5"),
        ("org/rows.jsonl", None),
        ("org/rows.jsonl.gz", None),
        ("org/rows.PARQUET", None),
        ("a/b/c", None),
        ("alpaca", None),
        ("/org/name", None),
        ("../name", None),
        ("org/na me", None),
    ],
)
def test_what_can_be_a_datasets_id(source: str, name: str | None) -> None:
    assert dataset_id(Path(source)) == name


def test_a_split_stands_behind_the_last_colon() -> None:
    assert split_of(Path("org/name:test_sft")) == ("org/name", "test_sft")
    assert split_of(Path("/a:b/c:train")) == ("/a:b/c", "train")
    assert split_of(Path("/a:b/c")) == ("/a:b/c", None)
    assert split_of(Path("rows.jsonl")) == ("rows.jsonl", None)


def raised(monkeypatch: pytest.MonkeyPatch, error: Exception, kind: Any) -> DataError | ModelError:
    def refuse(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises((DataError, ModelError)) as caught:
        snapshot("org/name", kind, wanted=["*.json"])
    assert "hf_secret" not in str(caught.value) and caught.value.expected and caught.value.fix
    assert caught.value.what.count("org/name") == 1
    return caught.value


RESPONSE: Any = SimpleNamespace(headers={}, request=None, status_code=404, text="")
FAULTS = [
    (errors.GatedRepoError("hf_secret", response=RESPONSE), "is gated"),
    (errors.RepositoryNotFoundError("hf_secret", response=RESPONSE), "is neither a"),
    (errors.LocalEntryNotFoundError("hf_secret"), "is not on this machine"),
    (errors.OfflineModeIsEnabled("hf_secret"), "is not on this machine"),
    (OSError("Authorization: Bearer hf_secret"), r"could not be fetched from the Hugging Face hub \(OSError\)"),
]


@pytest.mark.parametrize(("error", "said"), FAULTS)
def test_every_fault_of_the_hub_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    data, model = raised(monkeypatch, error, "dataset"), raised(monkeypatch, error, "model")
    assert isinstance(data, DataError) and isinstance(model, ModelError)
    assert re.match(rf"org/name: it {said}", data.what), data.what
    assert re.match(rf"org/name {said}", model.what), model.what
    if "gated" in said:
        assert "huggingface.co/datasets/org/name" in data.fix and "huggingface.co/org/name" in model.fix
