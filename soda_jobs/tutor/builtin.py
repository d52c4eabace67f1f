"""The data of the quickstart: seed questions, and held-out tasks that no training text may come near.

Held-out tasks use reserved combinations of components and the seed questions never do, in any language; but every
component of a held-out task occurs in the first seed questions. Both lists are prefixes of a fixed sequence:
asking for more never changes the first ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Final

from soda_jobs.records import Question, record_id
from soda_jobs.tutor.checks import check_program
from soda_jobs.tutor.draw import Shape, draw
from soda_jobs.tutor.family import LANGUAGES, Dice, Part, Task
from soda_jobs.tutor.solutions import solution
from soda_jobs.tutor.wording import question_text

# How often each shape occurs, out of twenty. Harder shapes are rare: new questions bring them.
_SHAPES: Final = (
    *[Shape("list", change=False)] * 2,
    *[Shape("list", conditions=0)] * 2,
    *[Shape("list")] * 5,
    *[Shape("list", finish=True)] * 2,
    *[Shape("range")] * 3,
    *[Shape("range", conditions=0)] * 1,
    *[Shape("text")] * 2,
    *[Shape("value")] * 3,
)

_TEACHING: Final = 200  # the first seed questions, which show every component of the held-out tasks


def _tasks(seed: str, *, reserved: bool) -> Iterator[tuple[Task, str]]:
    """Tasks with a language each, no task twice, the languages in turn."""
    dice = Dice(seed)
    taught = _taught() if reserved else None
    seen: set[str] = set()
    while True:
        task = draw(dice.pick(_SHAPES), dice, reserved=reserved)
        if task.name in seen or (taught is not None and not task.components <= taught):
            continue
        seen.add(task.name)
        yield task, LANGUAGES[len(seen) % len(LANGUAGES)]


@cache
def _taught() -> frozenset[Part | str]:
    tasks = islice(_tasks("seed", reserved=False), _TEACHING)
    return frozenset(component for task, _ in tasks for component in task.components)


def seed_questions(count: int) -> list[Question]:
    """The first `count` seed questions: text, language and function name, neither tests nor solution."""
    return [
        Question(
            id=record_id("question", text),
            iteration=0,
            parents=[],
            instruction=text,
            source="seed",
            language=language,
            entry_point=task.name,
        )
        for task, language in islice(_tasks("seed", reserved=False), count)
        for text in [question_text(task, language)]
    ]


def heldout_tasks(count: int) -> list[Question]:
    """The first `count` held-out tasks, as a benchmark: with tests and the right solution."""
    return [
        Question(
            id=record_id("question", text),
            iteration=0,
            parents=[],
            instruction=text,
            source="benchmark:builtin",
            language=language,
            tests=check_program(task, language),
            entry_point=task.name,
            solution=solution(task, language),
            task_id=f"builtin/{number}",
        )
        for number, (task, language) in enumerate(islice(_tasks("heldout", reserved=True), count))
        for text in [question_text(task, language)]
    ]
