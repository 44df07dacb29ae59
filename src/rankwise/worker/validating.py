"""How well held-out rows are read while a run goes on: their loss, and which of their tokens would have been right."""

import math
import time
from collections.abc import Sequence

from rankwise.errors import TrainingError
from rankwise.evaluate.facttokens import Counts, counts, fact_tokens, total
from rankwise.model.likelihood import Autocast, row_losses, row_reads
from rankwise.records import Validation
from rankwise.store import now
from rankwise.text.fitting import lengths_of
from rankwise.text.masks import Encoded
from rankwise.text.template import ChatText
from rankwise.train.engines.engine import Engine


class HeldOut:
    """The held-out rows of a run, dealt to its processes.

    Every process looks at its share of the rows, and at equally many: under ZeRO-3 and FSDP all must be there.
    """

    def __init__(self, engine: Engine, rows: Sequence[Encoded], chat: ChatText, autocast: Autocast):
        self.engine, self.rows, self.autocast = engine, rows, autocast
        self.own = range(engine.group.rank, len(rows), engine.group.world)
        self.facts = [fact_tokens(rows[i], chat) for i in self.own]

    def validate(self, step: int) -> Validation:
        """Raises TrainingError where the loss is not finite."""
        began = time.monotonic()
        own = [self.rows[i] for i in self.own]
        filled = own + [self.rows[0]] * (-(-len(self.rows) // self.engine.group.world) - len(own))
        reads = row_reads(self.engine.module, filled, self.autocast)[: len(own)]
        kinds = total([counts(facts, read.right) for facts, read in zip(self.facts, reads, strict=True)])
        said = self.engine.group.gathered(([(read.loss, len(read.right)) for read in reads], kinds))
        losses = [one for each, _ in said for one in each]
        kinds = total([Counts(*each) for _, each in said])
        tokens = sum(count for _, count in losses)
        loss = sum(loss for loss, _ in losses) / tokens
        if not math.isfinite(loss):
            raise TrainingError(
                f"after step {step} the held-out loss is {loss}",
                expected="a finite number",
                fix="lower train.learning_rate; the last checkpoint is as it was",
            )
        known = kinds.facts + kinds.others > 0
        return Validation(
            time=now(),
            step=step,
            loss=loss,
            supervised_tokens=tokens,
            seconds=time.monotonic() - began,
            fact_tokens=kinds.facts if known else None,
            fact_accuracy=kinds.fact_accuracy,
            other_accuracy=kinds.other_accuracy,
        )

    def try_longest(self) -> None:
        """The longest row alone: what takes the most memory."""
        lengths = lengths_of(self.rows)
        longest = self.rows[max(range(len(self.rows)), key=lengths.__getitem__)]
        row_losses(self.engine.module, [longest], autocast=self.autocast)
