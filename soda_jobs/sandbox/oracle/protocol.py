"""How a verdict is proved: which runs a program with tests needs, and what they amount to together.

observed     its tests were split: only inputs went in, and what it said was judged outside
controlled   its tests ran beside it and passed, and a control run with a wrong expectation failed as it must
official     its tests ran beside it and their word was taken; the reason says why there was no more
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Literal

from soda_jobs.sandbox.oracle import observe, stdio
from soda_jobs.sandbox.oracle.trials import Both, Controlled, Observed, Official, Printed, Proven, Trial
from soda_jobs.sandbox.types import Program, Verdict

__all__ = ("Proven", "Run", "RunAll", "Trial", "Way", "plan", "prove", "prove_one")

Way = Literal["observe", "official", "both"]
Run = Callable[[Program], Awaitable[Verdict]]
RunAll = Callable[[list[Program]], Awaitable[Mapping[str, Verdict]]]


def plan(program: Program, way: Way = "observe", given: str = "") -> Trial:
    """The runs that this program's verdict needs. Without tests there is nothing to prove.

    `given` is code that the task gives to be completed: its whole functions count as the tests' own.
    """
    if not program.tests or program.returns:
        return Official(program, "there are no tests")
    suite = stdio.read(program.tests)
    if suite is not None:
        return Printed(program, suite)
    if way == "official":
        return Official(program, "as asked")
    if way == "both":
        return Both(program, plan(program, "observe", given))
    if program.language == "python":
        prepared = observe.prepare(program.tests, given)
        if isinstance(prepared, observe.Prepared):
            return Observed(program, prepared)
        return Controlled(program, prepared)
    return Controlled(program, "")


async def prove(
    programs: Iterable[Program], run: RunAll, way: Way = "observe", given: Mapping[str, str] | None = None
) -> dict[str, Proven]:
    """The proven verdict of each program by its id. `run` takes programs to verdicts and may be called often;
    `given` is by id."""
    trials = {program.id: plan(program, way, (given or {}).get(program.id, "")) for program in programs}
    while waiting := [(name, job) for name, trial in trials.items() if (job := trial.next()) is not None]:
        verdicts = await run([job for _, job in waiting])
        for name, job in waiting:
            trials[name].take(verdicts[job.id])
    return {name: trial.proven for name, trial in trials.items()}


async def prove_one(program: Program, run: Run, way: Way = "observe", given: str = "") -> Proven:
    """The proven verdict of one program, by as many runs of `run` as it needs.

    Judging may take seconds where tests compute much, so it is done beside the caller's event loop.
    """
    trial = await asyncio.to_thread(plan, program, way, given)
    while (job := trial.next()) is not None:
        await asyncio.to_thread(trial.take, await run(job))
    return trial.proven
