"""Events: one JSON line each on standard error in a job, one readable line on a terminal.

Standard output is for data, standard error for events. `SODA_LOG=json|text` overrides the guess.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, Final

_PROGRESS_SECONDS: Final = 1.0
_last_progress: dict[str, float] = {}


def _as_json() -> bool:
    choice = os.environ.get("SODA_LOG")
    return choice == "json" if choice else not sys.stderr.isatty()


def event(name: str, /, **fields: Any) -> None:
    """Write one event. Field order is kept; put ids first."""
    now = time.time()
    if _as_json():
        line = json.dumps({"ts": round(now, 3), "event": name, **fields}, default=str, ensure_ascii=False)
    else:
        clock = time.strftime("%H:%M:%S", time.localtime(now))
        line = " ".join([clock, name, *(f"{key}={value}" for key, value in fields.items())])
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def progress(unit: str, done: int, total: int | None, **fields: Any) -> None:
    """Write a `progress` event, at most once a second for each unit, and always the last one."""
    now = time.monotonic()
    if done != total and now - _last_progress.get(unit, 0.0) < _PROGRESS_SECONDS:
        return
    _last_progress[unit] = now
    event("progress", unit=unit, done=done, total=total, **fields)
