"""The builtins and methods that tests may use, each bounded, so that no test can hold the judge up. A table."""

from __future__ import annotations

import ast
import builtins
import collections
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from soda_jobs.sandbox.oracle.codec import MAX_ALIKE
from soda_jobs.sandbox.oracle.values import MAX_BITS, MAX_ITEMS, MAX_TEXT, NotSplittable

WIDE: Final = re.compile(r"\d{5,}")


def fits(size: int, limit: int = MAX_ITEMS) -> None:
    """Raises NotSplittable when a value would grow too large."""
    if size > limit:
        raise NotSplittable("it builds too large a value")


def _size(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 0


def _sizes(*values: Any, **_: Any) -> None:
    fits(sum(map(_size, values)), MAX_TEXT)
    for value in values:
        if isinstance(value, int):
            fits(value.bit_length(), _MANY_BITS)
        if isinstance(value, range):
            fits(len(value))


def hashed(items: Any = (), *_: Any) -> None:
    """Refuses what would make a set take for ever: many values that differ and share a hash."""
    _sizes(items)
    if _size(items) > MAX_ALIKE and isinstance(items, list | tuple):
        counts = collections.Counter(sorted(map(hash, items)))
        alike = {value for value, count in counts.items() if count > MAX_ALIKE}
        first: dict[int, Any] = {}
        if alike and any(first.setdefault(hash(item), item) != item for item in items if hash(item) in alike):
            raise NotSplittable("it makes a set of values that share a hash")


def _summed(items: Any = (), start: Any = 0) -> None:
    _sizes(items)
    if not isinstance(start, int | float | complex):
        fits(_size(items), 5000)


def _count_first(count: Any = 0, *_: Any, **__: Any) -> None:
    fits(abs(count) if isinstance(count, int) else _size(count))


def _power(base: Any, exponent: Any, modulus: Any = None) -> None:
    if isinstance(base, int) and isinstance(exponent, int):
        size = modulus.bit_length() * 32 if isinstance(modulus, int) else base.bit_length() * abs(exponent)
        fits(size, MAX_BITS)


def _iterated(_: Any, *sentinel: Any) -> None:
    if sentinel:
        raise NotSplittable("it calls iter with a function")


def _spec(*words: Any, **_: Any) -> None:
    if any(isinstance(word, str) and WIDE.search(word) for word in words[1:2]):
        raise NotSplittable("it formats with too large a width")


_MANY_BITS: Final = 1 << 20  # of an integer that is divided, or goes into a function

Guard = Callable[..., None]

PLAIN: Final[dict[str, tuple[Any, Guard]]] = {
    **{
        name: (getattr(builtins, name), _sizes)
        for name in (
            *("abs", "all", "any", "ascii", "bin", "bool", "chr", "complex", "dict", "divmod", "enumerate"),
            *("float", "frozenset", "hex", "int", "iter", "len", "list", "max", "min", "next", "oct", "ord"),
            *("range", "repr", "reversed", "round", "set", "slice", "sorted", "str", "sum", "tuple", "zip"),
        )
    },
    "range": (range, lambda *_: None),
    "len": (len, lambda *_: None),
    "iter": (iter, _iterated),
    "set": (set, hashed),
    "frozenset": (frozenset, hashed),
    "sum": (sum, _summed),
    "bytes": (bytes, _count_first),
    "bytearray": (bytearray, _count_first),
    "pow": (pow, _power),
    "format": (format, _spec),
    "print": (lambda *_, **__: None, lambda *_, **__: None),
}

TYPES: Final[dict[str, type]] = {
    item.__name__: item
    for item in (
        *(bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, object),
        *(type, slice),
    )
}

ERRORS: Final[dict[str, type[BaseException]]] = {
    name: item
    for name, item in vars(builtins).items()
    if isinstance(item, type) and issubclass(item, BaseException) and not name.startswith("_")
}


# -- methods ------------------------------------------------------------------------------------------------------


def _joined(text: Any, items: Iterable[Any] = ()) -> None:
    found = list(items) if isinstance(items, list | tuple | set | frozenset | dict | str) else []
    fits(sum(map(_size, found)) + _size(text) * len(found), MAX_TEXT)


def _replaced(text: Any, old: Any = "", new: Any = "", *_: Any) -> None:
    fits(_size(text) + (_size(text) + 1) * _size(new), MAX_TEXT)


def _widened(text: Any, width: Any = 0, *_: Any) -> None:
    fits(width if isinstance(width, int) else 0)


def _formatted(text: Any, *_: Any, **__: Any) -> None:
    if isinstance(text, str) and (WIDE.search(text) or re.search(r"\{[^{}:!]*[.\[]|:[^{}]*\{", text)):
        raise NotSplittable("it formats with fields that are not plain")


_ANY: Final[Guard] = _sizes
_TEXT: Final = (
    *("capitalize", "casefold", "count", "encode", "endswith", "find", "index", "isalnum", "isalpha", "isascii"),
    *("isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle"),
    *("isupper", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "rfind", "rindex"),
    *(
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "swapcase",
        "title",
        "upper",
    ),
)
_TEXT_GUARDED: Final[dict[str, Guard]] = {
    "join": _joined,
    "replace": _replaced,
    **{name: _widened for name in ("center", "ljust", "rjust", "zfill")},
    "format": _formatted,
}
_SETS: Final = (
    *("copy", "difference", "intersection", "isdisjoint", "issubset", "issuperset", "symmetric_difference"),
    "union",
)
_LISTS: Final = (
    "append",
    "clear",
    "copy",
    "count",
    "extend",
    "index",
    "insert",
    "pop",
    "remove",
    "reverse",
    "sort",
)
_DICTS: Final = ("clear", "copy", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values")


def _table(names: Iterable[str]) -> dict[str, Guard]:
    return {name: _ANY for name in names}


METHODS: Final[dict[type, dict[str, Guard]]] = {
    str: {**_table(_TEXT), **_TEXT_GUARDED},
    bytes: {
        **_table(name for name in _TEXT if hasattr(bytes, name)),
        **{name: guard for name, guard in _TEXT_GUARDED.items() if name != "format"},
        **_table(("decode", "hex")),
    },
    list: _table(_LISTS),
    tuple: _table(("count", "index")),
    range: _table(("count", "index")),
    dict: _table(_DICTS),
    set: _table((*_SETS, "add", "clear", "discard", "pop", "remove", "update", "difference_update")),
    frozenset: _table(_SETS),
    int: _table(("bit_length", "bit_count", "conjugate")),
    bool: _table(("bit_length",)),
    float: _table(("is_integer", "as_integer_ratio", "hex")),
    complex: _table(("conjugate",)),
    collections.OrderedDict: _table((*_DICTS, "move_to_end")),
    collections.Counter: _table((*_DICTS, "most_common", "total")),
    collections.deque: _table((*_LISTS, "appendleft", "popleft", "rotate")),
}
FIELDS: Final[dict[type, tuple[str, ...]]] = {
    complex: ("real", "imag"),
    int: ("real", "imag", "numerator", "denominator"),
    float: ("real", "imag"),
    range: ("start", "stop", "step"),
}
# A name of these on a value yet unknown is expected to be a method of a plain value, and waits for the value.
PLAIN_METHODS: Final = frozenset(name for table in METHODS.values() for name in table)


# -- operators ----------------------------------------------------------------------------------------------------


def _times(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        fits(left.bit_length() + right.bit_length(), MAX_BITS)
    for one, other in ((left, right), (right, left)):
        if isinstance(other, int) and hasattr(one, "__len__"):
            fits(len(one) * max(other, 0))


def _shift(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        fits(left.bit_length() + max(right, 0), MAX_BITS)


def _percent(left: Any, right: Any) -> None:
    _divided(left, right)
    if isinstance(left, str | bytes):
        text = left if isinstance(left, str) else left.decode("latin-1")
        fits(_size(right), 1000)
        if WIDE.search(text) or re.search(r"%[^a-zA-Z%]*\*", text):
            raise NotSplittable("it formats with too large a width")


def _divided(left: Any, right: Any) -> None:
    if isinstance(left, int):
        fits(left.bit_length(), _MANY_BITS)


def _plus(left: Any, right: Any) -> None:
    fits(_size(left) + _size(right), MAX_TEXT if isinstance(left, str | bytes) else MAX_ITEMS)


OPERATOR_GUARDS: Final[dict[str, Guard]] = {
    "mul": _times,
    "pow": _power,
    "lshift": _shift,
    "mod": _percent,
    "floordiv": _divided,
    "truediv": _divided,
    "add": _plus,
}

BINARY: Final[Mapping[type, str]] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "truediv",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
    ast.Pow: "pow",
    ast.BitAnd: "and_",
    ast.BitOr: "or_",
    ast.BitXor: "xor",
    ast.LShift: "lshift",
    ast.RShift: "rshift",
}
UNARY: Final[Mapping[type, str]] = {ast.USub: "neg", ast.UAdd: "pos", ast.Invert: "invert"}
COMPARE: Final[Mapping[type, str]] = {
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
}
