"""A server that judges wrong is not believed: faults are put in at the pool, behind a real server and client."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.errors import Retry
from soda_jobs.sandbox import canary
from soda_jobs.sandbox.canary import EVERY, FEW, Canaries, CanariesWrong, canaries
from soda_jobs.sandbox.client import run_programs
from soda_jobs.sandbox.languages import LANGUAGES
from soda_jobs.sandbox.pool import OnStart
from soda_jobs.sandbox.server import Server
from soda_jobs.sandbox.types import Program, Verdict

Judge = Callable[["FaultyPool", Program], str]
_EXPECTED = {one.program.code: one.expected for one in canaries(LANGUAGES)}


def right(program: Program) -> str:
    return _EXPECTED.get(program.code, "logic" if "wrong" in program.code else "pass")


class FaultyPool:
    """Judges as it is told to, without running anything; `restarts` counts how often it was healed."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.walls: dict[str, Any] = {"namespaces": True}
        self.versions: dict[str, str | None] = {"python": "3"}
        self.size, self.is_gvisor, self.trouble = 2, False, ""
        self.runs = self.restarts = 0

    async def run(self, program: Program, on_start: OnStart = lambda: None) -> Verdict:
        on_start()
        self.runs += 1
        await asyncio.sleep(0)
        return Verdict(program.id, program.language, self._judge(self, program), "run", "", 0.0)

    async def restart(self) -> None:
        self.restarts += 1


@contextlib.asynccontextmanager
async def serving(folder: Path, *judges: Judge) -> AsyncIterator[tuple[list[Server], list[str], list[FaultyPool]]]:
    pools = [FaultyPool(judge) for judge in judges]
    servers = [Server(pool, "") for pool in pools]
    urls = [f"unix:{folder}/s{number}" for number in range(len(pools))]
    async with contextlib.AsyncExitStack() as stack:
        for one, url in zip(servers, urls, strict=True):
            listener = await asyncio.start_unix_server(one.handle, url.removeprefix("unix:"))
            await stack.enter_async_context(listener)
            stack.push_async_callback(one.close)
            await one.prove()
        yield servers, urls, pools


def programs(count: int) -> list[Program]:
    return [Program(f"p{n}", "python", f"{'wrong' if n % 3 else 'fine'} {n}") for n in range(count)]


def is_right(found: dict[str, Verdict], given: list[Program]) -> bool:
    return {name: one.verdict for name, one in found.items()} == {one.id: right(one) for one in given}


def test_the_canaries_are_of_every_kind_and_language() -> None:
    words = [one.expected for one in canaries([])]
    assert words == ["pass", "logic", "syntax", "timeout", "memory", "process_limit"]
    covered = {one.program.language for one in canaries(LANGUAGES)}
    assert covered == set(LANGUAGES)
    assert len(canaries(["java"])) == len(words) + 2


async def test_a_server_that_goes_wrong_makes_its_verdicts_void(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def lies_for_a_while(pool: FaultyPool, program: Program) -> str:
        return "pass" if pool.runs > 60 and not pool.restarts else right(program)

    given, seen = programs(400), Counter[str]()
    async with serving(tmp_path, lies_for_a_while) as (_, urls, pools):
        found = await asyncio.wait_for(run_programs(urls, given, on_verdict=lambda one: seen.update([one.id])), 60)
        assert pools[0].restarts == 1
    assert is_right(found, given)
    assert set(seen.values()) == {1}
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    wrong = next(one for one in events if one["event"] == "canary_wrong")
    assert wrong["reason"].startswith("a python program that is")
    assert sum(one["count"] for one in events if one["event"] == "verdicts_void") > 0


async def test_a_server_that_stays_wrong_ends_and_another_does_its_work(tmp_path: Path) -> None:
    def lies(pool: FaultyPool, program: Program) -> str:
        return "pass" if pool.runs > 60 else right(program)

    given = programs(300)
    async with serving(tmp_path, lies, lambda _, program: right(program)) as (servers, urls, _):
        found = await asyncio.wait_for(run_programs(urls, given), 60)
        assert servers[0].stopped.is_set()
        assert isinstance(servers[0].failure, Retry)
        assert "was judged pass" in str(servers[0].failure)
        assert servers[1].failure is None
    assert is_right(found, given)


async def test_a_server_proves_itself_unasked_after_a_fault_of_ours(tmp_path: Path) -> None:
    state = {"is_ill": False}

    def falls_ill(pool: FaultyPool, program: Program) -> str:
        if program.id == "p3" and not pool.restarts:
            state["is_ill"] = True
            return "sandbox_error"
        return "logic" if state["is_ill"] and not pool.restarts else right(program)

    given = programs(8)
    async with serving(tmp_path, falls_ill) as (_, urls, pools):
        found = await asyncio.wait_for(run_programs(urls, given), 60)
        assert pools[0].restarts == 1
    assert is_right(found, given)


async def test_few_programs_after_a_good_check_are_believed(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda _, program: right(program)) as (_, urls, pools):
        for count in (FEW // 2, FEW - FEW // 2 - 1):
            await run_programs(urls, programs(count))
        assert pools[0].runs == len(canaries([])) + FEW - 1
        await run_programs(urls, programs(1))
        assert pools[0].runs == 2 * len(canaries([])) + FEW


async def _unhealing(wrong: str) -> None:
    return None


async def test_a_check_is_due_after_many_programs_or_one_fault() -> None:
    async def run(program: Program) -> Verdict:
        return Verdict("", program.language, right(program), "run", "", 0.0)

    found = Canaries(run, _unhealing)
    assert found.is_due
    assert await found.check() == ""
    for _ in range(EVERY - 1):
        found.saw(Verdict("a", "python", "pass", "run", "", 0.0))
    assert not found.is_due
    found.saw(Verdict("a", "python", "pass", "run", "", 0.0))
    assert found.is_due
    assert (await found.check(), found.is_due, found.epoch) == ("", False, 0)
    found.saw(Verdict("a", "python", "sandbox_error", "run", "", 0.0))
    assert found.is_due


async def test_a_canary_that_meets_a_fault_of_ours_is_run_again() -> None:
    met: Counter[str] = Counter()

    async def run(program: Program) -> Verdict:
        met[program.code] += 1
        word = right(program) if met[program.code] == canary.TRIES else "sandbox_error"
        return Verdict("", program.language, word, "run", "", 0.0)

    assert await Canaries(run, _unhealing).check() == ""


async def test_canaries_that_stay_wrong_are_said() -> None:
    async def run(program: Program) -> Verdict:
        return Verdict("", program.language, "pass", "run", "odd", 0.0)

    found = Canaries(run, _unhealing)
    with pytest.raises(CanariesWrong, match=r"a python program that is logic was judged pass \(odd\)"):
        await found.check()
    assert found.epoch == canary.TRIES


@pytest.mark.parametrize(
    ("ill", "word", "is_unwatched"),
    [
        ("memory", "pass", True),
        ("process_limit", "timeout", True),
        ("memory", "sandbox_error", False),
        ("logic", "pass", False),
    ],
)
async def test_a_watch_that_is_not_kept_is_a_wall_that_is_missing(ill: str, word: str, is_unwatched: bool) -> None:
    server = Server(FaultyPool(lambda _, program: word if right(program) == ill else right(program)), "")
    assert f"that is {ill} was judged {word}" in await server.prove()
    assert (server.stopped.is_set(), server.is_unwatched) == (True, is_unwatched)
