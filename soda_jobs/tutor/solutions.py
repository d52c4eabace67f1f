"""The right program of a task in each language.

Every program of a language has the same phrasing, so that a very small model can learn to translate a question
into it. A program is put together from `Pieces`; a fault changes a piece, a score compares them one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from soda_jobs.tutor.family import COMPONENTS, FOLDS, Part, Task


@dataclass(frozen=True)
class Pieces:
    """The lines of a program, relative to their block; empty where a task has no such step.

    A task over one value has no `start` and no `loop`: its `update` returns when the condition holds.
    """

    header: str
    start: str
    loop: tuple[str, ...]
    condition: str
    update: str
    result: str


_HEADERS: Final[Mapping[str, Mapping[str, str]]] = {
    "python": {
        "list": "def {}(xs):",
        "range": "def {}(n):",
        "text": "def {}(s):",
        "value": "def {}(x):",
    },
    "javascript": {
        "list": "function {}(xs) {{",
        "range": "function {}(n) {{",
        "text": "function {}(s) {{",
        "value": "function {}(x) {{",
    },
    "c": {
        "list": "int {}(const int *xs, int n) {{",
        "range": "int {}(int n) {{",
        "text": "int {}(const char *s) {{",
        "value": "int {}(int x) {{",
    },
}
_LOOPS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "python": {
        "list": ("for x in xs:",),
        "range": ("for x in range(1, n + 1):",),
        "text": ("for x in s:",),
    },
    "javascript": {
        "list": ("for (const x of xs) {",),
        "range": ("for (let x = 1; x <= n; x++) {",),
        "text": ("for (const x of s) {",),
    },
    "c": {
        "list": ("while (n-- > 0) {", "    int x = *xs++;"),
        "range": ("for (int x = 1; x <= n; x++) {",),
        "text": ("while (*s) {", "    int x = *s++;"),
    },
}
_STARTS: Final = {"python": "r = {}", "javascript": "let r = {};", "c": "int r = {};"}
_JOINS: Final = {"and": "&&", "or": "||"}


def spell(code: str, language: str) -> str:
    """An expression of the family in one language: JavaScript compares with three signs."""
    return code.replace(" == ", " === ").replace(" != ", " !== ") if language == "javascript" else code


def _code(part: Part) -> str:
    return COMPONENTS[part.kind].code.format(k=part.k)


def pieces(task: Task, language: str, name: str | None = None) -> Pieces:
    """The pieces of the right program, called `name` when the task's own name is not wanted."""
    python = language == "python"
    end = "" if python else ";"
    join = task.join if python else _JOINS[task.join]
    keep = spell(f" {join} ".join(_code(part) for part in task.keep), language)
    header = _HEADERS[language][task.source].format(name or task.name)
    condition = "" if not keep else f"if {keep}:" if python else f"if ({keep})"
    change = _code(task.change) if task.change else "x"
    if task.source == "value":
        other = _code(task.other) if task.other else "x"
        return Pieces(header, "", (), condition, f"return {change}{end}", f"return {other}{end}")
    fold = FOLDS[task.fold]
    return Pieces(
        header=header,
        start=_STARTS[language].format(fold.start),
        loop=_LOOPS[language][task.source],
        condition=condition,
        update=fold.update[language].format(e=change) + end,
        result=f"return {_code(task.finish) if task.finish else 'r'}{end}",
    )


def assemble(parts: Pieces, language: str) -> str:
    """The program's text: four spaces a level, no newline at the end."""
    lines = [parts.header, *(f"    {line}" for line in (parts.start, *parts.loop) if line)]
    indent = " " * (8 if parts.loop else 4)
    if language == "python":
        lines += [f"{indent}{parts.condition}", f"{indent}    {parts.update}"] if parts.condition else []
        lines += [] if parts.condition else [f"{indent}{parts.update}"]
        return "\n".join([*lines, f"    {parts.result}"])
    lines.append(f"{indent}{parts.condition} {parts.update}" if parts.condition else f"{indent}{parts.update}")
    return "\n".join([*lines, *(["    }"] if parts.loop else []), f"    {parts.result}", "}"])


def solution(task: Task, language: str) -> str:
    """The right program."""
    return assemble(pieces(task, language), language)


def fenced(code: str, language: str) -> str:
    """The code as a reply: one fenced block with its language tag."""
    return f"```{language}\n{code}\n```"
