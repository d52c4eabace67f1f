"""Many servers, one verdict for each program: through deaths, double answers, faults, and from the cache."""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.errors import InvalidInput
from soda_jobs.sandbox import tree
from soda_jobs.sandbox.client import run_programs
from soda_jobs.sandbox.dispatch import Dispatcher, urls_of
from soda_jobs.sandbox.endpoint import BATCH, Endpoint, Job, take, usable
from soda_jobs.sandbox.execute_file import execute_file
from soda_jobs.sandbox.httpd import begin, end, read_body, read_head, read_programs, reply, say
from soda_jobs.sandbox.repeats import copies, merge
from soda_jobs.sandbox.types import Program, Verdict, to_dict
from soda_jobs.sandbox.verdict_cache import VerdictCache, key
from soda_jobs.sandbox.wire import Address, Health

SERVER = [sys.executable, "-m", "soda_jobs.sandbox", "--workers", "2"]
Answers = Callable[["Played", Program], list[dict[str, Any]]]


class Died(Exception):
    """The played server is gone and another one stands in its place."""


class Played:
    """A server whose answers are given: the protocol is the real one, no program runs."""

    def __init__(self, answers: Answers, folder: Path, name: str) -> None:
        self.answers, self.path, self.name = answers, folder / name, name
        self.lives, self.alone, self.open = 1, 0, set[asyncio.StreamWriter]()
        self.seen: list[str] = []

    @property
    def url(self) -> str:
        return f"unix:{self.path}"

    @property
    def who(self) -> dict[str, Any]:
        return {"server": f"{self.name}-{self.lives}", "epoch": 0}

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        try:
            request = await read_head(reader)
            if request.path == "/healthz":
                isolation = {"namespaces": True}
                health = {"ready": True, "workers": 2, "isolation": isolation, "identity": {"python": "v1"}}
                await reply(writer, 200, {**health, **self.who})
                return
            begin(writer)
            programs = read_programs(await read_body(reader, request))
            await say(writer, {**self.who, **({} if programs else {"wrong": ""})})
            for program in programs:
                self.seen.append(program.id)
                await say(writer, {"started": program.id})
                for row in self.answers(self, program):
                    await say(writer, row)
                await asyncio.sleep(0)
            await end(writer)
        except Died:
            self.lives += 1
            for other in self.open:
                other.close()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()


@contextlib.asynccontextmanager
async def played(folder: Path, *answers: Answers) -> AsyncIterator[list[Played]]:
    servers = [Played(one, folder, f"s{number}") for number, one in enumerate(answers)]
    async with contextlib.AsyncExitStack() as stack:
        for one in servers:
            await stack.enter_async_context(await asyncio.start_unix_server(one.handle, str(one.path)))
        yield servers


def verdict(program: Program, word: str = "pass") -> dict[str, Any]:
    return to_dict(Verdict(program.id, program.language, word, "run", "", 0.0))


def honest(server: Played, program: Program) -> list[dict[str, Any]]:
    return [verdict(program, "logic" if "wrong" in program.code else "pass")]


def programs(count: int, code: str = "print({})") -> list[Program]:
    return [Program(f"p{number}", "python", code.format(number)) for number in range(count)]


@contextlib.contextmanager
def started(path: Path) -> Iterator[subprocess.Popen[str]]:
    words = [*SERVER, "--socket", str(path)]
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, env={**os.environ, "SODA_LOG": "json"}
    ) as process:
        assert process.stderr is not None
        try:
            next(line for line in process.stderr if json.loads(line)["event"] == "sandbox_ready")
            yield process
        finally:
            process.kill()


# -- real servers and real deaths ---------------------------------------------------------------------------------


CODES = {
    "pass": "import time\ntime.sleep(0.02)\nprint({})",
    "logic": "assert {} < 0",
    "runtime": "[][{}]",
    "syntax": "print({}",
    "import": "import none_{}",
}


