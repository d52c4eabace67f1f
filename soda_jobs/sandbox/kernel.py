"""The few system calls that Python 3.11 does not wrap. Each raises OSError that names the call."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
ALL_NAMESPACES: Final = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
# Flags of a mount that a new user namespace may not take away: statvfs bit -> mount bit.
_KEPT: Final = {0x2: MS_NOSUID, 0x4: MS_NODEV, 0x8: MS_NOEXEC, 0x400: 0x400, 0x800: 0x800, 0x1000: 0x200000}
_MNT_DETACH: Final = 2

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_CAPBSET_DROP: Final = 24
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_ADDR_NO_RANDOMIZE: Final = 0x0040000
_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def _check(what: str, result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    _check("unshare", _libc.unshare(flags))


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, options: str = "") -> None:
    words = (source.encode(), target.encode(), kind.encode() if kind else None)
    _check(f"mount {target}", _libc.mount(*words, flags, options.encode()))


def bind_read_only(source: str, target: str) -> None:
    mount(source, target, None, MS_BIND | MS_REC)
    found = os.statvfs(target).f_flag
    kept = sum(flag for bit, flag in _KEPT.items() if found & bit)
    mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | kept)


def change_root(root: str) -> None:
    """Make `root` the root and let go of the old one."""
    os.chdir(root)
    _check("pivot_root", _libc.syscall(ctypes.c_long(_PIVOT_ROOT[platform.machine()]), b".", b"."))
    _check("umount of the old root", _libc.umount2(b".", _MNT_DETACH))
    os.chdir("/")


def set_host_name(name: str) -> None:
    _check("sethostname", _libc.sethostname(name.encode(), len(name)))


def die_with_parent() -> None:
    _check("prctl(PDEATHSIG)", _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def hide_from_programs(is_hidden: bool = True) -> None:
    """No ptrace, and nothing of ours readable in /proc, for a process without capabilities. Not even by whom we
    fork from, who must write our id map before."""
    _check("prctl(DUMPABLE)", _libc.prctl(_PR_SET_DUMPABLE, int(not is_hidden), 0, 0, 0))


def adopt_orphans() -> None:
    _check("prctl(CHILD_SUBREAPER)", _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def give_up_privileges() -> None:
    """No setuid program and no capability will ever work again in this process or its children."""
    _check("prctl(NO_NEW_PRIVS)", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    for capability in range(64):  # fails on the first number that the kernel does not know, or without the right
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            return


def fix_addresses() -> None:
    """No address space randomisation: undefined behaviour then does the same each time. Some kernels refuse."""
    _libc.personality(_ADDR_NO_RANDOMIZE)
