"""Words of the field that a page uses stand in its list of words."""

import pytest

from tests.report.test_page import WHOLE, Page

JARGON = {
    *("LoRA", "QLoRA", "nats", "95 %", "meta device", "FLOP", "Checkpoint", "Gradient norm", "effective rank", "(KL)"),
    *("alpha =", "adapter", "Key-value cache", "Forgetting", "Learning rate", "points", "front", "seeds", "arms"),
    *("sweep", "probes", "Peak memory", "closed-book", "Validation loss"),
}


def forms(word: str) -> tuple[str, ...]:
    plain = word.lower().strip("()= ")
    return plain, plain.removesuffix("s")


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_used_is_explained(name: str) -> None:
    text = " ".join(Page(WHOLE[name]).text.replace("\u00a0", " ").split())
    body, _, terms = text.partition("Words used on this page")
    used = {word for word in JARGON if word.lower() in body.lower()}
    unexplained = [word for word in used if not any(form in terms.lower() for form in forms(word))]
    assert len(used) >= 8 and terms
    assert not unexplained
