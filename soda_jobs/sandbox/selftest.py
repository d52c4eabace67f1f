"""Before a server is ready: does every wall hold that it says it has?

A program that tries them all is run as any other, and what it met is judged here. Watches over memory, processes
and time are proved by the canaries. The processor limit of a pod is tried where there is one.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from soda_jobs.errors import Retry
from soda_jobs.sandbox.types import Program, Verdict
from soda_jobs.sandbox.walls import SCRATCH_BYTES, SCRATCH_FILES

_SECONDS: Final = 60.0
_SLACK: Final = 0.1
_ENVIRONMENT: Final = frozenset(
    ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "USER", "HOME", "TMPDIR", "PYTHONHASHSEED", "PYTHONIOENCODING")
)
_PROCESSES: Final = 8
_CGROUP: Final = Path("/sys/fs/cgroup")
_BURN_SECONDS: Final = 0.4
_BURN: Final = f"import time\nend = time.monotonic() + {_BURN_SECONDS}\nwhile time.monotonic() < end: pass"

Facts = Mapping[str, Any]


class Runs(Protocol):
    """What is tested: a pool."""

    walls: dict[str, Any]
    is_gvisor: bool

    async def run(self, program: Program) -> Verdict: ...


# What a program met -> what that says of a wall, or the empty text. These hold everywhere …
_ALWAYS: Final[tuple[Callable[[Facts], str], ...]] = (
    lambda met: _extra("its environment is not empty", {*met["environment"]} - _ENVIRONMENT),
    lambda met: _extra("it was given open files", met["descriptors"]),
    lambda met: "" if met["no_new_privileges"] else "it may gain privileges by executing a program",
)
# … and these where there are namespaces.
_WALLED: Final[tuple[Callable[[Facts], str], ...]] = (
    lambda met: f"it has capabilities {met['capabilities']:#x}" if met["capabilities"] else "",
    lambda met: _extra("it sees other processes", met["processes"] if len(met["processes"]) > _PROCESSES else ()),
    lambda met: _extra("it has network interfaces", met["interfaces"]),
    lambda met: "it has a route to a network" if met["has_route"] else "",
    lambda met: _extra("it can write to the system", met["writable"]),
    lambda met: _extra("it sees files of the machine", met["files_of_the_machine"]),
    lambda met: _amount("bytes", met["bytes"], SCRATCH_BYTES),
    lambda met: _amount("files", met["files"], SCRATCH_FILES),
)


async def faults(pool: Runs, *, require_gvisor: bool = False) -> list[str]:
    """What does not hold, a sentence each. Raises Retry when a fault of ours hides it."""
    found = []
    if require_gvisor and not pool.is_gvisor:
        found.append("the kernel here is not gVisor's")
    met, fault = await _try_walls(pool)
    if met is None:
        return [*found, f"the program that tries the walls did not run: {fault}"]
    return [*found, *judge(met, is_walled=bool(pool.walls.get("namespaces"))), *await _processors()]


def judge(met: Facts, *, is_walled: bool) -> list[str]:
    rules = (*_ALWAYS, *_WALLED) if is_walled else _ALWAYS
    return [text for rule in rules if (text := rule(met))]


async def _try_walls(pool: Runs) -> tuple[Facts | None, str]:
    limits = (2 * SCRATCH_BYTES, 2 * SCRATCH_FILES) if pool.walls.get("namespaces") else (0, 0)
    code = f"{Path(__file__).with_name('probe.py').read_text(encoding='utf-8')}\n\nmain{limits}\n"
    program = Program("self-test", "python", code, timeout_seconds=_SECONDS, returns="stdout")
    verdict = await pool.run(program)
    if verdict.verdict == "sandbox_error":
        raise Retry(f"the sandbox could not test itself: {verdict.detail}")
    if verdict.verdict != "pass":
        return None, f"{verdict.verdict} ({verdict.detail})"
    try:
        met: Facts = json.loads(base64.b64decode(verdict.returned))
    except ValueError as error:
        return None, str(error)
    return met, ""


def _extra(what: str, found: Any) -> str:
    return f"{what}: {', '.join(map(str, sorted(found)[:5]))}" if found else ""


def _amount(what: str, met: int, most: int) -> str:
    return f"it could write {met} {what} and not {most}" if met > most * (1 + _SLACK) else ""


async def _processors() -> list[str]:
    """Whether a limit of processors that this control group has is kept: use more, and see what we were given."""
    quota = _quota(_CGROUP)
    if quota is None:
        return []
    used, began = _used(_CGROUP), time.monotonic()
    words = (sys.executable, "-I", "-S", "-c", _BURN)
    burners = [await asyncio.create_subprocess_exec(*words) for _ in range(int(quota) + 2)]
    for burner in burners:
        await burner.wait()
    given = (_used(_CGROUP) - used) / (time.monotonic() - began)
    return over(given, quota)


def over(given: float, quota: float) -> list[str]:
    """Bursts may go over a quota, by a period at each end."""
    if given <= quota * 1.25 + 0.5:
        return []
    return [f"its limit of {quota:g} processors is not kept: it was given {given:.1f}"]


def _quota(group: Path) -> float | None:
    try:
        most, period = (group / "cpu.max").read_text().split()
        return None if most == "max" else int(most) / int(period)
    except (OSError, ValueError):
        return None


def _used(group: Path) -> float:
    rows = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    return int(rows["usage_usec"]) / 1e6
