"""What was found beside its base, asked: held-out loss, general ability, what a rank is worth."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

from rankwise.api.loading import always, load_inputs, load_tuned
from rankwise.api.progress import Progress
from rankwise.api.subjects import Subject
from rankwise.errors import UsageError
from rankwise.methods import METHODS
from rankwise.observe.model import weights_hash
from rankwise.records import Comparison, Truncation, Watched
from rankwise.records.job import Forgetting
from rankwise.store import Run

MOST_ROWS = 256  # of a file that losses are taken of


class Beside:
    """A subject and its base; both are loaded when they are first asked.

    Attributes:
        notes: what of the rows was left out.
    """

    def __init__(self, subject: Subject, base: Path | None, progress: Progress):
        self.subject, self.base, self.progress = subject, base, progress
        self.notes: list[str] = []

    def heldout(self, rows: Path) -> Comparison:
        """Loss on the answers of the rows of a file."""
        from rankwise.evaluate.paired import compare_losses

        encoded = self._encoded(rows)
        with self._as_base() as base:
            before = self._losses("held-out loss, base", base, encoded)
        after = self._losses("held-out loss, tuned", self._tuned, encoded)
        source = f"cross-entropy of the answers of {len(encoded)} rows of {rows}"
        return compare_losses("heldout_loss", before, after, source)

    def ability(self, general: Path | None) -> Watched:
        """General ability: of our own texts and questions, or of the rows of a file."""
        from rankwise.evaluate.paired import resampled
        from rankwise.text.ability import OWN_QUESTIONS, question_set, text_sets
        from rankwise.watch.forgetting import SetProbe, Watch

        sets = text_sets(general, self._chat)
        if general is None:
            sets.append(question_set(OWN_QUESTIONS, self._chat))
        plan, last = self.subject.plan, self.subject.last
        assert self.base is not None and last is not None
        one = self._tuned
        watch = Watch(
            probes=[SetProbe(asked, None) for asked in sets],
            prompts=(),
            autocast=None,
            budget=(plan.job.forgetting if plan else Forgetting()).budget_nats,
            made_of=["watched", weights_hash(self.base), str(one.dtype), self._stored],
            as_base=self._as_base,
            starts_as_base=False,
            share=lambda items, measure: measure(range(items)),
            same=lambda known: known,
            first=True,
            resampled=resampled,
        )
        self.progress("general ability", 0, 2)
        with self._as_base() as base:
            watch.ask_base(base)
        self.progress("general ability", 1, 2)
        seen = watch.look(last.step or 0, one)
        self.progress("general ability", 2, 2)
        return seen

    def truncated(self, rows: Path | None, also: Sequence[int]) -> Truncation | None:
        """What a rank is worth, on the given rows, else on the held-out ones of our own run.

        Args:
            also: further ranks to try.
        """
        from rankwise.evaluate.truncation import truncate

        plan, autocast = self.subject.plan, None
        if self.subject.last is None or not self.subject.last.adapter:
            raise UsageError(
                f"{self.subject.folder} holds no adapter to cut", expected="a LoRA adapter", fix="leave --truncate out"
            )
        if rows is None and plan is None:
            raise UsageError("what a rank is worth is measured on held-out rows", fix="give them with --data")
        encoded = self._encoded(rows) if rows else []
        if rows is None and plan is not None:
            config, _, data = load_inputs(plan)
            encoded, autocast = data.validation[:MOST_ROWS], config.autocast
        found = truncate(self._tuned, self._as_base, encoded, autocast, self.progress, also)
        if found is None:
            self.notes.append("the adapter has no B and A that could be cut to a lower rank")
        return found

    def _encoded(self, rows: Path) -> Any:
        from rankwise.text.tokens import tokens_of

        store = tokens_of(rows, self._chat, 0, self.progress)
        store.require_sound()
        whole = store.whole()
        if len(whole) > MOST_ROWS:
            self.notes.append(f"of the {len(whole)} rows of {rows} the first {MOST_ROWS} were looked at")
        return [whole[i] for i in range(min(len(whole), MOST_ROWS))]

    def _losses(self, what: str, model: Any, rows: Sequence[Any]) -> list[tuple[float, int]]:
        from rankwise.model.likelihood import row_losses

        found = []
        for i in range(0, len(rows), 16):
            found += row_losses(model, rows[i : i + 16])
            self.progress(what, len(found), len(rows))
        return found

    @cached_property
    def _chat(self) -> Any:
        from rankwise.text.template import ChatText

        if self.subject.plan is not None:
            return ChatText.for_job(self.subject.plan.job, self.subject.plan.facts.model.path)
        assert self.base is not None
        return ChatText.from_folder(self.base)

    @property
    def _stored(self) -> str:
        """How the base's weights are held, where a plan says it."""
        from rankwise.methods import TUNERS

        return TUNERS[self.subject.plan.verdict.method].base if self.subject.plan else "as-loaded"

    @property
    def _tuned(self) -> Any:
        return self._models[0]

    def _as_base(self) -> AbstractContextManager[Any]:
        return self._models[1]()

    @cached_property
    def _models(self) -> tuple[Any, Callable[[], AbstractContextManager[Any]]]:
        """(tuned, how to get the untouched base)"""
        from rankwise.model.attach import load_adapter, untouched
        from rankwise.model.load import load_base
        from rankwise.observe.model import observe_model

        last, plan = self.subject.last, self.subject.plan
        if last is None or self.base is None:
            raise UsageError(f"no weights lie in {self.subject.folder}, so no loss can be taken", fix="leave rows out")
        if plan is not None and METHODS[plan.verdict.method].trains == "adapter":
            return load_tuned(Run(self.subject.folder), plan, adapter=last.folder)
        dtype: Any = "bf16" if observe_model(str(self.base)).dtype == "bf16" else "fp32"
        base = load_base(self.base, dtype=dtype)
        if not last.adapter:
            return load_base(last.folder, dtype=dtype), lambda: always(base)
        tuned = load_adapter(base, last.folder)
        return tuned, lambda: untouched(tuned)
