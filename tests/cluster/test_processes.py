"""Nothing that a test starts outlives it, unless it was asked to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.processes import Processes, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's promise to end a child is Linux's")

ROOT = Path(__file__).parents[2]
START = """
import sys, time
from pathlib import Path
from tests.cluster.processes import Processes
Processes(Path(sys.argv[1]), detached=sys.argv[2] == "detached").start("sleeper", ["sleep", "600"])
print("started", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(("how", "survives"), [("bound", False), ("detached", True)])
def test_a_killed_test_takes_its_processes_along(tmp_path: Path, how: str, survives: bool) -> None:
    processes = Processes(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", START, tmp_path, how], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "started\n"
        assert processes.pid("sleeper")
        starter.send_signal(signal.SIGKILL)
    if survives:
        assert processes.pid("sleeper")
        processes.stop("sleeper")
    wait_until(lambda: processes.pid("sleeper") is None, "the end of the sleeper", 10)


def test_a_number_that_is_used_again_is_not_taken_for_the_process(tmp_path: Path) -> None:
    (tmp_path / "old.pid").write_text(f"{os.getpid()} 1\n")
    processes = Processes(tmp_path)
    assert processes.pid("old") is None
    processes.stop("old")  # or this test would be over
    assert processes.names() == []


def test_a_process_that_ended_is_reported_with_its_log(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.start("failing", ["sh", "-c", "echo no such option >&2; exit 1"])
    wait_until(lambda: processes.pid("failing") is None, "the end of a failing process", 10)
    with pytest.raises(RuntimeError, match="failing ended:\nno such option"):
        processes.require("failing")
    processes.stop("failing")
