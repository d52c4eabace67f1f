"""The inside of a jail: the process that builds its walls, starts one program at a time and leaves nothing behind.

It is forked from a worker and talks to it over one socket: a job in, its wait status out. In a process namespace
it is process 1, so that its death is the death of everything inside. It never runs code of a program itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
from pathlib import Path
from typing import Any, Final, NoReturn

from soda_jobs.sandbox import kernel, tree
from soda_jobs.sandbox.walls import (
    BOX as BOX,
)
from soda_jobs.sandbox.walls import (
    FILE_BYTES,
    INNER_ID,
    OPEN_FILES,
    PROOF,
    SCRATCH_BYTES,
    SCRATCH_FILES,
    STACK_BYTES,
    Setup,
    task_limit,
)
from soda_jobs.sandbox.walls import (
    Walls as Walls,
)

MAX_MESSAGE: Final = 1 << 16

_STAGING: Final = "/sys"  # covered by the new root until it becomes the root; a jail needs nothing of it
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SETTINGS: Final = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d")
_JAVA_SETTINGS: Final = "java-*"
_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
_LINKS: Final = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
_NEVER_FULL: Final = 4096  # bytes that a full disk may still have free


def enter(setup: Setup, control: socket.socket) -> NoReturn:
    """Run in a fresh child of the worker: unshare, then let process 1 of the new namespace serve."""
    try:
        kernel.die_with_parent()
        kernel.hide_from_programs(False)
        if setup.walls.namespaces:
            kernel.unshare(kernel.ALL_NAMESPACES)
            control.send(b"unshared")
            control.recv(MAX_MESSAGE)  # the worker has written our id maps
        told, tell = os.pipe()
        pid = os.fork()
        if pid:
            control.send(json.dumps({"pid": pid}).encode())
            control.close()
            os.close(tell)
            os.waitpid(pid, 0)
            os._exit(0)
        os.close(tell)
        os.read(told, 1)  # end of file: the worker has our process id, so that ours is the next message
        os.close(told)
        kernel.die_with_parent()
        _prepare(setup)
        control.send(b"ready")
        while True:
            _serve(setup, control)
    except OSError as error:
        with contextlib.suppress(OSError):
            control.send(json.dumps({"fault": str(error)}).encode())
    finally:
        os._exit(1)


def _prepare(setup: Setup) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o022)
    if setup.walls.namespaces:
        _build_root(setup.shown)
    else:
        kernel.adopt_orphans()
    owner = _owner(setup.walls)
    for name, content in setup.files.items():
        path = Path(setup.box, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if owner is not None:
            os.chown(path, owner, owner)
    for name, aim in setup.links.items():
        path = Path(setup.box, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(aim)
    if owner is not None:
        os.chown(setup.box, owner, owner)
    kernel.hide_from_programs()


def _owner(walls: Walls) -> int | None:
    if walls.program_id is None:
        return None
    return INNER_ID if walls.namespaces else walls.program_id


# -- the new root -------------------------------------------------------------------------------------------------


def _build_root(shown: tuple[str, ...]) -> None:
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    options = f"size={SCRATCH_BYTES},nr_inodes={SCRATCH_FILES},mode=755"
    kernel.mount("tmpfs", _STAGING, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    java = (str(path) for path in sorted(Path("/etc").glob(_JAVA_SETTINGS)))
    for source in (*_SYSTEM, *_SETTINGS, *java, *shown):
        _show(source)
    for folder in ("tmp", "var/tmp", "dev/shm"):
        Path(_STAGING, folder).mkdir(parents=True, exist_ok=True)  # a toolchain may be shown below it
        Path(_STAGING, folder).chmod(0o1777)
    Path(_STAGING, BOX[1:]).mkdir()
    for name in _DEVICES:
        target = Path(_STAGING, "dev", name)
        target.touch()
        kernel.mount(f"/dev/{name}", str(target), None, kernel.MS_BIND)
    for name, aim in _LINKS.items():
        Path(_STAGING, "dev", name).symlink_to(aim)
    Path(_STAGING, "etc").mkdir(exist_ok=True)
    Path(_STAGING, "etc/passwd").write_text(f"program:x:{INNER_ID}:{INNER_ID}::{BOX}:/bin/sh\n")
    Path(_STAGING, "proc").mkdir()
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", f"{_STAGING}/proc", "proc", flags)
    limit = Path(_STAGING, "proc/sys/user/max_user_namespaces")
    if limit.exists():  # gVisor, whose kernel is the sandbox's own, does not have it
        limit.write_text("0")  # no new namespaces, so no new mounts
    kernel.set_host_name("sandbox")
    kernel.change_root(_STAGING)


def _show(source: str) -> None:
    target = Path(_STAGING, source[1:])
    if not os.path.lexists(source) or os.path.lexists(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.islink(source):
        target.symlink_to(os.readlink(source))
        return
    target.mkdir() if os.path.isdir(source) else target.touch()
    kernel.bind_read_only(source, str(target))


# -- one job ------------------------------------------------------------------------------------------------------


def _serve(setup: Setup, control: socket.socket) -> None:
    message, handles, _, _ = socket.recv_fds(control, MAX_MESSAGE, 4)
    if not message:  # the worker is gone
        os._exit(0)
    pid = os.fork()
    if pid == 0:
        _become(json.loads(message), handles, setup, control)
    for handle in handles:
        os.close(handle)
    before = _cpu_seconds()
    status = _wait_for(pid)
    _kill_the_rest(setup.walls)
    used = _cpu_seconds() - before
    reply = {"status": status, "disk_is_full": _disk_is_full(setup), "cpu_seconds": used}
    control.send(json.dumps(reply).encode())


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _wait_for(wanted: int) -> int:
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == wanted:
            return status


def _kill_the_rest(walls: Walls) -> None:
    """End every process that the job left, whatever session or parent it gave itself, and reap it."""
    while True:
        if walls.namespaces:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # everything in this process namespace but us
        elif walls.program_id is not None:
            _kill_all_of(walls.program_id)
        else:
            for pid in tree.descendants(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _kill_all_of(user: int) -> None:
    killer = os.fork()
    if killer == 0:
        os.setresuid(user, user, user)
        with contextlib.suppress(OSError):
            os.kill(-1, signal.SIGKILL)
        os._exit(0)
    os.waitpid(killer, 0)


def _disk_is_full(setup: Setup) -> bool:
    if not setup.walls.namespaces:
        return False
    disk = os.statvfs(setup.box)
    return disk.f_bavail * disk.f_frsize <= _NEVER_FULL or disk.f_favail == 0


def _become(job: dict[str, Any], handles: list[int], setup: Setup, control: socket.socket) -> NoReturn:
    try:
        os.setsid()
        _take(handles)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        kernel.fix_addresses()
        _limit(job, setup.walls)
        kernel.give_up_privileges()
        owner = _owner(setup.walls)
        if owner is not None:
            os.setgroups([])
            os.setresgid(owner, owner, owner)
            os.setresuid(owner, owner, owner)
        os.chdir(setup.box)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.execve(job["argv"][0], job["argv"], job["env"])
    except (OSError, ValueError) as error:
        control.send(json.dumps({"fault": f"{job['argv'][0]} did not start: {error}"}).encode())
    finally:
        os._exit(127)


def _take(handles: list[int]) -> None:
    """Make the handles descriptors 0 to 3; all others are closed by execve."""
    for handle in handles:  # as they were received, a program would have them too
        os.set_inheritable(handle, False)
    high = [os.dup(handle) for handle in handles]  # a gap below: 0 to 3 may be among the handles
    while min(high) <= PROOF:
        high = [os.dup(handle) for handle in high]
    for number, handle in enumerate(high):
        os.dup2(handle, number, inheritable=True)


def _limit(job: dict[str, Any], walls: Walls) -> None:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: job["cpu_seconds"],
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_STACK: STACK_BYTES,
    }
    if walls.namespaces or walls.program_id is not None:
        limits[resource.RLIMIT_NPROC] = (
            task_limit()
        )  # elsewhere it would count the processes of the user who started us
    if job["address_bytes"] is not None:
        limits[resource.RLIMIT_AS] = job["address_bytes"]
    for which, wanted in limits.items():
        _, hard = resource.getrlimit(which)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(which, (value, value))
