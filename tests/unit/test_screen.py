"""The screen stage: each reason, the order of reasons, and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from soda_jobs.context import Context, Input
from soda_jobs.records import read_rows, record_id, write_rows
from soda_jobs.screening import jaccard, normalised, tokens
from soda_jobs.stages.screen import Settings, run, screen

LONG = (
    "Write a function that takes a list of integers and returns the sum of the squares of those that are even and "
    "larger than ten, or minus one when there is no such number in the list."
)


def question(text: str, **extra: Any) -> dict[str, Any]:
    return {"id": record_id("question", text), "iteration": 0, "parents": [], "instruction": text, **extra}


def task(text: str, **extra: Any) -> dict[str, Any]:
    return question(text, source="benchmark:x", tests="assert f() == 1", **extra)


def reasons(*args: Any, **kwargs: Any) -> list[str]:
    return [row["reason"] for row in screen(*args, **kwargs)[1]]


def test_length_is_of_the_text_without_margins() -> None:
    settings = Settings(min_chars=20, max_chars=30)
    texts = ["x" * 19, "y" * 19 + "  \n", "z" * 20, "v" * 30, "w" * 31]
    kept, dropped = screen(settings, [question(text) for text in texts])
    assert [row["instruction"] for row in kept] == ["z" * 20, "v" * 30]
    assert [row["reason"] for row in dropped] == ["too_short", "too_short", "too_long"]


def test_first_of_equal_texts_is_kept_whatever_case_and_spacing() -> None:
    first, second = question("Sum the even numbers."), question("sum  the EVEN\nnumbers.")
    kept, dropped = screen(Settings(), [first, second])
    assert kept == [first]
    assert dropped == [{"id": second["id"], "reason": "duplicate", "match": first["id"], "similarity": 1.0}]


def test_near_duplicate_names_what_it_is_like() -> None:
    other = question(LONG.replace("ten", "twelve"))
    kept, dropped = screen(Settings(), [question(LONG), other])
    assert len(kept) == 1
    assert (dropped[0]["reason"], dropped[0]["match"]) == ("duplicate", kept[0]["id"])
    assert 0.7 <= dropped[0]["similarity"] < 1


def test_near_duplicates_stay_when_they_are_allowed_but_equal_texts_never() -> None:
    rows = [question(LONG), question(LONG.replace("ten", "twelve")), question(LONG.upper())]
    kept, dropped = screen(Settings(self_duplicates=False), rows)
    assert (len(kept), len(dropped)) == (2, 1)


def test_a_question_like_a_dropped_one_may_stay() -> None:
    words = [f"word{i}" for i in range(48)]
    first, middle, last = (question(" ".join(words[start : start + 40])) for start in (0, 4, 8))
    assert screen(Settings(), [first, middle, last])[0] == [first, last]
    assert screen(Settings(), [middle, last])[0] == [middle]


def test_existing_questions_are_compared_with_and_not_given_out() -> None:
    kept, dropped = screen(Settings(), [question(LONG + " Please.")], existing=[question(LONG)])
    assert kept == []
    assert dropped[0]["reason"] == "duplicate"


def test_like_parent_goes_before_duplicate() -> None:
    parent = question(LONG)
    child = question(LONG.replace("ten", "twelve"), parents=[parent["id"]])
    assert reasons(Settings(), [child], existing=[parent]) == ["like_parent"]
    stranger = question(LONG.replace("ten", "twelve"), parents=["gone"])
    assert reasons(Settings(), [stranger], existing=[parent]) == ["duplicate"]


@pytest.mark.parametrize("field", ["instruction", "solution", "starter_code"])
def test_each_part_of_a_task_is_screened_by_itself(field: str) -> None:
    secret = " ".join(f"secret{i}" for i in range(20))
    held = task(
        "Some other words, of which there are enough to make more than five grams of them.", **{field: secret}
    )
    if field == "instruction":
        held = task(secret)
    for candidate in (question(secret), question(LONG, solution=secret)):
        kept, dropped = screen(Settings(), [candidate], tasks=[held])
        assert kept == []
        assert (dropped[0]["reason"], dropped[0]["match"]) == ("contaminated", held["id"])


def test_docstring_of_a_task_is_screened_without_its_examples() -> None:
    words = " ".join(f"word{i}" for i in range(15))
    code = (
        f'def f(x):\n    """ {words}\n' + "".join(f"    >>> f({i})\n    {i * i}\n" for i in range(9)) + '    """\n'
    )
    assert reasons(Settings(), [question(words)], tasks=[task("Complete it.", starter_code=code)]) == [
        "contaminated"
    ]


def test_a_short_task_is_found_by_equality() -> None:
    assert reasons(Settings(), [question("Add the two numbers.")], tasks=[task("add the two numbers.")]) == [
        "contaminated"
    ]


def test_a_renamed_solution_is_found() -> None:
    code = (
        "def near(xs, limit):\n    best = xs[0]\n    for x in xs:\n        if x < limit:\n            best = x\n"
    )
    other = code.replace("near", "find").replace("limit", "top").replace("best", "r").replace("xs", "items")
    rows = [question(LONG, solution=other)]
    assert reasons(Settings(), rows, tasks=[task("Held out.", solution=code)]) == ["contaminated"]


def test_agrees_with_comparing_everything_with_everything() -> None:
    rows = [question(" ".join(f"w{3 * (i * 7 % 30) + j}" for j in range(40))) for i in range(60)]
    kept, _ = screen(Settings(), rows)

    def grams(text: str) -> set[object]:
        words = tokens(text)
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    expected: list[dict[str, Any]] = []
    for row in rows:
        text = row["instruction"]
        if all(
            normalised(text) != normalised(other["instruction"])
            and jaccard(grams(text), grams(other["instruction"])) < 0.7
            for other in expected
        ):
            expected.append(row)
    assert kept == expected
    assert 1 < len(kept) < len(rows)


def test_run_writes_both_files_and_counts_every_reason(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("questions", "benchmarks", "out")}
    for folder in folders.values():
        folder.mkdir()
    rows = [question(LONG), question("x"), question(LONG.upper()), question("Keep this one, please, will you?")]
    write_rows(folders["questions"] / "rows.jsonl", rows)
    write_rows(folders["benchmarks"] / "rows.jsonl", [task("Quite another thing to be solved here.")])
    context = Context(
        run="r",
        stage="screen",
        round=0,
        inputs={name: (Input(folders[name]),) for name in ("questions", "benchmarks")},
        out=folders["out"],
        work=tmp_path,
        services={},
        shards=None,  # type: ignore[arg-type]  # this stage has none
        progress=lambda unit, done, total: None,
    )
    counts = run(Settings(), context).counts
    assert counts["rows"] + counts["dropped"] == counts["items"] == 4
    assert (counts["dropped_too_short"], counts["dropped_duplicate"], counts["dropped_contaminated"]) == (1, 1, 0)
    assert [row["id"] for row in read_rows(folders["out"] / "rows.jsonl")] == [rows[0]["id"], rows[3]["id"]]
    assert [row["id"] for row in read_rows(folders["out"] / "dropped.jsonl")] == [rows[1]["id"], rows[2]["id"]]
