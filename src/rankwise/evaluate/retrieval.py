"""The training rows that hold an answer, found by their words: BM25, the baseline of lexical search."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from math import log

# Of Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), section 3.3 and 3.5.
K1 = 1.2
B = 0.75


class Index:
    """Documents that can be searched."""

    def __init__(self, documents: Sequence[str]):
        counts = [Counter(words(text)) for text in documents]
        self._lengths = [sum(count.values()) for count in counts]
        self._mean = sum(self._lengths) / max(1, len(counts)) or 1.0
        self._found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for number, count in enumerate(counts):
            for word, times in count.items():
                self._found[word].append((number, times))

    def nearest(self, query: str, most: int) -> list[int]:
        """Numbers of the at most `most` documents that share words with the query, best first; ties in the given
        order.
        """
        scores: dict[int, float] = defaultdict(float)
        for word in set(words(query)):
            holders = self._found.get(word, [])
            weight = log(1 + (len(self._lengths) - len(holders) + 0.5) / (len(holders) + 0.5))
            for number, times in holders:
                norm = K1 * (1 - B + B * self._lengths[number] / self._mean)
                scores[number] += weight * times * (K1 + 1) / (times + norm)
        return sorted(scores, key=lambda n: (-scores[n], n))[:most]


def words(text: str) -> list[str]:
    """Letters and digits in a row, without case."""
    return re.findall(r"\w+", text.casefold())
