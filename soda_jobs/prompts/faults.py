"""The error taxonomy of fault-aware learning: what a deliberately wrong solution may do (SODA, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FAULTS: Final[Mapping[str, str]] = {
    "Syntax": "the program breaks the grammar of its language and cannot be parsed.",
    "Logical": "the program runs to its end but computes a wrong result.",
    "Type": "an operation is applied to a value of a type that does not support it.",
    "Name": "an identifier is used that was never defined.",
    "Timeout": "a loop waits for a condition that can never be met, so the program does not end.",
}


def describe() -> str:
    """The taxonomy as prompt text: one `- Name: definition` line for each type."""
    return "\n".join(f"- {name}: {meaning}" for name, meaning in FAULTS.items())


def names() -> str:
    """The names alone, comma-separated, for students and tutors with a short context."""
    return ", ".join(FAULTS)
