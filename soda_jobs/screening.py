"""Which texts say the same: token n-grams, their Jaccard similarity, and an index that finds all similar texts.

The measure is SODA's (section 4.6): the sets of token 5-grams of two texts, similar from a Jaccard of 0.7. Tokens
are runs of word characters in lower case, and texts under ten tokens have no n-grams, as in BigCode's
`near_deduplication` scripts. Those find candidates by MinHash, which misses some pairs by chance. The index here
uses prefix filtering (Chaudhuri et al. 2006; PPJoin, Xiao et al. 2008): it needs no permutations, holds no more
than a MinHash index would, and finds every pair from the threshold on.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_TOKENS: Final = 10
_WORD: Final = re.compile(r"\w+")
_DEFINED: Final = re.compile(r"\b(?:def|class|function|func|fn)\s+([A-Za-z_]\w*)\s*\(([^()]{0,500})\)?")
_BOUND: Final = re.compile(
    r"\bfor\s+([A-Za-z_]\w*(?:\s*,\s*[A-Za-z_]\w*)*)\s+in\b"
    r"|^[ \t]*(?:(?:var|let|const)\s+)?([A-Za-z_]\w*)[ \t]*=(?!=)",
    re.MULTILINE,
)
_PARAMETER: Final = re.compile(r"(?:^|,)\s*\**([A-Za-z_]\w*)")


def tokens(text: str) -> list[str]:
    """Runs of letters, digits and `_`, in lower case."""
    return _WORD.findall(text.lower())


def normalised(text: str) -> str:
    """The text without case and with single spaces: texts equal in this form are identical for every rule."""
    return " ".join(text.lower().split())


def jaccard(first: set[Hashable], second: set[Hashable]) -> float:
    """|first and second| / |first or second|; 0 when both are empty."""
    union = len(first | second)
    return len(first & second) / union if union else 0.0


def anonymous(text: str) -> str:
    """The text with the names that its code defines replaced by their order of appearance.

    A benchmark task whose function, parameters and variables were renamed becomes the same text again. Prose
    defines no names and stays as it is.
    """
    defined = _DEFINED.findall(text)
    names = {name for name, _ in defined}
    names.update(name for _, inside in defined for name in _PARAMETER.findall(inside))
    for loop, assigned in _BOUND.findall(text):
        names.update(filter(None, (assigned, *(name.strip() for name in loop.split(",")))))
    if not names:
        return text
    numbers: dict[str, str] = {}
    return _WORD.sub(
        lambda word: numbers.setdefault(word[0], f"name{len(numbers)}") if word[0] in names else word[0], text
    )


class Shingler:
    """Turns texts into arrays of distinct n-grams, each a 64-bit hash; equal on every machine and Python."""

    def __init__(self, size: int) -> None:
        import numpy as np

        self._size = size
        self._tokens: dict[str, int] = {}
        # One odd factor for each place in an n-gram, so that the order of the tokens counts.
        self._factors = [np.uint64(_hash(f"place {place}") | 1) for place in range(size)]

    def __call__(self, text: str) -> NDArray[Any]:
        """uint64[m], sorted, distinct; empty for a text under ten tokens or shorter than one n-gram."""
        import numpy as np

        words = tokens(text)
        if len(words) < max(MIN_TOKENS, self._size):
            return np.empty(0, dtype=np.uint64)
        hashes = np.array([self._token(word) for word in words], dtype=np.uint64)
        count = len(words) - self._size + 1
        grams = np.zeros(count, dtype=np.uint64)
        for place, factor in enumerate(self._factors):
            grams += hashes[place : place + count] * factor
        return np.unique(grams)

    def _token(self, word: str) -> int:
        found = self._tokens.get(word)
        if found is None:
            found = self._tokens[word] = _hash(word)
        return found


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Match:
    """The most similar text of an index: its label, and the Jaccard similarity."""

    label: str
    similarity: float


@dataclass
class SimilarTexts:
    """The texts added so far, searchable by similarity. Exact: what a comparison with every text would find.

    Two sets with a Jaccard of at least t share at least ceil(t * n) of the n members of either. So when the
    members of both are put in one order, the first n - ceil(t * n) + 1 of each share a member, and only these
    are indexed. Rare members come first, which keeps the lists short. `corpus` gives the frequencies; any other
    set may be added or searched too, only slower. With `closed` there will be none, so a member that only one
    set has is not indexed at all.
    """

    threshold: float
    corpus: Iterable[NDArray[Any]] = field(repr=False)
    closed: bool = False

    def __post_init__(self) -> None:
        import numpy as np

        arrays = [grams for grams in self.corpus if len(grams)]
        joined = np.concatenate(arrays) if arrays else np.empty(0, dtype=np.uint64)
        self.corpus = ()
        self._values, self._counts = np.unique(joined, return_counts=True)
        self._postings: dict[int, list[int]] = {}
        self._sets: list[NDArray[Any]] = []
        self._labels: list[str] = []

    def add(self, label: str, grams: NDArray[Any]) -> None:
        for gram in self._prefix(grams):
            self._postings.setdefault(gram, []).append(len(self._sets))
        self._sets.append(grams)
        self._labels.append(label)

    def find(self, grams: NDArray[Any]) -> Match | None:
        """The most similar text from the threshold on, the earliest of equally similar ones; None without any."""
        candidates = {place for gram in self._prefix(grams) for place in self._postings.get(gram, ())}
        best: Match | None = None
        for place in sorted(candidates):
            similarity = similar(grams, self._sets[place])
            if similarity >= self.threshold and (best is None or similarity > best.similarity):
                best = Match(self._labels[place], similarity)
        return best

    def _prefix(self, grams: NDArray[Any]) -> Sequence[int]:
        import numpy as np

        if not len(grams):
            return ()
        counts = np.zeros(len(grams), dtype=np.int64)
        if len(self._values):
            places = np.minimum(np.searchsorted(self._values, grams), len(self._values) - 1)
            counts = np.where(self._values[places] == grams, self._counts[places], 0)
        # 0.7 * 10 is 7.000000000000001 in floating point; its ceiling must be 7.
        needed = math.ceil(self.threshold * len(grams) - 1e-9)
        first = np.lexsort((grams, counts))[: len(grams) - needed + 1]
        if self.closed:
            first = first[counts[first] > 1]
        prefix: list[int] = grams[first].tolist()
        return prefix


def similar(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Jaccard similarity of two sorted arrays of distinct n-grams; 0 when both are empty."""
    import numpy as np

    shared = len(np.intersect1d(first, second, assume_unique=True))
    union = len(first) + len(second) - shared
    return shared / union if union else 0.0
