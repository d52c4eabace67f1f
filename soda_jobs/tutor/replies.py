"""What the tutor answers: messages in, one reply out, the same for the same messages, seed and temperature.

The kind of a prompt is told by its markers, in either prompt set. The tutor knows its own task family only, and
says so when it is asked something else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from soda_jobs.prompts import CREATED
from soda_jobs.prompts.faults import FAULTS
from soda_jobs.tutor.draw import draw, harder, shape_of
from soda_jobs.tutor.family import Dice, Task
from soda_jobs.tutor.faulty import faulty
from soda_jobs.tutor.scoring import COMPACT_RULES, PAPER_RULES, score_reply
from soda_jobs.tutor.solutions import fenced, solution
from soda_jobs.tutor.wording import question_text, read_question

REFUSAL: Final = "I do not know this kind of programming task, so I cannot help with it."
_QUESTION_END: Final = "#End of programming question#"
_CODE_END: Final = "#End of code#"


def reply(messages: Sequence[Mapping[str, str]], seed: int = 0, temperature: float = 0.0) -> str:
    """The reply to a conversation. `seed` matters only when `temperature` is above 0."""
    prompt = "\n".join(message["content"] for message in messages)
    found = read_question(prompt)
    if found is None:
        return REFUSAL
    task, language = found
    answer = next(answer for marker, answer in _KINDS if marker in prompt)
    dice = Dice("reply", json.dumps([dict(message) for message in messages]), seed if temperature > 0 else 0)
    return answer(task, language, prompt, dice)


def _score(task: Task, language: str, prompt: str, dice: Dice) -> str:
    code = prompt.partition(_QUESTION_END)[2].partition(_CODE_END)[0].strip().removeprefix("Code:").strip()
    return score_reply(task, language, code, PAPER_RULES if PAPER_RULES[0] in prompt else COMPACT_RULES)


def _new(task: Task, language: str, prompt: str, dice: Dice) -> str:
    shape = shape_of(task)
    new = draw(harder(shape) if "challenging" in prompt else shape, dice)
    while new == task:
        new = draw(shape_of(new), dice)
    return f"{CREATED} {question_text(new, language)}"


def _fault(task: Task, language: str, prompt: str, dice: Dice) -> str:
    asked = [name for name in FAULTS if name in prompt]
    return fenced(faulty(task, language, dice.pick(asked or list(FAULTS)), dice), language)


def _correct(task: Task, language: str, prompt: str, dice: Dice) -> str:
    return fenced(solution(task, language), language)


# The first marker in the prompt decides; every prompt holds the empty one.
_KINDS: Final[tuple[tuple[str, Callable[[Task, str, str, Dice], str]], ...]] = (
    (_QUESTION_END, _score),
    (CREATED, _new),
    ("MUST contain", _fault),
    ("", _correct),
)
