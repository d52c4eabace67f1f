"""A server of several processes leaves none of them behind, however its first one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from soda_jobs.parent import PARENT

# Like vLLM: becomes another program, which starts a process that knows nothing of the first one's end.
ENGINE = """
import os, sys
from soda_jobs.parent import take_family_along
take_family_along()
code = 'import subprocess, time; print(subprocess.Popen(["sleep", "300"]).pid, flush=True); time.sleep({seconds})'
os.execv(sys.executable, [sys.executable, "-c", code])
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("seconds", "number"), [(300, signal.SIGKILL), (300, signal.SIGTERM), (0, None)])
def test_the_whole_family_goes(seconds: int, number: int | None) -> None:
    engine = subprocess.Popen(
        [sys.executable, "-c", ENGINE.replace("{seconds}", str(seconds))],
        env={**os.environ, PARENT: str(os.getpid())},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert engine.stdout is not None
    grandchild = int(engine.stdout.readline())
    if number is not None:
        assert alive(grandchild)
        engine.send_signal(number)
    engine.wait(timeout=30)
    assert engine.stdout.read() == ""  # nobody holds the pipe
    engine.stdout.close()
    limit = time.monotonic() + 10
    while alive(grandchild) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not alive(grandchild)
