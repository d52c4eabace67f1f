"""Plain values to typed bytes and back, exactly: NaN, -0.0, 10**5000, lone surrogates, any depth.

This file is also sent into sandboxes as text, so it imports nothing of ours. Values of a program's own types
become numbered foreign values, and what a subclass of a container overrides is read past.
"""

from __future__ import annotations

import collections
import struct
import sys
from collections.abc import Callable
from typing import Any

MAX_VALUE = 1 << 20  # bytes of one value
MAX_EXPONENT = 20_000
MAX_DEPTH = 500  # beyond it a value equals nothing: hashing a deep tuple would overrun the reader's stack
MAX_ALIKE = 64  # elements of one set or dict with the same hash

SIZE = struct.Struct("<I")
_FLOAT = struct.Struct("<d")
_COMPLEX = struct.Struct("<dd")


class TooLarge(Exception):
    """A value is larger than may be sent."""


class Garbled(Exception):
    """Bytes are not what the other side sends."""


class Drained:
    """What an iterator gave; `is_whole` is False when it had more."""

    def __init__(self, items: list[Any], is_whole: bool) -> None:
        self.items, self.is_whole = items, is_whole


# -- values to bytes ----------------------------------------------------------------------------------------------


def _sized(tag: bytes, data: bytes) -> bytes:
    return tag + SIZE.pack(len(data)) + data


def _int(value: int) -> bytes:
    return _sized(b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


_SCALARS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"N",
    bool: lambda value: b"T" if value else b"F",
    int: _int,
    float: lambda value: b"f" + _FLOAT.pack(value),
    complex: lambda value: b"c" + _COMPLEX.pack(value.real, value.imag),
    str: lambda value: _sized(b"s", value.encode("utf-8", "surrogatepass")),
    bytes: lambda value: _sized(b"b", value),
    bytearray: lambda value: _sized(b"B", bytes(value)),
    range: lambda value: b"r" + _int(value.start) + _int(value.stop) + _int(value.step),
}
_TYPES = {
    item.__name__: item
    for item in (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range)
}
_DICTS = ((collections.OrderedDict, b"o"), (collections.Counter, b"C"), (dict, b"d"))
_SORTED = (int, str, float, bytes)


def _pairs(value: Any) -> list[Any]:
    return [part for pair in value for part in pair]


def _set_parts(value: Any, base: Any) -> list[Any]:
    parts = list(base.__iter__(value))
    if len({type(part) for part in parts}) == 1 and type(parts[0]) in _SORTED:
        parts.sort()
    return parts


def _parts(value: Any) -> tuple[bytes, list[Any]] | None:
    """Tag and contents of a container, read past whatever a subclass overrides; None for anything else."""
    kind = type(value)  # isinstance would believe what a program's __class__ says
    if issubclass(kind, dict):
        tag = next(tag for base, tag in _DICTS if issubclass(kind, base))
        return tag, _pairs(dict.items(value))
    bases: tuple[tuple[Any, bytes], ...] = ((list, b"l"), (tuple, b"t"), (collections.deque, b"q"))
    for base, tag in bases:
        if issubclass(kind, base):
            return tag, list(base.__iter__(value))
    for base, tag in ((set, b"S"), (frozenset, b"Z")):
        if issubclass(kind, base):
            return tag, _set_parts(value, base)
    if kind is Drained:
        return b"I" if value.is_whole else b"J", value.items
    if kind is type({}.keys()):
        return b"K", list(value)
    if kind is type({}.items()):
        return b"M", _pairs(value)
    return None


def _rare(value: Any) -> bytes | None:
    """A builtin type; Decimal and Fraction, when their modules are loaded."""
    if type(value) is type and value in _TYPES.values():
        return _sized(b"y", value.__name__.encode())
    for module, name, tag in (("decimal", "Decimal", b"e"), ("fractions", "Fraction", b"g")):
        if type(value) is getattr(sys.modules.get(module), name, None):
            return _sized(tag, str(value).encode())
    return None


class _Leave:
    def __init__(self, key: int) -> None:
        self.key = key


def encode(value: Any, refer: Callable[[Any], bytes], limit: int = MAX_VALUE) -> bytes:
    """A value as bytes; `refer` gives those of what is not plain. Raises TooLarge. Depth does not matter."""
    out = bytearray()
    todo: list[Any] = [value]
    around: set[int] = set()
    while todo:
        item = todo.pop()
        scalar = _SCALARS.get(type(item))
        if scalar is not None:
            out += scalar(item)
        elif type(item) is _Leave:
            around.discard(item.key)
        elif id(item) in around or (len(around) >= MAX_DEPTH and _parts(item) is not None):
            out += b"Y"
        else:
            found = _parts(item)
            if found is None:
                out += _rare(item) or refer(item)
            else:
                tag, parts = found
                if len(parts) > limit:
                    raise TooLarge
                out += tag + SIZE.pack(len(parts))
                around.add(id(item))
                todo.append(_Leave(id(item)))
                todo.extend(reversed(parts))
        if len(out) > limit:
            raise TooLarge
    return bytes(out)


