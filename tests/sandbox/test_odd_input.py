"""Input of any shape: odd sources are judged, odd output is kept, and odd requests hurt nobody."""

import asyncio
import contextlib
import json
import random
import socket
import urllib.request
from base64 import b64decode
from typing import Any

import pytest

from soda_jobs.sandbox.client import run_programs
from soda_jobs.sandbox.types import VERDICTS, Program

BODIES = {
    "python": "print(1)",
    "javascript": "console.log(1)",
    "c": "int main(void) { return 0; }",
    "cpp": "int main() { return 0; }",
    "go": "package main\n\nfunc main() {}",
    "java": "class Main { public static void main(String[] a) { } }",
    "typescript": "const one: number = 1;",
    "rust": "fn main() {}",
    "ruby": "puts 1",
}
COMMENTS = {"python": "#", "ruby": "#"}
ODD = {
    "nul": lambda body, mark: f"{body}\n{mark} \x00\n\x00",
    "surrogate": lambda body, mark: f"{body}\n{mark} \ud800\udfff \udc80",
    "long line": lambda body, mark: f"{body}\n{mark} {'x' * (5 << 20)}",
    "crlf": lambda body, mark: body.replace("\n", "\r\n") + "\r\n",
    "bom": lambda body, mark: f"\ufeff{body}",
    "controls": lambda body, mark: f"{body}\n{mark} \x1a\x1b[2J\u2028\u202e",
    "empty": lambda body, mark: "",
    "only nul": lambda body, mark: "\x00" * 100,
}
OURS = {"sandbox_error", "environment", "unsupported"}


@pytest.mark.parametrize("language", BODIES)
def test_an_odd_source_is_judged(server: dict[str, Any], language: str) -> None:
    if server["languages"].get(language) is None:
        pytest.skip(f"no toolchain for {language} on this machine")
    mark = COMMENTS.get(language, "//")
    given = [Program(name, language, make(BODIES[language], mark)) for name, make in ODD.items()]
    found = asyncio.run(run_programs(server["url"], given))
    assert {name: one.verdict for name, one in found.items() if one.verdict in OURS} == {}
    assert found["crlf"].verdict == "pass"


@pytest.mark.parametrize("field", ["tests", "stdin"])
@pytest.mark.parametrize("text", ["\x00", "\ud800", "\ufeff", "x" * (5 << 20), "\r\n\r\n"])
def test_odd_tests_and_input_are_taken(server: dict[str, Any], field: str, text: str) -> None:
    program = Program("a\ud800\x00\n", "python", "import sys\nsys.stdin.read()", **{field: text})
    (found,) = asyncio.run(run_programs(server["url"], [program])).values()
    assert found.id == program.id
    assert found.verdict not in OURS


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (r"import os; os.write(1, b'\xff\xfe\x00\n')", b"\xff\xfe\x00\n"),
        ("import os; os.write(1, bytes(range(256)) * 999)", bytes(range(256)) * 999),
        ("print('x' * 3_000_000)", b"x" * 3_000_000 + b"\n"),
        ("import sys; sys.stdout.buffer.write(b'\\xed\\xa0\\x80')", b"\xed\xa0\x80"),
    ],
)
def test_output_of_any_bytes_comes_back_whole(server: dict[str, Any], code: str, said: bytes) -> None:
    program = Program("a", "python", code, returns="stdout")
    found = asyncio.run(run_programs(server["url"], [program]))["a"]
    assert (found.verdict, b64decode(found.returned)) == ("pass", said)


def test_errors_of_any_bytes_are_said_in_text(server: dict[str, Any]) -> None:
    codes = [
        r"import os; os.write(2, b'\xff\x00' * 9999); os._exit(3)",
        "raise ValueError('\\ud800' * 99)",
        "raise ValueError('x' * 10**6)",
        "import os; os.write(2, b'\\x1b[2J' * 10**6); 1 / 0",
    ]
    given = [Program(f"{number}", "python", code) for number, code in enumerate(codes)]
    found = asyncio.run(run_programs(server["url"], given))
    assert {one.verdict for one in found.values()} == {"runtime"}
    assert all(len(one.detail) <= 500 and "\x1b" not in one.detail for one in found.values())


# -- requests -----------------------------------------------------------------------------------------------------

_GOOD = b'{"id": "a", "language": "python", "code": "print(1)"}\n'
_HEAD = b"POST /v1/run HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
_PIECES = (
    b"POST /v1/run HTTP/1.1\r\n",
    b"GET /healthz HTTP/1.1\r\n",
    b"POST /v1/check HTTP/1.1\r\n",
    b"Content-Length: 50\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999999999999999\r\n",
    b"Content-Length: \xb2\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Authorization: Bearer \xff\r\n",
    b"\r\n\r\n",
    b"\r\n",
    b"\x00" * 40,
    b"\xff" * 40,
    _GOOD,
    b'{"id": "a", "language": "python", "code": "\\ud800", "timeout_seconds": 1e999}\n',
    b"[" * 5000,
    b"1" * 5000 + b"\n",
    b'{"id": "a"' * 99,
)


def request(seed: int) -> bytes:
    chance = random.Random(seed)
    kind = seed % 4
    if kind == 0:
        return chance.randbytes(chance.randrange(1, 4000))
    if kind == 1:
        return b"".join(chance.choices(_PIECES, k=chance.randrange(1, 12)))
    body = bytearray(_GOOD * chance.randrange(1, 3))
    for _ in range(chance.randrange(1, 6)):
        body[chance.randrange(len(body))] = chance.randrange(256)
    if kind == 2:
        return _HEAD % len(body) + body
    head = bytearray(_HEAD % len(body))
    head[chance.randrange(len(head))] = chance.randrange(256)
    return bytes(head + body)


def test_no_request_hurts_the_server(server: dict[str, Any]) -> None:
    host, _, port = server["url"].removeprefix("http://").partition(":")
    for seed in range(600):
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5) as line:
            line.sendall(request(seed))
            line.shutdown(socket.SHUT_WR)
            if seed % 7 == 0:
                continue  # gone before the answer
            answer = b""
            while data := line.recv(1 << 16):
                answer += data
            _check_answer(answer)
    with urllib.request.urlopen(f"{server['url']}/healthz", timeout=5) as reply:
        assert json.load(reply)["ready"] is True
    found = asyncio.run(run_programs(server["url"], [Program("a", "python", "print(1)")]))
    assert found["a"].verdict == "pass"


def _check_answer(answer: bytes) -> None:
    """Nothing, or HTTP: a refusal in one sentence, or rows that are what they should be."""
    if not answer:
        return
    head, _, body = answer.partition(b"\r\n\r\n")
    code = int(head.split()[1])
    assert code in (200, 400, 401, 404, 411, 413, 503)
    lines = [line for line in body.splitlines() if line.startswith(b"{")]
    rows = [json.loads(line) for line in lines]
    if code != 200:
        assert [*rows[0]] == ["error"]
    assert all(row["verdict"] in VERDICTS for row in rows if "verdict" in row)
