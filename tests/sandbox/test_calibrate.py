"""Time that survives noise: what is measured, what the limit is, and which expiries are believed."""

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest

from soda_jobs.errors import InvalidInput
from soda_jobs.sandbox import pool as pools
from soda_jobs.sandbox.calibrate import MARGIN, Slowness, limit_seconds, measure, scaled
from soda_jobs.sandbox.client import run_programs
from soda_jobs.sandbox.pool import CONFIRMATIONS, Pool
from soda_jobs.sandbox.types import Program, Verdict, program_from_dict, to_dict
from soda_jobs.sandbox.workers import Worker, WorkerDied

Reply = dict[str, Any]
LOOP = Program("loop", "python", "while True: pass", timeout_seconds=1.0)


def test_the_fixed_work_is_timed_on_both_clocks() -> None:
    found = measure()
    assert set(found) == {"wall", "cpu"}
    assert min(found.values()) > 0


def test_slowness_is_against_the_best_time_seen_on_the_clock_that_tells_it() -> None:
    charged, wall = Slowness(is_gvisor=False), Slowness(is_gvisor=True)
    assert [charged.of({"cpu": cpu, "wall": 9.0}) for cpu in (2.0, 1.0, 3.0, 0.5, 1.0)] == [1, 1, 3, 1, 2]
    assert [wall.of({"cpu": 9.0, "wall": seconds}) for seconds in (1.0, 4.0)] == [1, 4]


@pytest.mark.parametrize(
    ("language", "reference", "timeout", "limit"),
    [
        ("python", 0.0, 7.0, 7.0),  # nothing known: what the caller says
        ("python", 0.01, 10.0, 2.0),  # its floor
        ("python", 0.5, 10.0, 5.0),  # ten times the reference
        ("python", 3.0, 10.0, 10.0),  # and never more than the caller says
        ("java", 0.01, 10.0, 6.0),
        ("java", 0.01, 3.0, 3.0),
    ],
)
def test_the_limit_follows_the_reference(language: str, reference: float, timeout: float, limit: float) -> None:
    program = Program("a", language, "", timeout_seconds=timeout, reference_seconds=reference)
    assert limit_seconds(program) == limit


@pytest.mark.parametrize("value", [-1, "1", True, 1e9, float("nan")])
def test_a_reference_is_a_number_of_seconds(value: Any) -> None:
    row = {"id": "a", "language": "c", "code": ""}
    assert program_from_dict({**row, "reference_seconds": 0}, field="line 1").reference_seconds == 0
    assert program_from_dict({**row, "reference_seconds": 2}, field="line 1").reference_seconds == 2.0
    with pytest.raises(InvalidInput, match=r"line 1\.reference_seconds: "):
        program_from_dict({**row, "reference_seconds": value}, field="line 1")


def test_a_slow_slot_gives_more_time_but_no_more_than_four_times() -> None:
    assert [scaled(2.0, slowdown, True) for slowdown in (0.5, 1.0, 3.0, 9.0)] == [2.0, 2.0, 6.0, 8.0]
    assert scaled(2.0, 1.0, False) == 2.0 * MARGIN


# -- which expiries are believed ----------------------------------------------------------------------------------


class PlayedWorker(Worker):
    """Answers each program with the next reply, and each calibration with the next slowdown (the last stays)."""

    def __init__(self, replies: list[Reply], slowdowns: list[float]) -> None:
        super().__init__(0)
        self._replies, self._slowdowns = replies, slowdowns
        self.limits: list[float] = []

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if "calibrate" in request:
            seconds = self._slowdowns.pop(0) if len(self._slowdowns) > 1 else self._slowdowns[0]
            return {"wall": seconds, "cpu": seconds}
        self.limits.append(request["program"]["timeout_seconds"])
        reply = self._replies.pop(0)
        if reply["word"] == "dies":
            raise WorkerDied("killed")
        program = Program(**request["program"])
        verdict = Verdict(program.id, program.language, reply["word"], "run", "", 0.0)
        return {"verdict": to_dict(verdict), "is_final": reply["is_final"], "is_idle": reply["is_idle"]}


def reply(word: str, *, is_final: bool = True, is_idle: bool = False) -> Reply:
    return {"word": word, "is_final": is_final, "is_idle": is_idle}


def played(replies: list[Reply], slowdowns: list[float], *, gvisor: bool) -> tuple[Pool, PlayedWorker]:
    worker = PlayedWorker(replies, [*slowdowns])
    pool = Pool(1, lambda slot: worker, gvisor=gvisor)
    pool._slowness.of({"wall": 1.0, "cpu": 1.0})  # the best that was seen
    return pool, worker


CERTAIN, DOUBTFUL, ASLEEP = (
    reply("timeout"),
    reply("timeout", is_final=False),
    reply("timeout", is_idle=True),
)
PASS = reply("pass")
STEADY, SLOWER = (2.0,) * pools._SAMPLES, (2.5, 3.5) * pools._SAMPLES


