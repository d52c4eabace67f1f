"""Steps that tests ask of a program, and what it answered them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from soda_jobs.sandbox.oracle.codec import SIZE, Drained, Garbled, TooLarge, decode, encode
from soda_jobs.sandbox.oracle.frames import read_message
from soda_jobs.sandbox.oracle.values import Blocked, Foreign, Large, NotSplittable, Own, Stopped, Unknown

MAX_STEPS: Final = 20_000
MAX_ARGUMENT: Final = 2 << 20
# Operations whose other side may be what a test expects, as in `3 in f(1)` and `abs(f(1) - 0.5) < 1e-6`.
_SHOWING: Final = ("contains", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")


class Ended(BaseException):
    """The program ended before it answered this step."""


@dataclass
class Session:
    """The program, as far as it is known: `steps` and `answers` are of the last run, `asked` is what tests ask.

    `is_over` says that the last run ended by itself, so that an answer that is missing will not come. `is_shown`:
    a value of the tests met an object of the program's own class, which may have been made to please any value.
    """

    steps: Sequence[bytes] = ()
    answers: Sequence[bytes] = ()
    is_over: bool = False
    asked: list[bytes] = field(default_factory=list)
    unknown: int | None = None  # the first step without an answer
    is_shown: bool = False

    def __post_init__(self) -> None:
        self._held: dict[int, tuple[int, Any]] = {}  # by id: what can only be named, and its step

    def taken(self) -> int:
        return len(self.asked)

    def is_guessing(self, since: int) -> bool:
        return self.unknown is not None and len(self.asked) > since

    def step(self, kind: str, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        try:
            data = encode((kind, name, args, options), self._refer, MAX_ARGUMENT)
        except TooLarge:
            raise NotSplittable("it passes too large a value") from None
        if kind == "op" and name in _SHOWING and not all(isinstance(item, Foreign) for item in args):
            self.is_shown = True
        index = len(self.asked)
        if index >= MAX_STEPS:
            raise NotSplittable("it calls the program too often")
        self.asked.append(data)
        if self.unknown is None and index < len(self.steps) and self._is_same(self.steps[index], data):
            if index < len(self.answers):
                return self._answer(index, args)
            if self.is_over:
                raise Ended
        if self.unknown is None:
            self.unknown = index
        return Unknown(index, is_foreign=kind == "call" and name.lstrip("_")[:1].isupper())

    def _refer(self, value: Any) -> bytes:
        if isinstance(value, Own):
            return encode(self.step("name", value.name, (), {}), self._refer, MAX_ARGUMENT)
        if isinstance(value, Unknown):
            if value.ref is None:
                raise Blocked
            return b"R" + SIZE.pack(value.ref)
        if isinstance(value, Foreign):
            name = value.name.encode("utf-8", "surrogatepass")
            return b"X" + SIZE.pack(value.number) + SIZE.pack(len(name)) + name
        if id(value) in self._held:
            return b"R" + SIZE.pack(self._held[id(value)][0])
        raise NotSplittable(f"it passes a {type(value).__name__} into the program")

    def _is_same(self, planned: bytes, wanted: bytes) -> bool:
        """Whether a step taken inside, where it may name what an earlier one gave, is the one wanted now."""
        if planned == wanted:
            return True
        try:
            meant = decode(planned, lambda tag, number, name: self._meant(tag, number, name))
            return encode(meant, self._refer, MAX_ARGUMENT) == wanted
        except (Garbled, TooLarge, Blocked, LookupError):
            return False

    def _meant(self, tag: bytes, number: int, name: str) -> Any:
        if tag == b"X":
            return Foreign(number, name)
        message = read_message(self.answers[number])
        if message[0] not in ("value", "large"):
            raise Garbled("it refers to a step without a value")
        if message[0] == "large" or isinstance(message[1], Drained):
            return next(item for at, item in self._held.values() if at == number)
        return message[1]

    def _answer(self, index: int, args: tuple[Any, ...]) -> Any:
        message = read_message(self.answers[index])
        if message[0] == "raised":
            raise Stopped(*message[1:])
        if message[0] == "large":
            if not message[1]:
                raise NotSplittable("the program returns too large a value")
            return self._hold(index, Large(message[1]))
        for position, now in message[2]:
            if position < len(args):
                merge(args[position], now)
        value = message[1]
        if isinstance(value, Drained):
            return self._hold(index, iter(value.items) if value.is_whole else _cut(value.items))
        return value

    def _hold(self, index: int, value: Any) -> Any:
        self._held[id(value)] = (index, value)
        return value


def _cut(items: list[Any]) -> Iterator[Any]:
    yield from items
    raise NotSplittable("it takes much out of an iterator")


def merge(old: Any, new: Any, depth: int = 0) -> None:
    """Make `old` hold what `new` holds, in place, and so for lists and dicts within it."""
    if depth > 20 or type(old) is not type(new):
        return
    if isinstance(old, list):
        old[:] = [_merged(mine, now, depth) for mine, now in zip(old, new, strict=False)] + new[len(old) :]
    elif isinstance(old, dict):
        found = {key: _merged(old[key], now, depth) if key in old else now for key, now in new.items()}
        old.clear()
        old.update(found)
    elif isinstance(old, set):
        old.clear()
        old.update(new)
    elif isinstance(old, bytearray):
        old[:] = new
    elif isinstance(old, tuple):
        for mine, now in zip(old, new, strict=False):
            merge(mine, now, depth + 1)


def _merged(old: Any, new: Any, depth: int) -> Any:
    if type(old) is type(new) and isinstance(old, list | dict | set):
        merge(old, new, depth + 1)
        return old
    return new
