"""The embedded engine: transformers in a supervised child process that answers a running batch of requests, each with
an adapter of its own. `engine` and `frames` are the parent's side and torch-free; the rest runs in the child.
"""

from rankwise.serve.embedded.engine import EmbeddedEngine
from rankwise.serve.embedded.settings import Settings

__all__ = ["EmbeddedEngine", "Settings"]
