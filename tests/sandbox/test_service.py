"""Compilers that stay: the same answers as the compiler alone, and none when anything is odd."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from soda_jobs.sandbox import run as running
from soda_jobs.sandbox import service, tools, tree
from soda_jobs.sandbox.jail import Jail
from soda_jobs.sandbox.languages import LANGUAGES
from soda_jobs.sandbox.run import execute, find_walls
from soda_jobs.sandbox.service import Reply, Service
from soda_jobs.sandbox.types import Program
from soda_jobs.sandbox.walls import Walls
from soda_jobs.sandbox.watch import Job

ECHO = """
import sys
while True:
    body = sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(4), "big"))
    {}
    sys.stdout.buffer.write(len(body).to_bytes(4, "big") + body)
    sys.stdout.buffer.flush()
"""
SOURCES = {
    "java": (
        ("public class Main { public static void main(String[] a) { System.out.println(1); } }", ""),
        ("class A { record P(int a) {} enum E { X { int f() { return 1; } } } }", ""),
        ("class A { int f() { return 1; } }", "class T { public static void main(String[] a) { assert false; } }"),
        ("public class Größe { public static void main(String[] a) { } }", ""),
        ("class A { int f( { } }", ""),
        ('class A { int x = "a"; int y = b; }', ""),
        ("import java.utl.List; class A { }", ""),
        ("import no.such.Thing; class A { Thing x; }", ""),
        ("public class A { void f() { throw new Exception(); } }", ""),
        ("class Compiler { int x = SourceFile.y; }", ""),
        ("", ""),
    ),
    "typescript": (
        ("const a: number = 1; console.log(a);", ""),
        ("export const a: string = await Promise.resolve('a');", "if (a !== 'b') throw new Error();"),
        ("const a: number = 'a';", ""),
        ("const a = (", ""),
        ("import a from 'a'; a();", ""),
        ("declare global { interface String { odd: number } } export {}; 'a'.odd.toFixed();", ""),
        ("console.log('a'.odd);", ""),
    ),
}


@pytest.fixture(scope="module")
def walls() -> Walls:
    found = find_walls(90)
    if not found.namespaces:
        pytest.skip(f"this machine allows no namespaces: {found.missing}")
    return found


@pytest.fixture
def echo(walls: Walls) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def make(line: str = "pass", seconds: float = 5.0) -> Service:
        def opening(walls: Walls) -> tuple[Jail, Job]:
            shown = tools.folders("python")
            jail = Jail(walls, {"echo.py": ECHO.format(line).encode()}, {}, shown=shown)
            return jail, Job((tools.path_of("python"), "-S", "echo.py"), {}, seconds, 256 << 20)

        made.append(Service(opening))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_what_it_is_sent_comes_back(echo: Callable[..., Service], walls: Walls) -> None:
    served = echo()
    for number in range(3):
        sent = {f"A{number}.class": bytes(range(256)) * 2000, "b": b""}
        assert served.ask(sent, walls) == Reply(sent)
    assert served.ask({"": b"an error"}, walls) == Reply({}, "an error")


@pytest.mark.parametrize(
    "line",
    [
        "sys.exit(0)",
        "while True: pass",
        "x = [b'a' * (1 << 20) for _ in range(1000)]",
        "body = b'aaaaaaaaaaa'",
        "body = bytes(8)",
        "body = body + body",
        "body = body.replace(b'name', b'a/../')",
        "body = b'a' * (64 << 20)",
        "sys.stdout.buffer.write(b'stdout')",
    ],
)
def test_an_odd_answer_is_no_answer_and_ends_it(echo: Callable[..., Service], walls: Walls, line: str) -> None:
    served = echo(f"if b'odd' in body: {line}" if ":" not in line else line, seconds=1.0)
    assert served.ask({"name": b"odd"}, walls) is None
    assert served._running is None


def test_after_an_odd_answer_it_starts_anew(echo: Callable[..., Service], walls: Walls) -> None:
    served = echo("if b'odd' in body: sys.exit(0)")
    for _ in range(5):
        assert served.ask({"name": b"good"}, walls) is not None
        assert served.ask({"name": b"odd"}, walls) is None


def test_what_never_starts_is_not_started_for_every_program(echo: Callable[..., Service], walls: Walls) -> None:
    served = echo("sys.exit(0)")
    for _ in range(service.MAX_FALSE_STARTS):
        assert served.ask({"name": b"a"}, walls) is None
    served._opening = lambda walls: pytest.fail("it was started again")
    assert served.ask({"name": b"a"}, walls) is None


def test_it_lives_for_a_number_of_programs(
    echo: Callable[..., Service], walls: Walls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_PROGRAMS", 2)
    served = echo("body = body + b'\\0\\0\\0\\5count\\0\\0\\0\\1' + b'%d' % (n := n + 1)")
    served._opening = _counting(served._opening)
    counts = [_count(served.ask({"name": b"a"}, walls)) for _ in range(5)]
    assert counts == [b"1", b"2", b"1", b"2", b"1"]


def _counting(opening: Callable[[Walls], tuple[Jail, Job]]) -> Callable[[Walls], tuple[Jail, Job]]:
    def opened(walls: Walls) -> tuple[Jail, Job]:
        jail, job = opening(walls)
        files = {name: b"n = 0\n" + text for name, text in jail._setup.files.items()}
        return Jail(walls, files, {}, shown=jail._setup.shown), job

    return opened


def _count(reply: Reply | None) -> bytes:
    assert reply is not None
    return reply.files["count"]


@pytest.mark.parametrize("language", SOURCES)
def test_it_says_what_the_compiler_alone_says(
    walls: Walls, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if any(tools.find(tool) is None for tool in LANGUAGES[language].tools):
        pytest.skip(f"no toolchain for {language} on this machine")
    programs = [Program("a", language, code, tests) for code, tests in SOURCES[language]]
    asked: list[Mapping[str, bytes]] = []
    ask = Service.ask

    def counted(served: Service, files: Mapping[str, bytes], walls: Walls) -> Reply | None:
        reply = ask(served, files, walls)
        asked.extend([files] if reply is not None else [])
        return reply

    monkeypatch.setattr(Service, "ask", counted)
    warm = [execute(program, walls).verdict for program in programs]
    assert len(asked) == len(programs), "it did not answer"
    monkeypatch.setattr(Service, "ask", lambda *_: None)
    cold = [execute(program, walls).verdict for program in programs]
    said = [[(v.verdict, v.phase, v.detail) for v in verdicts] for verdicts in (warm, cold)]
    assert said[0] == said[1]


def test_a_killed_compiler_costs_no_verdict(walls: Walls) -> None:
    if tools.find("javac") is None:
        pytest.skip("no toolchain for java on this machine")
    program = Program("a", "java", *SOURCES["java"][0])
    assert execute(program, walls).verdict.verdict == "pass"
    served = running._services["java"]
    assert served._running is not None
    victims = [pid for pid in tree.descendants(os.getpid()) if "Compiler.java" in _words(pid)]
    assert victims
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    assert execute(program, walls).verdict.verdict == "pass"
    assert served._running is None
    assert execute(program, walls).verdict.verdict == "pass"
    assert served._running is not None


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
