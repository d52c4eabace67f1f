"""From the text of a YAML file to a run, or to one sentence for every mistake in it.

Text is read by the rules of YAML 1.2's core schema, as Kubernetes users expect: `2e-5` is a number, `on` is a
word. Anything may be fed in; size, depth and aliases are bounded and nothing raises but `load`'s InvalidInput.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import yaml

from soda_jobs.errors import InvalidInput
from soda_jobs.spec.base import show
from soda_jobs.spec.check import Problem, check
from soda_jobs.spec.resource import DistillationRun
from soda_jobs.spec.sentences import path

MAX_BYTES: Final = 262_144
MAX_DEPTH: Final = 32
MAX_VALUES: Final = 10_000  # aliases counted as often as they are used

_NULL: Final = re.compile(r"~|null|Null|NULL|")
_BOOL: Final = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")  # longer ones and 010 stay text and are refused as such
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,4})?")
_TAG: Final = "tag:yaml.org,2002:"
_TAGS: Final = ("!", "str", "int", "float", "bool", "null", "seq", "map")
_DOCUMENT: Final = "document"


def load(text: str | bytes) -> DistillationRun:
    """The run a YAML text describes. Raises InvalidInput with one line for each mistake."""
    run, found = _read(text)
    if run is not None and not found:
        return run
    if len(found) == 1:
        raise InvalidInput(found[0].message, field=found[0].field)
    raise InvalidInput("\n".join(str(problem) for problem in found))


def problems(text: str | bytes) -> list[Problem]:
    """Every mistake in a YAML text, in the order of the text; empty when it is a valid run."""
    return _read(text)[1]


def _read(text: str | bytes) -> tuple[DistillationRun | None, list[Problem]]:
    try:
        tree = _parse(_decode(text))
    except _Unreadable as error:
        return None, [error.problem]
    run, found = check(tree.data)
    placed = [(tree.mark(problem.field), problem) for problem in found]
    every = sorted([*tree.problems, *placed], key=lambda pair: pair[0])
    return run, [replace(problem, line=mark[0]) for mark, problem in every]


class _Unreadable(Exception):
    def __init__(self, message: str, *, line: int | None = None, value: Any = None) -> None:
        super().__init__(message)
        self.problem = Problem(_DOCUMENT, value, message, line)


def _decode(text: str | bytes) -> str:
    if len(text) > MAX_BYTES:
        raise _Unreadable(f"{len(text)} bytes are too many for a run; use at most {MAX_BYTES}")
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{text[error.start]:02x} in line {line}"
        raise _Unreadable(f"{byte} is not UTF-8; use a text file in UTF-8", line=line) from None


@dataclass
class _Tree:
    """Plain data, (line, column) of every field in it, and what is wrong with it as YAML."""

    data: Any = None
    marks: dict[str, tuple[int, int]] = field(default_factory=dict)
    problems: list[tuple[tuple[int, int], Problem]] = field(default_factory=list)

    def mark(self, place: str) -> tuple[int, int]:
        """Line and column of a field, or of the innermost block around it that is there."""
        while place not in self.marks and place:
            place = re.sub(r"(\.|^)[^.\[]*$|\[[^\[]*$", "", place)
        return self.marks.get(place, (1, 1))


def _parse(text: str) -> _Tree:
    try:
        return _Builder(yaml.parse(text, Loader=yaml.SafeLoader)).document()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"character U+{_code(error.character):04X} in line {line} cannot stand in YAML"
        raise _Unreadable(f"{what}; use printable text", line=line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        what = " ".join(str(error.problem or error.context).split())
        raise _Unreadable(f"line {line} is not YAML: {what}; use key: value lines", line=line) from None
    except (ValueError, OverflowError):  # an escape such as "\UFFFFFFFF", which names no character
        raise _Unreadable("an escape in the text names no character; use \\u0000 to \\U0010FFFF") from None


class _Builder:
    """Builds a tree from YAML events. Recursion is bounded by MAX_DEPTH, work by MAX_VALUES."""

    def __init__(self, events: Iterator[Any]) -> None:
        self.events = events
        self.tree = _Tree()
        self.anchors: dict[str, tuple[Any, int]] = {}  # name -> value, number of values in it
        self.count = 0

    def document(self) -> _Tree:
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    line = _mark(event)[0]
                    what = f"a second document starts in line {line}"
                    raise _Unreadable(f"{what}; use one document in a file", line=line)
                self.tree.data = self.value(next(self.events), ())
        if documents == 0 or self.tree.data is None:
            raise _Unreadable("the text is empty; use a block with the keys apiVersion, kind, metadata, spec")
        return self.tree

    def value(self, event: Any, loc: tuple[str | int, ...]) -> Any:
        self.tree.marks.setdefault(path(loc), _mark(event))
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self.count
        self._counted(1, event)
        if len(loc) > MAX_DEPTH:
            raise self._refuse(event, f"is nested deeper than {MAX_DEPTH} levels", "a flatter text")
        if event.tag is not None and event.tag.removeprefix(_TAG) not in _TAGS:
            raise self._refuse(event, f"has the tag {show(event.tag)}", "plain values without tags")
        if isinstance(event, yaml.MappingStartEvent):
            found: Any = self._mapping(loc)
        elif isinstance(event, yaml.SequenceStartEvent):
            found = self._sequence(loc)
        else:
            found = self._scalar(event)
        if event.anchor is not None:
            self.anchors[event.anchor] = (found, self.count - before)
        return found

    def _mapping(self, loc: tuple[str | int, ...]) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        for event in self.events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            if not isinstance(event, yaml.ScalarEvent):
                raise self._refuse(event, "has a key that is not a word", "key: value")
            key, mark = self._text(event), _mark(event)
            if key not in found:
                self.tree.marks[path((*loc, key))] = mark
                found[key] = self.value(next(self.events), (*loc, key))
                continue
            self.value(next(self.events), (*loc, key))
            message = f"{show(key)} is given a second time in line {mark[0]}; use it once"
            self.tree.problems.append((mark, Problem(path((*loc, key)), key, message)))
        return found

    def _sequence(self, loc: tuple[str | int, ...]) -> list[Any]:
        found: list[Any] = []
        for event in self.events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            found.append(self.value(event, (*loc, len(found))))
        return found

    def _alias(self, event: Any) -> Any:
        if event.anchor not in self.anchors:
            why = f"names *{show(event.anchor)}, which no &{show(event.anchor)} before it defines"
            raise self._refuse(event, why, "an anchor that is defined above")
        found, size = self.anchors[event.anchor]
        self._counted(size, event)
        return found

    def _scalar(self, event: Any) -> Any:
        text, tag = self._text(event), event.tag
        if tag in ("!", f"{_TAG}str") or (tag is None and not event.implicit[0]):
            return text
        return _resolve(text)

    def _text(self, event: Any) -> str:
        text: str = event.value
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise self._refuse(event, "has half of a surrogate pair", "whole characters")
        return text

    def _counted(self, number: int, event: Any) -> None:
        self.count += number
        if self.count > MAX_VALUES:
            raise self._refuse(event, f"reaches more than {MAX_VALUES} values", "a smaller text")

    def _refuse(self, event: Any, why: str, use: str) -> _Unreadable:
        line = _mark(event)[0]
        return _Unreadable(f"line {line} {why}; use {use}", line=line)


def _mark(event: Any) -> tuple[int, int]:
    """Line and column of an event, counted from 1."""
    return event.start_mark.line + 1, event.start_mark.column + 1


def _code(character: str | int) -> int:
    return character if isinstance(character, int) else ord(character)


def _resolve(text: str) -> Any:
    """The value of a plain word."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
