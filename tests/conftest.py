"""For every test: no ledger of this machine corrects a time, no comparison made on it moves a plan, and none is
written to."""

import os

# Not by a fixture: those of a module or the session run before one of a test, and processes inherit this.
os.environ["RANKWISE_LEDGER"] = "off"
os.environ["RANKWISE_COMPARISONS"] = "off"