def test_killed_workers_and_servers_change_no_verdict(tmp_path: Path) -> None:
    kinds = list(CODES)
    given = [Program(f"p{n}", "python", CODES[kinds[n % len(kinds)]].format(n)) for n in range(300)]
    expected = {program.id: kinds[n % len(kinds)] for n, program in enumerate(given)}
    paths = [tmp_path / f"s{number}" for number in range(3)]
    seen: Counter[str] = Counter()

    async def attack(servers: list[subprocess.Popen[str]], stack: contextlib.ExitStack) -> dict[str, Verdict]:
        urls = [f"unix:{path}" for path in paths]
        running = asyncio.create_task(run_programs(urls, given, on_verdict=lambda one: seen.update([one.id])))
        for _ in range(3):
            await asyncio.sleep(0.4)
            for pid in tree.descendants(servers[1].pid)[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for number in (0, 2):
            servers[number].kill()
            await asyncio.sleep(0.3)
        paths[2].unlink()
        servers.append(await asyncio.to_thread(lambda: stack.enter_context(started(paths[2]))))
        return await asyncio.wait_for(running, 120)

    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(started(path)) for path in paths]
        found = asyncio.run(attack(servers, stack))
    assert {name: one.verdict for name, one in found.items()} == expected
    assert seen == Counter(dict.fromkeys(expected, 1))


# -- played servers -----------------------------------------------------------------------------------------------


async def test_every_server_gets_its_share(tmp_path: Path) -> None:
    async with played(tmp_path, honest, honest, honest) as servers:
        found = await run_programs([one.url for one in servers], programs(120))
    assert {one.verdict for one in found.values()} == {"pass"}
    assert sorted(name for one in servers for name in one.seen) == sorted(found)
    assert all(len(one.seen) >= BATCH for one in servers)


async def test_each_language_has_its_servers(tmp_path: Path) -> None:
    async with played(tmp_path, honest, honest) as (python, other):
        given = [Program("a", "python", ""), Program("b", "c", ""), Program("c", "go", "")]
        where = {"python": python.url, "c": [other.url], "go": f"unix:{tmp_path}/{{language}}1"}
        other.path.with_name("go1").symlink_to(other.path)
        await run_programs(where, given)
        assert (python.seen, sorted(other.seen)) == (["a"], ["b", "c"])
        with pytest.raises(InvalidInput, match="no sandbox for 'java'"):
            await run_programs(where, [Program("d", "java", "")])


async def test_answers_given_twice_or_for_nobody_count_once(tmp_path: Path) -> None:
    def twice(server: Played, program: Program) -> list[dict[str, Any]]:
        return [verdict(program), verdict(program, "logic"), {**verdict(program), "id": "nobody"}]

    seen: list[str] = []
    async with played(tmp_path, twice) as (server,):
        found = await run_programs(server.url, programs(40), on_verdict=lambda one: seen.append(one.id))
    assert {one.verdict for one in found.values()} == {"pass"}
    assert sorted(seen) == sorted(found)


async def test_who_ends_two_servers_alone_is_memory_and_the_others_are_innocent(tmp_path: Path) -> None:
    def dies(server: Played, program: Program) -> list[dict[str, Any]]:
        if "bomb" in program.code:
            raise Died
        return honest(server, program)

    given = [*programs(30), Program("bomb", "python", "bomb"), *programs(60)[30:]]
    async with played(tmp_path, dies, dies) as servers:
        found = await asyncio.wait_for(run_programs([one.url for one in servers], given), 60)
    assert found.pop("bomb").verdict == "memory"
    assert {one.verdict for one in found.values()} == {"pass"}
    assert sum(one.lives for one in servers) == 2 + 3


async def test_a_program_is_innocent_of_one_death(tmp_path: Path) -> None:
    def dies_once(server: Played, program: Program) -> list[dict[str, Any]]:
        if program.id == "p5" and server.lives == 1:
            raise Died
        return honest(server, program)

    async with played(tmp_path, dies_once) as (server,):
        found = await asyncio.wait_for(run_programs(server.url, programs(20)), 60)
    assert {one.verdict for one in found.values()} == {"pass"}


