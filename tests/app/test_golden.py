"""The judge of screenshots: edges of letters pass, what moved, is missing or has another size does not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.app import browser


def drawn(*, at: int = 20, words: int = 12) -> Image.Image:
    image = Image.new("RGB", (320, 240), "white")
    pen = ImageDraw.Draw(image)
    for line in range(words):
        pen.rectangle((at, 10 + 18 * line, at + 200, 20 + 18 * line), fill="black")
    return image


def test_edges_of_letters_say_nothing() -> None:
    noise = np.random.default_rng(0).integers(-12, 13, (240, 320, 3))
    shaken = Image.fromarray(np.clip(np.asarray(drawn(), dtype=int) + noise, 0, 255).astype("uint8"))
    assert browser.difference(drawn(), shaken) == (0.0, [])
    assert browser.difference(drawn(), drawn().quantize(32).convert("RGB"))[0] == 0


@pytest.mark.parametrize("other", [drawn(at=40), drawn(words=9), drawn().resize((320, 200))])
def test_what_moved_or_is_missing_is_a_difference(other: Image.Image) -> None:
    assert browser.difference(drawn(), other)[0] > browser.ALLOWED


def test_a_mismatch_leaves_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "REPORTS", tmp_path)
    share, cells = browser.difference(drawn(), drawn(words=9))
    path = browser._report("page", drawn(), drawn(words=9), cells)
    assert share > 0 and path.read_text().count("data:image/png") == 3
