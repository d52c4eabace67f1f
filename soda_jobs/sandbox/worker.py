"""A worker: one program at a time, from its standard input to its standard output. The server keeps one for each
CPU.

in   {"slot": 0}, then lines {"program": {…}} or {"probe": true}
out  {"walls": {…}}, then {"verdict": {…}, "is_final": true} or {"versions": {"python": "3.11.7", "go": null, …}}

It has one thread, because it forks, and it dies with the server.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

from soda_jobs.errors import ExitCode
from soda_jobs.log import event
from soda_jobs.parent import die_with_parent
from soda_jobs.sandbox import calibrate, kernel
from soda_jobs.sandbox.inside import Walls
from soda_jobs.sandbox.jail import JailFault
from soda_jobs.sandbox.run import execute, find_walls, versions
from soda_jobs.sandbox.types import Program, to_dict


def main() -> None:
    die_with_parent()
    kernel.hide_from_programs()
    try:
        walls = find_walls(json.loads(sys.stdin.buffer.readline())["slot"])
    except JailFault as fault:
        event("sandbox_failed", reason=str(fault))
        sys.exit(ExitCode.RETRY)
    _say({"walls": dataclasses.asdict(walls)})
    for line in sys.stdin.buffer:
        _say(_answer(json.loads(line), walls))


def _answer(request: dict[str, Any], walls: Walls) -> dict[str, Any]:
    if "calibrate" in request:
        return calibrate.measure()
    if "probe" in request:
        return {"versions": versions(walls)}
    result = execute(Program(**request["program"]), walls)
    return {"verdict": to_dict(result.verdict), "is_final": result.is_final, "is_idle": result.is_idle}


def _say(reply: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
