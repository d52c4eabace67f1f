"""A process that must not outlive the one that started it.

On a laptop `soda run` may be killed with SIGKILL; its stages and servers must be gone before the same command
runs again. In a pod the kubelet does the same, so nothing is asked for there.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

PARENT: Final = "SODA_PARENT_PID"
_PR_SET_PDEATHSIG: Final = 1


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL at the parent's death, when `SODA_PARENT_PID` names the parent (Linux only).

    The setting survives execve, so a server that this process turns into keeps it.
    """
    expected = os.environ.get(PARENT)
    if expected is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(expected):  # it died before we could ask
        os.kill(os.getpid(), signal.SIGKILL)
