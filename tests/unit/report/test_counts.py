"""What the report counts: each number against one worked out by hand."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from soda_jobs.report import render
from soda_jobs.report.collect import ALL, POINTS, agreement, changes, curve
from soda_jobs.report.facts import StageFact, costs, duration, per_sample
from soda_jobs.report.text import clip, plain, visible

# -- what is counted -----------------------------------------------------------------------------------


CELL: dict[str, Any] = {"benchmark": "b", "language": "c", "metric": "pass@1", "k": 1, "value": 0.5}


def test_all_languages_are_pooled_task_by_task(finished: Any) -> None:
    rows = [row for row in finished[0]["metrics"] if row["round"] == 3]
    everything = next(row for row in rows if row["language"] == ALL)
    single = [row for row in rows if row["language"] != ALL]
    assert everything["n"] == sum(row["n"] for row in single) == 90
    assert everything["value"] == pytest.approx(sum(row["value"] * row["n"] for row in single) / 90)


@pytest.mark.parametrize(("gained", "lost", "p"), [(5, 0, 1 / 16), (6, 0, 1 / 32), (9, 1, 22 / 1024), (3, 3, 1)])
def test_solved_and_lost_tasks_are_compared_by_mcnemars_exact_test(gained: int, lost: int, p: float) -> None:
    before = dict(enumerate([0.0] * gained + [1.0] * lost + [1.0] * 4))
    after = dict(enumerate([1.0] * gained + [0.0] * lost + [1.0] * 4))
    (found,) = changes([{**CELL, "round": 0, "per_task": before}, {**CELL, "round": 3, "per_task": after}])
    assert (found["gained"], found["lost"], found["test"]) == (gained, lost, "McNemar")
    assert found["p"] == p


def test_shares_of_samples_are_compared_by_wilcoxons_test() -> None:
    before, after = {"a": 0.1, "b": 0.2, "c": 0.5}, {"a": 0.4, "b": 0.4, "c": 0.6}
    (found,) = changes([{**CELL, "round": 0, "per_task": before}, {**CELL, "round": 2, "per_task": after}])
    assert (found["test"], found["p"]) == ("Wilcoxon", 0.25)


def judged(pairs: list[tuple[float | None, str]]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [
        {"iteration": 1, "completion_id": str(n), "total": total} for n, (total, _) in enumerate(pairs)
    ]
    outcomes = {str(n): status for n, (_, status) in enumerate(pairs)}
    (found,) = agreement([({"input": "judgements", "index": 0}, rows)], outcomes)
    return found


def test_agreement_is_the_probability_that_a_pass_outscores_a_fail() -> None:
    found = judged([(6, "pass"), (4, "pass"), (4, "fail"), (1, "timeout"), (None, "fail"), (3, "unsupported")])
    assert found["auc"] == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert (found["mean_passing"], found["mean_failing"], found["unread"], found["judged"]) == (5.0, 2.5, 1, 5)


def test_a_judge_that_always_says_the_same_is_called_so(make: Any) -> None:
    assert judged([(3, "pass"), (3, "fail")])["constant"]
    assert not judged([(3, "pass"), (2, "fail")])["constant"]
    files = make.files()
    for _, contents in files["judgements"]:
        for row in contents["rows.jsonl"]:
            row["total"] = 3.0
    page, _ = render(make.summary(files), run=make.facts(files))
    assert "gave every answer the same score, 3: it tells nothing apart" in page


@pytest.mark.parametrize("steps", [0, 1, 2, 199, 200, 201, 5000])
def test_curves_keep_their_ends_and_at_most_200_points(steps: int) -> None:
    history = [{"step": step, "loss": 1 / step} for step in range(1, steps + 1)]
    points = curve({"input": "history", "index": 0}, history)["series"].get("loss", [])
    assert len(points) == min(steps, POINTS)
    assert [point[0] for point in points] == sorted({point[0] for point in points})
    if steps:
        assert (points[0][0], points[-1][0]) == (1, steps)


def test_the_story_of_a_held_out_task_is_a_failure_that_became_a_pass(finished: Any) -> None:
    learned = [item for item in finished[0]["held_out"] if item["story"] == "learned"]
    assert len({item["answers"][0]["execution"]["language"] for item in learned}) == 3
    for item in learned:
        assert [one["round"] for one in item["answers"]] == [0, 3]
        assert item["answers"][0]["execution"]["status"] != "pass"
        assert item["answers"][1]["execution"]["status"] == "pass"


def test_samples_cover_every_level_that_has_questions(finished: Any) -> None:
    assert {item["story"] for item in finished[0]["samples"]} == {"easy", "medium", "hard"} & set(
        finished[0]["difficulty"][-1]["levels"]
    )


def test_rejects_are_counted_by_reason_for_every_screen(finished: Any) -> None:
    assert [item["reasons"] for item in finished[0]["rejects"]] == [
        {"benchmark": 9, "duplicate": 5},
        {"near_duplicate": 9},
        {"near_duplicate": 9},
    ]


def strings() -> Iterator[str]:
    draw = random.Random(3)
    for _ in range(300):
        yield "".join(chr(draw.choice([draw.randrange(0x80), draw.randrange(0x110000)])) for _ in range(40))


def test_any_string_becomes_text_that_encodes_and_does_not_act() -> None:
    for text in strings():
        for shown in (visible(text), clip(text, limit=20)["text"], plain({text: text})):
            json.dumps(shown, ensure_ascii=False).encode("utf-8")
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", visible(text))


def stage(name: str, state: str = "done", **changes: Any) -> StageFact:
    return StageFact(name, "generate", 1, "k", "d", state, 10.0, 5, **changes)


def test_costs_keep_reused_work_apart_and_go_by_whose_work_it_was() -> None:
    tokens = {"prompt_tokens": 100.0, "cached_tokens": 40.0, "completion_tokens": 30.0, "cost": 0.25}
    rows = costs(
        [
            stage("r1-correct", role="teacher", telemetry=tokens),
            stage("r1-fault", "reused", role="teacher", telemetry=tokens),
            stage("r1-attempts", role="student"),
        ]
    )
    assert rows[0] == {
        "who": "teacher", "stages": 2, "seconds": 10.0, "reused_seconds": 10.0, "read": 200.0, "cached": 80.0,
        "written": 60.0, "money": 0.5,
    }  # fmt: skip
    assert [row["who"] for row in rows] == ["teacher", "student"]


def test_cost_of_an_accepted_question_is_all_tokens_and_seconds_over_the_kept(finished: Any) -> None:
    priced = {"completion_tokens": 240.0, "cost": 24.0}
    facts = [stage("a", telemetry={"prompt_tokens": 2400.0}), stage("b", telemetry=priced)]
    found = per_sample(finished[0], facts)
    assert found == {"kept": 240, "tokens": 11.0, "seconds": 20 / 240, "money": 0.1}
    assert per_sample({"rejects": []}, facts) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (61, "1 min 01 s"), (3599.7, "1 h 00 min")],
)
def test_durations_read_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words
