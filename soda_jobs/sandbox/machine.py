"""What this machine allows: the strongest walls within which a program runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from soda_jobs.sandbox import launch
from soda_jobs.sandbox.walls import JailFault, Walls

_FIRST_PROGRAM_ID: Final = 60_000


def strongest(slot: int, obstacle: Callable[[Walls], str | None]) -> Walls:
    """The first of these walls without an obstacle; `missing` says in one sentence what they lack.

    `obstacle` says why a program does not run within some walls. Raises JailFault when it runs within none.
    """
    own = _FIRST_PROGRAM_ID + slot if os.geteuid() == 0 else None
    whole = Walls(namespaces=True, program_id=own)
    without_launcher = _try_launcher(whole, obstacle)
    if isinstance(without_launcher, Walls):
        return without_launcher
    reason = obstacle(whole)
    if reason is None:
        lost = f"no launcher here ({without_launcher}): programs can make any system call"
        return replace(whole, missing=lost)
    lost = f"no namespaces here ({reason}): programs can reach the network and see files of this machine"
    apart = Walls(namespaces=False, program_id=own, missing=lost)
    if own is not None and obstacle(apart) is None:
        return apart
    bare = replace(apart, program_id=None, missing=f"{lost}, and run as the user who started the sandbox")
    reason = obstacle(bare)
    if reason is not None:
        raise JailFault(f"Python does not run in a sandbox here: {reason}")
    return bare


def _try_launcher(whole: Walls, obstacle: Callable[[Walls], str | None]) -> Walls | str:
    """The walls that the launcher builds, or why it does not."""
    try:
        built = replace(whole, launcher=str(launch.find()))
    except launch.NoLauncher as error:
        return str(error)
    return obstacle(built) or built