async def test_a_fault_is_tried_elsewhere_and_kept_when_it_stays(tmp_path: Path) -> None:
    def faulty(server: Played, program: Program) -> list[dict[str, Any]]:
        return [verdict(program, "sandbox_error")]

    def partly(server: Played, program: Program) -> list[dict[str, Any]]:
        return [verdict(program, "sandbox_error" if program.id == "p3" else "pass")]

    async with played(tmp_path, faulty, partly) as servers:
        found = await run_programs([one.url for one in servers], programs(40))
    assert {name for name, one in found.items() if one.verdict != "pass"} == {"p3"}
    assert found["p3"].verdict == "sandbox_error"
    assert servers[1].seen.count("p3") == 2 or servers[0].seen.count("p3") == 2
    assert len(servers[0].seen) < 40  # it was avoided once it had failed often enough


@pytest.mark.parametrize("row", [{}, {"id": []}, {"id": "p0", "verdict": 1}, {"server": 1}, {"void": None}])
async def test_nonsense_from_a_server_is_not_taken_for_a_verdict(tmp_path: Path, row: dict[str, Any]) -> None:
    said: set[str] = set()

    def odd(server: Played, program: Program) -> list[dict[str, Any]]:
        is_first = program.id not in said
        said.add(program.id)
        return [row] if is_first else [verdict(program)]

    async with played(tmp_path, odd) as (server,):
        found = await asyncio.wait_for(run_programs(server.url, programs(1)), 60)
    assert found["p0"].verdict == "pass"


# -- the cache ----------------------------------------------------------------------------------------------------


async def test_a_known_verdict_is_not_found_again(tmp_path: Path) -> None:
    async with played(tmp_path, honest) as (server,):
        for attempt in range(2):
            cache = VerdictCache(tmp_path / "cache")
            found = await run_programs(server.url, programs(30, "wrong {}"), cache=cache)
            assert {one.verdict for one in found.values()} == {"logic"}
            assert list(found) == [f"p{number}" for number in range(30)]
            assert cache.hits == 30 * attempt
        assert len(server.seen) == 30


async def test_equal_programs_are_run_once(tmp_path: Path) -> None:
    async with played(tmp_path, honest) as (server,):
        found = await run_programs(server.url, programs(50, "same"), cache=VerdictCache(tmp_path / "cache"))
        assert [one.id for one in found.values()] == list(found)
        assert len(server.seen) == 1


@pytest.mark.parametrize("word", ["timeout", "environment", "flaky"])
async def test_what_may_change_is_not_kept(tmp_path: Path, word: str) -> None:
    async with played(tmp_path, lambda server, program: [verdict(program, word)]) as (server,):
        for _ in range(2):
            found = await run_programs(server.url, programs(3, "same"), cache=VerdictCache(tmp_path / "cache"))
            assert {one.verdict for one in found.values()} == {word}
        assert len(server.seen) == 6


@pytest.mark.parametrize(
    "changed",
    [
        {"code": "x"},
        {"tests": "x"},
        {"stdin": "x"},
        {"timeout_seconds": 9.0},
        {"memory_mib": 64},
        {"returns": "stdout"},
    ],
)
def test_the_key_is_of_everything_that_makes_a_verdict(changed: dict[str, Any]) -> None:
    program = Program("a", "python", "print(1)\ud800")
    assert key(program, "v1") == key(Program("b", "python", "print(1)\ud800"), "v1")
    assert key(program, "v1") != key(program, "v2")
    assert key(program, "v1") != key(Program(**{**to_dict(program), **changed}), "v1")


def test_a_broken_cache_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "verdicts.db").write_bytes(random.Random(1).randbytes(5000))
    program = Program("a", "python", "")
    cache = VerdictCache(tmp_path)
    assert cache.get(b"k", program) is None
    cache.put(b"k", Verdict("z", "python", "pass", "run", "", 0.0))
    cache.close()
    again = VerdictCache(tmp_path).get(b"k", program)
    assert again is not None
    assert (again.id, again.verdict) == ("a", "pass")


async def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with played(tmp_path, honest) as (server,):
        found = await run_programs(server.url, programs(3), cache=VerdictCache(tmp_path / "file" / "cache"))
    assert {one.verdict for one in found.values()} == {"pass"}


