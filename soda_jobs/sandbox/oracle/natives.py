"""What of Python itself tests may name: functions with their bounds, members of modules, attributes."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from soda_jobs.sandbox.oracle.library import ERRORS, PLAIN, TYPES, Guard
from soda_jobs.sandbox.oracle.modules import Module, NoValue
from soda_jobs.sandbox.oracle.values import NotSplittable

# Functions that the interpreter answers itself, because they take functions or ask about types.
SPECIAL: Final = ("isinstance", "type", "map", "filter", "callable", "hash")
REFUSED: Final = frozenset(vars(builtins)) - {*PLAIN, *TYPES, *ERRORS, *SPECIAL, "__name__"}


@dataclass(frozen=True, slots=True)
class Native:
    """A builtin function by its name, or a member of a module with its function."""

    name: str
    function: Callable[..., Any] | None = None

    def entry(self) -> tuple[Callable[..., Any], Guard]:
        if self.function is not None:
            return self.function, PLAIN["list"][1]
        return PLAIN[self.name]


def is_native(name: str) -> bool:
    return name in PLAIN or name in SPECIAL


def member(module: Module, name: str) -> Any:
    """Raises NotSplittable for what is not in the table."""
    try:
        found = module.members[name]
    except KeyError:
        raise NotSplittable(f"it uses {module.name}.{name}") from None
    return Native(name, found) if callable(found) and found is not NoValue else found


def no_attribute(value: Any, name: str) -> BaseException:
    """What to raise: the error that Python would, or NotSplittable where Python knows the attribute."""
    is_plain = not isinstance(value, type) and type(value).__module__ in ("builtins", "collections")
    if is_plain and not hasattr(value, name):
        return AttributeError(f"'{type(value).__name__}' object has no attribute '{name}'")
    return NotSplittable(f"it uses the attribute {name}")
