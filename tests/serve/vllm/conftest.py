"""Secrets that adapters of the embedded model know, trained once for all tests of a real vLLM."""

import pytest
from benchmarks.serve.secret import Secret, make_secrets

from rankwise.model.locate import locate


@pytest.fixture(scope="session")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Secret, ...]:
    """One for each of eight tenants."""
    return make_secrets(locate("embedded"), tmp_path_factory.mktemp("secrets"), 8, targets=("all-linear",))
