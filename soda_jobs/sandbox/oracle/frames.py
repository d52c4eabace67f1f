"""What a driver wrote, read. Whatever the bytes, the only error is Garbled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from soda_jobs.sandbox.oracle.codec import SIZE, Garbled, decode
from soda_jobs.sandbox.oracle.values import Foreign

_SHAPES: Final[Mapping[str, Callable[[tuple[Any, ...]], bool]]] = {
    "value": lambda rest: len(rest) == 2 and isinstance(rest[1], tuple) and all(map(_is_change, rest[1])),
    "raised": lambda rest: (
        len(rest) == 3
        and all(isinstance(word, str) for word in rest[:2])
        and isinstance(rest[2], tuple)
        and all(isinstance(base, str) for base in rest[2])
    ),
    "unreadable": lambda rest: len(rest) == 2 and all(isinstance(word, str) for word in rest),
    "large": lambda rest: len(rest) == 2 and isinstance(rest[0], str) and rest[1] == (),
    "end": lambda rest: len(rest) == 1 and type(rest[0]) is int,
}


def _is_change(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and type(item[0]) is int and item[0] >= 0


def _foreign(tag: bytes, number: int, name: str) -> Foreign:
    if tag == b"R":
        raise Garbled("it refers to a step")
    return Foreign(number if tag == b"X" else -1, name)


def read_message(data: bytes) -> tuple[Any, ...]:
    """Raises Garbled."""
    message = decode(data, _foreign)
    if not isinstance(message, tuple) or not message or not isinstance(message[0], str):
        raise Garbled("it is not a message")
    shape = _SHAPES.get(message[0])
    if shape is None or not shape(message[1:]):
        raise Garbled(f"it is no message of the kind {message[0][:20]!r}")
    return message


@dataclass(frozen=True, slots=True)
class Frames:
    """`load` is the message about loading, None when it did not come; `is_whole` says that the end came,
    and `left` how many bytes make no message."""

    load: tuple[Any, ...] | None
    answers: tuple[bytes, ...]
    is_whole: bool
    left: int = 0


def read_frames(data: bytes, steps: int) -> Frames:
    """What a driver with this many steps wrote. Raises Garbled for what no driver writes, whatever the bytes."""
    messages: list[bytes] = []
    at = 0
    while at + 4 <= len(data):
        size = SIZE.unpack_from(data, at)[0]
        if at + 4 + size > len(data):
            break
        messages.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    kinds = [read_message(item) for item in messages]
    ends = [n for n, message in enumerate(kinds) if message[0] == "end"]
    if ends and (ends[0] != len(messages) - 1 or at != len(data)):
        raise Garbled("something follows the end")
    if not kinds:
        return Frames(None, (), False, len(data))
    load, is_whole = kinds[0], bool(ends)
    answers = tuple(messages[1:-1] if is_whole else messages[1:])
    wanted = steps if load[0] == "value" else 0
    if (
        load[0] not in ("value", "raised", "unreadable")
        or len(answers) > wanted
        or any(item[0] == "unreadable" for item in kinds[1:])
    ):
        raise Garbled("there are more answers than steps")
    if is_whole and (kinds[-1][1] != wanted or len(answers) != wanted):
        raise Garbled("the end does not count the answers")
    return Frames(load, answers, is_whole, len(data) - at)
