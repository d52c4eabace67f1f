"""Whether outside load changes a verdict: right programs that need 10 to 80 % of their limit, under 0x to 4x load.

    python tests/bench/bench_noise.py                       # 2,000 programs at each load, in a sandbox of its own
    python tests/bench/bench_noise.py --count 100 --loads 0,4
    python tests/bench/bench_noise.py --sandbox URL --where "inside gVisor" --write

Load 1x is one busy loop for each processor that this process may use. How much work fills a limit is measured
first, in charged seconds, so that the share holds on any machine. Every verdict but `pass` is a changed one. With
--write the table goes to docs/benchmarks/noise.md, one section for each --where.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soda_jobs.sandbox.client import LocalSandbox, run_programs
from soda_jobs.sandbox.types import Program, Verdict

PAGE = Path(__file__).parents[2] / "docs/benchmarks/noise.md"
SHARES = (0.1, 0.8)
SEED = 5


@dataclass(frozen=True)
class Kind:
    """`{n}` in the code is how much to do; `run` executes a file of it without a sandbox, to measure."""

    name: str
    language: str
    code: str
    run: Callable[[str], list[str]]
    weight: int = 1


def _python(path: str) -> list[str]:
    return [sys.executable, "-I", "-S", path]


def _compiled(path: str) -> list[str]:
    return [f"{path}.out"]


KINDS = (
    Kind("arithmetic", "python", "t = 0\nfor i in range({n}):\n    t += i * i % 7\nassert t >= 0", _python, 4),
    Kind("strings", "python", "s = [str(i) for i in range({n})]\nassert len(''.join(s)) > 0", _python, 2),
    Kind(
        "sorting", "python", "x = [i * 7919 % 104729 for i in range({n})]\nx.sort()\nassert x[0] == 0", _python, 2
    ),
    Kind("calls", "python", "def f(n):\n    return n\nfor i in range({n}):\n    f(i)", _python, 2),
    Kind(
        "threads",
        "python",
        "import threading\ndef f():\n    t = 0\n    for i in range({n} // 2):\n        t += i\n"
        "a = [threading.Thread(target=f) for _ in range(2)]\n[x.start() for x in a]\n[x.join() for x in a]",
        _python,
    ),
    Kind(
        "javascript",
        "javascript",
        "let t = 0;\nfor (let i = 0; i < {n}; i++) {{ t = (t * 31 + i) % 1000003; }}\nconsole.log(t);",
        lambda path: ["node", path],
        2,
    ),
    Kind(
        "c",
        "c",
        "#include <stdio.h>\nint main(void) {{ volatile unsigned t = 0;\n"
        'for (unsigned long i = 0; i < {n}UL; i++) t = t * 31 + 7; printf("%u\\n", t); return 0; }}\n',
        _compiled,
        2,
    ),
)
SLEEP = "import time\ntime.sleep({seconds})"
TOOLS = {"javascript": "node", "c": "gcc"}


def charged(kind: Kind, amount: int) -> float:
    """CPU seconds of this much work, outside any sandbox."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "main.c" if kind.language == "c" else "main")
        path.write_text(kind.code.format(n=amount))
        if kind.language == "c":
            subprocess.run(["gcc", str(path), "-o", f"{path}.out"], check=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(kind.run(str(path)), check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def amount_per_second(kind: Kind) -> tuple[float, float]:
    """Seconds that it takes to do nothing, and how much it does in each one after those."""
    start, amount = min(charged(kind, 1) for _ in range(3)), 1000
    while (seconds := charged(kind, amount)) - start < 0.4:
        amount *= 4
    seconds = min(seconds, charged(kind, amount))
    return start, amount / (seconds - start)


def programs(count: int, limit: float) -> list[Program]:
    """Programs of all kinds that this machine has, each with its own share of the limit."""
    draw = random.Random(SEED)
    kinds = [kind for kind in KINDS if kind.language not in TOOLS or shutil.which(TOOLS[kind.language])]
    rates = {kind.name: amount_per_second(kind) for kind in kinds}
    made = []
    for number in range(count):
        seconds = draw.uniform(*SHARES) * limit
        if number % 10 == 0:
            code, language, name = SLEEP.format(seconds=round(seconds, 3)), "python", "sleep"
        else:
            (kind,) = draw.choices(kinds, [kind.weight for kind in kinds])
            start, rate = rates[kind.name]
            code = kind.code.format(n=max(1, int((seconds - start) * rate)))
            language, name = kind.language, kind.name
        made.append(Program(f"{number}-{name}", language, code, timeout_seconds=limit))
    return made


@contextmanager
def load(times: int) -> Iterator[None]:
    """`times` busy loops for each processor."""
    count = times * len(os.sched_getaffinity(0))
    loops = [subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


async def measure(given: list[Program], url: str | None) -> dict[str, Verdict]:
    if url is None:
        async with LocalSandbox() as own:
            return await run_programs(own, given)
    return await run_programs(url, given, token=os.environ.get("SODA_SANDBOX_TOKEN"))


def row(times: int, found: dict[str, Verdict], seconds: float) -> dict[str, Any]:
    changed = {name: one for name, one in found.items() if one.verdict != "pass"}
    for name, one in changed.items():
        print(f"  {times}x {name}: {one.verdict} ({one.detail})", file=sys.stderr)
    words = Counter(one.verdict for one in changed.values())
    return {
        "outside load": f"{times}x",
        "programs": len(found),
        "changed": len(changed),
        "to": ", ".join(f"{word} {count}" for word, count in sorted(words.items())) or "-",
        "seconds": round(seconds),
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join([*lines, *("| " + " | ".join(map(str, one.values())) + " |" for one in rows)]) + "\n"


_INTRODUCTION = """# Verdicts under load

Right programs that need 10 to 80 % of their time limit, while other processes keep the processors busy: 1x is one
busy loop for each. A changed verdict is any but `pass`. Measured by `python tests/bench/bench_noise.py --write`.
"""


def write(where: str, text: str) -> None:
    """Put the section `where` into the page, in place of an earlier one."""
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else _INTRODUCTION
    page = re.sub(rf"\n## {re.escape(where)}\n.*?(?=\n## |\Z)", "", page, flags=re.DOTALL)
    PAGE.write_text(f"{page.rstrip()}\n\n## {where}\n\n{text}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="programs at each load (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=1.0, help="their limit in seconds (default: %(default)s)")
    parser.add_argument("--loads", default="0,1,2,4", help="times the processors (default: %(default)s)")
    parser.add_argument("--sandbox", metavar="URL", help="a running sandbox (default: start one here)")
    parser.add_argument("--where", default="On Linux", help="the name of the section (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    arguments = parser.parse_args()
    given = programs(arguments.count, arguments.limit)
    rows = []
    for times in map(int, arguments.loads.split(",")):
        with load(times):
            began = time.monotonic()
            found = asyncio.run(measure(given, arguments.sandbox))
            rows.append(row(times, found, time.monotonic() - began))
        print(rows[-1], flush=True)
    processors = len(os.sched_getaffinity(0))
    text = (
        f"{processors} processors, a limit of {arguments.limit:g} s, {time.strftime('%Y-%m-%d')}.\n\n{table(rows)}"
    )
    print(text)
    if arguments.write:
        write(arguments.where, text)


if __name__ == "__main__":
    main()
