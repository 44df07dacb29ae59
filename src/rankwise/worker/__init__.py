"""The process that trains: a run folder in, events out; the only place, with api/, where stages meet."""

from rankwise.worker.road import work

__all__ = ["work"]
