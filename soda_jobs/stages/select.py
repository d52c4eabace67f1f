"""select: choose rows, or join them into training rows. Nothing is written by a model here.

in, by mode
     split        questions
     pairs        sft, preference: the questions of either share; correct, fault (optional): rows of Completion
     sample       rows
     annotations  questions, completions, judgements
     parents      questions, classifications
out, by mode
     split        sft.jsonl and preference.jsonl: the questions of either share; rows.jsonl: all of them
     pairs        sft.jsonl, preference.jsonl, dropped.jsonl
     sample       rows.jsonl: `count` of the rows, unchanged
     annotations  rows.jsonl: training rows of the scoring model; dropped.jsonl
     parents      rows.jsonl: questions with `level` and `copy`, one for each new question to be made

    {"id": "c8d0…", "iteration": 1, "parents": ["9ab2…", "0c1f…"], "prompt": [{"role": "user", "content": "…"}],
     "response": "```python\\ndef …"}                                                            (sft.jsonl)

Every choice goes by a hash of the row's id, never by its place: what comes later moves nothing that was chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from soda_jobs.context import DROPPED, ROWS, Context, StageSettings, Summary
from soda_jobs.draws import HARDER, Ratio, choose_parents, draw_key, is_preference
from soda_jobs.pairs import Built, build_annotations, build_pairs
from soda_jobs.records import write_rows

SFT: Final = "sft.jsonl"
PREFERENCE: Final = "preference.jsonl"


class Settings(StageSettings):
    """`fraction` is for split; `preset` for pairs; `prompt_id` and `prompt_digest` for pairs and annotations;
    `count` and `seed` for sample and parents; `ratio`, `max_children` and `random` for parents."""

    mode: Literal["split", "pairs", "sample", "annotations", "parents"]
    fraction: float = 0.2
    preset: Literal["paper", "strict"] = "paper"
    prompt_id: str = ""
    prompt_digest: str = ""
    count: int = 0
    ratio: Ratio = Ratio()
    max_children: int = 3
    random: bool = False
    seed: int = 0


def run(settings: Settings, context: Context) -> Summary:
    return Summary(counts=MODES[settings.mode](settings, context))


def _split(settings: Settings, context: Context) -> dict[str, int]:
    rows = list(context.rows("questions"))
    chosen = [is_preference(row["id"], settings.fraction) for row in rows]
    write_rows(context.out / ROWS, rows)
    return {
        "rows": len(rows),
        "sft": write_rows(context.out / SFT, (r for r, c in zip(rows, chosen, strict=True) if not c)),
        "preference": write_rows(context.out / PREFERENCE, (r for r, c in zip(rows, chosen, strict=True) if c)),
    }


def _pairs(settings: Settings, context: Context) -> dict[str, int]:
    built = build_pairs(
        sft=context.rows("sft"),
        preference=context.rows("preference"),
        correct=context.rows("correct"),
        fault=context.rows("fault") if "fault" in context.inputs else None,
        prompt_id=settings.prompt_id,
        strict=settings.preset == "strict",
    )
    write_rows(context.out / SFT, built.sft)
    write_rows(context.out / PREFERENCE, built.preference)
    write_rows(context.out / DROPPED, built.dropped)
    rows = len(built.sft) + len(built.preference)
    return {"rows": rows, "sft": len(built.sft), "preference": len(built.preference), **_dropped(built)}


def _sample(settings: Settings, context: Context) -> dict[str, int]:
    rows = list(context.rows("rows"))
    keys = sorted(draw_key(row["id"], settings.seed) for row in rows)
    limit = keys[settings.count] if settings.count < len(keys) else None
    chosen = [row for row in rows if limit is None or draw_key(row["id"], settings.seed) < limit]
    return {"items": len(rows), "rows": write_rows(context.out / ROWS, chosen)}


def _annotations(settings: Settings, context: Context) -> dict[str, int]:
    built = build_annotations(
        questions=context.rows("questions"),
        completions=context.rows("completions"),
        judgements=context.rows("judgements"),
        prompt_id=settings.prompt_id,
    )
    write_rows(context.out / DROPPED, built.dropped)
    return {"rows": write_rows(context.out / ROWS, built.sft), **_dropped(built)}


def _parents(settings: Settings, context: Context) -> dict[str, int]:
    questions = list(context.rows("questions"))
    levels = {row["question_id"]: row["level"] for row in context.rows("classifications")}
    rows = choose_parents(
        questions,
        levels,
        count=settings.count,
        ratio=None if settings.random else settings.ratio,
        max_children=settings.max_children,
        seed=f"{settings.seed}/{context.round}",
    )
    write_rows(context.out / ROWS, rows)
    by_level: dict[str, int] = {level: sum(row["level"] == level for row in rows) for level in HARDER}
    return {"rows": len(rows), "missing": settings.count - len(rows), **by_level}


MODES: Final[dict[str, Callable[[Settings, Context], dict[str, int]]]] = {
    "split": _split,
    "pairs": _pairs,
    "sample": _sample,
    "annotations": _annotations,
    "parents": _parents,
}


def _dropped(built: Built) -> dict[str, Any]:
    counts = {"dropped": len(built.dropped)}
    for row in built.dropped:
        reason = f"dropped_{row['reason']}"
        counts[reason] = counts.get(reason, 0) + 1
    return counts
