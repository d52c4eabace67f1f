"""Thousands of good, bad and hostile programs: every one has its verdict, and nothing of them remains.

`SODA_SOAK=20000` (`make soak`) says how many; a few hundred otherwise.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.sandbox import tree
from soda_jobs.sandbox.client import run_programs
from soda_jobs.sandbox.types import Verdict
from tests.sandbox.hostile import Sample, samples

COUNT = int(os.environ.get("SODA_SOAK", "300"))
SEED = int(os.environ.get("SODA_SOAK_SEED", "1"))
CHUNK = 500  # programs in memory at once
WARM = 50  # programs before the state is taken that must not grow
GROWTH_MIB = 48.0


@dataclass(frozen=True)
class State:
    """What a server holds when it is idle: of it and of all processes below it."""

    processes: int
    descriptors: int
    mounts: int
    files: int
    resident_mib: float

    @classmethod
    def of(cls, pid: int) -> State:
        pids = [pid, *tree.descendants(pid)]
        return cls(
            processes=len(pids),
            descriptors=sum(_count(f"/proc/{each}/fd") for each in pids),
            mounts=sum(len(_lines(f"/proc/{each}/mountinfo")) for each in pids),
            files=sum(1 for _ in _ours()),
            resident_mib=sum(_resident(each) for each in pids),
        )


def _count(folder: str) -> int:
    try:
        return len(os.listdir(folder))
    except OSError:
        return 0


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _resident(pid: int) -> float:
    found = [line for line in _lines(f"/proc/{pid}/status") if line.startswith("VmRSS:")]
    return int(found[0].split()[1]) / 1024 if found else 0.0


def _ours() -> Iterator[Path]:
    """Files that a program of ours might leave where programs may write."""
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        yield from Path(folder).glob("soda-*")


@pytest.fixture
def own_server() -> Iterator[dict[str, Any]]:
    """A server that nobody else uses."""
    with subprocess.Popen(
        [sys.executable, "-m", "soda_jobs.sandbox", "--workers", "2"],
        stderr=subprocess.PIPE,
        env={**os.environ, "SODA_LOG": "json"},
        text=True,
    ) as process:
        assert process.stderr is not None
        ready = next(found for line in process.stderr if (found := json.loads(line))["event"] == "sandbox_ready")
        yield {"pid": process.pid, **ready}
        process.terminate()


async def run(url: str, chosen: list[Sample]) -> dict[str, Verdict]:
    found: dict[str, Verdict] = {}
    for first in range(0, len(chosen), CHUNK):
        part = chosen[first : first + CHUNK]
        found |= await run_programs(url, [sample.program for sample in part])
    return found


def test_everything_has_a_verdict_and_nothing_remains(own_server: dict[str, Any]) -> None:
    languages = frozenset(name for name, version in own_server["languages"].items() if version)
    chosen = list(samples(COUNT, SEED, languages))
    url, pid = own_server["url"], own_server["pid"]
    first = {sample.program.language: sample for sample in chosen}  # what a language needs stays once it was used
    asyncio.run(run(url, list(first.values())))
    found = asyncio.run(run(url, chosen[:WARM]))
    before = at_rest(pid)
    found |= asyncio.run(run(url, chosen[WARM:]))
    assert list(found) == [sample.program.id for sample in chosen]
    wrong = [
        (sample.program.language, found[sample.program.id].verdict, sample.program.code[:200])
        for sample in chosen
        if found[sample.program.id].verdict not in sample.allowed
    ]
    assert wrong == [], Counter(verdict for _, verdict, _ in wrong)
    after = at_rest(pid, before)
    assert after.processes <= before.processes
    assert after.descriptors <= before.descriptors
    assert after.mounts <= before.mounts
    assert after.files <= before.files
    assert after.resident_mib <= before.resident_mib + GROWTH_MIB


def at_rest(pid: int, like: State | None = None) -> State:
    """The state once the last program's end has been dealt with."""
    end = time.monotonic() + 10
    while True:
        state = State.of(pid)
        is_back = like is None or (state.processes, state.descriptors) <= (like.processes, like.descriptors)
        if (is_back and like is not None) or time.monotonic() > end - (0 if like else 8):
            return state
        time.sleep(0.2)
