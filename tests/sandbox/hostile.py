"""Random programs, good, bad and hostile, each with the verdicts it may have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from soda_jobs.sandbox.types import Program

# Whatever a program that is no program may be called: what matters is that it has a verdict and leaves nothing.
ANY_FAILURE = frozenset(
    {"syntax", "type", "name", "import", "logic", "runtime", "timeout", "memory", "environment"}
    | {"output_limit", "disk_limit", "process_limit", "compile_limit", "tampered"}
)


@dataclass(frozen=True)
class Sample:
    """A program and its possible verdicts."""

    program: Program
    allowed: frozenset[str]


@dataclass(frozen=True)
class Kind:
    """How to write one; {n} in it is a random number, so that no two are equal."""

    language: str
    code: Callable[[Random], str]
    allowed: tuple[str, ...]
    tests: str = ""
    weight: int = 4
    seconds: float = 5.0


def _text(text: str) -> Callable[[Random], str]:
    return lambda random: text.replace("{n}", str(random.randrange(1, 1_000_000_000)))


def _noise(random: Random) -> str:
    alphabet = "abc xyz(){}[]:;=+-*/\\\"'\n\t\0#@é\ud800\u2028%$!<>0123456789"
    return "".join(random.choices(alphabet, k=random.randrange(1, 400)))


def _big(random: Random) -> str:
    return f"x = {random.randrange(10)!r}\n" + "y = '" + "a" * random.randrange(1 << 20) + "'\nprint(len(y))\n"


_DAEMON = """import os, signal, time
for _ in range(3):
    if os.fork() == 0:
        for number in range(1, 32):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        os.setsid()
        if os.fork() == 0:
            while True: time.sleep({n})
        os._exit(0)
"""
_DESCRIPTORS = (
    "import os\nfor fd in range(3, 300):\n    try: os.write(fd, b'pass {n}' * 100)\n    except OSError: pass\n"
)
_FILL = "f = open('/tmp/{n}', 'wb')\nwhile True: f.write(bytes(1 << 20))\n"
_DEEP = "import os\nfor i in range(1500):\n    os.mkdir('d{n}')\n    os.chdir('d{n}')\n"
_CONNECT = "import socket\nsocket.create_connection(('10.0.0.1', 80), {n} % 3 + 1)\n"
_C_GOOD = '#include <stdio.h>\nint main(void) { long n = {n}; printf("%ld\\n", n * 2); return 0; }\n'
_C_CRASH = "#include <stdlib.h>\nint main(void) { int *p = (int *)({n} & 4095); return *p; }\n"
_C_FORKS = "#include <unistd.h>\nint main(void) { for (;;) fork(); return {n}; }\n"

KINDS: tuple[Kind, ...] = (
    Kind("python", _text("def f(x):\n    return x + {n}\n"), ("pass",), "assert f(0) > 0", 30),
    Kind("python", _text("import json, re, math\nprint(json.dumps({'n': {n}}))\n"), ("pass",), weight=20),
    Kind("python", _text("def f(x):\n    return x - {n}\n"), ("logic",), "assert f(0) > 0", 20),
    Kind("python", _text("def f(x:\n    return {n}\n"), ("syntax",), "assert f(0)", 10),
    Kind("python", _text("print(undefined_{n})\n"), ("name",), weight=6),
    Kind("python", _text("raise ValueError({n})\n"), ("runtime",), weight=6),
    Kind("python", _noise, ("pass", *ANY_FAILURE), weight=20),
    Kind("python", _big, ("pass",), weight=4),
    Kind("python", _text("while True: x = {n}\n"), ("timeout",), weight=2, seconds=0.5),
    Kind("python", _text("import time\ntime.sleep({n})\n"), ("timeout",), weight=2, seconds=0.5),
    Kind("python", _text("x = bytearray({n} + (50 << 30))\n"), ("memory",)),
    Kind("python", _text("x = []\nwhile True: x.append(bytes(1 << 20) + b'{n}')\n"), ("memory",)),
    Kind("python", _text("import os\nn = {n}\nwhile True: os.fork()\n"), ("process_limit", "memory")),
    Kind("python", _text("while True: print('{n}' * 1000)\n"), ("output_limit",)),
    Kind("python", _text(_FILL), ("disk_limit",), weight=2),
    Kind("python", _text(_DAEMON), ("pass",), weight=6),
    Kind("python", _text("import os\nn = {n}\nos.kill(-1, 9)\n"), ("pass", "runtime"), weight=6),
    Kind("python", _text("import os\nn = {n}\nos.kill(os.getppid(), 9)\n"), ("pass", "runtime"), weight=4),
    Kind("python", _text("import os\nn = {n}\nos.closerange(0, 256)\n"), ("pass", "runtime"), weight=4),
    Kind("python", _text(_DESCRIPTORS), ("runtime", "logic", "tampered"), "assert False", 6),
    Kind("python", _text("import os\nos._exit({n} % 1)\n"), ("runtime", "tampered"), "assert False", 6),
    Kind("python", _text("import ctypes\nctypes.string_at({n} % 4096)\n"), ("runtime",)),
    Kind("python", _text(_DEEP), ("pass",), weight=2),
    Kind("python", _text("import os\nos.symlink('/etc/passwd', 'l{n}')\nos.mkfifo('f')\n"), ("pass",)),
    Kind("python", _text(_CONNECT), ("environment", "runtime")),
    Kind("c", _text(_C_GOOD), ("pass",), weight=3),
    Kind("c", _text(_C_CRASH), ("runtime",), weight=2),
    Kind("c", _text(_C_FORKS), ("process_limit", "memory"), weight=1),
    Kind("c", _text("int main(void) { return {n} }\n"), ("syntax",), weight=1),
    Kind("javascript", _text("console.log({n} * 2)\n"), ("pass",), weight=2),
    Kind("javascript", _text("throw new TypeError('{n}')\n"), ("type", "runtime"), weight=1),
)  # fmt: skip


def samples(count: int, seed: int, languages: frozenset[str]) -> Iterator[Sample]:
    """`count` samples in languages that the sandbox has; the same for the same seed."""
    random = Random(seed)
    kinds = [kind for kind in KINDS if kind.language in languages]
    for number in range(count):
        kind = random.choices(kinds, [kind.weight for kind in kinds])[0]
        program = Program(
            id=f"{number:06d}",
            language=kind.language,
            code=kind.code(random),
            tests=kind.tests,
            timeout_seconds=kind.seconds,
            memory_mib=256,
        )
        yield Sample(program, frozenset(kind.allowed))
