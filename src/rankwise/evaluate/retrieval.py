"""The training rows that hold an answer, found by their words: BM25, the baseline of lexical search."""

import logging
import re
from collections.abc import Sequence

import bm25s
import numpy as np

# Of Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), section 3.3 and 3.5.
K1 = 1.2
B = 0.75

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it tells of every index that it builds


class Index:
    """Documents that can be searched."""

    def __init__(self, documents: Sequence[str]):
        held = [words(text) for text in documents]
        self._known = bm25s.BM25(k1=K1, b=B, method="lucene", dtype="float64")
        self._empty = not any(held)
        if not self._empty:
            self._known.index(held, create_empty_token=False, show_progress=False)

    def nearest(self, query: str, most: int) -> list[int]:
        """Numbers of the at most `most` documents that share words with the query, best first; ties in the given
        order.
        """
        asked = sorted({word for word in words(query) if not self._empty and word in self._known.vocab_dict})
        if not asked:
            return []
        scores = self._known.get_scores(asked)
        best = np.argsort(-scores, kind="stable")[:most]
        return [int(number) for number in best if scores[number] > 0]


def words(text: str) -> list[str]:
    """Letters and digits in a row, without case."""
    return re.findall(r"\w+", text.casefold())
