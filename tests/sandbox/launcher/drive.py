"""Runs on its own, wherever the sandbox may run: opens jails with the launcher and says what came of it.

in   argv: the attacking program; standard input: {"programs": [source of a Python program, …], "repeats": 200}
out  {"missing", "attack", "survives", "copied", "executed", "before", "after"}
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from soda_jobs.sandbox import launched, run, tree
from soda_jobs.sandbox.jail import ForkServer, Jail
from soda_jobs.sandbox.languages import LANGUAGES
from soda_jobs.sandbox.walls import BOX, Walls
from soda_jobs.sandbox.watch import Job

PYTHON = LANGUAGES["python"]
DAEMON = "import os\nif os.fork() == 0:\n    os.setsid()\n    os.execv('/bin/sleep', ['sleep', '9'])"


def attack(walls: Walls, program: bytes) -> str:
    with Jail(walls, {"attack.sh": b"", "program": program}, {}) as jail:
        copy = "cp program /tmp/attack; chmod +x /tmp/attack; exec env -i /tmp/attack"
        return jail.run(Job(("/bin/sh", "-c", copy), {"PATH": "/usr/bin:/bin"}, 60.0, 1 << 30)).stdout


def python(walls: Walls, source: str, *, is_copied: bool) -> dict[str, Any]:
    joined = PYTHON.join(source, "")
    argv, env = PYTHON.run(joined, 512), run._env(PYTHON, BOX)
    extra, links = PYTHON.extra_files(joined), PYTHON.links()
    server = ForkServer(
        argv, tuple(env.items()), joined.main, tuple(extra.items()), tuple(links.items()), PYTHON.preloaded or ()
    )
    files = {name: text.encode() for name, text in {**joined.files, **extra}.items()}
    shown = run._shown(PYTHON)
    with Jail(walls, files, links, shown=shown, fork_server=server if is_copied else None) as jail:
        ended = jail.run(Job(argv, env, 10.0, 512 << 20, 512 << 20, stdin=b"given\n"))
        assert (jail._fork_server is not None) == is_copied, "it was not copied"
    return {"code": ended.code, "stdout": ended.stdout, "stderr": ended.stderr, "limit": ended.limit}


def traces() -> dict[str, Any]:
    """What a jail may leave behind: processes, mounts, descriptors and files."""
    return {
        "processes": len(tree.descendants(os.getpid())),
        "mounts": len(Path("/proc/self/mounts").read_text().splitlines()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "launchers": len(launched._kept.running),
        "of_launchers": [_descriptors(one.pid) for one in launched._kept.running.values()],
        "temporary": sorted(name for name in os.listdir("/tmp") if name.startswith("soda-box-")),
    }


def _descriptors(pid: int) -> int:
    """-1 where not even who started it may look."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return -1


def main() -> None:
    asked = json.load(sys.stdin)
    walls = run.find_walls(70)
    said: dict[str, Any] = {"missing": walls.missing, "launcher": bool(walls.launcher)}
    if walls.launcher:
        said["attack"] = attack(walls, Path(sys.argv[1]).read_bytes())
        said["executed"] = [python(walls, source, is_copied=False) for source in asked["programs"]]
        said["copied"] = [python(walls, source, is_copied=True) for source in asked["programs"]]
        said["before"] = traces()
        for number in range(asked["repeats"]):
            python(walls, DAEMON, is_copied=number % 2 == 0)
        said["after"] = traces()
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