# -- bytes to values ----------------------------------------------------------------------------------------------


def _hashable(items: list[Any]) -> list[Any]:
    """Refuses elements whose equal hashes would make a set or dict take for ever."""
    if len(items) > MAX_ALIKE:
        counts = collections.Counter(sorted(map(hash, items)))
        if counts and max(counts.values()) > MAX_ALIKE:
            raise Garbled("too many elements share a hash")
    return items


def _dict(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise Garbled("a key without a value")
    return dict(zip(_hashable(items[::2]), items[1::2], strict=True))


_BUILD: dict[bytes, Callable[[list[Any]], Any]] = {
    b"l": list,
    b"t": tuple,
    b"q": collections.deque,
    b"S": lambda items: set(_hashable(items)),
    b"Z": lambda items: frozenset(_hashable(items)),
    b"d": _dict,
    b"o": lambda items: collections.OrderedDict(_dict(items)),
    b"C": lambda items: collections.Counter(_dict(items)),
    b"K": lambda items: dict.fromkeys(_hashable(items)).keys(),
    b"M": lambda items: _dict(items).items(),
    b"I": lambda items: Drained(items, True),
    b"J": lambda items: Drained(items, False),
}
_CONSTANTS = {b"N": None, b"T": True, b"F": False}


def _fraction(data: bytes) -> Any:
    import fractions

    top, _, bottom = data.decode().partition("/")
    return fractions.Fraction(int(top), int(bottom or 1))


def _decimal(data: bytes) -> Any:
    import decimal

    value = decimal.Decimal(data.decode())
    if value.is_finite() and abs(value.adjusted()) > MAX_EXPONENT:  # as an integer it would fill the memory
        raise Garbled("it is too large a decimal")
    return value


_READ: dict[bytes, Callable[[bytes], Any]] = {
    b"i": lambda data: int.from_bytes(data, "little", signed=True),
    b"s": lambda data: data.decode("utf-8", "surrogatepass"),
    b"b": bytes,
    b"B": bytearray,
    b"e": _decimal,
    b"g": _fraction,
    b"y": lambda data: _TYPES.get(data.decode(), object),
}


class _Reader:
    def __init__(self, data: bytes, refer: Callable[[bytes, int, str], Any]) -> None:
        self._data, self._refer, self._at = data, refer, 0

    def _take(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._data):
            raise Garbled("it ends too early")
        return self._data[self._at - size : self._at]

    def _size(self) -> int:
        size: int = SIZE.unpack(self._take(4))[0]
        return size

    def _one(self, tag: bytes) -> Any:
        if tag in _CONSTANTS:
            return _CONSTANTS[tag]
        if tag in _READ:
            return _READ[tag](self._take(self._size()))
        if tag == b"f":
            return _FLOAT.unpack(self._take(8))[0]
        if tag == b"c":
            return complex(*_COMPLEX.unpack(self._take(16)))
        if tag == b"r":
            return range(*(self._one(self._take(1)) for _ in range(3)))
        if tag in b"RX":
            number = self._size()
            return self._refer(tag, number, _READ[b"s"](self._take(self._size())) if tag == b"X" else "")
        if tag == b"Y":
            return self._refer(tag, 0, "a value that holds itself or is very deep")
        raise Garbled(f"{tag!r} is no kind of value")

    def read(self) -> Any:
        """One value and nothing after it."""
        waiting: list[tuple[bytes, int, list[Any]]] = []
        while True:
            tag = self._take(1)
            if tag in _BUILD:
                size = self._size()
                if size > len(self._data) - self._at:
                    raise Garbled("it ends too early")
                waiting.append((tag, size, []))
                if len(waiting) > MAX_DEPTH + 9:  # a message puts a few levels around its values
                    raise Garbled("it is nested too deeply")
            else:
                value = self._one(tag)
                if not waiting:
                    break
                waiting[-1][2].append(value)
            while waiting and len(waiting[-1][2]) == waiting[-1][1]:
                built, _, items = waiting.pop()
                value = _BUILD[built](items)
                if not waiting:
                    return self._finish(value)
                waiting[-1][2].append(value)
        return self._finish(value)

    def _finish(self, value: Any) -> Any:
        if self._at != len(self._data):
            raise Garbled("something follows the value")
        return value


def decode(data: bytes, refer: Callable[[bytes, int, str], Any]) -> Any:
    """The value of `encode`; `refer` makes what is not plain of its tag, number and type. Raises Garbled."""
    try:
        return _Reader(data, refer).read()
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise Garbled(str(error)) from error
