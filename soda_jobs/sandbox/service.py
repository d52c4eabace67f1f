"""A compiler that stays: one process in a jail of its own that compiles program after program of one worker.

It reads hostile source, so that it may be taken over by one: what it says is untrusted bytes of limited size, it
lives for a limited number of programs, and whatever is odd about an answer ends it. Then, and where a machine has
no namespaces, there is no answer, and the program is compiled in its own jail: a verdict never depends on it.

Both ways a message is its length and pairs of a name and a content, each after its own length; lengths are four
bytes, most significant first. In a reply the name "" has what the compiler said against the program.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from soda_jobs.log import event
from soda_jobs.sandbox.jail import Jail, JailFault, Running
from soda_jobs.sandbox.walls import Walls
from soda_jobs.sandbox.watch import Job

MAX_PROGRAMS: Final = 200
MAX_REPLY: Final = 4 << 20
MAX_NAMES: Final = 24 << 10  # bytes of all names and what goes with them
SECONDS: Final = 20.0  # of its own time, its start included; who needs longer is compiled in its own jail
MAX_FALSE_STARTS: Final = 3

_LENGTH: Final = struct.Struct(">I")
_NAME: Final = re.compile(r"(?!\.)[^/\0]{1,200}")


@cache
def text_of(script: str) -> str:
    """One of our own programs around a compiler."""
    return Path(__file__).with_name("services").joinpath(script).read_text()


class _Odd(Exception):
    """The compiler did not answer as it should."""


class _Overrun(_Odd):
    """It met a limit, which is a program's doing: the next one may be harmless."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What was made, by file name, or what the compiler said against the program."""

    files: Mapping[str, bytes]
    errors: str = ""


class Service:
    """`opening` says what to run in which jail. One for each toolchain of a worker, started when first asked."""

    def __init__(self, opening: Callable[[Walls], tuple[Jail, Job]]) -> None:
        self._opening = opening
        self._jail = contextlib.ExitStack()
        self._running: Running | None = None
        self._answers = self._false_starts = 0

    def ask(self, files: Mapping[str, bytes], walls: Walls) -> Reply | None:
        """None: it has no answer to give, and a new one is started for the next program."""
        if not walls.namespaces or self._false_starts >= MAX_FALSE_STARTS:
            return None
        try:
            if self._running is None:
                jail, job = self._opening(walls)
                self._running = self._jail.enter_context(jail).start(job)
            said = self._running.ask(encode(files), is_whole)
            if not isinstance(said, bytes):
                kind = _Odd if said.limit == "ended" else _Overrun
                raise kind(f"it met the limit {said.limit}")
            reply = decode(said[_LENGTH.size :])
        except (OSError, JailFault, _Odd) as error:
            event("warm_compiler_ended", answers=self._answers, reason=str(error))
            self._false_starts += not self._answers and not isinstance(error, _Overrun)
            self.close()
            return None
        self._answers += 1
        self._false_starts = 0
        if self._answers >= MAX_PROGRAMS:
            self.close()
        return reply

    def close(self) -> None:
        self._running = None
        self._jail.close()
        self._answers = 0


def is_whole(said: bytes) -> bool:
    """Raises what `ask` takes for odd when it is more than one reply, or too long a one."""
    if len(said) < _LENGTH.size:
        return False
    size = _LENGTH.size + int(_LENGTH.unpack_from(said)[0])
    if size > MAX_REPLY or len(said) > size:
        raise _Odd("its reply is too long")
    return len(said) == size


def encode(files: Mapping[str, bytes]) -> bytes:
    parts = [part for name, content in files.items() for part in (name.encode("utf-8", "surrogatepass"), content)]
    body = b"".join(_LENGTH.pack(len(part)) + part for part in parts)
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Reply:
    """A reply without its length. Raises what `ask` takes for odd."""
    parts = list(_parts(body))
    if len(parts) % 2:
        raise _Odd("its reply is not pairs of names and contents")
    names, contents = parts[::2], parts[1::2]
    if names == [b""] and contents[0]:
        return Reply({}, contents[0].decode("utf-8", errors="replace"))
    try:
        files = {name.decode(): content for name, content in zip(names, contents, strict=True)}
    except UnicodeDecodeError as error:
        raise _Odd("a name in its reply is not text") from error
    if (
        len(files) < len(names)
        or sum(len(name) + 32 for name in names) > MAX_NAMES
        or not all(_NAME.fullmatch(name) for name in files)
    ):
        raise _Odd("a name in its reply is no file's")
    return Reply(files)


def _parts(body: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        if at + _LENGTH.size > len(body):
            raise _Odd("its reply is cut short")
        size = _LENGTH.unpack_from(body, at)[0]
        at += _LENGTH.size
        if at + size > len(body):
            raise _Odd("its reply is cut short")
        yield body[at : at + size]
        at += size
