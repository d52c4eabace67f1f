"""The modules that tests may import, each as a table of what of it is safe and bounded."""

from __future__ import annotations

import cmath
import collections
import copy
import functools
import itertools
import math
import random
import statistics
import string
from collections.abc import Callable, Iterable
from typing import Any, Final

from soda_jobs.sandbox.oracle.library import METHODS, fits
from soda_jobs.sandbox.oracle.values import MAX_BITS, MAX_ITEMS, NotSplittable


class Module:
    """A module as tests see it: `members` by name."""

    def __init__(self, name: str, members: dict[str, Any]) -> None:
        self.name, self.members = name, members


class NoValue:
    """A type that no plain value has, such as numpy.ndarray."""


# -- math ---------------------------------------------------------------------------------------------------------


def _small(function: Callable[..., Any], most: int) -> Callable[..., Any]:
    def call(*numbers: Any) -> Any:
        fits(max((abs(number) for number in numbers if isinstance(number, int)), default=0), most)
        return function(*numbers)

    return call


def _prod(items: Iterable[Any], *, start: Any = 1) -> Any:
    found = list(items)
    fits(sum(item.bit_length() for item in found if isinstance(item, int)), MAX_BITS)
    return math.prod(found, start=start)


_MATH: Final[dict[str, Any]] = {
    **{name: item for name, item in vars(math).items() if not name.startswith("_")},
    "factorial": _small(math.factorial, 5000),
    "comb": _small(math.comb, 5000),
    "perm": _small(math.perm, 5000),
    "prod": _prod,
}


# -- itertools ----------------------------------------------------------------------------------------------------


def _finite(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        fits(max((item for item in options.values() if isinstance(item, int)), default=0), 1000)
        found = list(itertools.islice(function(*args, **options), MAX_ITEMS + 1))
        fits(len(found))
        return iter(found)

    return call


_ITERTOOLS: Final[dict[str, Any]] = {
    name: _finite(getattr(itertools, name))
    for name in (
        *(
            "accumulate",
            "chain",
            "combinations",
            "combinations_with_replacement",
            "compress",
            "islice",
            "pairwise",
        ),
        *("permutations", "product", "repeat", "starmap", "takewhile", "dropwhile", "zip_longest"),
    )
}


# -- random: the draws are the tests', so they are made here, the same for every program --------------------------

_RANDOM: Final = ("random", "randint", "randrange", "choice", "choices", "sample", "shuffle", "uniform", "gauss")


def _drawn(_: Any, *args: Any, **options: Any) -> None:
    for number in (*args, *options.values()):
        fits(number if isinstance(number, int) else 0, 1 << 64)


def _sampled(_: Any, *args: Any, **options: Any) -> None:
    for number in (*args, *options.values()):
        fits(number if isinstance(number, int) else 0)


METHODS[random.Random] = {name: _sampled if name in ("choices", "sample") else _drawn for name in _RANDOM}


def _generator(seed: Any = None) -> random.Random:
    if seed is None or not isinstance(seed, int | str | float):
        return random.Random(0)
    return random.Random(seed)


def _refuse_seed(*_: Any) -> None:
    raise NotSplittable("it seeds the program's random numbers")


def _random(seed: str) -> dict[str, Any]:
    draws = random.Random(seed)

    def guarded(name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            METHODS[random.Random][name](draws, *args, **options)
            return getattr(draws, name)(*args, **options)

        return call

    return {**{name: guarded(name) for name in _RANDOM}, "Random": _generator, "seed": _refuse_seed}


# -- numpy, as far as tests without arrays use it -----------------------------------------------------------------


def _shape(value: Any) -> tuple[int, ...]:
    """Raises TypeError for what is not numbers, ValueError for lists of different lengths."""
    if isinstance(value, bool | int | float | complex):
        return ()
    if not isinstance(value, list | tuple):
        raise TypeError(f"a {type(value).__name__} is not numbers")
    shapes = {_shape(item) for item in value}
    if len(shapes) > 1:
        raise ValueError("the lists in it have different lengths")
    return (len(value), *next(iter(shapes), ()))


def _flat(value: Any) -> list[Any]:
    return [part for item in value for part in _flat(item)] if isinstance(value, list | tuple) else [value]


def _close(one: Any, other: Any, rtol: float, atol: float, equal_nan: bool) -> bool:
    if one != one or other != other:
        return equal_nan and one != one and other != other
    if one == other:
        return True
    if cmath.isinf(one) or cmath.isinf(other):
        return False
    return bool(abs(one - other) <= atol + rtol * abs(other))


def _allclose(one: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Stricter than numpy's in one thing: shapes must be equal, so that [] is not close to every number."""
    if _shape(one) != _shape(other):
        return False
    pairs = zip(_flat(one), _flat(other), strict=True)
    return all(_close(left, right, rtol, atol, equal_nan) for left, right in pairs)


def _isclose(one: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    if _shape(one) or _shape(other):
        raise NotSplittable("it compares arrays")
    return _close(one, other, rtol, atol, equal_nan)


_NUMPY: Final[dict[str, Any]] = {
    "allclose": _allclose,
    "isclose": _isclose,
    "isnan": cmath.isnan,
    "isinf": cmath.isinf,
    "ndarray": NoValue,
    "float64": NoValue,
    "float32": NoValue,
    "inf": math.inf,
    "nan": math.nan,
    "pi": math.pi,
}


# -- the table ----------------------------------------------------------------------------------------------------


def _reduce(function: Any, items: Iterable[Any], *start: Any) -> Any:
    return functools.reduce(function, list(items), *start)


_TABLES: Final[dict[str, dict[str, Any]]] = {
    "math": _MATH,
    "cmath": {name: item for name, item in vars(cmath).items() if not name.startswith("_")},
    "itertools": _ITERTOOLS,
    "functools": {"reduce": _reduce},
    "collections": {
        "Counter": collections.Counter,
        "OrderedDict": collections.OrderedDict,
        "deque": collections.deque,
    },
    "copy": {"copy": copy.copy, "deepcopy": copy.deepcopy},
    "statistics": {
        name: getattr(statistics, name) for name in ("mean", "fmean", "median", "mode", "pstdev", "stdev")
    },
    "string": {name: item for name, item in vars(string).items() if isinstance(item, str) and name[0] != "_"},
    "numpy": _NUMPY,
}
_TYPING: Final = ("typing", "__future__", "collections.abc")


def find(name: str, seed: str) -> Module | None:
    """The module `name`; None when tests that import it cannot be judged outside. `seed` is for random draws."""
    if name == "random":
        return Module(name, _random(seed))
    if name in _TYPING:
        return Module(name, collections.defaultdict(lambda: NoValue))
    table = _TABLES.get(name)
    return None if table is None else Module(name, table)


def is_known(name: str) -> bool:
    return name == "random" or name in _TABLES
