"""What is said to the launcher and to process 1 of a jail, and what they say back. Pure.

A message is one letter, then numbers (8 bytes) and texts (a number, that many bytes, a zero), in the machine's own
order: both ends are on one machine. `launcher/wire.c` is the other side.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

MAX_MESSAGE: Final = 1 << 16
_NUMBER: Final = struct.Struct("=Q")


@dataclass(frozen=True, slots=True)
class ForkServer:
    """A program that is started once and then copied for each run: its argv and environment, the file that each
    run puts in its place, and what else its box must hold when it starts. `preloaded` are modules."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    awaited: str
    files: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    preloaded: tuple[str, ...] = ()


def start(
    limits: Mapping[int, int], shown: Iterable[str], server: ForkServer | None, box: str, library: str
) -> bytes:
    """To a new launcher, once its ids are mapped. `library` is what a warm interpreter loads first."""
    parts = [b"S", *_limits(limits), *_texts(shown)]
    if server is None:
        return b"".join([*parts, *(_number(0) for _ in range(4))])
    files = ((server.awaited, ""), *server.files)  # to be found, never read
    waiting = (
        f"LD_PRELOAD={library}",
        f"SODA_WAIT_FOR={box}/{server.awaited}",
        f"SODA_PRELOAD={','.join(server.preloaded)}",
    )
    parts += [*_pairs(files), *_pairs(server.links), *_texts(server.argv)]
    return b"".join([*parts, *_texts((*(f"{name}={value}" for name, value in server.env), *waiting))])


def open_jail(
    token: int, scratch: str, covered: Iterable[str], files: Mapping[str, bytes], links: Mapping[str, str]
) -> tuple[bytes, bytes]:
    """Open a jail: the message, and the contents of its files, which follow it or come in a file of their own."""
    parts = [b"O", _number(token), _text(scratch), *_texts(covered), _number(len(files))]
    for name, content in files.items():
        parts += [_text(name), _number(len(content))]
    return b"".join([*parts, *_pairs(links.items())]), b"".join(files.values())


def job(limits: Mapping[int, int], argv: Iterable[str], env: Mapping[str, str]) -> bytes:
    words = (f"{name}={value}" for name, value in env.items())
    return b"".join([b"J", *_limits(limits), *_texts(argv), *_texts(words)])


def close_jail(token: int) -> bytes:
    return b"C" + _number(token)


def numbers(message: bytes) -> tuple[int, ...]:
    """The numbers after the letter. Raises struct.error when it is not a whole message."""
    return tuple(value for (value,) in _NUMBER.iter_unpack(message[1:]))


def _number(value: int) -> bytes:
    return _NUMBER.pack(value)


def _text(text: str) -> bytes:
    data = os.fsencode(text)
    if b"\0" in data:
        raise ValueError(f"{text[:40]!r} holds a zero character")
    return _NUMBER.pack(len(data)) + data + b"\0"


def _texts(texts: Iterable[str]) -> list[bytes]:
    parts = [_text(text) for text in texts]
    return [_number(len(parts)), *parts]


def _pairs(pairs: Iterable[tuple[str, str]]) -> list[bytes]:
    both = [_text(first) + _text(second) for first, second in pairs]
    return [_number(len(both)), *both]


def _limits(limits: Mapping[int, int]) -> list[bytes]:
    return [_number(len(limits)), *(_number(which) + _number(value) for which, value in limits.items())]
