"""Observation mode for Python: which steps to take inside, and what the tests say of what came back. Pure.

Tests are interpreted outside the sandbox, against what the program is known to have said. As long as something is
not known, guesses lead the way and every step is noted; the steps then run inside, and the tests are interpreted
again. A verdict is given only by an interpretation that had nothing to guess.
"""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from soda_jobs.sandbox.diagnostics import Reading
from soda_jobs.sandbox.oracle.codec import Garbled
from soda_jobs.sandbox.oracle.scope import Folder
from soda_jobs.sandbox.oracle.session import Ended, Session
from soda_jobs.sandbox.oracle.statements import Interpreter
from soda_jobs.sandbox.oracle.values import Blocked, Failed, NotSplittable, Stopped
from soda_jobs.sandbox.runtimes import python_run

_MAX_TESTS: Final = 4 << 20
_LEFT_OUT: Final = ("from __future__", "from soda_jobs")  # lines of the driver that make sense only here


def failure(name: str, words: str) -> Reading:
    """The reading of an exception, as of the same exception in a run of the program with its tests."""
    line = (words.splitlines() or [""])[0]
    return python_run(f"Traceback (most recent call last):\n{name}: {line}", 1, True)


@dataclass(frozen=True)
class Exploration:
    """`reading` is the verdict, None when `steps` must be taken for one; `is_over` when an answer was missing.
    `is_shown`: see Session."""

    steps: tuple[bytes, ...]
    reading: Reading | None = None
    is_over: bool = False
    is_shown: bool = False


@dataclass(frozen=True)
class Prepared:
    """Tests made ready; `shadowed` are builtins that they must mean as the program's, `first` needs no answers.

    `memory` keeps what their own functions gave, where that depends on arguments alone.
    """

    tree: ast.Module
    seed: str
    shadowed: frozenset[str]
    first: Exploration = Exploration(())
    memory: dict[Any, bytes] = field(default_factory=dict)


@functools.lru_cache(maxsize=256)
def prepare(tests: str, given: str = "") -> Prepared | str:
    """Tests made ready once for all programs; or, in a few words, why they cannot be judged outside.

    A helper that the task gave, such as HumanEval's `poly`, is the tests' own: a program might bring another.
    """
    if len(tests) > _MAX_TESTS:
        return "it is too long"
    try:
        tree = Folder().visit(ast.parse(tests))
        tree.body[:0] = _helpers(given)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "it cannot be read"
    seed = hashlib.sha256(tests.encode("utf-8", "surrogatepass")).hexdigest()
    for shadowed in (frozenset[str](), _called_builtins(tree)):
        prepared = Prepared(tree, seed, shadowed)
        try:
            first = explore(prepared, Session())
        except NotSplittable as reason:
            return str(reason)
        if first.steps:
            return replace(prepared, first=first)
    return "it calls nothing of the program"


def _helpers(given: str) -> list[ast.stmt]:
    """The functions of a text that give something back, but for the last, which is the one to be completed."""
    try:
        body = ast.parse(given).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    functions = [node for node in body if isinstance(node, ast.FunctionDef) and not node.decorator_list]
    return [item for item in functions[:-1] if any(isinstance(node, ast.Return) for node in ast.walk(item))]


def _called_builtins(tree: ast.Module) -> frozenset[str]:
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return frozenset(func.id for func in calls if isinstance(func, ast.Name) and hasattr(builtins, func.id))


def explore(tests: Prepared, session: Session) -> Exploration:
    """Interpret tests with what is known. Raises NotSplittable."""
    reading: Reading | None = Reading("pass", "")
    is_over = False
    try:
        Interpreter(session, tests.seed, tests.shadowed, tests.memory).run(tests.tree)
    except Blocked:
        reading = None
    except Ended:
        reading, is_over = None, True
    except Failed as error:
        reading = Reading("logic", f"AssertionError: {error}")
    except Stopped as error:
        reading = failure(error.name, error.words)
    except (RecursionError, MemoryError, Garbled):
        raise NotSplittable("it goes too deep") from None
    except Exception as error:  # noqa: BLE001 - what tests raise on a program's values is the program's failure
        reading = None if session.unknown is not None else failure(type(error).__name__, str(error))
    known = None if session.unknown is not None else reading
    return Exploration(tuple(session.asked), known, is_over, session.is_shown)


def driver(steps: Sequence[bytes]) -> str:
    """The program to run inside: it loads program.py and takes the steps."""
    return f"{_inside()}\n\ndrive({list(steps)!r})\n"


@functools.cache
def _inside() -> str:
    codec, own = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("codec.py", "driver.py"))
    lines = own.splitlines(keepends=True)
    return codec + "".join(line for line in lines if not line.startswith(_LEFT_OUT))
