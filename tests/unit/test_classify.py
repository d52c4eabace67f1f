"""The difficulty tables, cell by cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from soda_jobs.context import Context, Input
from soda_jobs.records import Level, Status, read_rows, write_rows
from soda_jobs.stages.classify import (
    BOTH,
    EXECUTION_ONLY,
    GROUPS,
    PUBLISHED,
    SCORE_ONLY,
    Settings,
    classify,
    run,
)

SCORES: list[float | None] = [0, 1.5, 2, 3.5, 4, 6, None]


@pytest.mark.parametrize(
    ("status", "levels"),
    [
        ("pass", ["hard", "hard", "medium", "medium", "easy", "easy", "medium"]),
        ("fail", ["hard", "hard", "hard", "hard", "medium", "medium", "hard"]),
        ("timeout", ["hard", "hard", "hard", "hard", "medium", "medium", "hard"]),
        ("env_error", ["hard", "hard", "medium", "medium", "easy", "easy", None]),
        ("unsupported", ["hard", "hard", "medium", "medium", "easy", "easy", None]),
        (None, ["hard", "hard", "medium", "medium", "easy", "easy", None]),
    ],
)
def test_every_cell_of_the_total_function(status: Status | None, levels: list[Level | None]) -> None:
    assert [classify(BOTH, status, score)[0] for score in SCORES] == levels


def test_published_cells_and_no_others_under_strict_rules() -> None:
    placed = {
        (status, score): classify(PUBLISHED, status, score)[0]
        for status in GROUPS
        for score in SCORES
        if classify(PUBLISHED, status, score)[0]  # type: ignore[arg-type]
    }
    expected = {("pass", 2): "medium", ("pass", 3.5): "medium", ("pass", 4): "easy", ("pass", 6): "easy"}
    expected |= {(status, score): "hard" for status in ("fail", "timeout") for score in (0, 1.5)}
    assert placed == expected


def test_total_function_agrees_with_the_published_cells() -> None:
    assert BOTH.items() >= PUBLISHED.items()


def test_ablations_place_by_one_view_alone() -> None:
    assert [classify(EXECUTION_ONLY, s, None)[0] for s in ("pass", "fail", "timeout")] == ["easy", "hard", "hard"]
    assert [classify(EXECUTION_ONLY, s, None)[0] for s in ("env_error", "unsupported", None)] == [None] * 3
    assert [classify(SCORE_ONLY, None, score)[0] for score in (1.9, 2, 4, None)] == [
        "hard",
        "medium",
        "easy",
        None,
    ]


def context(folder: Path, **rows: list[dict[str, Any]]) -> Context:
    for name, lines in rows.items():
        (folder / name).mkdir()
        write_rows(folder / name / "rows.jsonl", lines)
    (folder / "out").mkdir()
    return Context(
        run="r",
        stage="s",
        round=2,
        inputs={name: (Input(folder / name),) for name in rows},
        out=folder / "out",
        work=folder,
        services={},
        shards=None,  # type: ignore[arg-type]  # this stage has none
        progress=lambda unit, done, total: None,
    )


def rows_of(question: str, status: str, total: float | None) -> tuple[dict[str, Any], dict[str, Any]]:
    return (
        {"id": f"e{question}", "question_id": question, "status": status},
        {"id": f"j{question}", "question_id": question, "total": total},
    )


def test_run_gives_every_question_one_row_and_counts_the_excluded(tmp_path: Path) -> None:
    executions, judgements = zip(rows_of("a", "pass", 5.0), rows_of("b", "unsupported", None), strict=True)
    questions = [{"id": name} for name in ("a", "b", "never-answered")]
    given = context(tmp_path, questions=questions, executions=list(executions), judgements=list(judgements))
    counts = run(Settings(), given).counts
    assert counts == {"rows": 3, "easy": 1, "medium": 0, "hard": 0, "excluded": 2}
    rows = list(read_rows(tmp_path / "out" / "rows.jsonl"))
    assert [(row["question_id"], row["level"], row["rule"]) for row in rows] == [
        ("a", "easy", "pass/high"),
        ("b", None, "unknown/none"),
        ("never-answered", None, "unknown/none"),
    ]
    assert rows[0]["parents"] == ["a", "ea", "ja"]
    assert len({row["id"] for row in rows}) == 3


@pytest.mark.parametrize(
    ("inputs", "level"),
    [(("executions", "judgements"), "medium"), (("executions",), "hard"), (("judgements",), "easy")],
)
def test_an_absent_input_is_an_ablation(tmp_path: Path, inputs: tuple[str, ...], level: str) -> None:
    execution, judgement = rows_of("a", "fail", 5.0)
    rows = {"executions": [execution], "judgements": [judgement]}
    given = context(tmp_path, questions=[{"id": "a"}], **{name: rows[name] for name in inputs})
    run(Settings(), given)
    assert [row["level"] for row in read_rows(tmp_path / "out" / "rows.jsonl")] == [level]
