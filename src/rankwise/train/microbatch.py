"""Rows in one forward pass, and fewer of them when memory runs out."""

import gc
from collections.abc import Callable, Generator
from typing import Literal, TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from rankwise.errors import OutOfMemory, TrainingError
from rankwise.records import Note
from rankwise.store import now
from rankwise.train.checkpoints import restore_rng, rng_state

Outcome = TypeVar("Outcome")
# Where a step that ran out of memory is taken again, in smaller passes: not where it stands while another process waits
# for this one in the middle of it, and nowhere if the backward pass has updated weights already.
Again = Literal["here", "from a checkpoint", "never"]


class MicroBatch:
    """How many rows of an optimizer step go through the model together. The step itself keeps its rows.

    Args:
        rows: as planned.
        effective: rows of one optimizer step.
        again: where a step can be taken again.
    """

    def __init__(self, rows: int, effective: int, again: Again):
        self.rows, self.effective, self.again = rows, effective, again

    def at_most(self, rows: int | None) -> None:
        """What an earlier part of this run has found to fit; None: nothing."""
        self.rows = min(self.rows, rows or self.rows)

    def attempt(self, work: Callable[[], Outcome], forget: Callable[[], None]) -> Generator[Note, None, Outcome]:
        """What `work` returns. When memory runs out it is done again with half the rows in a forward pass, from the
        same random numbers, after `forget` has dropped its gradients.

        Raises:
            OutOfMemory: the step can be taken again from a checkpoint alone.
            TrainingError: not even one row fits, or the step cannot be taken again.
        """
        while True:
            drawn = rng_state()
            try:
                return work()
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                said = str(error).strip().splitlines()[0]
            forget()  # outside of `except`, whose traceback holds the tensors of the failed pass
            gc.collect()
            clear_device_cache()
            restore_rng(drawn)
            yield self._halved(said)

    def _halved(self, said: str) -> Note:
        if self.rows == 1 or self.again != "here":
            what = f"out of memory with {self.rows} {'row' if self.rows == 1 else 'rows'} in one forward pass: {said}"
            expected = "memory for one forward and backward pass"
            fix = (
                "set train.gradient_checkpointing, a smaller train.per_device_train_batch_size or "
                "train.max_length, or method: qlora"
            )
            if self.rows > 1 and self.again == "from a checkpoint":
                raise OutOfMemory(self.rows, what, expected=expected, fix=fix)
            raise TrainingError(what, expected=expected, fix=fix)
        before, self.rows = self.rows, self.rows // 2
        return Note(
            time=now(),
            text=f"OUT OF MEMORY with {before} rows in one forward pass: from here on {self.rows}, in more passes; "
            f"each step still learns from {self.effective} rows ({said})",
        )
