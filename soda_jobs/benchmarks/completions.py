"""`soda evaluate`: score a file of completions, without a run.

in   {"task_id": "HumanEval/0", "completion": "    return …"}   a line for each sample, as HumanEval's own
     harness reads it
out  pass@k, and <file>_results.jsonl: the same lines with "passed", "result" (passed, timed out, failed: …) and
     "proof" (observed, controlled, official); with both protocols also "official", what the tests' own word was
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from soda_jobs.benchmarks.assemble import given, program
from soda_jobs.benchmarks.tasks import load_tasks
from soda_jobs.errors import InvalidInput, Retry
from soda_jobs.log import progress
from soda_jobs.metrics.passk import pass_at_k
from soda_jobs.reading import read_source
from soda_jobs.records import Question, write_rows
from soda_jobs.sandbox.client import LocalSandbox, run_programs
from soda_jobs.sandbox.oracle.protocol import Proven, Way, prove
from soda_jobs.sandbox.types import Program, Verdict, status

_NAMED: Final = 5  # missing tasks named in an error


def score_completions(
    benchmark: str,
    completions: Path,
    *,
    source: str | None,
    sandbox_url: str | None,
    out: Path | None,
    pass_k: Sequence[int],
    timeout_seconds: float,
    protocol: Way = "observe",
) -> dict[str, Any]:
    """{"pass@1": 0.65, "tasks": 164, "samples": 164, "passed": 107, "results": "…"} of a file of completions.

    `source` is the benchmark's own file, None the one it is published in; `sandbox_url` None starts a sandbox
    here. `timeout_seconds` is for each program, `protocol` how its pass is proved. Raises InvalidInput when a task
    has no completion or fewer than k, Retry when the sandbox gave no verdict.
    """
    with tempfile.TemporaryDirectory() as work:
        tasks = {task["task_id"]: task for task in load_tasks(benchmark, source=source, work=Path(work))}
        samples = list(read_source(str(completions), work=Path(work), kind="jsonl"))
    programs = [
        _program(str(number), tasks, sample, where, timeout_seconds)
        for number, (where, sample) in enumerate(samples)
    ]
    taken = _samples_of_each(tasks, [sample for _, sample in samples], completions)
    for k in pass_k:
        if k > min(map(len, taken.values())):
            raise InvalidInput(
                f"pass@{k} needs {k} completions of every task; some have fewer", field=str(completions)
            )
    own = {str(number): given(tasks[sample["task_id"]]) for number, (_, sample) in enumerate(samples)}
    proofs = asyncio.run(_run(programs, sandbox_url, protocol, own))
    passed = [_passed(proof.verdict) for proof in proofs]
    results = out or completions.with_name(f"{completions.name}_results.jsonl")
    write_rows(
        results,
        (
            {**sample, "result": _result(proof.verdict), "passed": fine, **_rests_on(proof)}
            for (_, sample), proof, fine in zip(samples, proofs, passed, strict=True)
        ),
    )
    rates = {
        f"pass@{k}": sum(pass_at_k(len(of), sum(passed[n] for n in of), k) for of in taken.values()) / len(taken)
        for k in pass_k
    }
    counts = {"tasks": len(tasks), "samples": len(samples), "passed": sum(passed)}
    if protocol == "both":
        counts["disagreements"] = sum(map(_disagrees, proofs))
    return {**rates, **counts, "results": str(results)}


def _program(
    number: str, tasks: Mapping[str, Question], sample: Mapping[str, Any], where: str, timeout_seconds: float
) -> Program:
    """The program of one line. Raises InvalidInput for a line of another form or benchmark."""
    task_id, completion = sample.get("task_id"), sample.get("completion")
    if not isinstance(task_id, str) or not isinstance(completion, str):
        raise InvalidInput("is not {task_id, completion} with text in both", field=where)
    task = tasks.get(task_id)
    if task is None:
        raise InvalidInput(f"{task_id!r} is no task of the benchmark, as {next(iter(tasks))!r} is", field=where)
    code, tests = program(task, completion)
    return Program(id=number, language=task["language"], code=code, tests=tests, timeout_seconds=timeout_seconds)


def _samples_of_each(
    tasks: Mapping[str, Question], samples: Sequence[Mapping[str, Any]], file: Path
) -> dict[str, list[int]]:
    """For each task the places of its samples. Raises InvalidInput when one has none: it is no silent zero."""
    places: dict[str, list[int]] = {task_id: [] for task_id in tasks}
    for place, sample in enumerate(samples):
        places[sample["task_id"]].append(place)
    missing = [task_id for task_id, found in places.items() if not found]
    if missing:
        named = ", ".join(missing[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
        raise InvalidInput(f"{len(missing)} of {len(tasks)} tasks have no completion: {named}", field=str(file))
    return places


async def _run(
    programs: Sequence[Program], url: str | None, protocol: Way, own: Mapping[str, str]
) -> list[Proven]:
    """One proven verdict for each program, in their order."""
    if url is None:
        async with LocalSandbox() as sandbox:
            return await _run(programs, sandbox, protocol, own)
    token = os.environ.get("SODA_SANDBOX_TOKEN")
    done: set[str] = set()

    def count(verdict: Verdict) -> None:
        done.add(verdict.id)
        progress("programs", len(done), len(programs))

    async def run(batch: list[Program]) -> Mapping[str, Verdict]:
        return await run_programs(url, batch, token=token, on_verdict=count)

    return list((await prove(programs, run, protocol, own)).values())


def _disagrees(proof: Proven) -> bool:
    return proof.official is not None and _passed(proof.official) != _passed(proof.verdict)


def _rests_on(proof: Proven) -> dict[str, str]:
    own = {} if proof.official is None else {"official": _result(proof.official)}
    return {"proof": proof.proof, **own}


def _passed(verdict: Verdict) -> bool:
    outcome = status(verdict, "benchmark")
    if outcome == "infra_error":
        raise Retry(f"the sandbox gave no verdict on sample {verdict.id}: {verdict.detail}")
    return outcome == "pass"


def _result(verdict: Verdict) -> str:
    """The verdict in the words of HumanEval's harness."""
    words = {"pass": "passed", "timeout": "timed out"}
    return words.get(verdict.verdict, f"failed: {verdict.verdict}: {verdict.detail}")