@pytest.mark.parametrize(
    ("gvisor", "replies", "slowdowns", "word", "runs"),
    [
        (False, [PASS], [1.0], "pass", 1),
        (False, [CERTAIN], [1.0], "timeout", 1),  # the kernel charged it its time
        (False, [ASLEEP], [2.0], "timeout", 1),  # it waited: no noise can be the cause
        (False, [CERTAIN], [2.0, 2.0], "timeout", 1),  # slow, but the limit allowed for it
        (False, [CERTAIN, PASS], [1.0, 2.0], "pass", 2),  # each second came to do less: once more, alone
        (False, [DOUBTFUL, PASS], [1.0], "pass", 2),
        (False, [DOUBTFUL, CERTAIN], [1.0], "timeout", 2),
        (False, [DOUBTFUL, DOUBTFUL], [1.0], "sandbox_error", 2),  # it never got its time
        (False, [CERTAIN, CERTAIN], [1.0, 2.0, *STEADY, *SLOWER], "sandbox_error", 2),  # and again
        (False, [CERTAIN, CERTAIN], [1.0, 2.0, *STEADY], "timeout", 2),
        (True, [PASS], [1.0], "pass", 1),
        (True, [CERTAIN, PASS], [1.0], "pass", 2),  # nothing that its kernel says of time is believed
        (True, [CERTAIN, CERTAIN], [1.0], "timeout", 2),
        (True, [CERTAIN, CERTAIN], [1.0, 1.0, *STEADY, *SLOWER], "sandbox_error", 2),
        (True, [CERTAIN, CERTAIN], [2.0], "timeout", 2),  # busy as it was: the limit allowed for it
        (True, [ASLEEP], [2.0], "timeout", 1),
        (False, [reply("runtime", is_final=False), reply("runtime", is_final=False)], [1.0], "runtime", 2),
        (False, [reply("dies")], [1.0], "sandbox_error", 1),
    ],
)
async def test_an_expiry_is_believed_only_where_noise_is_no_cause(
    gvisor: bool, replies: list[Reply], slowdowns: list[float], word: str, runs: int
) -> None:
    pool, worker = played([*replies], slowdowns, gvisor=gvisor)
    assert (await pool.run(LOOP)).verdict == word
    assert len(worker.limits) == runs
    if runs == 2:
        assert worker.limits[1] >= 2 * LOOP.timeout_seconds


@pytest.mark.parametrize(("meanwhile", "word"), [(1.0, "timeout"), (5.0, "sandbox_error")])
async def test_what_happens_while_a_program_is_confirmed_is_heard(meanwhile: float, word: str) -> None:
    inside: list[str] = []

    class Heard(PlayedWorker):
        async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
            if "calibrate" in request:
                await asyncio.sleep(0)
                return {"wall": meanwhile if inside else 1.0, "cpu": 1.0}
            inside.append("program")
            await asyncio.sleep(0.1)
            inside.clear()
            self._replies = [CERTAIN]
            return await super().ask(request)

    pool = Pool(2, lambda slot: Heard([], [1.0]), gvisor=True)
    assert (await pool.run(LOOP)).verdict == word


async def test_equal_programs_are_confirmed_twice_and_then_believed() -> None:
    pool, worker = played([CERTAIN] * 20, [1.0], gvisor=True)
    for _ in range(5):
        assert (await pool.run(LOOP)).verdict == "timeout"
    assert len(worker.limits) == 5 + CONFIRMATIONS


async def test_a_machine_that_is_too_slow_takes_nothing_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        troubles.append(pool.trouble)

    troubles: list[str] = []
    monkeypatch.setattr(pools.asyncio, "sleep", sleep)
    pool, worker = played([PASS], [9.0], gvisor=True)
    found = await pool.run(LOOP)
    assert (found.verdict, worker.limits) == ("sandbox_error", [])
    assert found.detail == "the machine was too busy to time it: 9.0 times slower than at its best"
    assert set(troubles) == {found.detail}
    worker._slowdowns = [3.0]
    assert (await pool.run(LOOP)).verdict == "pass"
    assert (worker.limits, pool.trouble) == ([3.0], "")


async def test_a_program_is_alone_when_it_is_confirmed() -> None:
    inside, beside = list[str](), list[list[str]]()

    class Watched(PlayedWorker):
        async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
            if "calibrate" in request:
                return {"wall": 1.0, "cpu": 1.0}
            program = request["program"]
            inside.append(program["id"])
            await asyncio.sleep(0.01)
            if program["timeout_seconds"] > LOOP.timeout_seconds:
                beside.append([*inside])
            self._replies = [CERTAIN if program["id"] == LOOP.id else PASS]
            try:
                return await super().ask(request)
            finally:
                inside.remove(program["id"])

    pool = Pool(2, lambda slot: Watched([], [1.0]), gvisor=True)
    others = [Program(f"p{number}", "python", "", timeout_seconds=1.0) for number in range(20)]
    found = await asyncio.gather(*map(pool.run, [*others[:10], LOOP, *others[10:]]))
    assert [one.verdict for one in found] == ["pass"] * 10 + ["timeout"] + ["pass"] * 10
    assert beside == [["loop"]]


BURN = "import time\nwhile time.process_time() < {seconds}: pass"


@pytest.mark.slow
def test_programs_near_their_limit_pass_while_others_take_half_the_machine(server: dict[str, Any]) -> None:
    limit = 0.3
    given = [
        Program(f"p{number}", "python", BURN.format(seconds=0.95 * limit), timeout_seconds=limit)
        for number in range(64)
    ]
    words = [sys.executable, "-I", "-S", "-c", "while True: pass"]
    loops = [subprocess.Popen(words) for _ in os.sched_getaffinity(0)]
    try:
        found = asyncio.run(run_programs(server["url"], given))
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert {one.verdict for one in found.values()} == {"pass"}


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("import time\ntime.sleep(60)", "timeout"),
        ("while True: pass", "timeout"),
        ("import threading\nthreading.Event().wait()", "timeout"),
        ("import os\nos.read(os.pipe()[0], 1)", "timeout"),
        ("import time\ntime.sleep(0.2)", "pass"),
    ],
)
def test_what_never_ends_is_a_timeout(server: dict[str, Any], code: str, word: str) -> None:
    program = Program("a", "python", code, timeout_seconds=0.5)
    assert asyncio.run(run_programs(server["url"], [program]))["a"].verdict == word
