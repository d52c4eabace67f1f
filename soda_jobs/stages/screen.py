"""screen: drop questions that are too short or long, copy a benchmark task, their parent, or another question.

in   questions    rows of Question: the candidates
     existing     rows of Question that were kept earlier (optional)
     benchmarks   rows of Question with tests, which no training may see (optional)
out  rows.jsonl     the candidates that are kept, unchanged and in order
     dropped.jsonl  the others, with the reason and what they are like

    {"id": "9ab2…", "reason": "contaminated", "match": "3f00…", "similarity": 0.93}

Reasons, in the order they are looked for: too_short, too_long, contaminated, like_parent, duplicate. Of equal
texts the first is kept. A benchmark task counts as seen when its text or its solution is, each by itself, also
under other names of its functions and variables (`screening.anonymous`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from soda_jobs.context import DROPPED, ROWS, Context, StageSettings, Summary
from soda_jobs.records import write_rows
from soda_jobs.screening import Shingler, SimilarTexts, anonymous, normalised, similar

REASONS: Final = ("too_short", "too_long", "contaminated", "like_parent", "duplicate")
_DOCSTRING: Final = re.compile(r'"""(.*?)"""|' + r"'''(.*?)'''", re.DOTALL)


class Settings(StageSettings):
    ngram: int = 5
    jaccard: float = 0.7
    min_chars: int = 20
    max_chars: int = 8000
    self_duplicates: bool = True


def run(settings: Settings, context: Context) -> Summary:
    questions = list(context.rows("questions"))
    context.progress("questions", 0, len(questions))
    kept, dropped = screen(
        settings,
        questions,
        existing=list(context.rows("existing")),
        tasks=list(context.rows("benchmarks")),
        on_progress=lambda done: context.progress("questions", done, len(questions)),
    )
    write_rows(context.out / ROWS, kept)
    write_rows(context.out / DROPPED, dropped)
    counts = {"items": len(questions), "rows": len(kept), "dropped": len(dropped)}
    for reason in REASONS:
        counts[f"dropped_{reason}"] = sum(row["reason"] == reason for row in dropped)
    return Summary(counts=counts)


def screen(
    settings: Settings,
    questions: Sequence[dict[str, Any]],
    *,
    existing: Sequence[dict[str, Any]] = (),
    tasks: Sequence[dict[str, Any]] = (),
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The questions that stay, and one {"id", "reason", "match", "similarity"} for each of the others."""
    rules = [
        _length_rule(settings),
        _contamination_rule(settings, tasks),
        *_likeness_rules(settings, questions, existing),
    ]
    kept: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    for done, question in enumerate(questions, start=1):
        hits = (hit for rule in rules for hit in [rule(question)] if hit)
        hit = next(hits, None)
        if hit is None:
            kept.append(question)
        else:
            dropped.append({"id": question["id"], **hit})
        if done % 1000 == 0 or done == len(questions):
            on_progress(done)
    return kept, dropped


Rule = Callable[[dict[str, Any]], dict[str, Any] | None]


def _hit(reason: str, match: str | None, similarity: float | None) -> dict[str, Any]:
    return {"reason": reason, "match": match, "similarity": None if similarity is None else round(similarity, 4)}


def _length_rule(settings: Settings) -> Rule:
    def rule(question: dict[str, Any]) -> dict[str, Any] | None:
        length = len(question["instruction"].strip())
        if length < settings.min_chars:
            return _hit("too_short", None, None)
        return _hit("too_long", None, None) if length > settings.max_chars else None

    return rule


def _contamination_rule(settings: Settings, tasks: Sequence[dict[str, Any]]) -> Rule:
    shingle = Shingler(settings.ngram)
    texts = [(task["id"], text) for task in tasks for text in task_texts(task)]
    grams = [shingle(anonymous(text)) for _, text in texts]
    index = SimilarTexts(settings.jaccard, grams)
    identical: dict[str, str] = {}
    for (task_id, text), array in zip(texts, grams, strict=True):
        index.add(task_id, array)
        identical.setdefault(normalised(text), task_id)

    def rule(question: dict[str, Any]) -> dict[str, Any] | None:
        for text in _own_texts(question):
            same = identical.get(normalised(text))
            if same is not None:
                return _hit("contaminated", same, 1.0)
            found = index.find(shingle(anonymous(text)))
            if found is not None:
                return _hit("contaminated", found.label, found.similarity)
        return None

    return rule if tasks else lambda question: None


def _own_texts(question: dict[str, Any]) -> Iterator[str]:
    yield question["instruction"]
    if question.get("solution"):
        yield question["solution"]


def task_texts(task: dict[str, Any]) -> list[str]:
    """What must not be seen of a benchmark task: its question, docstring, code and solution; each text once."""
    start, solution = task.get("starter_code", ""), task.get("solution", "")
    texts = [task["instruction"], start, *_docstrings(start), solution, start + solution]
    return [text for text in dict.fromkeys(texts) if text.strip()]


def _docstrings(code: str) -> Iterable[str]:
    """Each docstring whole, and without its examples."""
    for found in _DOCSTRING.findall(code):
        text = found[0] or found[1]
        yield text
        yield text.partition(">>>")[0]


def _likeness_rules(
    settings: Settings, questions: Sequence[dict[str, Any]], existing: Sequence[dict[str, Any]]
) -> tuple[Rule, Rule]:
    """The rules about other questions: unlike the parent, and unlike every question kept before."""
    shingle = Shingler(settings.ngram)
    known = {row["id"]: (shingle(row["instruction"]), normalised(row["instruction"])) for row in existing}
    grams = {row["id"]: shingle(row["instruction"]) for row in questions}
    every = [array for array, _ in known.values()] + list(grams.values())
    index = SimilarTexts(settings.jaccard, every, closed=True)
    identical: dict[str, str] = {}
    for row_id, (array, text) in known.items():
        index.add(row_id, array)
        identical.setdefault(text, row_id)

    def like_parent(question: dict[str, Any]) -> dict[str, Any] | None:
        parent_id = next(iter(question["parents"]), None)
        if parent_id not in known:
            return None
        array, text = known[parent_id]
        if text == normalised(question["instruction"]):
            return _hit("like_parent", parent_id, 1.0)
        similarity = similar(grams[question["id"]], array)
        return _hit("like_parent", parent_id, similarity) if similarity >= settings.jaccard else None

    def duplicate(question: dict[str, Any]) -> dict[str, Any] | None:
        text, array = normalised(question["instruction"]), grams[question["id"]]
        if text in identical:
            return _hit("duplicate", identical[text], 1.0)
        found = index.find(array) if settings.self_duplicates else None
        if found is not None:
            return _hit("duplicate", found.label, found.similarity)
        # The last rule: a question that comes this far is kept, and later ones are compared with it.
        identical[text] = question["id"]
        index.add(question["id"], array)
        return None

    return like_parent, duplicate
