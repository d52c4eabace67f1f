"""generate: a model answers every question, or writes a new one from it.

in   questions   rows of Question
out  rows.jsonl     Completion rows, or Question rows when `kind` is "question"
     dropped.jsonl  {"id", "reason"} for each question the model gave nothing usable for

    {"id": "0c1f…", "iteration": 1, "parents": ["9ab2…"], "question_id": "9ab2…", "role": "teacher",
     "kind": "correct", "model": "tutor", "prompt_id": "paper/correct", "text": "```python\\ndef …", …}

A teacher's reply must be whole (finish_reason "stop"), not empty and no refusal; one that is not is asked for once
more with twice the room and another seed, then dropped from this stage only. A student's reply is kept as it is:
what it failed to say is what the next round teaches.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from soda_jobs import prompts
from soda_jobs.context import Context, StageSettings, Summary
from soda_jobs.errors import GiveUp
from soda_jobs.models.asking import ask_rows, asking
from soda_jobs.models.client import ModelClient, Reply, RowFailed, Sampling
from soda_jobs.models.parse import is_refusal, parse_new_question
from soda_jobs.records import Completion, Question, record_id, sampling_seed
from soda_jobs.rows import Outcome

# A student is asked exactly as the teacher was: both see the prompt of a correct solution (paper section 3.3).
PROMPT = {"correct": "correct", "fault": "fault", "attempt": "correct"}
# An easy parent must become harder, the others get a sibling (paper section 3.4).
NEW_PROMPT = {"easy": "new_harder", "medium": "new_similar", "hard": "new_similar"}
# Why a model stopped, when not of its own accord -> why its reply cannot be taught. Any other is "unfinished".
CUT_SHORT = {"length": "truncated", "content_filter": "content_filter", "refusal": "refused"}


class SamplingSettings(StageSettings):
    """How a model is asked; see the spec's `sampling` blocks for units and sources."""

    temperature: float
    top_p: float
    top_k: int  # 0: off
    max_tokens: int

    def sampling(self, *, room: int = 1, temperature: float | None = None) -> Sampling:
        """The client's form of it, with `room` times the tokens, at another temperature when one is given."""
        return Sampling(
            temperature=self.temperature if temperature is None else temperature,
            top_p=self.top_p,
            top_k=self.top_k or None,
            max_tokens=self.max_tokens * room,
        )


class Settings(StageSettings):
    role: Literal["teacher", "student"]
    kind: Literal["correct", "fault", "attempt", "question"]
    model: str
    revision: str | None = None  # of the model that the server loaded; only there so that another has another key
    prompt_set: str
    prompt_digests: dict[str, str]
    sampling: SamplingSettings
    samples: int = 1
    attempts: int = 2
    minimum_yield: float = 0.0
    seed: int = 0


def run(settings: Settings, context: Context) -> Summary:
    questions = list(context.rows("questions"))
    items = [(row, sample) for row in questions for sample in range(settings.samples)]
    counts, usage = asyncio.run(_generate(settings, context, items))
    share = counts["rows"] / counts["items"] if counts["items"] else 1.0
    if share < settings.minimum_yield:
        raise GiveUp(
            f"stage {context.stage} kept {counts['rows']} of {counts['items']} replies, under the floor of "
            f"{settings.minimum_yield:.0%} (spec.questions.minimumYield); reasons: "
            + ", ".join(f"{name[8:]} {count}" for name, count in counts.items() if name.startswith("dropped_"))
        )
    return Summary(counts=counts, telemetry=usage)


async def _generate(
    settings: Settings, context: Context, items: Sequence[tuple[dict[str, Any], int]]
) -> tuple[dict[str, int], dict[str, float]]:
    async with asking(context, settings.role, settings.model) as client:

        async def work(item: tuple[dict[str, Any], int], used: Counter[str]) -> tuple[Outcome, str | None]:
            return await _one(client, settings, context.round, item, used)

        return await ask_rows(items, work, context=context, role=settings.role)


@dataclass(frozen=True)
class Asked:
    """One request to a model, and what it was about."""

    question: dict[str, Any]
    sample: int
    prompt_id: str
    sampling: Sampling
    seed: int


def ask(settings: Settings, question: dict[str, Any], sample: int, attempt: int) -> Asked:
    """The request for one sample of one question; a second attempt gets twice the room and another seed."""
    name = NEW_PROMPT[question["level"]] if settings.kind == "question" else PROMPT[settings.kind]
    return Asked(
        question=question,
        sample=sample,
        prompt_id=f"{settings.prompt_set}/{name}",
        sampling=settings.sampling.sampling(room=2**attempt),
        # `copy` tells apart the children of one parent, `sample` the answers to one question.
        seed=sampling_seed(
            settings.seed, settings.kind, f"{question['id']}/{question.get('copy', 0)}/{sample}", attempt
        ),
    )


def accept(settings: Settings, asked: Asked, reply: Reply, round_: int) -> tuple[Any | None, str]:
    """The row a reply becomes, or None and the reason why not."""
    if settings.role == "student":
        return _completion(settings, asked, reply, round_), ""
    if reply.finish_reason != "stop":
        return None, CUT_SHORT.get(reply.finish_reason, "unfinished")
    if not reply.text.strip():
        return None, "empty"
    if is_refusal(reply.text):
        return None, "refused"
    if settings.kind != "question":
        return _completion(settings, asked, reply, round_), ""
    created = parse_new_question(reply.text)
    if created.value is None:
        return None, created.reason or "unreadable"
    return _question(asked, created.value, round_), ""


async def _one(
    client: ModelClient, settings: Settings, round_: int, item: tuple[dict[str, Any], int], used: Counter[str]
) -> tuple[Outcome, str | None]:
    """What became of one sample of one question; None or the reason for its loss."""
    question, sample = item
    reason = "unanswered"
    for attempt in range(settings.attempts):
        asked = ask(settings, question, sample, attempt)
        messages = prompts.render(asked.prompt_id, question=question["instruction"])
        try:
            reply = await client.chat(
                messages,
                asked.sampling,
                seed=asked.seed,
                usage=used,
                group=asked.prompt_id,
                again=attempt > 0,
            )
        except RowFailed as failure:
            reason = failure.reason
            continue
        row, reason = accept(settings, asked, reply, round_)
        if row is not None:
            return Outcome(rows=[row]), None
    return Outcome(dropped=[{"id": question["id"], "sample": sample, "reason": reason}]), reason


def _completion(settings: Settings, asked: Asked, reply: Reply, round_: int) -> Completion:
    assert settings.kind != "question", "a new question is not a completion"
    question_id = asked.question["id"]
    return Completion(
        id=record_id("completion", settings.kind, settings.model, question_id, asked.sample, round_),
        iteration=round_,
        parents=[question_id],
        question_id=question_id,
        role=settings.role,
        kind=settings.kind,
        model=settings.model,
        prompt_id=asked.prompt_id,
        text=reply.text,
        finish_reason=reply.finish_reason,
        sample=asked.sample,
        sampling={**asdict(asked.sampling), "seed": asked.seed},
        usage={"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens},
    )


def _question(asked: Asked, instruction: str, round_: int) -> Question:
    parent = asked.question
    return Question(
        id=record_id("question", instruction),
        iteration=round_,
        parents=[parent["id"]],
        instruction=instruction,
        source="new",
        parent_level=parent["level"],
    )
