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
from typing import Final

from soda_jobs.errors import InvalidInput
from soda_jobs.log import event
from soda_jobs.records import dump_row, read_rows
from soda_jobs.sandbox.client import LocalSandbox, run_programs
from soda_jobs.sandbox.dispatch import Progress
from soda_jobs.sandbox.types import Program, Verdict, program_from_dict, status, to_dict
from soda_jobs.sandbox.verdict_cache import VerdictCache
from soda_jobs.sandbox.workers import TOKEN

MAX_RUNS: Final = 100


def execute_file(
    source: Path, target: Path, *, url: str | None = None, runs: int = 1, cache_folder: Path | None = None
) -> dict[str, int]:
    """Run every program of `source`, at `url` or in a sandbox started for it; returns how many had each verdict.

    Each is run `runs` times, and `flaky` when the runs disagree. Verdicts are kept in `cache_folder`, so that a
    second attempt runs only what the first had not finished. `target` appears whole or not at all. Raises
    InvalidInput naming file and line, Retry when the sandbox is away.
    """
    programs = read_programs(source)
    if not target.parent.is_dir():
        raise InvalidInput(f"the folder {target.parent} is not there", field="--out")
    cache = VerdictCache(cache_folder) if cache_folder is not None else None
    verdicts = asyncio.run(_run(programs, url, runs, cache))
    if cache is not None and cache.hits:
        event("verdicts_from_cache", count=cache.hits)
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


async def _run(
    programs: list[Program], url: str | None, runs: int, cache: VerdictCache | None
) -> dict[str, Verdict]:
    if url is None:
        async with LocalSandbox() as own:
            return await _run(programs, own, runs, cache)
    token = os.environ.get(TOKEN)
    return await run_programs(
        url, programs, token=token, on_verdict=Progress(len(programs)), cache=cache, runs=runs
    )


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
