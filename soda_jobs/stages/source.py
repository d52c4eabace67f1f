"""source: bring questions, a benchmark or a model into the store.

in   nothing: `source` is a path, `s3://bucket/key`, `hf:owner/dataset` or `builtin:tutor`; for a model a folder,
     `s3://bucket/prefix` or a hub id
out  rows.jsonl   questions and benchmarks: rows of Question, in the order of their source
     …            model: the checkpoint's files

    {"id": "9ab2…", "iteration": 0, "parents": [], "instruction": "Write a function …", "source": "seed",
     "language": "python"}

Rows may have any shape of `shapes.py`; the shape is told by the keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, Literal

from soda_jobs.context import ROWS, Context, StageSettings, Summary
from soda_jobs.records import write_rows

TUTOR: Final = "builtin:tutor"
_TUTOR_QUESTIONS: Final = 300


class Settings(StageSettings):
    """`name` is a benchmark's; `source` None is where that benchmark is published. `languages` empty: all."""

    what: Literal["questions", "benchmark", "model"]
    source: str | None = None
    name: str | None = None
    format: Literal["auto", "jsonl", "parquet", "datasets"] = "auto"
    config: str | None = None
    split: str = "train"
    limit: int | None = None
    count: int | None = None
    languages: tuple[str, ...] = ()
    revision: str | None = None  # of what a hub has
    digest: str | None = None  # of a local source: only there so that another content has another key


def run(settings: Settings, context: Context) -> Summary:
    return Summary(counts=WHAT[settings.what](settings, context))


def _questions(settings: Settings, context: Context) -> dict[str, int]:
    chosen = (
        row
        for row in _read(settings, context)
        if not settings.languages or row.get("language", settings.languages[0]) in settings.languages
    )
    return {"rows": write_rows(context.out / ROWS, islice(chosen, settings.limit))}


def _read(settings: Settings, context: Context) -> Iterator[Any]:
    assert settings.source is not None, "the method names a source of questions"
    if settings.source == TUTOR:
        from soda_jobs.tutor.builtin import seed_questions

        yield from seed_questions(settings.count or _TUTOR_QUESTIONS)
        return

    from soda_jobs.reading import read_source
    from soda_jobs.shapes import read_question

    rows = read_source(
        settings.source,
        work=context.work,
        kind=settings.format,
        config=settings.config,
        split=settings.split,
        revision=settings.revision,
    )
    for number, (where, row) in enumerate(rows, start=1):
        yield read_question(row, where=where)
        if number % 1000 == 0:
            context.progress("rows", number, settings.limit)


def _benchmark(settings: Settings, context: Context) -> dict[str, int]:
    from soda_jobs.benchmarks.tasks import load_tasks

    assert settings.name is not None, "the method names a benchmark"
    tasks = load_tasks(
        settings.name,
        source=settings.source,
        work=context.work,
        languages=settings.languages,
        limit=settings.limit,
    )
    return {"rows": write_rows(context.out / ROWS, tasks)}


def _model(settings: Settings, context: Context) -> dict[str, int]:
    from soda_jobs.reading import copy_model

    assert settings.source is not None, "the method names a model"
    copy_model(settings.source, work=context.work, out=context.out, revision=settings.revision)
    return {"files": sum(path.is_file() for path in context.out.rglob("*"))}


WHAT: Final[dict[str, Callable[[Settings, Context], dict[str, int]]]] = {
    "questions": _questions,
    "benchmark": _benchmark,
    "model": _model,
}
