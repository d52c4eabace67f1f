"""evaluate: what a benchmark's executed answers say about the student.

in   tasks        rows of Question: all tasks of the benchmark
     executions   rows of Execution: every sample of every task
     judgements   rows of Judgement of the same answers (optional)
out  rows.jsonl     one Metric for each of (pass@k, model_score) and each language, and for "all"
     metrics.json   the same without `per_task`, as one list
     disagreements.jsonl   executions of which the official harness says something else; only when it was asked

    {"benchmark": "humaneval", "language": "python", "metric": "pass@1", "k": 1, "n": 164, "value": 0.652,
     "ci": [0.579, 0.726], "per_task": {"3f00…": 1.0, …}, "settings": {"samples": 1, "bootstrap_samples": 1000, …}}

"all" is the mean over languages of their means, as in SODA's table 1, so that a language counts the same however
many tasks it has. `n` counts tasks, and `per_task` goes by the task's id. A task without its samples is an error,
never a zero.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from soda_jobs.context import ROWS, Context, StageSettings, Summary
from soda_jobs.errors import GiveUp, InvalidInput
from soda_jobs.metrics.bootstrap import confidence_interval
from soda_jobs.metrics.passk import pass_at_k
from soda_jobs.records import Metric, write_rows

ALL: Final = "all"
METRICS: Final = "metrics.json"
DISAGREEMENTS: Final = "disagreements.jsonl"
_NAMED: Final = 5  # missing tasks named in an error


class Settings(StageSettings):
    benchmark: str
    pass_k: tuple[int, ...] = (1,)
    bootstrap_samples: int = 1000
    seed: int = 0


def run(settings: Settings, context: Context) -> Summary:
    tasks = list(context.rows("tasks"))
    executions = list(context.rows("executions"))
    results = outcomes(tasks, executions)
    samples = len(next(iter(results.values())))
    scores = first_scores(context.rows("judgements"))
    rows = []
    for k in settings.pass_k:
        if k > samples:
            raise InvalidInput(
                f"pass@{k} needs at least {k} samples of each task, and there are {samples}; "
                "raise spec.evaluation.samples or lower k",
                field="spec.evaluation.passK",
            )
        rates = {task: pass_at_k(len(passed), sum(passed), k) for task, passed in results.items()}
        rows += metrics(settings, tasks, rates, f"pass@{k}", k=k, samples=samples, round_=context.round)
    if "judgements" in context.inputs and scores:
        rows += metrics(settings, tasks, scores, "model_score", k=None, samples=1, round_=context.round)
    write_rows(context.out / ROWS, rows)
    brief = [{key: value for key, value in row.items() if key != "per_task"} for row in rows]
    (context.out / METRICS).write_text(json.dumps(brief, indent=1) + "\n", encoding="utf-8")
    counts = {"tasks": len(tasks), "rows": len(rows)}
    if any("official" in row for row in executions):
        listed = disagreements(executions)
        write_rows(context.out / DISAGREEMENTS, listed)
        counts["disagreements"] = len(listed)
    headline = {row["metric"]: row["value"] for row in rows if row["language"] == ALL}
    return Summary(counts=counts, headline=headline)


def disagreements(executions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What passed by one way and not by the other, in the order of the executions."""
    keys = ("completion_id", "question_id", "sample", "language", "verdict", "official", "proof", "detail")
    return [
        {key: row[key] for key in keys}
        for row in executions
        if "official" in row and (row["official"] == "pass") != (row["verdict"] == "pass")
    ]


def outcomes(tasks: Sequence[Mapping[str, Any]], executions: Any) -> dict[str, list[bool]]:
    """For each task, whether each of its samples passed, in the order of the samples.

    Raises GiveUp when a task has no samples or fewer than another, or when the sandbox gave no verdict.
    """
    samples: dict[str, dict[int, bool]] = {task["id"]: {} for task in tasks}
    for row in executions:
        if row["status"] == "infra_error":
            raise GiveUp(f"the sandbox gave no verdict on answer {row['completion_id']}: {row['detail']}")
        if row["question_id"] in samples:
            samples[row["question_id"]][row["sample"]] = row["status"] == "pass"
    if not samples:
        raise GiveUp("the benchmark has no tasks")
    full = max(len(found) for found in samples.values())
    missing = [task for task, found in samples.items() if len(found) < max(full, 1)]
    if missing:
        named = ", ".join(missing[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
        raise GiveUp(f"{len(missing)} of {len(samples)} tasks lack samples (others have {full}): {named}")
    return {task: [found[sample] for sample in sorted(found)] for task, found in samples.items()}


def first_scores(judgements: Any) -> dict[str, float]:
    """The judge's total (0 to 6) of each task's first answer; an answer it could not score is left out."""
    scores: dict[str, float] = {}
    seen: set[str] = set()
    for row in judgements:
        if row["question_id"] not in seen and row["total"] is not None:
            scores[row["question_id"]] = row["total"]
        seen.add(row["question_id"])
    return scores


def metrics(
    settings: Settings,
    tasks: Sequence[Mapping[str, Any]],
    values: Mapping[str, float],
    metric: str,
    *,
    k: int | None,
    samples: int,
    round_: int,
) -> list[Metric]:
    """One row for each language in alphabetical order, then one for all of them."""
    by_language: dict[str, dict[str, float]] = {}
    for task in sorted(tasks, key=lambda task: task.get("language", "unknown")):
        if task["id"] in values:
            by_language.setdefault(task.get("language", "unknown"), {})[task["id"]] = values[task["id"]]
    groups = [*((name, [found]) for name, found in by_language.items()), (ALL, list(by_language.values()))]
    return [
        Metric(
            iteration=round_,
            benchmark=settings.benchmark,
            language=language,
            metric=metric,
            k=k,
            n=sum(map(len, found)),
            value=sum(sum(group.values()) / len(group) for group in found) / len(found),
            ci=confidence_interval(
                [list(group.values()) for group in found],
                samples=settings.bootstrap_samples,
                seed=settings.seed,
            ),
            per_task={task: value for group in found for task, value in group.items()},
            settings={
                "samples": samples,
                "bootstrap_samples": settings.bootstrap_samples,
                "seed": settings.seed,
                "average": "macro over languages" if language == ALL else "over tasks",
            },
        )
        for language, found in groups
    ]
