"""A process that must not outlive the one that started it.

On a laptop `soda run` may be killed with SIGKILL; its stages and servers must be gone before the same command
runs again. In a pod the kubelet does the same, so nothing is asked for there.
"""

from __future__ import annotations

import ctypes
import os
import select
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


def take_family_along() -> None:
    """Leave a watcher behind that ends our process group as soon as we are gone, however we end.

    An engine of several processes ends its others itself, unless it is killed with SIGKILL: then they would keep
    the memory of the GPU, and the pipe to us. Like `die_with_parent` it survives execve, and does nothing in a
    pod; nor unless this process leads its group, which may otherwise be a whole shell's.
    """
    if os.environ.get(PARENT) is None or os.getpgrp() != os.getpid():
        return
    watched = os.pidfd_open(os.getpid())
    if os.fork():
        os.close(watched)
        return
    for number in (signal.SIGTERM, signal.SIGINT):  # the engine is asked to stop by the same signal
        signal.signal(number, signal.SIG_IGN)
    select.select([watched], [], [])
    os.killpg(0, signal.SIGKILL)
