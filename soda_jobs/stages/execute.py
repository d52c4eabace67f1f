"""execute: run each answer in the sandbox of its language.

in   completions  rows of Completion
     questions    rows of Question; those with `tests` are run with them (optional)
out  rows.jsonl   one Execution for each completion

    {"id": "51b0…", "iteration": 1, "parents": ["0c1f…"], "completion_id": "0c1f…", "question_id": "9ab2…",
     "sample": 0, "language": "python", "is_complete": true, "status": "pass", "verdict": "pass", …}

Without tests a pass means that the program ran to its end with exit code 0 (paper section 3.3.2). A fault of the
sandbox is never the program's: it is retried, and if it stays the stage ends without a verdict. With tests a
verdict is proved as `protocol` asks, and the row says what it rests on.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, Literal

from soda_jobs.benchmarks.assemble import given, program
from soda_jobs.context import Context, StageSettings, Summary
from soda_jobs.errors import Retry
from soda_jobs.extract import Extracted, extract
from soda_jobs.records import Execution, record_id
from soda_jobs.rows import Outcome, map_rows
from soda_jobs.sandbox.dispatch import Dispatcher
from soda_jobs.sandbox.oracle.protocol import Proven, prove_one
from soda_jobs.sandbox.types import Program, Verdict, status
from soda_jobs.sandbox.verdict_cache import VerdictCache, default_folder

_IN_FLIGHT = 4096  # the sandboxes prove some hundred verdicts at a time, and nobody should wait for that

# An answer without code in one of the run's languages never reaches the sandbox.
UNSUPPORTED = Verdict(
    id="",
    language="",
    verdict="unsupported",
    phase="extract",
    detail="no code in a language of spec.execution.languages",
    seconds=0.0,
)


class Settings(StageSettings):
    languages: tuple[str, ...]
    timeout_seconds: float
    memory_mib: int
    rules: Literal["feedback", "benchmark"]
    protocol: Literal["observe", "official", "both"] = "observe"


def run(settings: Settings, context: Context) -> Summary:
    questions = {row["id"]: row for row in context.rows("questions")}
    completions = list(context.rows("completions"))
    began = time.monotonic()
    counts, programs = asyncio.run(_execute(settings, context, completions, questions))
    rate = programs / max(time.monotonic() - began, 1e-3)
    return Summary(counts=counts, telemetry={"programs": programs, "programs_per_second": round(rate, 2)})


async def _execute(
    settings: Settings, context: Context, completions: list[dict[str, Any]], questions: dict[str, dict[str, Any]]
) -> tuple[dict[str, int], int]:
    dispatcher = Dispatcher(
        context.service("sandbox"),
        token=os.environ.get("SODA_SANDBOX_TOKEN"),
        cache=VerdictCache(default_folder()),
    )

    async def work(completion: dict[str, Any]) -> Outcome:
        question = questions.get(completion["question_id"], {})
        found = extract(
            completion["text"],
            language=question.get("language"),
            entry_point=question.get("entry_point"),
            also=settings.languages,
        )
        if found.language not in settings.languages:
            return Outcome(rows=[_execution(settings, context.round, completion, found, UNSUPPORTED)])
        code, tests = program(question, found.code)
        job = Program(
            id=completion["id"],
            language=found.language,
            code=code,
            tests=tests,
            timeout_seconds=settings.timeout_seconds,
            memory_mib=settings.memory_mib,
            rules=settings.rules,
        )
        proven = await prove_one(job, dispatcher.run, settings.protocol, given(question))
        row = _execution(settings, context.round, completion, found, proven.verdict)
        return Outcome(rows=[{**row, **_proof(proven)} if tests else row])

    async with dispatcher:
        counts = await map_rows(completions, work, context=context, unit="programs", in_flight=_IN_FLIGHT)
    return counts, dispatcher.count


def _proof(proven: Proven) -> dict[str, str]:
    if proven.official is None:
        return {"proof": proven.proof}
    if status(proven.official, "benchmark") == "infra_error":
        raise Retry(f"the sandbox could not run {proven.official.id}: {proven.official.detail}")
    return {"proof": proven.proof, "official": proven.official.verdict}


def _execution(
    settings: Settings, round_: int, completion: dict[str, Any], found: Extracted, verdict: Verdict
) -> Execution:
    outcome = status(verdict, settings.rules)
    if outcome == "infra_error":
        raise Retry(f"the sandbox could not run {completion['id']}: {verdict.detail}")
    return Execution(
        id=record_id("execution", completion["id"]),
        iteration=round_,
        parents=[completion["id"]],
        completion_id=completion["id"],
        question_id=completion["question_id"],
        sample=completion["sample"],
        language=found.language,
        is_complete=found.is_complete,
        status=outcome,
        verdict=verdict.verdict,
        phase=verdict.phase,
        detail=verdict.detail,
    )
