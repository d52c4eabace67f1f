"""`soda execute`: a file of programs to a file of verdicts, one line for each id, in the order of the input.

in   {"id": "a", "language": "c", "code": "…", "tests": "…"}, optionally stdin, timeout_seconds, memory_mib, rules
out  {"id": "a", "language": "c", "verdict": "logic", "phase": "run", "detail": "…", "seconds": 0.1, …}
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections import Counter
from pathlib import Path

from soda_jobs.errors import InvalidInput
from soda_jobs.log import progress
from soda_jobs.records import dump_row, read_rows
from soda_jobs.sandbox.client import LocalSandbox, run_programs
from soda_jobs.sandbox.pool import TOKEN
from soda_jobs.sandbox.types import Program, Verdict, program_from_dict, status, to_dict


def execute_file(source: Path, target: Path, *, url: str | None = None) -> dict[str, int]:
    """Run every program of `source`, at `url` or in a sandbox started for it; returns how many had each verdict.

    `target` appears whole or not at all. Raises InvalidInput naming file and line, Retry when the sandbox is away.
    """
    programs = read_programs(source)
    if not target.parent.is_dir():
        raise InvalidInput(f"the folder {target.parent} is not there", field="--out")
    verdicts = asyncio.run(_run(programs, url))
    _write(target, programs, verdicts)
    return dict(sorted(Counter(verdict.verdict for verdict in verdicts.values()).items()))


def read_programs(source: Path) -> list[Program]:
    """The programs of a JSONL file. Raises InvalidInput for a bad line or an id that stands there twice."""
    if not source.is_file():
        raise InvalidInput(f"the file {source} is not there", field="--in")
    programs: dict[str, Program] = {}
    for number, row in enumerate(read_rows(source), start=1):
        program = program_from_dict(row, field=f"{source}: row {number}")
        if program.id in programs:
            raise InvalidInput(
                f"{program.id!r} is the id of more than one row", field=f"{source}: row {number}.id"
            )
        programs[program.id] = program
    return list(programs.values())


async def _run(programs: list[Program], url: str | None) -> dict[str, Verdict]:
    if url is None:
        async with LocalSandbox() as own:
            return await _run(programs, own)
    done: list[str] = []

    def count(verdict: Verdict) -> None:
        done.append(verdict.id)
        progress("programs", len(done), len(programs))

    return await run_programs(url, programs, token=os.environ.get(TOKEN), on_verdict=count)


def _write(target: Path, programs: list[Program], verdicts: dict[str, Verdict]) -> None:
    with tempfile.NamedTemporaryFile(
        "w", dir=target.parent, prefix=f".{target.name}.", encoding="utf-8", newline="\n", delete=False
    ) as file:
        try:
            for program in programs:
                verdict = verdicts[program.id]
                row = {**to_dict(verdict), "status": status(verdict, program.rules)}
                file.write(json.dumps(row) + "\n" if _has_surrogates(program.id) else dump_row(row))
            file.close()
            os.chmod(file.name, 0o644)
            os.replace(file.name, target)
        except OSError:
            os.unlink(file.name)
            raise


def _has_surrogates(text: str) -> bool:
    """An id that UTF-8 cannot hold is written with JSON's escapes."""
    return any("\ud800" <= character <= "\udfff" for character in text)
