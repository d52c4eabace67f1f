"""Programs go in, verdicts come out: the two rows of the sandbox and what a verdict means. Pure.

{"id": "a", "language": "python", "code": "print(1)", "tests": "", "stdin": "", "timeout_seconds": 10.0, …}
{"id": "a", "language": "python", "verdict": "pass", "phase": "run", "detail": "", "seconds": 0.031}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from soda_jobs.errors import InvalidInput

Phase = Literal["extract", "compile", "run"]
Rules = Literal["benchmark", "feedback"]
Returns = Literal["", "observations", "stdout"]
Status = Literal["pass", "fail", "timeout", "env_error", "unsupported", "infra_error"]

VERDICTS: Final = (
    "pass",
    "syntax",  # not a program of its language
    "type",  # an operation on a wrong type
    "name",  # an undefined identifier, a missing symbol or member
    "import",  # a module, header or package that is not there
    "logic",  # the tests disagree with what it does
    "runtime",  # any other exception, signal or exit code
    "timeout",
    "memory",
    "output_limit",
    "disk_limit",
    "process_limit",
    "compile_limit",  # the compiler ran into one of the limits above
    "tampered",  # it passed a test that no honest program can pass, or spoke where only the harness may
    "flaky",  # two whole runs of it disagree
    "environment",  # it needs what a sandbox does not have: input, network, display, a toolchain
    "unsupported",  # a language we do not run
    "sandbox_error",  # our fault, never the program's
)
MAX_DETAIL: Final = 500
MAX_SECONDS: Final = 3600.0
MEMORY_MIB: Final = (16, 65_536)
RETURNED_BYTES: Final = 8 << 20  # at most, of observations or of standard output


@dataclass(frozen=True, slots=True)
class Program:
    """A program to run once. With `tests`, a pass needs the tests to reach their end.

    `timeout_seconds` is the program's own time: seconds on a CPU plus seconds asleep, not seconds spent waiting
    for a CPU. `rules` says what a missing module or closed input means: see `status`.

    `returns` asks for what the program said, to be judged outside: "stdout", or "observations", where `tests` is a
    driver that runs the file `program.py` and writes to descriptor 3. Such a program passes by ending with 0.

    `reference_seconds` is what a right program takes; then the limit is ten times that, no less than its language
    needs to start and no more than `timeout_seconds`.
    """

    id: str
    language: str
    code: str
    tests: str = ""
    stdin: str = ""
    timeout_seconds: float = 10.0
    memory_mib: int = 1024
    rules: Rules = "benchmark"
    returns: Returns = ""
    reference_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a program did. `verdict` is one of VERDICTS. Equal programs differ at most in `seconds`.

    `returned` is what `Program.returns` asked for, in base64.
    """

    id: str
    language: str
    verdict: str
    phase: Phase
    detail: str
    seconds: float
    returned: str = ""


def status(verdict: Verdict, rules: str) -> Status:
    """The coarse outcome that stages use.

    A missing module or closed input fails a benchmark; as feedback on a free answer it says nothing about the code
    (SODA section 3.3.2 names the first two such cases). A verdict `environment` of phase `extract` means that
    nothing ran because this sandbox lacks the toolchain, and that never counts against a program in a benchmark.
    """
    if verdict.verdict in ("environment", "import"):
        if rules == "feedback":
            return "env_error"
        return "infra_error" if verdict.phase == "extract" else "fail"
    return _STATUS.get(verdict.verdict, "fail")


_STATUS: Final[Mapping[str, Status]] = {
    "pass": "pass",
    "timeout": "timeout",
    "unsupported": "unsupported",
    "sandbox_error": "infra_error",
}


def to_dict(row: Program | Verdict) -> dict[str, Any]:
    return dataclasses.asdict(row)


def program_from_dict(row: Any, *, field: str) -> Program:
    """Check one input row; `field` says where it stands. Raises InvalidInput."""
    if not isinstance(row, dict):
        raise InvalidInput(f"{_short(row)} is not an object with id, language and code", field=field)
    known = {item.name for item in dataclasses.fields(Program)}
    unknown = [key for key in row if key not in known]
    if unknown:
        raise InvalidInput(f"unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}", field=field)
    for key in ("id", "language", "code"):
        if key not in row:
            raise InvalidInput(f"{key} is missing", field=field)
    for key in ("id", "language", "code", "tests", "stdin", "rules", "returns"):
        if not isinstance(row.get(key, ""), str):
            raise InvalidInput(f"{_short(row[key])} is not a string", field=f"{field}.{key}")
    if not row["id"]:
        raise InvalidInput("'' is not an id; it must not be empty", field=f"{field}.id")
    if row.get("rules", "benchmark") not in ("benchmark", "feedback"):
        raise InvalidInput(f"{row['rules']!r} is not one of benchmark, feedback", field=f"{field}.rules")
    if row.get("returns", "") not in ("", "observations", "stdout"):
        raise InvalidInput(f"{row['returns']!r} is not one of observations, stdout", field=f"{field}.returns")
    seconds = _seconds(row.get("timeout_seconds", 10.0), f"{field}.timeout_seconds")
    reference = row.get("reference_seconds", 0.0)
    if reference != 0 or isinstance(reference, bool):
        reference = _seconds(reference, f"{field}.reference_seconds")
    memory = row.get("memory_mib", 1024)
    if not _is_number(memory, int) or not MEMORY_MIB[0] <= memory <= MEMORY_MIB[1]:
        raise InvalidInput(
            f"{_short(memory)} is not a whole number of MiB from {MEMORY_MIB[0]} to {MEMORY_MIB[1]}",
            field=f"{field}.memory_mib",
        )
    return Program(**{**row, "timeout_seconds": seconds, "reference_seconds": float(reference)})


def verdict_from_dict(row: Any) -> Verdict:
    """A verdict from the wire. Raises InvalidInput when the other side is not our server."""
    try:
        verdict = Verdict(**row)
    except TypeError as error:
        raise InvalidInput(f"{_short(row)} is not a verdict", field="sandbox") from error
    if verdict.verdict not in VERDICTS:
        raise InvalidInput(f"{verdict.verdict!r} is not one of {', '.join(VERDICTS)}", field="sandbox.verdict")
    return verdict


def _seconds(value: Any, field: str) -> float:
    if not _is_number(value, int, float) or not 0 < value <= MAX_SECONDS:
        accepted = f"a number of seconds above 0 and up to {MAX_SECONDS:g}"
        raise InvalidInput(f"{_short(value)} is not {accepted}", field=field)
    return float(value)


def _is_number(value: Any, *types: type) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
