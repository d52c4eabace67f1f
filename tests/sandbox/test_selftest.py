"""The self-test: walls that hold are found to hold, and each one that does not is named."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.errors import Retry
from soda_jobs.sandbox import selftest
from soda_jobs.sandbox.calibrate import is_gvisor
from soda_jobs.sandbox.pool import Pool
from soda_jobs.sandbox.selftest import faults, judge, over
from soda_jobs.sandbox.types import Program, Verdict
from soda_jobs.sandbox.walls import SCRATCH_BYTES, SCRATCH_FILES

HELD: dict[str, Any] = {
    "processes": [1, 2],
    "capabilities": 0,
    "no_new_privileges": 1,
    "environment": ["HOME", "PATH"],
    "descriptors": [],
    "interfaces": [],
    "has_route": False,
    "files_of_the_machine": [],
    "writable": [],
    "bytes": SCRATCH_BYTES,
    "files": SCRATCH_FILES,
}


async def test_the_walls_of_this_machine_hold() -> None:
    pool = Pool(1)
    try:
        await pool.probe()
        assert await faults(pool) == []
    finally:
        await pool.close()


def test_walls_that_hold_are_no_fault() -> None:
    assert judge(HELD, is_walled=True) == []


@pytest.mark.parametrize(
    ("met", "sentence"),
    [
        ({"processes": [*range(40)]}, "it sees other processes: 0, 1, 2, 3, 4"),
        ({"capabilities": 0x20}, "it has capabilities 0x20"),
        ({"no_new_privileges": 0}, "it may gain privileges by executing a program"),
        ({"environment": ["HOME", "SODA_SANDBOX_TOKEN"]}, "its environment is not empty: SODA_SANDBOX_TOKEN"),
        ({"descriptors": [7]}, "it was given open files: 7"),
        ({"interfaces": ["eth0"]}, "it has network interfaces: eth0"),
        ({"has_route": True}, "it has a route to a network"),
        ({"files_of_the_machine": ["/etc/shadow"]}, "it sees files of the machine: /etc/shadow"),
        ({"writable": ["/usr"]}, "it can write to the system: /usr"),
        ({"bytes": 2 * SCRATCH_BYTES}, f"it could write {2 * SCRATCH_BYTES} bytes and not {SCRATCH_BYTES}"),
        ({"files": 2 * SCRATCH_FILES}, f"it could write {2 * SCRATCH_FILES} files and not {SCRATCH_FILES}"),
    ],
)
def test_each_wall_that_does_not_hold_is_named(met: dict[str, Any], sentence: str) -> None:
    assert judge({**HELD, **met}, is_walled=True) == [sentence]


class Given:
    """A pool in which every program says the same."""

    def __init__(self, verdict: str, returned: str) -> None:
        self.walls: dict[str, Any] = {"namespaces": True}
        self.is_gvisor = False
        self._verdict = Verdict("", "python", verdict, "run", "why", 0.0, returned)

    async def run(self, program: Program) -> Verdict:
        return self._verdict


@pytest.mark.parametrize(("verdict", "returned"), [("runtime", ""), ("pass", ""), ("pass", "bm90IEpTT04=")])
async def test_a_probe_that_does_not_answer_is_a_fault(verdict: str, returned: str) -> None:
    (sentence,) = await faults(Given(verdict, returned))
    assert sentence.startswith("the program that tries the walls did not run")


async def test_a_machine_too_busy_to_try_is_no_missing_wall() -> None:
    with pytest.raises(Retry, match="could not test itself: why"):
        await faults(Given("sandbox_error", ""))


def test_a_server_refuses_another_kernel_than_it_must_have(tmp_path: Path) -> None:
    if is_gvisor():
        pytest.skip("the kernel here is gVisor's")
    words = [sys.executable, "-m", "soda_jobs.sandbox", "--require-gvisor", "--workers", "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    last = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == 77
    assert last["reason"] == "the sandbox lacks a wall: the kernel here is not gVisor's"


@pytest.mark.parametrize(
    ("given", "quota", "is_kept"), [(2.0, 2.0, True), (2.9, 2.0, True), (4.0, 2.0, False), (1.5, 0.5, False)]
)
def test_a_processor_limit_is_kept_or_not(given: float, quota: float, is_kept: bool) -> None:
    assert (over(given, quota) == []) is is_kept


async def test_a_limit_of_processors_is_tried_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest, "_CGROUP", tmp_path)
    assert await selftest._processors() == []
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert await selftest._processors() == []
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 5000000\nuser_usec 1\n")
    assert await selftest._processors() == []
