"""A program run several times, and one verdict of it all. Pure.

Two whole runs that disagree are `flaky`: never the better of the two. What is not a whole run does not count: an
expiry that is run again alone, a delivery that was cut off, a verdict that a wrong canary made void.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from soda_jobs.sandbox.types import Program, Verdict


def copies(program: Program, runs: int) -> list[Program]:
    """The program under `runs` ids; the first is its own."""
    return [program, *(replace(program, id=f"{program.id}\x00{number}") for number in range(2, runs + 1))]


def merge(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict of all runs of a program. A fault of ours is not hidden by the other runs: it is the verdict."""
    first = verdicts[0]
    fault = next((verdict for verdict in verdicts if verdict.verdict == "sandbox_error"), None)
    if fault is not None:
        return replace(fault, id=first.id)
    words = Counter(verdict.verdict for verdict in verdicts)
    if len(words) == 1:
        return first
    counted = ", ".join(f"{word} {count}" for word, count in sorted(words.items()))
    detail = f"{len(verdicts)} runs disagree: {counted}"
    return replace(first, verdict="flaky", phase="run", detail=detail, returned="")
