"""Ends and removes all that a node leaves on a machine, whether it was stopped or crashed.

Only what is the node's own is touched: programs from the cache that name the node's folder, processes in its
cgroup, mounts below the folder, the node's bridge, and the nftables tables that kube-proxy makes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from tests import gobuild
from tests.cluster.node_files import BRIDGE, CGROUP
from tests.cluster.processes import started_at

CGROUPS: Final = Path("/sys/fs/cgroup")


def clean(folder: Path, keep: str) -> None:
    """Removes everything of the node in `folder`, and the folder's content but for the entry `keep`."""
    _kill_all(folder)
    _unmount(folder)
    for cgroup in cgroups():
        _remove_cgroup(cgroup)
    run("ip", "link", "delete", BRIDGE, check=False)
    for family in ("ip", "ip6"):
        run("nft", "delete", "table", family, "kube-proxy", check=False)
    for entry in folder.iterdir() if folder.exists() else ():
        if entry.name != keep:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def run(*argv: str | Path, check: bool = True) -> str:
    """stdout of a system tool; its stderr is the error."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(str(word) for word in argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def cgroups() -> list[Path]:
    """The node's cgroup in each hierarchy that has it."""
    parents = [CGROUPS] if (CGROUPS / "cgroup.controllers").exists() else sorted(CGROUPS.glob("*"))
    return [path for parent in parents if (path := parent / CGROUP.strip("/")).is_dir()]


def _kill_all(folder: Path, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while pids := _pids(folder):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            raise TimeoutError(f"processes of the node in {folder} do not end: {sorted(pids)}")
        time.sleep(0.05)


def _pids(folder: Path) -> set[int]:
    found = {
        int(pid) for cgroup in cgroups() for procs in cgroup.rglob("cgroup.procs") for pid in _read(procs).split()
    }
    programs, mark = f"{gobuild.cache_folder()}/bin/", f"{folder}/".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "exe").readlink().is_relative_to(programs) and mark in (
                process / "cmdline"
            ).read_bytes():
                found.add(int(process.name))
    return {pid for pid in found if started_at(pid) and not _is_a_client(pid)}


def _is_a_client(pid: int) -> bool:
    """Somebody's kubectl or helm is not the node's."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/exe").readlink().name.startswith(("kubectl-", "helm-"))
    return False


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the cgroup has gone meanwhile
        return ""


def _unmount(folder: Path) -> None:
    """Latest first. Lazily: a mount may still be busy with a process that is being killed."""
    mounted = [
        line.split()[1].encode().decode("unicode_escape") for line in _read(Path("/proc/mounts")).splitlines()
    ]
    for point in reversed(mounted):
        if Path(point).is_relative_to(folder):
            run("umount", "--lazy", point)


def _remove_cgroup(cgroup: Path) -> None:
    folders = sorted((path for path in cgroup.rglob("*") if path.is_dir()), reverse=True)
    for path in [*folders, cgroup]:
        for _ in range(100):
            try:
                path.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:  # the kernel takes a moment to count the dead out
                time.sleep(0.05)
