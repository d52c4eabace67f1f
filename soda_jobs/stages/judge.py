"""judge: a scoring model gives each answer points by the six-point rubric.

in   questions    rows of Question
     completions  rows of Completion
out  rows.jsonl   one Judgement for each completion

    {"id": "77aa…", "iteration": 1, "parents": ["0c1f…"], "completion_id": "0c1f…", "question_id": "9ab2…",
     "judge_model": "judge-scorer", "analysis": "…", "per_rule": {"1": 2.0, …}, "total": 5.5, "parse_status": "ok"}

Role "judge" is the trained scoring model, role "teacher" the annotator whose scores it is trained on. A reply
that cannot be read is asked for again, warmer; then the row says `parse_status: failed`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Literal

from soda_jobs import prompts
from soda_jobs.context import ROWS, Context, StageSettings, Summary
from soda_jobs.errors import InvalidInput
from soda_jobs.extract import answer_code
from soda_jobs.models.asking import ask_rows, asking
from soda_jobs.models.client import ModelClient, RowFailed
from soda_jobs.models.parse import Scores, parse_scores
from soda_jobs.records import Judgement, read_rows, record_id, sampling_seed
from soda_jobs.rows import Outcome
from soda_jobs.stages.generate import CUT_SHORT, SamplingSettings

FAILED = Scores(analysis="", per_rule={str(rule): None for rule in range(1, 6)}, total=None, parse_status="failed")


class Settings(StageSettings):
    role: Literal["judge", "teacher"]
    model: str
    revision: str | None = None  # of the model that the server loaded; only there so that another has another key
    prompt_set: str
    prompt_digests: dict[str, str]
    sampling: SamplingSettings
    retries: int = 1
    retry_temperature: float = 0.2
    seed: int = 0


def run(settings: Settings, context: Context) -> Summary:
    questions = {row["id"]: row for row in context.rows("questions")}
    completions = list(context.rows("completions"))
    for row in completions:
        if row["question_id"] not in questions:
            raise InvalidInput(f"completion {row['id']} answers question {row['question_id']}, which is not given")
    counts, usage, mean = asyncio.run(_judge(settings, context, completions, questions))
    return Summary(counts=counts, headline={"mean_score": mean}, telemetry=usage)


async def _judge(
    settings: Settings, context: Context, completions: list[dict[str, Any]], questions: dict[str, dict[str, Any]]
) -> tuple[dict[str, int], dict[str, float], float]:
    async with asking(context, settings.role, settings.model) as client:

        async def work(completion: dict[str, Any], used: Counter[str]) -> tuple[Outcome, str | None]:
            question = questions[completion["question_id"]]["instruction"]
            scores, reason = await _score(client, settings, question, completion, used)
            return Outcome(rows=[_judgement(settings, context.round, completion, scores)]), reason

        counts, usage = await ask_rows(completions, work, context=context, role=settings.role)
    totals = [row["total"] for row in read_rows(context.out / ROWS) if row["total"] is not None]
    return counts, usage, sum(totals) / len(totals) if totals else 0.0


async def _score(
    client: ModelClient, settings: Settings, question: str, completion: dict[str, Any], used: Counter[str]
) -> tuple[Scores, str | None]:
    """The scores of one answer; None, or the reason why there are none."""
    reason = "unreadable"
    code = answer_code(completion["text"])
    messages = prompts.render(f"{settings.prompt_set}/score", question=question, code=code)
    for attempt in range(settings.retries + 1):
        sampling = settings.sampling.sampling(temperature=settings.retry_temperature if attempt else None)
        seed = sampling_seed(settings.seed, f"judge-{settings.role}", completion["id"], attempt)
        try:
            reply = await client.chat(messages, sampling, seed=seed, usage=used, again=attempt > 0)
        except RowFailed as failure:
            reason = failure.reason
            continue
        scores = parse_scores(reply.text)
        if scores.parse_status != "failed":
            return scores, None
        reason = CUT_SHORT.get(reply.finish_reason, "unreadable")
    return FAILED, reason


def _judgement(settings: Settings, round_: int, completion: dict[str, Any], scores: Scores) -> Judgement:
    return Judgement(
        id=record_id("judgement", settings.model, completion["id"]),
        iteration=round_,
        parents=[completion["id"]],
        completion_id=completion["id"],
        question_id=completion["question_id"],
        judge_model=settings.model,
        analysis=scores.analysis,
        per_rule=dict(scores.per_rule),
        total=scores.total,
        parse_status=scores.parse_status,
    )
