"""The proof that files do what was trained. Each check names what was compared, the number, and the limit it had to
keep; an artifact exists only where every one passed.

files       what lies on disk: tensors, embedding and head, sizes
origin      lineage, licence, model card
reading     chat template, tokenizer, BOS, EOS and stop ids
behaviour   the loaded files against what was trained, and against the base
merged      adapter against merged model
"""

from collections.abc import Sequence

from rankwise.export.proof.behaviour import behaves
from rankwise.export.proof.files import WEIGHTS_WHOLE, Published, examine
from rankwise.export.proof.merged import merged_agrees
from rankwise.export.proof.origin import Traced, card_complete, licence_carried, lineage_holds
from rankwise.export.proof.reading import reads_alike
from rankwise.export.proof.subject import Subject
from rankwise.records import Check, Lineage, Plan
from rankwise.text.template import ChatText

__all__ = ["Published", "Subject", "Traced", "loadable", "on_disk", "when_loaded"]


def on_disk(
    plan: Plan, chat: ChatText, published: Sequence[Published], traced: Sequence[Traced], lineage: Lineage
) -> list[Check]:
    """Every check that needs no model in memory.

    Args:
        chat: the text that training used.
        traced: origins with hashes recomputed from what is on disk.
        lineage: what lineage.json beside the weights must say.
    """
    checks = [check for one in published for check in examine(one)]
    for one in published:
        checks += reads_alike(one.folder, chat, plan.job.data.named_tokens)
        checks += [licence_carried(one.folder, plan.facts.model), card_complete(one.folder, plan.job.model)]
    return [*checks, lineage_holds(traced, lineage, [one.folder for one in published])]


def loadable(checks: Sequence[Check]) -> bool:
    """Are the weights whole, so that loading them says something?"""
    return all(check.passed for check in checks if check.name.startswith(WEIGHTS_WHOLE))


def when_loaded(subject: Subject) -> list[Check]:
    """Every check of what the loaded files do."""
    return [*behaves(subject), *(merged_agrees(subject) if subject.merged is not None else ())]
