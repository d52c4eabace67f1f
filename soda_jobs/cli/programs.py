"""`soda execute` and `soda evaluate`: programs in, verdicts out, without a run."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from soda_jobs.errors import InvalidInput


def execute(arguments: Namespace) -> int:
    from soda_jobs.sandbox.execute_file import MAX_RUNS, execute_file
    from soda_jobs.sandbox.verdict_cache import default_folder

    if not 1 <= arguments.runs <= MAX_RUNS:
        raise InvalidInput(f"{arguments.runs} is not a number of runs from 1 to {MAX_RUNS}", field="--runs")
    counts = execute_file(
        Path(arguments.source),
        Path(arguments.target),
        url=arguments.sandbox,
        runs=arguments.runs,
        cache_folder=None if arguments.no_cache else default_folder(),
    )
    print(json.dumps(counts))
    return 0


def evaluate(arguments: Namespace) -> int:
    from soda_jobs.benchmarks.completions import score_completions

    result = score_completions(
        arguments.benchmark,
        Path(arguments.completions),
        source=arguments.source,
        sandbox_url=arguments.sandbox,
        out=Path(arguments.out) if arguments.out else None,
        pass_k=_pass_k(arguments.pass_k),
        timeout_seconds=arguments.timeout,
        protocol=arguments.protocol,
    )
    if arguments.output == "json":
        print(json.dumps(result, ensure_ascii=False))
        return 0
    for name, value in result.items():
        print(f"{name:<12} {value}")
    return 0


def _pass_k(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(item) for item in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise InvalidInput(f"{text!r} is not a list of whole numbers from 1, as in 1,10", field="-k")
    return numbers
