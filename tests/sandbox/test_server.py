"""The seam: programs in, exactly one verdict each out, whatever happens to the server."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.errors import InvalidInput, Retry
from soda_jobs.sandbox import client, lane, tools, tree
from soda_jobs.sandbox.client import LocalSandbox, run_programs
from soda_jobs.sandbox.execute_file import execute_file
from soda_jobs.sandbox.inside import Walls
from soda_jobs.sandbox.languages import LANGUAGES
from soda_jobs.sandbox.run import execute
from soda_jobs.sandbox.types import Program, Verdict, status

SERVER = [sys.executable, "-m", "soda_jobs.sandbox", "--workers", "2"]


def programs(count: int, code: str = "import time\ntime.sleep(0.05)") -> list[Program]:
    return [Program(f"p{number}", "python", code) for number in range(count)]


@contextlib.contextmanager
def started(
    *words: str, before: Sequence[str] = (), **env: str
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    environment = {**os.environ, "SODA_LOG": "json", **env}
    with subprocess.Popen(
        [*before, *SERVER, *words], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        try:
            events = map(json.loads, process.stderr)
            yield process, next(event for event in events if event["event"] == "sandbox_ready")
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def ask(url: str, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read().splitlines()[0])


def test_health_names_versions_and_isolation(server: dict[str, Any]) -> None:
    assert server["ready"] is True
    assert set(server["languages"]) == set(LANGUAGES)
    assert server["languages"]["python"].startswith("3.")
    assert isinstance(server["isolation"]["namespaces"], bool)


def test_every_program_gets_one_verdict_in_order(server: dict[str, Any]) -> None:
    seen: list[str] = []
    given = programs(50, "print(1)")
    verdicts = asyncio.run(run_programs(server["url"], given, on_verdict=lambda verdict: seen.append(verdict.id)))
    assert list(verdicts) == [program.id for program in given]
    assert sorted(seen) == sorted(verdicts)
    assert {verdict.verdict for verdict in verdicts.values()} == {"pass"}


def test_an_id_given_twice_is_refused(server: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="'p0' is the id of more than one"):
        asyncio.run(run_programs(server["url"], [*programs(2), *programs(1)]))


def test_no_programs_give_no_verdicts(server: dict[str, Any]) -> None:
    assert asyncio.run(run_programs(server["url"], [])) == {}


def test_a_killed_server_costs_no_verdict_and_leaves_no_process() -> None:
    port = free_port()
    given = programs(60)
    counts: dict[str, int] = {}

    def count(verdict: Verdict) -> None:
        counts[verdict.id] = counts.get(verdict.id, 0) + 1

    async def attack() -> dict[str, Verdict]:
        with started("--port", str(port)) as (first, _):
            running = asyncio.create_task(run_programs(f"http://127.0.0.1:{port}", given, on_verdict=count))
            while not (children := [pid for pid in tree.descendants(first.pid) if tree.descendants(pid)]):
                await asyncio.sleep(0.01)
            children = tree.descendants(first.pid)
            first.send_signal(signal.SIGKILL)
            first.wait()
            deadline = time.monotonic() + 5
            while not all(map(is_gone, children)) and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            assert all(map(is_gone, children))
            assert not running.done()
        with started("--port", str(port)):
            return await asyncio.wait_for(running, 60)

    verdicts = asyncio.run(attack())
    assert {verdict.verdict for verdict in verdicts.values()} == {"pass"}
    assert counts == {program.id: 1 for program in given}


def test_a_killed_worker_costs_no_verdict() -> None:
    async def attack() -> dict[str, Verdict]:
        with started() as (process, ready):
            running = asyncio.create_task(run_programs(ready["url"], programs(30)))
            for _ in range(5):
                await asyncio.sleep(0.2)
                for worker in tree.descendants(process.pid)[:1]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)
            return await asyncio.wait_for(running, 60)

    verdicts = asyncio.run(attack())
    assert len(verdicts) == 30
    assert {verdict.verdict for verdict in verdicts.values()} <= {"pass", "sandbox_error"}
    assert sum(verdict.verdict == "pass" for verdict in verdicts.values()) >= 29


def test_a_server_that_stays_away_is_a_reason_to_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "PATIENCE_SECONDS", 0.5)
    with pytest.raises(Retry, match="does not answer"):
        asyncio.run(run_programs(f"http://127.0.0.1:{free_port()}", programs(3)))


def test_a_local_sandbox_dies_with_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from soda_jobs.sandbox.client import LocalSandbox, run_programs\n"
        "from soda_jobs.sandbox.types import Program\n"
        "async def main():\n"
        "    async with LocalSandbox() as url:\n"
        "        print('ready', flush=True)\n"
        "        await run_programs(url, [Program('a', 'python', 'while True: pass', timeout_seconds=60)])\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        time.sleep(0.5)
        children = tree.descendants(parent.pid)
        assert len(children) >= 2
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 5
    while not all(map(is_gone, children)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert all(map(is_gone, children))


def test_a_local_sandbox_is_gone_after_its_block() -> None:
    async def use() -> set[int]:
        before = set(tree.descendants(os.getpid()))
        async with LocalSandbox(workers=1) as url:
            assert (await run_programs(url, programs(1)))["p0"].verdict == "pass"
            return set(tree.descendants(os.getpid())) - before

    started_here = asyncio.run(use())
    assert len(started_here) >= 2
    assert all(map(is_gone, started_here))


def test_a_unix_socket_works_too(tmp_path: Path) -> None:
    with started("--socket", str(tmp_path / "s")) as (_, ready):
        verdicts = asyncio.run(run_programs(ready["url"], programs(2)))
    assert {verdict.verdict for verdict in verdicts.values()} == {"pass"}


def test_a_wrong_token_is_refused_and_the_right_one_is_not() -> None:
    with started(SODA_SANDBOX_TOKEN="open") as (_, ready):
        for token in ("wrong", None, ""):
            with pytest.raises(InvalidInput, match="SODA_SANDBOX_TOKEN"):
                asyncio.run(run_programs(ready["url"], programs(1), token=token))
        code = "import os\nassert 'SODA_SANDBOX_TOKEN' not in os.environ"
        assert asyncio.run(run_programs(ready["url"], programs(1, code), token="open"))["p0"].verdict == "pass"


def test_an_open_address_needs_a_token() -> None:
    env = {key: value for key, value in os.environ.items() if key != "SODA_SANDBOX_TOKEN"}
    done = subprocess.run([*SERVER, "--host", "0.0.0.0"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert "SODA_SANDBOX_TOKEN must be set" in done.stderr


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "sentence"),
    [
        ("POST", "/v1/run", b"{", 400, "line 1: not JSON"),
        ("POST", "/v1/run", b'{"id": "a"}', 400, "line 1: language is missing"),
        ("POST", "/v1/run", b'{"id": "a", "language": "c", "code": "", "x": 1}', 400, "unknown key 'x'"),
        ("POST", "/v1/run", b"[" * 100_000, 400, "line 1: not JSON"),
        ("GET", "/v1/run", b"", 404, "not one of"),
        ("POST", "/elsewhere", b"", 404, "not one of"),
    ],
)
def test_a_bad_request_gets_a_sentence(
    server: dict[str, Any], method: str, path: str, body: bytes, code: int, sentence: str
) -> None:
    found, reply = ask(server["url"], method, path, body)
    assert found == code
    assert sentence in reply["error"]


def test_a_client_that_leaves_frees_the_worker(server: dict[str, Any]) -> None:
    sleeper = {"language": "python", "code": "import time\ntime.sleep(600)", "timeout_seconds": 600}
    body = b"".join(json.dumps({"id": str(number), **sleeper}).encode() + b"\n" for number in range(4))
    host, _, port = server["url"].removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as gone:
        gone.sendall(b"POST /v1/run HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        time.sleep(0.3)
    asyncio.run(asyncio.wait_for(run_programs(server["url"], programs(1)), 20))


def test_the_sandbox_needs_only_the_standard_library() -> None:
    root = str(Path(client.__file__).parents[2])
    names = "server, worker, client, execute_file, __main__"
    code = f"import sys\nsys.path.insert(0, {root!r})\nfrom soda_jobs.sandbox import {names}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def test_a_python_of_its_own_anywhere_is_shown(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "environment")], check=True)
    (tmp_path / "link").symlink_to(tmp_path / "environment")
    words = [str(tmp_path / "link/bin/python"), "-m", "soda_jobs", "execute", "--in", "in.jsonl", "--out", "out"]
    write_programs(tmp_path / "in.jsonl", [{"id": "a", "language": "python", "code": "print(1)"}])
    root = str(Path(client.__file__).parents[2])
    subprocess.run(words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, check=True, capture_output=True)
    assert json.loads((tmp_path / "out").read_text())["verdict"] == "pass"


def test_without_namespaces_it_says_so_and_still_gives_verdicts() -> None:
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    inside = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("unshare cannot make a place without namespaces here")
    daemon = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(600)"
    codes = ["print(1)", "while True: pass", daemon, "import os\nos.mkdir('d')", "x = bytearray(1 << 40)"]
    with started(before=inside) as (process, ready):
        assert process.stderr is not None
        said = next(
            event for line in process.stderr if (event := json.loads(line))["event"] == "sandbox_not_isolated"
        )
        given = [Program(f"{number}", "python", code, timeout_seconds=1) for number, code in enumerate(codes)]
        verdicts = asyncio.run(run_programs(ready["url"], given))
        assert len(tree.descendants(process.pid)) <= 2
    assert said["missing"].startswith("no namespaces here")
    assert [verdicts[f"{number}"].verdict for number in range(5)] == ["pass", "timeout", "pass", "pass", "memory"]


def test_it_refuses_to_serve_without_walls_when_they_are_required() -> None:
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    inside = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("unshare cannot make a place without namespaces here")
    words = [sys.executable, "-m", "soda_jobs.sandbox", "--require-isolation", "--workers", "1"]
    done = subprocess.run([*inside, *words], capture_output=True, text=True, check=False, timeout=60)
    last = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == 77
    assert last["event"] == "sandbox_failed"
    assert last["reason"].startswith("the sandbox lacks a wall: no namespaces here")


def test_an_unknown_language_is_unsupported(server: dict[str, Any]) -> None:
    verdict = asyncio.run(run_programs(server["url"], [Program("a", "cobol", "")]))["a"]
    assert (verdict.verdict, verdict.phase) == ("unsupported", "extract")


def test_a_missing_toolchain_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "PATH", str(tmp_path))
    tools.find.cache_clear()
    try:
        verdict = execute(Program("a", "go", "package main"), Walls(namespaces=False, program_id=None)).verdict
    finally:
        tools.find.cache_clear()
    assert (verdict.verdict, verdict.phase) == ("environment", "extract")
    assert verdict.detail == "go is not installed in this sandbox"


@pytest.mark.parametrize(
    ("word", "phase", "benchmark", "feedback"),
    [
        ("pass", "run", "pass", "pass"),
        ("logic", "run", "fail", "fail"),
        ("syntax", "compile", "fail", "fail"),
        ("import", "run", "fail", "env_error"),
        ("environment", "run", "fail", "env_error"),
        ("environment", "extract", "infra_error", "env_error"),
        ("timeout", "run", "timeout", "timeout"),
        ("memory", "run", "fail", "fail"),
        ("compile_limit", "compile", "fail", "fail"),
        ("unsupported", "extract", "unsupported", "unsupported"),
        ("sandbox_error", "run", "infra_error", "infra_error"),
    ],
)
def test_status_depends_on_the_rules(word: str, phase: Any, benchmark: str, feedback: str) -> None:
    verdict = Verdict("a", "python", word, phase, "", 0.0)
    assert (status(verdict, "benchmark"), status(verdict, "feedback")) == (benchmark, feedback)


def write_programs(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_of_programs_becomes_a_file_of_verdicts(server: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"id": f"{i}", "language": "python", "code": f"x = {i}", "tests": "assert x % 3"} for i in range(9)]
    rows += [{"id": "ä\ud800", "language": "python", "code": "import none", "rules": "feedback"}]
    source = write_programs(tmp_path / "in.jsonl", rows)
    counts = execute_file(source, tmp_path / "out.jsonl", url=server["url"])
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert counts == {"import": 1, "logic": 3, "pass": 6}
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert [row["status"] for row in found[:3]] == ["fail", "pass", "pass"]
    assert found[-1]["status"] == "env_error"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"id": "b", "language": "c"}, "row 2: code is missing"),
        ({"id": "a", "language": "c", "code": ""}, "'a' is the id of more than one row"),
        ({"id": "b", "language": "c", "code": 1}, "row 2.code: 1 is not a string"),
        ({"id": "b", "language": "c", "code": "", "test": ""}, "unknown key 'test'"),
        ({"id": "b", "language": "c", "code": "", "timeout_seconds": 0}, "row 2.timeout_seconds: 0 is not"),
        ({"id": "b", "language": "c", "code": "", "memory_mib": 1.5}, "row 2.memory_mib: 1.5 is not"),
        ({"id": "b", "language": "c", "code": "", "rules": "x"}, "'x' is not one of benchmark, feedback"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(tmp_path: Path, row: dict[str, Any], sentence: str) -> None:
    source = write_programs(tmp_path / "in.jsonl", [{"id": "a", "language": "python", "code": ""}, row])
    with pytest.raises(InvalidInput, match=sentence):
        execute_file(source, tmp_path / "out.jsonl", url="http://127.0.0.1:1")
    assert not (tmp_path / "out.jsonl").exists()
