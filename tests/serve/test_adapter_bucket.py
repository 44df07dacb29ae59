"""The adapter store in a bucket, over the S3 protocol: moto's server in a process of its own, s3fs in another."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rankwise.files import hash_folder
from tests.serve.adapters import adapter
from tests.train.test_object_store import HOST, Bucket, bucket, programs  # noqa: F401 - fixtures
from tests.training import environment

pytestmark = pytest.mark.prove
WORK = """
import json, sys
from pathlib import Path
from rankwise.errors import AdapterError
from rankwise.serve.adapterstore import AdapterStore
from tests.serve.adapters import BASE
url, folder, *caches = sys.argv[1:]
store = AdapterStore(url, cache=Path(caches[0]))
try:
    sha256 = store.put(Path(folder), BASE)
    print(json.dumps([str(AdapterStore(url, cache=Path(cache)).open(sha256)) for cache in caches]))
except AdapterError as error:
    print(json.dumps(error.what))
"""


@pytest.fixture
def asked(programs: Path, bucket: Bucket):  # type: ignore[no-untyped-def]  # noqa: F811
    """What the store says in a process that has s3fs."""
    there = {
        "AWS_ENDPOINT_URL": f"http://{HOST}:{bucket.port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "NO_PROXY": HOST,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }

    def ask(*arguments: object) -> object:
        command = [programs / "python", "-c", WORK, *map(str, arguments)]
        done = subprocess.run(command, env=environment() | there, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask


def test_an_adapter_goes_through_a_bucket_to_other_machines(tmp_path: Path, bucket: Bucket, asked) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    made = adapter(tmp_path / "made")
    found = asked("s3://bucket/team/adapters", made, tmp_path / "one", tmp_path / "other")
    assert [hash_folder(Path(folder)) for folder in found] == [hash_folder(made)] * 2
    names = bucket.names()
    assert len(names) == 4 and sum(name.endswith(".json") and name.count("/") == 2 for name in names) == 1

    weights = next(name for name in names if name.endswith(".safetensors"))
    bucket.ask("PUT", f"/{weights}", b"other weights")
    assert "changed since" in asked("s3://bucket/team/adapters", made, tmp_path / "third")
    assert not list((tmp_path / "third").glob("[0-9a-f]*"))


def test_a_bucket_that_is_not_there_is_not_made(tmp_path: Path, asked, bucket: Bucket) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    said = asked("s3://misspelt/adapters", adapter(tmp_path / "made"), tmp_path / "cache")
    assert "s3://misspelt/adapters cannot be reached" in said
