"""Every import shape by its keys, every export shape, and rows that have none."""

from __future__ import annotations

from typing import Any

import pytest

from soda_jobs.errors import InvalidInput
from soda_jobs.records import record_id
from soda_jobs.shapes import EXPORTS, IMPORTS, export, read_question

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Sum xs."},
    {"role": "assistant", "content": "sum(xs)"},
]


@pytest.mark.parametrize(
    ("row", "instruction", "solution"),
    [
        ({"instruction": "Sum xs."}, "Sum xs.", None),
        ({"instruction": "Sum xs.", "response": "sum(xs)"}, "Sum xs.", "sum(xs)"),
        ({"instruction": "Sum xs.", "response": ["sum(xs)", "max(xs)"]}, "Sum xs.", "sum(xs)"),
        ({"instruction": "Sum", "input": "xs = [1]", "output": "1"}, "Sum\n\nxs = [1]", "1"),
        ({"instruction": "Sum xs.", "input": "", "output": "1"}, "Sum xs.", "1"),
        ({"instruction": "Sum", "input": "xs", "chosen": "sum(xs)", "rejected": "0"}, "Sum\n\nxs", "sum(xs)"),
        ({"instruction": "Sum", "chosen": "sum(xs)", "rejected": "0"}, "Sum", "sum(xs)"),
        ({"prompt": "Sum xs.", "chosen": "sum(xs)", "rejected": "0"}, "Sum xs.", "sum(xs)"),
        ({"prompt": CHAT[:2], "chosen": CHAT[2:], "rejected": CHAT[2:]}, "Sum xs.", "sum(xs)"),
        ({"messages": CHAT}, "Sum xs.", "sum(xs)"),
        ({"messages": CHAT[:2]}, "Sum xs.", None),
    ],
)
def test_shape_is_told_by_keys(row: dict[str, Any], instruction: str, solution: str | None) -> None:
    question = read_question(row, where="x")
    assert question["instruction"] == instruction
    assert question.get("solution") == solution
    assert (question["source"], question["iteration"], question["parents"]) == ("seed", 0, [])
    assert question["id"] == record_id("question", instruction)


def test_our_own_question_comes_back_as_it_was() -> None:
    own = {
        "id": "abc",
        "iteration": 2,
        "parents": ["p"],
        "instruction": "Sum xs.",
        "source": "new",
        "solution": "sum(xs)",
        "language": "python",
        "tests": "assert f([1]) == 1",
        "starter_code": "def f(xs):",
        "entry_point": "f",
        "task_id": "t/1",
    }
    assert read_question(own, where="x") == own


def test_extra_columns_do_not_hide_a_shape() -> None:
    row = {"instruction": "Sum.", "output": "1", "score": 3, "language": "go", "tests": None}
    question = read_question(row, where="x")
    assert question["language"] == "go"
    assert not {"score", "tests"} & question.keys()


def test_unknown_shape_names_place_keys_and_what_is_known() -> None:
    with pytest.raises(InvalidInput) as caught:
        read_question({"query": "Sum", "answer": "1"}, where="q.jsonl line 7")
    message = str(caught.value)
    assert message.startswith("q.jsonl line 7: the keys answer, query fit no known shape")
    assert all(shape.name in message for shape in IMPORTS)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"instruction": 3}, "instruction is int"),
        ({"instruction": "Sum", "response": ["one"]}, "not enough values"),
        ({"instruction": "Sum", "response": None}, "response is NoneType"),
        ({"instruction": "Sum", "output": ["x"]}, "output is list"),
        ({"messages": [{"role": "assistant", "content": "1"}]}, "no user message"),
        ({"messages": [{"content": "1"}]}, "role"),
    ],
)
def test_wrong_values_are_refused_with_the_place(row: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as caught:
        read_question(row, where="q.jsonl line 7")
    assert str(caught.value).startswith("q.jsonl line 7: does not read as")


ROWS = {
    "soda-pair": {"prompt": CHAT[:2], "chosen": "sum(xs)", "rejected": "0"},
    "soda-scoring": {"prompt": CHAT[:2], "response": "sum(xs)"},
    "soda-new": {"instruction": "Sum xs."},
    "alpaca": {"prompt": "Sum xs.", "response": "sum(xs)"},
    "ranking": {"prompt": CHAT[:2], "chosen": "sum(xs)", "rejected": "0"},
    "trl": {"prompt": CHAT[:2], "chosen": "sum(xs)", "rejected": "0"},
    "messages": {"prompt": CHAT[:2], "response": "sum(xs)"},
}


@pytest.mark.parametrize("shape", EXPORTS)
def test_what_is_written_can_be_read_again(shape: str) -> None:
    question = read_question(export(ROWS[shape], shape), where="x")
    assert question["instruction"] == "Sum xs."
    assert question.get("solution") == (None if shape == "soda-new" else "sum(xs)")


def test_both_sides_of_a_pair_are_written() -> None:
    assert export(ROWS["soda-pair"], "soda-pair")["response"] == ["sum(xs)", "0"]
    assert export(ROWS["trl"], "trl")["rejected"] == [{"role": "assistant", "content": "0"}]


def test_unknown_export_and_unfit_row_are_refused() -> None:
    with pytest.raises(InvalidInput, match="known are soda-pair"):
        export(ROWS["alpaca"], "csv")
    with pytest.raises(InvalidInput, match="without 'chosen' cannot be written as trl"):
        export(ROWS["alpaca"], "trl")
