"""The tutor as annotator: a program against its question by the six-point rubric, by reading and never by running.

The code is compared with the right program piece by piece. The analysis names the pieces that are wrong, always in
the same order, and the scores follow from it, so that a small scoring model can learn both.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from soda_jobs.tutor.family import Task
from soda_jobs.tutor.solutions import pieces, solution

PAPER_RULES: Final = (
    "Basic Functionality",
    "Boundary Check",
    "Requirement Coverage",
    "Readability and Documentation",
    "Coding Practices",
)
COMPACT_RULES: Final = ("Functionality", "Boundary", "Coverage", "Readability", "Practices")

_TOKEN: Final = re.compile(r"\w+|\n|[^\w\s]")
_FENCE: Final = re.compile(r"```(\w*)[ \t]*\n(.*?)(```|\Z)", re.DOTALL)
_PAIRS: Final = {")": "(", "]": "[", "}": "{"}
_STEPS: Final = ("start", "loop", "keep", "update", "return")  # wrong ones cost points of functionality
_FUNCTIONALITY: Final = (2.0, 1.0, 0.5)  # for no, one and two wrong steps


def assess(task: Task, language: str, reply: str) -> dict[str, bool]:
    """Which parts of the reply are right: layout, name, the five steps, form, words."""
    fence = _FENCE.search(reply)
    code = fence[2] if fence else reply
    tokens = _tokens(code)
    right = pieces(task, language)
    text = " ".join(["\n", *tokens, "\n"])

    def has(piece: str) -> bool:
        return " ".join(_tokens(piece)) in text

    line_end = "\n" if language == "python" else ""
    return {
        "layout": (fence is None or (fence[1] == language and bool(fence[3]))) and code.strip().count("\n") > 1,
        "name": has(right.header),
        "start": has(right.start),
        "loop": all(map(has, right.loop)),
        "keep": has(right.condition) if right.condition else "if" not in tokens,
        "update": has(right.update + line_end),
        "return": has(right.result + line_end),
        "form": _is_balanced(tokens) and _has_colons(code, language),
        "words": _words(tokens) <= _words(_tokens(solution(task, language))),
    }


def _tokens(code: str) -> list[str]:
    return _TOKEN.findall(code)


def _words(tokens: list[str]) -> set[str]:
    return {token for token in tokens if token.isidentifier()}


def _is_balanced(tokens: list[str]) -> bool:
    stack: list[str] = []
    for token in tokens:
        if token in "([{":
            stack.append(token)
        elif token in _PAIRS and (not stack or stack.pop() != _PAIRS[token]):
            return False
    return not stack


def _has_colons(code: str, language: str) -> bool:
    """True unless a Python line that opens a block lacks its colon."""
    opening = re.compile(r"\s*(?:def|for|if|while)\b")
    lines = code.splitlines() if language == "python" else []
    return all(line.rstrip().endswith(":") for line in lines if opening.match(line))


def _scores(right: dict[str, bool]) -> tuple[float, ...]:
    """The five scores, in half points; what cannot run has no functionality."""
    wrong = sum(not right[step] for step in _STEPS)
    runs = right["form"] and right["words"]
    half: Callable[[bool], float] = lambda condition: 0.5 if condition else 0.0  # noqa: E731
    return (
        _FUNCTIONALITY[wrong] if runs and wrong < len(_FUNCTIONALITY) else 0.0,
        half(right["start"] and right["loop"]) + half(wrong == 0),
        half(right["name"]) + half(wrong == 0),
        half(right["layout"]) + half(wrong < len(_FUNCTIONALITY)),
        half(right["form"]) + half(right["words"]),
    )


def score_reply(task: Task, language: str, reply: str, rules: tuple[str, ...]) -> str:
    """The judgement as text: `Code Analysis:`, then `Score:` and one `Rule n. <name>: <number>` a line."""
    right = assess(task, language, reply)
    wrong = ", ".join(part for part, fine in right.items() if not fine)
    lines = [
        f"Rule {number}. {name}: {score:g}"
        for number, (name, score) in enumerate(zip(rules, _scores(right), strict=True), start=1)
    ]
    return "\n".join([f"Code Analysis: {wrong or 'nothing'} wrong.", "Score:", *lines])
