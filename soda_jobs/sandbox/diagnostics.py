"""From what a compiler or a runtime said to one word of the taxonomy and one line of detail. Pure.

Every reader takes the text and returns a Reading. Words come from structured output where the tool has one:
GCC's JSON, javac's diagnostic codes, exception classes. A failing program can forge its kind of failure, never a
pass. Details hold no path, address, process id or duration, so that equal programs get equal lines.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from soda_jobs.sandbox.types import MAX_DETAIL, Phase

Rules = Iterable[tuple[str, str]]


class Reading(NamedTuple):
    word: str
    detail: str
    phase: Phase = "run"


_NOISE: Final = (
    (re.compile(r"\b0x[0-9a-fA-F]{4,}"), "0x…"),
    (re.compile(r"\(node:\d+\)"), "(node)"),
    (re.compile(r"@[0-9a-f]{5,8}\b"), "@…"),
    (re.compile(r"\d{4}[-/]\d\d[-/]\d\d[T ]?(?:\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?"), "<time>"),
    (re.compile(r"\b\d\d:\d\d:\d\d(?:\.\d+)?"), "<time>"),
    (re.compile(r"\b\d+(?:\.\d+)?(?:e-?\d+)?\s?(?:ns|µs|us|ms|s|sec|secs|seconds)\b"), "<time>"),
)
_CONTROL: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x1f\x7f]+|[\ud800-\udfff]")


def clean(text: str, box: str) -> str:
    """One line of at most 500 characters that is the same for the same program."""
    line = text.replace(f"{box}/", "").replace(box, ".")
    line = _CONTROL.sub(" ", line[: 4 * MAX_DETAIL])
    for pattern, mark in _NOISE:
        line = pattern.sub(mark, line)
    line = " ".join(line.split())
    return line if len(line) <= MAX_DETAIL else line[: MAX_DETAIL - 1] + "…"


def exit_detail(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def first_word(rules: Rules, text: str, default: str) -> str:
    return next((word for pattern, word in rules if re.search(pattern, text)), default)


# What every language may run into, by its text.
COMMON: Final[Rules] = (
    (r"Errno 28\]|No space left on device|ENOSPC|Errno 27\]|File too large|EFBIG", "disk_limit"),
    (
        r"Errno 11\]|EAGAIN|can't start new thread|unable to create native thread|pthread_create failed"
        r"|Resource temporarily unavailable|failed to create new OS thread",
        "process_limit",
    ),
    (
        r"Network is unreachable|Temporary failure in name resolution|Name or service not known|EAI_AGAIN"
        r"|ENOTFOUND|ENETUNREACH|UnknownHostException|ConnectException|dial (?:tcp|udp)|Errno 101\]|Errno -[23]\]",
        "environment",
    ),
    (r"TclError|couldn't connect to display|cannot open display|HeadlessException", "environment"),
)


def by_exit(stderr: str, code: int, has_tests: bool) -> Reading:
    """No structure to read: tests that end with an exit code say that the answer is wrong."""
    word = first_word(COMMON, stderr[-2000:], "logic" if has_tests and code > 0 else "runtime")
    return Reading(_BY_SIGNAL.get(-code, word), exit_detail(code))


_BY_SIGNAL: Final[Mapping[int, str]] = {signal.SIGXCPU: "timeout", signal.SIGXFSZ: "disk_limit"}
