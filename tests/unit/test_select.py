"""The select stage: shares that never move, joins that lose nothing in silence, quotas to the row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from soda_jobs import prompts
from soda_jobs.context import Context, Input
from soda_jobs.draws import HARDER, choose_parents, quotas, shares
from soda_jobs.draws import Ratio as ParentRatio
from soda_jobs.models.parse import parse_scores
from soda_jobs.pairs import annotation_text
from soda_jobs.records import read_rows, write_rows
from soda_jobs.stages.select import Settings, run

PAPER = {"easy": 1, "medium": 1, "hard": 2}


def select(
    folder: Path, mode: str, inputs: dict[str, list[dict[str, Any]]], *, round_: int = 1, **settings: Any
) -> tuple[dict[str, int], dict[str, list[dict[str, Any]]]]:
    """Counts, and the rows of each file that was written."""
    folder.mkdir(exist_ok=True)
    for name, rows in inputs.items():
        (folder / name).mkdir()
        write_rows(folder / name / "rows.jsonl", rows)
    (folder / "out").mkdir()
    context = Context(
        run="r",
        stage="s",
        round=round_,
        inputs={name: (Input(folder / name),) for name in inputs},
        out=folder / "out",
        work=folder,
        services={},
        shards=None,  # type: ignore[arg-type]  # this stage has none
        progress=lambda unit, done, total: None,
    )
    counts = run(Settings(mode=mode, **settings), context).counts
    return dict(counts), {path.stem: list(read_rows(path)) for path in sorted((folder / "out").iterdir())}


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


# -- split -------------------------------------------------------------------------------------------------------


def test_split_of_110000_is_about_8_to_2(tmp_path: Path) -> None:
    counts, files = select(
        tmp_path, "split", {"questions": [{"id": f"q{i}"} for i in range(110_000)]}, fraction=0.2
    )
    # Four standard deviations of a binomial draw are 531.
    assert counts["preference"] == pytest.approx(22_000, abs=531)
    assert counts["sft"] + counts["preference"] == counts["rows"] == 110_000
    assert not set(ids(files["sft"])) & set(ids(files["preference"]))


def test_split_never_moves_a_question_when_others_come(tmp_path: Path) -> None:
    few = [{"id": f"q{i}"} for i in range(500)]
    _, before = select(tmp_path / "a", "split", {"questions": few})
    _, after = select(tmp_path / "b", "split", {"questions": [{"id": f"new{i}"} for i in range(500)] + few[::-1]})
    assert set(ids(before["preference"])) <= set(ids(after["preference"]))
    assert set(ids(before["sft"])) <= set(ids(after["sft"]))


@pytest.mark.parametrize(("fraction", "preference"), [(0.0, 0), (0.95, 950)])
def test_split_at_the_ends_of_its_range(tmp_path: Path, fraction: float, preference: int) -> None:
    counts, _ = select(tmp_path, "split", {"questions": [{"id": f"q{i}"} for i in range(1000)]}, fraction=fraction)
    assert counts["preference"] == pytest.approx(preference, abs=30 * bool(preference))


# -- pairs -------------------------------------------------------------------------------------------------------


def question(name: str) -> dict[str, Any]:
    return {"id": name, "instruction": f"Solve {name}."}


def completion(name: str, text: str, *, round_: int = 1, finish: str = "stop", **extra: Any) -> dict[str, Any]:
    return {
        "id": f"c-{name}-{len(text)}",
        "question_id": name,
        "iteration": round_,
        "text": text,
        "finish_reason": finish,
        **extra,
    }


CODE = "```python\ndef f(xs):\n    return sum(xs)\n```"
WRONG = "```python\ndef f(xs):\n    return max(xs)\n```"


def test_pairs_join_each_share_with_what_was_written_for_it(tmp_path: Path) -> None:
    counts, files = select(
        tmp_path,
        "pairs",
        {
            "sft": [question("a")],
            "preference": [question("b")],
            "correct": [completion("b", CODE, round_=1), completion("a", CODE)],
            "fault": [completion("b", WRONG, round_=2, fault_types=["Logical"])],
        },
        prompt_id="paper/correct",
    )
    (sft,), (pair,) = files["sft"], files["preference"]
    assert sft["prompt"] == prompts.render("paper/correct", question="Solve a.")
    assert (sft["response"], sft["parents"][0]) == (CODE, "a")
    assert (pair["chosen"], pair["rejected"], pair["iteration"]) == (CODE, WRONG, 2)
    assert pair["prompt"] == prompts.render("paper/correct", question="Solve b.")
    assert pair["meta"] == {"question_id": "b", "fault_types": ["Logical"]}
    assert counts == {"rows": 2, "sft": 1, "preference": 1, "dropped": 0}


def test_without_fault_learning_every_question_is_for_sft(tmp_path: Path) -> None:
    counts, files = select(
        tmp_path,
        "pairs",
        {
            "sft": [question("a")],
            "preference": [question("b")],
            "correct": [completion("a", CODE), completion("b", CODE)],
        },
        prompt_id="paper/correct",
    )
    assert [row["parents"][0] for row in files["sft"]] == ["a", "b"]
    assert (counts["preference"], files["preference"]) == (0, [])


@pytest.mark.parametrize(
    ("right", "wrong", "reason"),
    [
        (None, completion("b", WRONG), "no_correct"),
        (completion("b", CODE), None, "no_fault"),
        (completion("b", " \n"), completion("b", WRONG), "empty"),
        (completion("b", CODE), completion("b", ""), "empty"),
        (completion("b", CODE), completion("b", CODE + "\n"), "equal"),
        (completion("b", CODE, finish="length"), completion("b", WRONG), "length"),
    ],
)
def test_what_makes_no_pair_is_dropped_with_its_reason(
    tmp_path: Path, right: dict[str, Any] | None, wrong: dict[str, Any] | None, reason: str
) -> None:
    inputs = {
        "sft": [],
        "preference": [question("b")],
        "correct": [right] if right else [],
        "fault": [wrong] if wrong else [],
    }
    counts, files = select(tmp_path, "pairs", inputs, prompt_id="paper/correct")
    assert files["dropped"] == [{"id": "b", "reason": reason}]
    assert counts[f"dropped_{reason}"] == counts["dropped"] == 1
    assert counts["rows"] == 0


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (WRONG.replace("max", "max(xs)  # faulty on purpose\n    max"), "self_revealing"),
        ("x", "length_ratio"),
        (CODE + "\n# padding " + "x" * 200, "length_ratio"),
        ("Sure, here it is:\n" + CODE, "equal"),
    ],
)
def test_strict_drops_shortcuts_that_paper_keeps(tmp_path: Path, wrong: str, reason: str) -> None:
    inputs = {
        "sft": [],
        "preference": [question("b")],
        "correct": [completion("b", "Certainly! Here you are:\n" + CODE)],
        "fault": [completion("b", wrong)],
    }
    _, files = select(tmp_path / "strict", "pairs", inputs, prompt_id="paper/correct", preset="strict")
    assert [row["reason"] for row in files["dropped"]] == [reason]
    _, files = select(tmp_path / "paper", "pairs", inputs, prompt_id="paper/correct", preset="paper")
    assert len(files["preference"]) == 1


def test_strict_strips_openers_from_both_sides(tmp_path: Path) -> None:
    inputs = {
        "sft": [],
        "preference": [question("b")],
        "correct": [completion("b", "Certainly! Here you are:\n" + CODE)],
        "fault": [completion("b", "Sure, look:\n" + WRONG)],
    }
    _, files = select(tmp_path, "pairs", inputs, prompt_id="paper/correct", preset="strict")
    assert [(row["chosen"], row["rejected"]) for row in files["preference"]] == [(CODE, WRONG)]


# -- sample and annotations --------------------------------------------------------------------------------------


def test_sample_is_of_the_rows_and_not_of_their_places(tmp_path: Path) -> None:
    rows = [{"id": f"c{i}", "text": "x"} for i in range(200)]
    _, first = select(tmp_path / "a", "sample", {"rows": rows}, count=50, seed=3)
    _, turned = select(tmp_path / "b", "sample", {"rows": rows[::-1]}, count=50, seed=3)
    _, other = select(tmp_path / "c", "sample", {"rows": rows}, count=50, seed=4)
    _, more = select(tmp_path / "d", "sample", {"rows": rows}, count=500, seed=3)
    assert len(first["rows"]) == 50
    assert set(ids(first["rows"])) == set(ids(turned["rows"])) != set(ids(other["rows"]))
    assert more["rows"] == rows


def judgement(name: str, status: str = "ok", analysis: str = "It sums.") -> dict[str, Any]:
    return {
        "id": f"j-{name}",
        "iteration": 1,
        "question_id": name,
        "completion_id": completion(name, CODE)["id"],
        "analysis": analysis,
        "per_rule": {"1": 2.0, "2": 0.5, "3": 1.0, "4": 0.0, "5": 1.0},
        "total": 4.5,
        "parse_status": status,
    }


def test_annotations_teach_only_what_was_read_in_full(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    counts, files = select(
        tmp_path,
        "annotations",
        {
            "questions": [question(name) for name in names],
            "completions": [completion(name, CODE) for name in names],
            "judgements": [judgement("a"), judgement("b", "partial"), judgement("c", "failed")],
        },
        prompt_id="paper/score",
    )
    (row,) = files["rows"]
    assert "Solve a." in row["prompt"][-1]["content"]
    assert "return sum(xs)" in row["prompt"][-1]["content"]
    assert [drop["reason"] for drop in files["dropped"]] == ["parse_partial", "parse_failed"]
    assert (counts["rows"], counts["dropped"]) == (1, 2)


@pytest.mark.parametrize("prompt_id", ["paper/score", "compact/score"])
def test_taught_annotation_reads_back_to_the_same_scores(prompt_id: str) -> None:
    given = judgement("a")
    found = parse_scores(annotation_text(prompt_id, given))
    assert (found.parse_status, found.per_rule, found.analysis) == ("ok", given["per_rule"], "It sums.")


def test_rules_are_named_when_the_prompt_names_them() -> None:
    assert "\nRule 2. Boundary Check: 0.5\n" in annotation_text("paper/score", judgement("a"))


# -- parents -----------------------------------------------------------------------------------------------------


def parents(sizes: dict[str, int], count: int, **settings: Any) -> list[dict[str, Any]]:
    levels = {f"{level}{i}": level for level, size in sizes.items() for i in range(size)}
    given = {"ratio": ParentRatio(), "max_children": 3, "seed": "0/1", **settings}
    return choose_parents([question(name) for name in levels], levels, count=count, **given)  # type: ignore[arg-type]


def test_10000_parents_of_soda_are_2500_2500_5000() -> None:
    rows = parents({"easy": 30_000, "medium": 30_000, "hard": 50_000}, 10_000)
    assert Counter(row["level"] for row in rows) == {"easy": 2500, "medium": 2500, "hard": 5000}
    assert len(set(ids(rows))) == 10_000


@pytest.mark.parametrize("count", range(12))
def test_shares_sum_up_and_are_within_one_of_exact(count: int) -> None:
    found = shares(count, PAPER)  # type: ignore[arg-type]
    assert sum(found.values()) == count
    assert all(abs(found[level] - count * PAPER[level] / 4) < 1 for level in HARDER)


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        ((99, 99, 99), (2, 2, 4)),
        ((0, 99, 99), (0, 4, 4)),
        ((99, 0, 99), (2, 0, 6)),
        ((99, 99, 0), (2, 6, 0)),
        ((99, 0, 0), (8, 0, 0)),
        ((0, 0, 99), (0, 0, 8)),
        ((0, 3, 99), (0, 3, 5)),
        ((99, 1, 4), (3, 1, 4)),
        ((1, 1, 1), (1, 1, 1)),
        ((0, 0, 0), (0, 0, 0)),
    ],
)
def test_a_level_without_room_gives_to_the_next_harder_else_easier(
    room: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    found = quotas(8, PAPER, dict(zip(HARDER, room, strict=True)))  # type: ignore[arg-type]
    assert tuple(found[level] for level in HARDER) == expected


def test_a_parent_comes_again_only_when_its_level_is_used_up() -> None:
    rows = [row for row in parents({"easy": 10, "medium": 10, "hard": 10}, 40) if row["level"] == "hard"]
    assert len(rows) == 20
    assert set(Counter(ids(rows)).values()) == {2}
    assert len({(row["id"], row["copy"]) for row in rows}) == 20


def test_no_parent_has_more_children_than_allowed() -> None:
    rows = parents({"easy": 1, "medium": 1, "hard": 1}, 100, max_children=2)
    assert Counter(ids(rows)) == {"easy0": 2, "medium0": 2, "hard0": 2}


def test_excluded_questions_are_no_parents_but_random_draws_take_them() -> None:
    questions, levels = [question("a"), question("b")], {"a": "hard", "b": None}
    given: dict[str, Any] = {"count": 2, "max_children": 1, "seed": 0}
    assert ids(choose_parents(questions, levels, ratio=ParentRatio(), **given)) == ["a"]  # type: ignore[arg-type]
    drawn = choose_parents(questions, levels, ratio=None, **given)  # type: ignore[arg-type]
    assert {row["id"]: row["level"] for row in drawn} == {"a": "hard", "b": "medium"}


def test_random_draw_ignores_levels(tmp_path: Path) -> None:
    levels = ["easy"] * 900 + ["hard"] * 100
    inputs = {
        "questions": [question(f"q{i}") for i in range(1000)],
        "classifications": [{"question_id": f"q{i}", "level": level} for i, level in enumerate(levels)],
    }
    counts, _ = select(tmp_path, "parents", inputs, count=400, random=True)
    assert counts["easy"] == pytest.approx(360, abs=30)
    assert (counts["rows"], counts["missing"]) == (400, 0)


def test_rounds_draw_other_parents_and_a_round_repeats_its_own(tmp_path: Path) -> None:
    inputs = {
        "questions": [question(f"q{i}") for i in range(300)],
        "classifications": [{"question_id": f"q{i}", "level": HARDER[i % 3]} for i in range(300)],
    }
    drawn = [
        select(tmp_path / name, "parents", inputs, round_=round_, count=40)[1]["rows"]
        for name, round_ in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert drawn[0] == drawn[1]
    assert set(ids(drawn[0])) != set(ids(drawn[2]))


def test_too_few_questions_are_counted_as_missing(tmp_path: Path) -> None:
    inputs = {"questions": [question("a")], "classifications": [{"question_id": "a", "level": "easy"}]}
    counts, _ = select(tmp_path, "parents", inputs, count=10, ratio={"easy": 1, "medium": 1, "hard": 2})
    assert counts == {"rows": 3, "missing": 7, "easy": 3, "medium": 0, "hard": 0}
