"""Names of tests, literals made ready, and the door to the program."""

from __future__ import annotations

import ast
import marshal
from dataclasses import dataclass, field
from typing import Any, Protocol


class World(Protocol):
    """Where the program is: a step is taken and its value comes back, or an Unknown. Raises Stopped."""

    def step(self, kind: str, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any: ...

    def taken(self) -> int: ...

    def is_guessing(self, since: int) -> bool: ...


@dataclass
class Scope:
    names: dict[str, Any] = field(default_factory=dict)
    parent: Scope | None = None
    shared: set[str] = field(default_factory=set)  # what `global` names

    def find(self, name: str) -> Any:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        raise KeyError(name)


@dataclass(frozen=True)
class Frozen:
    """A literal made ready to be made again."""

    data: bytes

    def __repr__(self) -> str:
        return repr(marshal.loads(self.data))


class Folder(ast.NodeTransformer):
    """Large literals of plain values become one node each."""

    def visit_literal(self, node: ast.expr) -> ast.AST:
        try:
            return ast.copy_location(ast.Constant(value=Frozen(marshal.dumps(ast.literal_eval(node)))), node)  # type: ignore[arg-type]
        except (ValueError, TypeError):
            return self.generic_visit(node)

    visit_List = visit_Dict = visit_Set = visit_literal  # noqa: N815


@dataclass(frozen=True, eq=False)
class Function:
    """A function of the tests."""

    name: str
    arguments: ast.arguments
    body: list[ast.stmt] | ast.expr
    scope: Scope
    defaults: tuple[Any, ...]
    keyword_defaults: dict[str, Any]
    is_pure: bool = False
