"""Outputs are compared as their task asks."""

import json

import pytest

from soda_jobs.errors import InvalidInput
from soda_jobs.sandbox.oracle.stdio import JUDGES, read

CASES = {
    "lines": ([("a \nb\n\n", "a\nb"), ("", "\n")], [("a b", "a  b"), ("b\na", "a\nb"), ("3", "3.0"), ("", "a")]),
    "words": ([(" a\nb ", "a b")], [("a", "a b"), ("ab", "a b")]),
    "numbers": (
        [("1.0000001 x", "1 x"), ("1e6", "1000000")],
        [("1.1", "1"), ("1 2", "1"), ("nan", "1")],
    ),
    "lines in any order": ([("b\na\n", "a\nb")], [("a\na", "a\nb"), ("a", "a\na")]),
}


@pytest.mark.parametrize("judge", JUDGES)
def test_a_judge_tells_right_from_wrong(judge: str) -> None:
    right, wrong = CASES[judge]
    assert [JUDGES[judge](*pair) for pair in right] == [True] * len(right)
    assert [JUDGES[judge](*pair) for pair in wrong] == [False] * len(wrong)


def test_tests_that_are_code_are_no_suite() -> None:
    assert read("assert f(1) == 2") is None
    assert read('{"cases" + f(1)}') is None


@pytest.mark.parametrize(
    ("suite", "field"),
    [
        ({"cases": []}, "tests.cases"),
        ({"cases": [{"stdin": "1"}]}, "tests.cases"),
        ({"cases": [{"stdin": 1, "stdout": ""}]}, "tests.cases"),
        ({"cases": [{"stdin": "", "stdout": ""}], "judge": "kind"}, "tests.judge"),
    ],
)
def test_a_suite_that_is_none_is_refused(suite: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(json.dumps(suite))
    assert refused.value.field == field


def test_an_objection_names_the_case() -> None:
    suite = read(json.dumps({"cases": [{"stdin": "", "stdout": "a"}], "judge": "words"}))
    assert suite is not None
    assert suite.objection(0, b"a\n") is None
    assert suite.objection(0, b"\xff") == "case 1 of 1: it printed '\\udcff' and not 'a'"
