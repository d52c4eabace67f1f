"""Read what models write: scores, new questions, solutions. Text in; a value, or the reason why not, out.

Pure, and linear in the length of the reply: a reply is not trusted to be short or well formed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from soda_jobs.prompts import CREATED
from soda_jobs.prompts.faults import FAULTS
from soda_jobs.records import ParseStatus

# The six-point rubric (paper, section 3.3.1): the most each rule can give.
RULE_MAXIMA: Final = {"1": 2.0, "2": 1.0, "3": 1.0, "4": 1.0, "5": 1.0}
_MIN_RULES: Final = 3  # fewer numeric rules than this and the reply was no assessment
_MIN_CHARS, _MAX_CHARS = 20, 8_000  # of a new question

# `**Rule 1. Basic Functionality**: 1.5`; a blank value or `N/A` leaves the number out. Every repeat is bounded.
_RULE: Final = re.compile(r"[ \t*#\->]{0,16}Rule[ \t]{1,4}([1-5])\b([^\n]{0,400})", re.IGNORECASE)
_NUMBER: Final = re.compile(r":[\s*\"'`]{0,16}(-?\d{1,9}(?:\.\d{1,9})?)(?!\w|\.\d)")
_OPENER: Final = re.compile(
    r"\s{0,64}(?:sure|certainly|of course|absolutely|great|okay|here(?:'s| is| are))\b[^\n]{0,400}(?:\n|\Z)", re.I
)
_REVEALING: Final = re.compile(
    r"\b(?:" + "|".join(FAULTS) + r")[ \t]error\b"
    r"|\b(?:faulty|erroneous|incorrect|intentional(?:ly)?|deliberate(?:ly)?|on purpose|bug(?:gy)?)\b"
    r"|\b(?:contains?|has|introduced?|this is) (?:an?|the) (?:error|mistake|fault)\b"
    r"|\bshould (?:be|have been)\b",
    re.IGNORECASE,
)


# How a reply opens that declines, when no code follows. Only the opening counts: prose may well say "cannot".
_REFUSAL: Final = re.compile(
    r"\W{0,8}(?:(?:I(?:'m| am)|we(?:'re| are)) (?:very |so |really )?(?:sorry|unable|not able)\b"
    r"|(?:sorry|apologies),? but I\b|I apologi[sz]e\b|as an AI\b"
    r"|(?:I|we) (?:can(?:'t|not| not)|won't|must decline|decline|refuse)\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Scores:
    """One judgement. A rule without a number is None; `total` (0 to 6) sums the rest, None when parsing failed."""

    analysis: str
    per_rule: dict[str, float | None]
    total: float | None
    parse_status: ParseStatus


@dataclass(frozen=True)
class Parsed:
    """A value read from a reply, or the one-word reason why there is none."""

    value: str | None
    reason: str | None = None


def parse_scores(text: str) -> Scores:
    """Read `Rule n` lines after the last `Score:`, each clamped to [0, its maximum].

    `ok` when all five rules have a number, `partial` with three or four, `failed` with fewer or without `Score:`.
    """
    head, found, tail = text.rpartition("Score:")
    analysis = (head if found else text).rpartition("Code Analysis:")[2].strip()
    per_rule: dict[str, float | None] = dict.fromkeys(RULE_MAXIMA)
    for line in tail.splitlines() if found else []:
        rule = _RULE.match(line)
        if rule is not None and per_rule[rule[1]] is None:
            per_rule[rule[1]] = _value(rule[2], RULE_MAXIMA[rule[1]])
    numbers = [value for value in per_rule.values() if value is not None]
    if len(numbers) < _MIN_RULES:
        return Scores(analysis, per_rule, None, "failed")
    return Scores(analysis, per_rule, sum(numbers), "ok" if len(numbers) == len(per_rule) else "partial")


def _value(rest: str, maximum: float) -> float | None:
    """The number right after a colon of the line (`: 1.5`, `:** 1/1`, `: 2 points`); None for a blank or `N/A`."""
    number = _NUMBER.search(rest)
    return min(max(float(number[1]), 0.0), maximum) if number else None


def parse_new_question(text: str, marker: str = CREATED) -> Parsed:
    """The text after the first marker; else no_marker, empty, too_short (< 20 characters), too_long (> 8,000)."""
    _, found, question = text.partition(marker)
    if not found:
        return Parsed(None, "no_marker")
    question = question.strip()
    if not question:
        return Parsed(None, "empty")
    if len(question) < _MIN_CHARS:
        return Parsed(None, "too_short")
    if len(question) > _MAX_CHARS:
        return Parsed(None, "too_long")
    return Parsed(question)


def check_solution(text: str, finish_reason: str) -> str | None:
    """Why a solution cannot be taught: `empty`, or its finish reason when the model did not stop by itself."""
    if not text.strip():
        return "empty"
    return None if finish_reason == "stop" else finish_reason


def is_refusal(text: str) -> bool:
    """True when a reply opens with words that decline and has no block of code."""
    return "```" not in text and _REFUSAL.match(text.replace("\u2019", "'")) is not None


def check_pair(chosen: str, rejected: str) -> str | None:
    """Why two solutions make no preference: `empty` or `equal`; None when they do."""
    if not chosen.strip() or not rejected.strip():
        return "empty"
    return "equal" if chosen.strip() == rejected.strip() else None


def strip_opener(text: str) -> str:
    """The reply without a first line like "Sure, here is ...": preference training would learn that instead."""
    return _OPENER.sub("", text, count=1) if _OPENER.match(text) else text


def is_self_revealing(text: str) -> bool:
    """True when a faulty solution speaks of its own fault, in prose or in a comment."""
    return _REVEALING.search(text) is not None


def has_similar_length(chosen: str, rejected: str, low: float = 0.5, high: float = 2.0) -> bool:
    """True when the rejected side is between `low` and `high` times as long as the chosen one, in characters."""
    return low * len(chosen) <= len(rejected) <= high * len(chosen)
