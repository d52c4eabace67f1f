"""A task as a question in short English, and back.

The text is a pure function of (task, language): the paraphrase is chosen by their hash. Reading goes by the
function name in the text and is believed only when writing the task again gives the same words.
"""

from __future__ import annotations

import re
from typing import Final

from soda_jobs.tutor.family import FOLDS, LANGUAGES, Dice, Task, task_named

_TITLES: Final = {"python": "Python", "javascript": "JavaScript", "c": "C"}
_SOURCES: Final = {
    "list": "a list xs",
    "range": "the integers from 1 to n",
    "text": "a string s",
}
_ITEMS: Final = {"list": "numbers", "range": "integers", "text": "characters"}
_TEMPLATES: Final = (
    "Write a function {name} in {language} over {source}: {steps} and return {result}.",
    "Given {source}, {steps}. Your {language} function {name} should return {result}.",
    "Return {result} from the {language} function {name} over {source} once you {steps}.",
    "Implement {name} in {language}. For {source}, {steps}, then give back {result}.",
)
_CHOICES: Final = (
    "Write a function {name} in {language} for an integer x: return {then} if x is {keep} and {other} otherwise.",
    "Given an integer x, your {language} function {name} should return {then} when x is {keep}, or else {other}.",
    "For x that is {keep}, return {then} from the {language} function {name} of an integer x; if not, {other}.",
    "Implement {name} in {language}. If an integer x is {keep}, give back {then}, but {other} in all other cases.",
)
_NAME: Final = re.compile(r"\b(?<![a-z0-9])[a-z][a-z0-9]*(?:_[a-z0-9]+)+\b|\b(?:sum|product|last|max|min|count)\b")


def question_text(task: Task, language: str) -> str:
    """The task in words, 15 to 45 of them."""
    style = Dice("style", task.name, language).below(len(_TEMPLATES))
    keep = f" {task.join} ".join(part.phrase for part in task.keep)
    words = {"name": task.name, "language": _TITLES[language]}
    if task.source == "value":
        then, other = (part.alone if part else "it" for part in (task.change, task.other))
        return _CHOICES[style].format(**words, keep=keep, then=then, other=other)
    source = "an array xs of n integers" if (task.source, language) == ("list", "c") else _SOURCES[task.source]
    steps = [f"keep the {_ITEMS[task.source]} that are {keep}"] if task.keep else []
    steps += [task.change.phrase] if task.change else []
    result = FOLDS[task.fold].phrase
    if task.finish:
        result = f"{task.finish.phrase} {result}"
    return _TEMPLATES[style].format(**words, source=source, steps=", then ".join(steps), result=result)


def read_question(text: str) -> tuple[Task, str] | None:
    """The first task (and its language) whose question stands in `text`, or None when there is none we know."""
    flat = " ".join(text.split())
    for name in dict.fromkeys(_NAME.findall(flat)):
        task = task_named(name)
        if task is None or task.name != name:
            continue
        for language in LANGUAGES:
            if question_text(task, language) in flat:
                return task, language
    return None
