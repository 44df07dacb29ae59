"""For every test: no ledger of this machine corrects a time, no comparison made on it moves a plan, and none is
written to. The cycle collector leaves alone what was there before a module."""

import gc
import os

import pytest

# Not by a fixture: those of a module or the session run before one of a test, and processes inherit this.
os.environ["RANKWISE_LEDGER"] = "off"
os.environ["RANKWISE_COMPARISONS"] = "off"


@pytest.fixture(scope="module", autouse=True)
def collector_leaves_what_is_there() -> None:
    """Ten thousand tests are some million objects, which Python's cycle collector would walk whenever a model is made:
    half the time of the tests that trace. They are set apart before each module; what it makes itself is collected.
    """
    gc.collect()
    gc.freeze()
