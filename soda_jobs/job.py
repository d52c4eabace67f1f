"""What every one-shot process of a run does the same way: end with an exit code and leave a small result behind.

    SODA_RESULT   a file for the result (a pod's termination message), under 4 KiB

A result is one JSON object with `state`: what the work returned, or
{"state": "failed", "reason": "INVALID_INPUT", "message": "one sentence"} with `reason` from `errors.ExitCode`.
"""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final

from soda_jobs.errors import ExitCode, Retry, SodaError, disk_fault
from soda_jobs.log import event
from soda_jobs.parent import die_with_parent

RESULT_LIMIT: Final = 4095  # bytes; Kubernetes keeps no more than 4096 of a termination message
Result = Mapping[str, Any]


def run_job(work: Callable[[], Result], *, what: str, **about: str) -> int:
    """Do the work, report what it returns or why it failed; the exit code. Events are `<what>_failed` and
    `<what>_crashed`, with the fields `about`."""
    die_with_parent()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        result = work()
    except SodaError as error:
        event(f"{what}_failed", **about, exit=error.exit_code.name, message=str(error))
        return _failed(error.exit_code, str(error))
    except Exception as error:  # noqa: BLE001 - the one place where an unknown error becomes an exit code
        if (full := disk_fault(error)) is not None:
            event(f"{what}_failed", **about, exit=full.exit_code.name, message=str(full))
            return _failed(full.exit_code, str(full))
        event(f"{what}_crashed", **about, error=repr(error), traceback=traceback.format_exc())
        return _failed(ExitCode.BUG, repr(error))
    _report(result)
    return int(ExitCode.DONE)


def _failed(code: ExitCode, message: str) -> int:
    _report({"state": "failed", "reason": code.name, "message": message})
    return int(code)


def _report(result: Result) -> None:
    path = os.environ.get("SODA_RESULT")
    if path is not None:
        Path(path).write_text(fit(result), encoding="utf-8")


def fit(result: Result) -> str:
    """The result as JSON of at most RESULT_LIMIT bytes: if need be without counts, or with a shorter message."""
    kept = dict(result)
    if _size(kept) > RESULT_LIMIT:
        kept.pop("counts", None)
    while _size(kept) > RESULT_LIMIT and kept.get("message"):
        kept["message"] = kept["message"][: len(kept["message"]) * 3 // 4]
    return json.dumps(kept, ensure_ascii=False)


def _size(result: Result) -> int:
    return len(json.dumps(result, ensure_ascii=False).encode())


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Retry("it was asked to stop; what it committed stays and the next attempt goes on from there")
