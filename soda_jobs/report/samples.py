"""Which questions and answers the report shows, chosen by rule and not by taste.

Ids are hashes, so "the smallest ids" is a fair draw that never changes. Only what is chosen is held in memory.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from soda_jobs.report.collect import Part, Row, Source
from soda_jobs.report.text import clip, visible

LEVELS: Final = ("easy", "medium", "hard")
# What became of a held-out task between the first and the last round, and how many of each may be shown.
STORIES: Final = {"learned": 3, "lost": 1, "never": 1}

Parts = Sequence[Part]
Wanted = set[tuple[str, int]]  # (question id, round)
Found = dict[tuple[str, int], tuple[Source, Row]]
Open = Callable[[str], Iterable[Part]]


def by_level(open_: Open, count: int) -> list[dict[str, Any]]:
    """`count` questions of the last sorted round, spread over the levels, each with the student's answer."""
    chosen = _classified(open_("classifications"), count)
    return _told(
        chosen, open_, tasks="questions", answers="attempts", executions="executions", judgements="judgements"
    )


def held_out(open_: Open) -> list[dict[str, Any]]:
    """Held-out tasks that the student learned, lost or never solved, with its first and last answer."""
    chosen = _stories(open_("answer_executions"))
    return _told(chosen, open_, tasks="tasks", answers="answers", executions="answer_executions", judgements="")


def _classified(parts: Iterable[Part], count: int) -> list[dict[str, Any]]:
    last: list[dict[str, Any]] = []
    for source, rows in parts:
        levels: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            if row["level"] in LEVELS:
                levels[row["level"]].append(
                    {name: row[name] for name in ("question_id", "iteration", "level", "rule")}
                )
        each = -(-count // max(1, len(levels)))
        picked = [
            row
            for level in LEVELS
            for row in heapq.nsmallest(each, levels[level], key=lambda row: str(row["question_id"]))
        ]
        if picked:
            last = [
                {
                    "story": row["level"],
                    "rule": row["rule"],
                    "question_id": row["question_id"],
                    "rounds": [row["iteration"]],
                    "source": source,
                }
                for row in picked[:count]
            ]
    return last


def _stories(parts: Iterable[Part]) -> list[dict[str, Any]]:
    outcomes: dict[str, dict[int, str]] = defaultdict(dict)
    languages: dict[str, str] = {}
    for _, rows in parts:
        for row in rows:
            if row["sample"] == 0:
                outcomes[row["question_id"]][row["iteration"]] = row["status"]
                languages[row["question_id"]] = row["language"] or languages.get(row["question_id"], "")
    stories: dict[str, list[str]] = {name: [] for name in STORIES}
    for task in sorted(outcomes):
        rounds = sorted(outcomes[task])
        before, after = outcomes[task][rounds[0]] == "pass", outcomes[task][rounds[-1]] == "pass"
        if len(rounds) > 1 and not (before and after):
            stories["learned" if after else "lost" if before else "never"].append(task)
    return [
        {
            "story": story,
            "language": languages[task],
            "question_id": task,
            "rounds": [min(outcomes[task]), max(outcomes[task])],
        }
        for story, most in STORIES.items()
        for task in _one_per_language(stories[story], languages)[:most]
    ]


def _one_per_language(tasks: Sequence[str], languages: Mapping[str, str]) -> list[str]:
    """The first task of each language, languages in order, then the rest."""
    firsts = {languages[task]: task for task in reversed(tasks)}
    front = [firsts[language] for language in sorted(firsts)]
    return front + [task for task in tasks if task not in front]


def _told(
    chosen: list[dict[str, Any]], open_: Open, *, tasks: str, answers: str, executions: str, judgements: str
) -> list[dict[str, Any]]:
    wanted = {(item["question_id"], round_) for item in chosen for round_ in item["rounds"]}
    ids = {question for question, _ in wanted}
    questions = {row["id"]: (source, row) for source, rows in open_(tasks) for row in rows if row["id"] in ids}
    texts = _find(open_(answers), wanted)
    ran = _find(open_(executions), wanted)
    scored = _find(open_(judgements), wanted) if judgements else {}
    return [
        {
            **item,
            "question": clip(questions[item["question_id"]][1]["instruction"]),
            "answers": [
                _answer(round_, texts.get(key), ran.get(key), scored.get(key))
                for round_ in item["rounds"]
                for key in [(item["question_id"], round_)]
            ],
        }
        for item in chosen
        if item["question_id"] in questions
    ]


def _find(parts: Iterable[Part], wanted: Wanted) -> Found:
    return {
        key: (source, row)
        for source, rows in parts
        for row in rows
        for key in [(row["question_id"], row["iteration"])]
        if key in wanted and row.get("sample", 0) == 0
    }


def _answer(round_: int, text: Any, ran: Any, scored: Any) -> dict[str, Any]:
    answer: dict[str, Any] = {"round": round_}
    if text:
        source, row = text
        answer |= {"text": clip(row["text"]), "finish_reason": row["finish_reason"], "source": source}
    if ran:
        source, row = ran
        answer["execution"] = {
            "language": row["language"],
            "status": row["status"],
            "verdict": row["verdict"],
            "detail": visible(row["detail"][:400]),
            "source": source,
        }
    if scored:
        source, row = scored
        answer["judgement"] = {
            "total": row["total"],
            "per_rule": row["per_rule"],
            "analysis": clip(row["analysis"], limit=1500),
            "source": source,
        }
    return answer
