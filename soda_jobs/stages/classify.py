"""classify: sort questions into easy, medium and hard by how the student did.

in   questions    rows of Question
     executions   rows of Execution of the student's answers (absent: by score alone)
     judgements   rows of Judgement of the same answers (absent: by execution alone)
out  rows.jsonl   one Classification for each question

    {"id": "e1c4…", "iteration": 1, "parents": ["9ab2…"], "question_id": "9ab2…", "level": "hard",
     "rule": "fail/low", "execution_status": "timeout", "score": 1.5}

SODA (section 3.4) publishes three cells: pass and a score of at least 4 is easy, pass and 2 to 4 is medium, fail
and below 2 is hard. The tables below agree with them and give the other cells a level too; a question that they
cannot place has level null and is not drawn from. With rules "strict" only the published cells count.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from soda_jobs.context import ROWS, Context, StageSettings, Summary
from soda_jobs.records import Classification, Level, Status, record_id, write_rows

Table = dict[tuple[str, str], Level]

# Rows: what the program did. An environment problem says nothing about the program, so its score decides.
GROUPS: Final[dict[str | None, str]] = {
    "pass": "pass",
    "fail": "fail",
    "timeout": "fail",
    "env_error": "unknown",
    "unsupported": "unknown",
    "infra_error": "unknown",
    None: "unknown",
}

BOTH: Final[Table] = {
    ("pass", "high"): "easy",
    ("pass", "middle"): "medium",
    ("pass", "low"): "hard",
    ("pass", "none"): "medium",
    ("fail", "high"): "medium",
    ("fail", "middle"): "hard",
    ("fail", "low"): "hard",
    ("fail", "none"): "hard",
    ("unknown", "high"): "easy",
    ("unknown", "middle"): "medium",
    ("unknown", "low"): "hard",
}
PUBLISHED: Final[Table] = {
    ("pass", "high"): "easy",
    ("pass", "middle"): "medium",
    ("fail", "low"): "hard",
}
EXECUTION_ONLY: Final[Table] = {("pass", "none"): "easy", ("fail", "none"): "hard"}
SCORE_ONLY: Final[Table] = {
    ("unknown", "high"): "easy",
    ("unknown", "middle"): "medium",
    ("unknown", "low"): "hard",
}
# By (there are executions, there are judgements).
TABLES: Final[dict[tuple[bool, bool], Table]] = {
    (True, True): BOTH,
    (True, False): EXECUTION_ONLY,
    (False, True): SCORE_ONLY,
    (False, False): {},
}


class Settings(StageSettings):
    rules: Literal["total", "strict"] = "total"


def run(settings: Settings, context: Context) -> Summary:
    given = ("executions" in context.inputs, "judgements" in context.inputs)
    table = PUBLISHED if settings.rules == "strict" and all(given) else TABLES[given]
    executions = _first(context, "executions")
    judgements = _first(context, "judgements")
    rows = [
        _row(context.round, table, question["id"], executions.get(question["id"]), judgements.get(question["id"]))
        for question in context.rows("questions")
    ]
    write_rows(context.out / ROWS, rows)
    counts = {"rows": len(rows)}
    for level in ("easy", "medium", "hard", None):
        counts[level or "excluded"] = sum(row["level"] == level for row in rows)
    return Summary(counts=counts)


def classify(table: Table, status: Status | None, score: float | None) -> tuple[Level | None, str]:
    """The level, and the cell of the table that says so. `score` runs from 0 to 6; None when there is none."""
    cell = (GROUPS[status], band(score))
    return table.get(cell), "/".join(cell)


def band(score: float | None) -> str:
    """low below 2, middle below 4, high from 4 on; none without a score."""
    if score is None:
        return "none"
    return "low" if score < 2 else "middle" if score < 4 else "high"


def _first(context: Context, name: str) -> dict[str, dict[str, Any]]:
    """The row of each question's first answer."""
    rows: dict[str, dict[str, Any]] = {}
    for row in context.rows(name):
        rows.setdefault(row["question_id"], row)
    return rows


def _row(
    round_: int,
    table: Table,
    question_id: str,
    execution: dict[str, Any] | None,
    judgement: dict[str, Any] | None,
) -> Classification:
    status = execution["status"] if execution else None
    score = judgement["total"] if judgement else None
    level, rule = classify(table, status, score)
    return Classification(
        id=record_id("classification", round_, question_id),
        iteration=round_,
        parents=[question_id, *(row["id"] for row in (execution, judgement) if row)],
        question_id=question_id,
        level=level,
        rule=rule,
        execution_status=status,
        score=score,
    )