def test_a_second_attempt_on_a_file_runs_what_is_left(server: dict[str, Any], tmp_path: Path, walls: None) -> None:
    rows = [{"id": f"{n}", "language": "python", "code": f"assert {n} % 3"} for n in range(12)]
    source = tmp_path / "in.jsonl"
    for count in (8, 12):
        source.write_text("".join(json.dumps(row) + "\n" for row in rows[:count]))
        execute_file(source, tmp_path / f"{count}", url=server["url"], cache_folder=tmp_path / "cache")
    first, second = ((tmp_path / name).read_text().splitlines() for name in ("8", "12"))
    assert first == second[:8]
    assert [json.loads(line)["verdict"] for line in second] == ["pass" if n % 3 else "logic" for n in range(12)]


# -- runs that disagree -------------------------------------------------------------------------------------------


async def test_runs_that_disagree_are_flaky(tmp_path: Path) -> None:
    turns: Counter[str] = Counter()

    def moody(server: Played, program: Program) -> list[dict[str, Any]]:
        turns[program.code] += 1
        return [verdict(program, "pass" if turns[program.code] % 2 else "logic")]

    async with played(tmp_path, moody) as (server,):
        (found,) = (await run_programs(server.url, programs(1), runs=3, cache=VerdictCache(tmp_path))).values()
        assert (found.id, found.verdict) == ("p0", "flaky")
        assert found.detail == "3 runs disagree: logic 1, pass 2"
        assert len(server.seen) == 3


def test_a_program_of_chance_is_flaky(server: dict[str, Any]) -> None:
    program = Program("a", "python", "import os\nassert os.urandom(1)[0] & 1")
    assert asyncio.run(run_programs(server["url"], [program], runs=16))["a"].verdict == "flaky"


def test_a_fault_among_runs_is_the_verdict() -> None:
    program = Program("a", "python", "")
    assert [copy.code for copy in copies(program, 3)] == [""] * 3
    words = ("pass", "sandbox_error", "logic")
    found = merge([Verdict("a", "python", word, "run", "", 0.0) for word in words])
    assert (found.id, found.verdict) == ("a", "sandbox_error")


# -- what goes where ----------------------------------------------------------------------------------------------


def endpoint(name: str, *, is_ready: bool = True, **settings: Any) -> Endpoint:
    return Endpoint(Address(name, name, 1), Health(name, 0, 2, is_ready, True), **settings)


async def test_a_faulty_server_is_used_only_when_there_is_no_other() -> None:
    good, ill, resting = endpoint("a"), endpoint("b", shun_until=9.0), endpoint("c", rest_until=9.0)
    gone, away = endpoint("d", is_listed=False), endpoint("e", is_ready=False)
    assert usable([good, ill, resting, gone, away], 1.0) == [good]
    assert usable([ill, resting, gone, away], 1.0) == [ill]
    assert usable([resting, gone, away], 1.0) == [gone]


async def test_a_server_gets_its_share_and_nothing_that_it_failed() -> None:
    one, other = endpoint("a"), endpoint("b")
    loop = asyncio.get_running_loop()
    jobs = [Job(program, loop.create_future()) for program in programs(10)]
    jobs[0].avoid.add(one.address)
    jobs[1].not_before = 5.0
    jobs[2].done.cancel()
    queue = deque(jobs)
    assert take(queue, one, [one, other], 16, 1.0) == jobs[3:8]
    assert list(queue) == [*jobs[:2], *jobs[8:]]
    assert take(queue, one, [one], 16, 9.0) == [jobs[0], jobs[1], *jobs[8:]]


def test_urls_are_of_one_server_many_or_each_language() -> None:
    assert urls_of("http://{language}:1", "c") == ("http://c:1",)
    assert urls_of(["http://a:1", "http://b:1"], "c") == ("http://a:1", "http://b:1")
    assert urls_of({"c": "http://a:1"}, "c") == ("http://a:1",)


@pytest.mark.parametrize("url", ["ftp://a", "nothing", ""])
async def test_a_url_of_another_kind_is_refused(url: str) -> None:
    async with Dispatcher(url) as dispatcher:
        for program in programs(2):
            with pytest.raises(InvalidInput, match="is not a sandbox"):
                await dispatcher.run(program)
