"""The shapes that published instruction data has, read as questions and written from training rows.

A row's shape is told by its keys alone; the first of `IMPORTS` whose keys are all there is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from soda_jobs.errors import InvalidInput
from soda_jobs.records import Question, record_id

Row = Mapping[str, Any]

# What a question may bring along, whatever its shape.
_EXTRA: Final = ("language", "tests", "starter_code", "entry_point", "task_id")


@dataclass(frozen=True)
class Shape:
    """`read` gives (instruction, solution or None) of a row that has all of `keys`."""

    name: str
    keys: frozenset[str]
    read: Callable[[Row], tuple[str, str | None]]


def read_question(row: Row, *, where: str) -> Question:
    """One question from a row of any known shape. `where` names the file and line in errors.

    Raises InvalidInput for a row of no known shape, or whose values are not text where text belongs.
    """
    shape = next((shape for shape in IMPORTS if shape.keys <= row.keys()), None)
    if shape is None:
        raise InvalidInput(
            f"the keys {', '.join(sorted(row)) or '(none)'} fit no known shape; known are {describe()}",
            field=where,
        )
    try:
        instruction, solution = shape.read(row)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise InvalidInput(f"does not read as {shape.name} {_keys(shape)}: {error}", field=where) from error
    question = Question(
        id=_own_id(row, shape, instruction),
        iteration=row.get("iteration", 0) if shape is OWN else 0,
        parents=list(row.get("parents", [])) if shape is OWN else [],
        instruction=instruction,
        source=str(row["source"]) if shape is OWN else "seed",
    )
    if solution is not None:
        question["solution"] = solution
    for key in _EXTRA:
        if isinstance(row.get(key), str):
            question[key] = row[key]
    return question


def describe() -> str:
    """The accepted shapes in words, for messages and help."""
    return "; ".join(f"{shape.name} {_keys(shape)}" for shape in IMPORTS)


def _keys(shape: Shape) -> str:
    return "{" + ", ".join(sorted(shape.keys)) + "}"


def _own_id(row: Row, shape: Shape, instruction: str) -> str:
    return str(row["id"]) if shape is OWN else record_id("question", instruction)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is {type(value).__name__}, not text")
    return value


def _with_input(row: Row) -> str:
    """An instruction and, when there is one, its input below it."""
    instruction, extra = _text(row["instruction"], "instruction"), row.get("input")
    return f"{instruction}\n\n{_text(extra, 'input')}" if extra else instruction


def _own(row: Row) -> tuple[str, str | None]:
    return _text(row["instruction"], "instruction"), row.get("solution")


def _alpaca(row: Row) -> tuple[str, str | None]:
    return _with_input(row), _text(row["output"], "output")


def _ranking(row: Row) -> tuple[str, str | None]:
    return _with_input(row), _text(row["chosen"], "chosen")


def _trl(row: Row) -> tuple[str, str | None]:
    return _said(row["prompt"], "user"), _said(row["chosen"], "assistant")


def _messages(row: Row) -> tuple[str, str | None]:
    messages = row["messages"]
    answers = [message for message in messages if message["role"] == "assistant"]
    return _said(messages, "user"), _said(answers[:1], "assistant") if answers else None


def _response(row: Row) -> tuple[str, str | None]:
    """`response` is one answer, or [correct, faulty] as in SODA's released pairs."""
    response = row["response"]
    if isinstance(response, list):
        right, _wrong = response
        return _text(row["instruction"], "instruction"), _text(right, "response[0]")
    return _text(row["instruction"], "instruction"), _text(response, "response")


def _instruction(row: Row) -> tuple[str, str | None]:
    return _text(row["instruction"], "instruction"), None


def _said(value: Any, role: str) -> str:
    """Plain text, or the first message of this role in a chat."""
    if isinstance(value, str):
        return value
    for message in value:
        if message["role"] == role:
            return _text(message["content"], f"the {role} message")
    raise ValueError(f"there is no {role} message")


OWN: Final = Shape("soda question", frozenset({"id", "instruction", "source"}), _own)
IMPORTS: Final = (
    OWN,
    Shape("chat messages", frozenset({"messages"}), _messages),
    Shape("TRL preference", frozenset({"prompt", "chosen", "rejected"}), _trl),
    Shape("LLaMA-Factory ranking", frozenset({"instruction", "chosen", "rejected"}), _ranking),
    Shape("LLaMA-Factory alpaca", frozenset({"instruction", "output"}), _alpaca),
    Shape("SODA pair or scoring", frozenset({"instruction", "response"}), _response),
    Shape("instruction", frozenset({"instruction"}), _instruction),
)


def _prompt(row: Row) -> str:
    return _said(row["prompt"], "user")


# The shapes that training rows are written in: sft {prompt, response}, preference {prompt, chosen, rejected}.
EXPORTS: Final[Mapping[str, Callable[[Row], dict[str, Any]]]] = {
    "soda-pair": lambda row: {"instruction": _prompt(row), "response": [row["chosen"], row["rejected"]]},
    "soda-scoring": lambda row: {"instruction": _prompt(row), "response": row["response"]},
    "soda-new": lambda row: {"instruction": row["instruction"]},
    "alpaca": lambda row: {"instruction": _prompt(row), "input": "", "output": row["response"]},
    "ranking": lambda row: {
        "instruction": _prompt(row),
        "input": "",
        "chosen": row["chosen"],
        "rejected": row["rejected"],
    },
    "trl": lambda row: {
        "prompt": row["prompt"],
        "chosen": _turn(row["prompt"], row["chosen"]),
        "rejected": _turn(row["prompt"], row["rejected"]),
    },
    "messages": lambda row: {
        "messages": [{"role": "user", "content": _prompt(row)}, {"role": "assistant", "content": row["response"]}]
    },
}


def _turn(prompt: Any, text: str) -> Any:
    """An answer in the form of its prompt: TRL wants text with text, and messages with messages."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


def export(row: Row, shape: str) -> dict[str, Any]:
    """A training row in another project's shape. Raises InvalidInput for an unknown shape or missing keys."""
    write = EXPORTS.get(shape)
    if write is None:
        raise InvalidInput(f"{shape!r} is no known shape; known are {', '.join(EXPORTS)}", field="shape")
    try:
        return write(row)
    except KeyError as error:
        raise InvalidInput(f"a row without {error} cannot be written as {shape}", field="shape") from error
