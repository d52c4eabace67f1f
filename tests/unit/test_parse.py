import time

import pytest

from soda_jobs.models.parse import (
    check_pair,
    check_solution,
    has_similar_length,
    is_self_revealing,
    parse_new_question,
    parse_scores,
    strip_opener,
)

FULL = """Code Analysis: The loop is right.
Score:
Rule 1. Basic Functionality: 1.5
Rule 2. Boundary Check: 0.5
Rule 3. Requirement Coverage: 1
Rule 4. Readability and Documentation: 0
Rule 5. Coding Practices: 1
"""


def test_a_full_assessment_is_ok_and_half_points_count():
    scores = parse_scores(FULL)
    assert scores.parse_status == "ok"
    assert scores.per_rule == {"1": 1.5, "2": 0.5, "3": 1.0, "4": 0.0, "5": 1.0}
    assert scores.total == 4.0
    assert scores.analysis == "The loop is right."


def test_only_what_follows_the_last_score_marker_counts():
    text = "Code Analysis: I will give a Score: soon.\nScore:\nRule 1. A: 0\n" + FULL
    assert parse_scores(text).total == 4.0
    assert parse_scores(FULL + "Score: withdrawn").parse_status == "failed"


@pytest.mark.parametrize("blank", ["", " ", " N/A", " n/a (no code)", " -"])
def test_a_blank_rule_is_null_and_the_total_sums_the_others(blank):
    scores = parse_scores(FULL.replace(": 1.5", f":{blank}"))
    assert scores.per_rule["1"] is None
    assert scores.total == 2.5
    assert scores.parse_status == "partial"


def test_fewer_than_three_numeric_rules_fail():
    lines = FULL.splitlines(keepends=True)
    three, two = "".join(lines[:5]), "".join(lines[:4])
    assert (parse_scores(three).parse_status, parse_scores(three).total) == ("partial", 3.0)
    assert (parse_scores(two).parse_status, parse_scores(two).total) == ("failed", None)


@pytest.mark.parametrize("text", ["", "I cannot assess this.", FULL.replace("Score:", "Result:"), "Score:"])
def test_a_reply_without_scores_fails(text):
    scores = parse_scores(text)
    assert scores.parse_status == "failed"
    assert set(scores.per_rule.values()) == {None}


def test_every_rule_is_clamped_to_its_maximum():
    text = "Score:\nRule 1. A: 6\nRule 2. B: 2\nRule 3. C: -1\nRule 4. D: 1.0\nRule 5. E: 100"
    assert parse_scores(text).per_rule == {"1": 2.0, "2": 1.0, "3": 0.0, "4": 1.0, "5": 1.0}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("Rule 1. Basic Functionality: 2", 2.0),
        ("**Rule 1. Basic Functionality:** 1.5", 1.5),
        ("- Rule 1: 1", 1.0),
        ("rule 1. basic functionality: 1/2", 1.0),
        ("Rule 1. Basic Functionality: 2 points", 2.0),
        ("Rule 1. Basic Functionality: 1.", 1.0),
        ("Rule 1. Basic Functionality: 1.5.", 1.5),
        ("Rule 1. Basic Functionality: 2 (note: the best)", 2.0),
        ("Rule 1. Basic Functionality: 1.2.3", None),
        ("Rule 1. Basic Functionality: none", None),
        ("Rule 1. Basic Functionality 2", None),
        ("Rule 6. Other: 1", None),
        ("See Rule 1. Basic Functionality: 2", None),
    ],
)
def test_shapes_of_a_rule_line(line, value):
    assert parse_scores(f"Score:\n{line}").per_rule["1"] == value


def test_a_hundred_rows_of_the_released_shapes_give_98_ok_and_2_failed():
    rows = [FULL] * 98 + ["Code Analysis: no code.\nScore:\n" + "Rule 1. A: 0\nRule 2. B: N/A\nRule 3. C:\n"]
    rows.append("Code Analysis: no code.\nScore:\n" + "".join(f"Rule {n}. A: N/A\n" for n in range(1, 6)))
    statuses = [parse_scores(row).parse_status for row in rows]
    assert (statuses.count("ok"), statuses.count("failed")) == (98, 2)


@pytest.mark.parametrize(
    "text",
    [
        "Score:\n" * 200_000,
        "Score:" + "Rule 1" * 200_000,
        "Score:\nRule 1. " + ":" * 1_000_000,
        "Score:\nRule 1. A:" + " " * 1_000_000,
        "Score:\nRule 1. A: " + "9" * 1_000_000,
        "Score:\n" + "Rule 1. A: 9999999999\n" * 50_000,
        "a error " * 150_000,
        " " * 1_000_000,
        "sure" + " " * 1_000_000,
    ],
)
def test_hostile_replies_of_a_megabyte_are_read_in_linear_time(text):
    started = time.process_time()
    parse_scores(text)
    parse_new_question(text)
    strip_opener(text)
    is_self_revealing(text)
    assert time.process_time() - started < 2.0


def test_a_new_question_is_what_follows_the_marker():
    text = "Sure!\n#Created Instruction#:\n Write a function that adds two numbers. \n"
    assert parse_new_question(text).value == "Write a function that adds two numbers."
    assert parse_new_question("NEW> " + "x" * 30, "NEW>").value == "x" * 30


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Write a function that adds two numbers.", "no_marker"),
        ("", "no_marker"),
        ("#Created Instruction#: \n", "empty"),
        ("#Created Instruction#: " + "x" * 19, "too_short"),
        ("#Created Instruction#: " + "x" * 20, None),
        ("#Created Instruction#: " + "x" * 8_000, None),
        ("#Created Instruction#: " + "x" * 8_001, "too_long"),
    ],
)
def test_a_new_question_is_refused_with_its_reason(text, reason):
    parsed = parse_new_question(text)
    assert parsed.reason == reason
    assert (parsed.value is None) == (reason is not None)


def test_solutions_that_are_empty_or_cut_are_refused():
    assert check_solution("```python\n1\n```", "stop") is None
    assert check_solution(" \n", "stop") == "empty"
    assert check_solution("```python\n1", "length") == "length"
    assert check_solution("x", "content_filter") == "content_filter"


def test_pairs_need_two_different_sides():
    assert check_pair("a", "b") is None
    assert check_pair("a", " a\n") == "equal"
    assert check_pair("a", " ") == "empty"


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("Sure, here is the code:\n```c\nint x;\n```", "```c\nint x;\n```"),
        ("Certainly! Here you go.\n\ncode", "\ncode"),
        ("Here's a solution:\ncode", "code"),
        ("surely = 1\ncode", "surely = 1\ncode"),
        ("```c\nsure\n```", "```c\nsure\n```"),
    ],
)
def test_a_conversational_first_line_is_stripped(text, stripped):
    assert strip_opener(text) == stripped


@pytest.mark.parametrize(
    ("text", "revealing"),
    [
        ("This code contains an error in line 2.", True),
        ("x = 1  # Logical error: should be 2", True),
        ("I wrote a faulty solution on purpose.", True),
        ("# the condition is intentionally wrong", True),
        ("raise TypeError('no')", False),
        ("throw new Error('bad input')", False),
        ("def f(xs):\n    return sum(xs)", False),
    ],
)
def test_faults_that_speak_of_themselves_are_found(text, revealing):
    assert is_self_revealing(text) == revealing


def test_length_ratio_window_is_closed():
    assert has_similar_length("a" * 10, "b" * 5)
    assert has_similar_length("a" * 10, "b" * 20)
    assert not has_similar_length("a" * 10, "b" * 4)
    assert not has_similar_length("a" * 10, "b" * 21)
