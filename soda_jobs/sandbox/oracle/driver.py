"""Inside a sandbox: loads program.py, takes steps, and says on descriptor 3 what came of each.

This file is sent into sandboxes as text, behind codec.py. It holds no expected value: a program that takes it over
can only say something else than it would have said.

A message is a length of four bytes and a value. The first is about loading, then one for each step, then the end:
("value", value, ((position, argument as it is now), …)), ("large", digest of the value, (…)),
("raised", class, message, bases), ("unreadable", class, message), ("end", number of steps)
"""

from __future__ import annotations

import builtins
import hashlib
import itertools
import operator
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

from soda_jobs.sandbox.oracle.codec import SIZE, Drained, TooLarge, decode, encode

CHANNEL = 3
MAX_DRAINED = 1000  # items taken out of an iterator
MAX_DIGESTED = 64 << 20
MAX_WORDS = 400  # characters of an exception's message

_write = os.write
_exit = os._exit
_MUTABLE = (list, dict, set, bytearray, tuple)
_OPERATIONS: dict[str, Any] = {
    "len": len,
    "str": str,
    "repr": repr,
    "bool": bool,
    "int": int,
    "float": float,
    "hash": hash,
    "iter": iter,
    "next": next,
    "abs": abs,
    "neg": operator.neg,
    "getitem": operator.getitem,
    "setitem": operator.setitem,
    "delitem": operator.delitem,
    "contains": operator.contains,
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "pow": operator.pow,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
}


class Driver:
    def __init__(self) -> None:
        self._objects: list[Any] = []  # foreign values that were named outside, by their number
        self._numbers: dict[int, int] = {}
        self._results: list[Any] = []
        self._namespace: dict[str, Any] = {}
        self._said = 0

    def load(self, path: str) -> bool:
        module = types.ModuleType("program")
        sys.modules["program"] = module
        self._namespace = module.__dict__
        try:
            with open(path, "rb") as file:
                text = file.read()
            try:
                code = compile(text, path, "exec", dont_inherit=True)
            except (SyntaxError, ValueError) as error:
                name = type(error).__name__ if isinstance(error, SyntaxError) else "SyntaxError"
                self._say(("unreadable", name, f"{error}"[:MAX_WORDS]))
                return False
            exec(code, self._namespace)
        except BaseException as error:  # noqa: BLE001 - the program may raise anything
            self._say(self._raised(error))
            return False
        self._say(("value", None, ()))
        return True

    def take(self, step: bytes) -> None:
        try:
            kind, name, args, options = decode(step, self._resolve)
            before = [self._image(item) for item in args]
            value = self._act(kind, name, args, options)
            shown = value
            if isinstance(value, Iterator) and type(value).__module__ in ("builtins", "itertools"):
                value, shown = self._drain(value)
            self._results.append(value)
            after = [self._image(item) for item in args]
            changed = tuple((n, args[n]) for n in range(len(args)) if before[n] != after[n])
            self._say(("value", shown, changed))
        except BaseException as error:  # noqa: BLE001
            if len(self._results) < self._said:
                self._results.append(None)
            self._say(self._raised(error))

    def _act(self, kind: str, name: str, args: Any, options: Any) -> Any:
        """One of the kinds of step, see `steps.py`."""
        if kind == "call":
            return self._named(name)(*args, **options)
        if kind == "name":
            return self._named(name)
        if kind == "method":
            return getattr(args[0], name)(*args[1:], **options)
        if kind == "get":
            return getattr(args[0], name)
        if kind == "set":
            return setattr(args[0], name, args[1])
        return _OPERATIONS[name](*args)

    def _named(self, name: str) -> Any:
        if name in self._namespace:
            return self._namespace[name]
        raise NameError(f"name {name!r} is not defined")

    def _drain(self, value: Iterator[Any]) -> tuple[Any, Drained]:
        """An iterator to go on with, and what to say of it."""
        items = list(itertools.islice(value, MAX_DRAINED + 1))
        return itertools.chain(items, value), Drained(items[:MAX_DRAINED], len(items) <= MAX_DRAINED)

    def _image(self, value: Any) -> bytes:
        """What to compare to see whether a call has changed its argument."""
        if type(value) not in _MUTABLE:
            return b""
        try:
            return encode(value, self._refer)
        except TooLarge:
            return b""

    def _refer(self, value: Any) -> bytes:
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)  # kept, so that its id stays its own
        name = type(value).__name__[:80].encode("utf-8", "surrogatepass")
        return b"X" + SIZE.pack(number) + SIZE.pack(len(name)) + name

    def _resolve(self, tag: bytes, number: int, name: str) -> Any:
        return self._results[number] if tag == b"R" else self._objects[number]

    def _raised(self, error: BaseException) -> tuple[Any, ...]:
        try:
            words = str(error)[:MAX_WORDS]
        except BaseException:  # noqa: BLE001
            words = ""
        bases = tuple(
            base.__name__ for base in type(error).__mro__ if getattr(builtins, base.__name__, None) is base
        )
        return ("raised", type(error).__name__, words, bases)

    def _say(self, message: tuple[Any, ...]) -> None:
        try:
            data = encode(message, self._refer)
        except TooLarge:
            is_changed = message[0] == "value" and message[2]
            data = encode(("large", "" if is_changed else self._digest(message[1]), ()), self._refer)
        data = SIZE.pack(len(data)) + data
        while data:
            data = data[_write(CHANNEL, data) :]
        self._said += 1

    def _digest(self, value: Any) -> str:
        """What a large value can be compared by; empty when it is too large for that, too."""
        try:
            return hashlib.sha256(encode(value, self._refer, MAX_DIGESTED)).hexdigest()
        except TooLarge:
            return ""

    def end(self, count: int) -> None:
        self._say(("end", count))
        _exit(0)  # what the program left for its end, threads and handlers, is no part of any test


def drive(steps: list[bytes]) -> None:
    own = globals()  # a program may change builtins, and this file goes on with what they were
    own.update({name: value for name, value in vars(builtins).items() if name not in own})
    driver = Driver()
    taken = steps if driver.load("program.py") else []
    for step in taken:
        driver.take(step)
    driver.end(len(taken))
