"""What the interpreter of tests computes with besides plain values."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from soda_jobs.sandbox.oracle.codec import TooLarge, encode
from soda_jobs.sandbox.oracle.driver import MAX_DIGESTED


class NotSplittable(BaseException):
    """These tests cannot be judged from observations alone; the message says why in a few words."""


class Blocked(BaseException):
    """What comes next depends on an observation that is not there yet."""


class Touched(BaseException):
    """An operation has met an unknown value, so that its result is unknown too."""


class Stopped(Exception):
    """The program has raised: `name` is the class, `bases` the builtin classes that it derives from."""

    def __init__(self, name: str, words: str, bases: tuple[str, ...]) -> None:
        super().__init__(words)
        self.name, self.words, self.bases = name, words, bases


class Failed(AssertionError):
    """A check of the tests has failed; the message says which, for a reader."""


def _touch(*_: Any) -> NoReturn:
    raise Touched


class Unknown:
    """A value that the program has yet to say. `ref` is the step that says it; None for what is computed from it.

    `guess` is how a condition on it is expected to come out. A wrong guess costs another run, never a wrong
    verdict. `is_foreign` says that it is likely to be of a class of the program's own.
    """

    __slots__ = ("guess", "is_foreign", "ref")

    def __init__(self, ref: int | None = None, *, guess: bool = True, is_foreign: bool = False) -> None:
        self.ref, self.guess, self.is_foreign = ref, guess, is_foreign

    def __copy__(self) -> Unknown:
        return self

    def __deepcopy__(self, _: Any) -> Unknown:
        return self


_DUNDERS: Final = (
    *("eq", "ne", "lt", "le", "gt", "ge", "hash", "bool", "len", "iter", "next", "contains", "getitem", "setitem"),
    *("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "floordiv", "rfloordiv", "mod", "rmod"),
    *("pow", "rpow", "and", "rand", "or", "ror", "xor", "rxor", "lshift", "rlshift", "rshift", "rrshift"),
    *("divmod", "rdivmod", "neg", "pos", "abs", "invert", "round", "trunc", "floor", "ceil", "int", "float"),
    *("index", "complex", "str", "repr", "format", "reversed", "matmul", "rmatmul", "call", "delitem", "bytes"),
)
for _name in _DUNDERS:
    setattr(Unknown, f"__{_name}__", _touch)


class Foreign:
    """A value of a type that is not plain, known by its number inside. It equals nothing."""

    __slots__ = ("name", "number")

    def __init__(self, number: int, name: str) -> None:
        self.number, self.name = number, name

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Foreign):
            raise NotSplittable("it compares two objects of the program with each other")
        return False

    def __hash__(self) -> int:
        return hash(self.number)

    def __deepcopy__(self, _: Any) -> NoReturn:
        raise NotSplittable("it copies an object of the program")

    def __copy__(self) -> NoReturn:
        self.__deepcopy__(None)


def _refuse(*_: Any) -> NoReturn:
    raise NotSplittable("it computes with an object of the program")


for _name in _DUNDERS:
    if _name not in ("eq", "ne", "hash"):
        setattr(Foreign, f"__{_name}__", _refuse)


class Large:
    """A value too large to be sent, known by the digest of its encoding. All it can say is what it equals."""

    __slots__ = ("digest",)

    def __init__(self, digest: str) -> None:
        self.digest = digest

    def __eq__(self, other: object) -> bool:
        try:
            if isinstance(other, Large):
                mine, its = self.digest, other.digest
            else:
                mine, its = self.digest, hashlib.sha256(encode(other, _refuse, MAX_DIGESTED)).hexdigest()
        except TooLarge:
            mine, its = "", ""
        if mine and mine == its:
            return True
        raise NotSplittable("the program returns too large a value")

    def __hash__(self) -> int:
        raise NotSplittable("the program returns too large a value")


for _name in _DUNDERS:
    if _name not in ("eq", "ne", "hash"):
        setattr(Large, f"__{_name}__", _refuse)


@dataclass(frozen=True, slots=True)
class Own:
    """A name that the program defines, not looked at yet."""

    name: str


MAX_ITEMS: Final = 1_000_000
MAX_BITS: Final = 1 << 22
MAX_TEXT: Final = 8_000_000


def short(value: Any, limit: int = 80) -> str:
    """A value for a reader, on one line. Never raises for a plain value, however deep."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # very deep, or an integer of too many digits to print
        text = f"a {type(value).__name__} too large to print"
    except (Touched, NotSplittable):
        text = f"a {value.name} object" if isinstance(value, Foreign) else f"a {type(value).__name__} with objects"
    return text if len(text) <= limit else text[: limit - 1] + "…"
