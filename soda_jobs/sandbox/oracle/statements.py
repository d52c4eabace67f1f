"""Statements of tests, run outside the sandbox: what they assert is decided here, on what the program has said."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, Final

from soda_jobs.sandbox.oracle import modules
from soda_jobs.sandbox.oracle.calls import Calls
from soda_jobs.sandbox.oracle.library import fits
from soda_jobs.sandbox.oracle.natives import member
from soda_jobs.sandbox.oracle.scope import Scope
from soda_jobs.sandbox.oracle.values import Blocked, Failed, Foreign, NotSplittable, Stopped, Unknown, short

_MAX_SOURCE: Final = 120


class _Break(BaseException):
    pass


class _Continue(BaseException):
    pass


class _Return(BaseException):
    def __init__(self, value: Any) -> None:
        self.value = value


class Interpreter(Calls):
    """`run(tests)`. Raises Failed, Stopped or any exception that the tests end with; Blocked; NotSplittable."""

    def run(self, tree: ast.Module) -> None:
        self._names = Scope()
        self._block(tree.body, self._names)

    def run_body(self, body: list[ast.stmt], scope: Scope) -> Any:
        try:
            self._block(body, scope)
        except _Return as found:
            return found.value
        return None

    def _block(self, body: list[ast.stmt], scope: Scope) -> None:
        for statement in body:
            kind = type(statement).__name__
            execute: Callable[[Any, Scope], None] | None = getattr(self, f"_do_{kind.lower()}", None)
            if execute is None:
                raise NotSplittable(f"it has {kind}")
            execute(statement, scope)

    # -- checks --

    def _do_assert(self, node: ast.Assert, scope: Scope) -> None:
        self.compared = None
        value = self.plain(node.test, scope)
        if self.truth(value):
            return
        if isinstance(value, Unknown):
            return  # a guess; the value will tell
        said = "" if node.msg is None else f" ({short(self.plain(node.msg, scope))})"
        raise Failed(f"{_source(node)}{self._shown(node.test, value)}{said}")

    def _shown(self, test: ast.expr, value: Any) -> str:
        if isinstance(test, ast.Compare) and self.compared is not None:
            return f": left is {short(self.compared[0])}"
        return f": it is {short(value)}"

    def _do_raise(self, node: ast.Raise, scope: Scope) -> None:
        if node.exc is None:
            raise NotSplittable("it raises an exception again")
        error = self.plain(node.exc, scope)
        if isinstance(error, type) and issubclass(error, BaseException):
            error = error()
        if isinstance(error, Exception):
            raise error
        if isinstance(error, Unknown):
            raise Blocked
        raise NotSplittable("it raises an object of the program")

    def _do_try(self, node: ast.Try, scope: Scope) -> None:
        """An assertion that fails before the program has spoken may be one that an exception would skip."""
        taken = self.world.taken()
        try:
            try:
                self._block(node.body, scope)
            except Exception as error:
                handler = self._handler(node, error, scope)
                if handler is None and isinstance(error, AssertionError) and self.world.is_guessing(taken):
                    handler = node.handlers[0] if node.handlers else None
                if handler is None:
                    raise
                if handler.name is not None:
                    scope.names[handler.name] = error
                self._block(handler.body, scope)
            else:
                self._block(node.orelse, scope)
        finally:
            self._block(node.finalbody, scope)

    def _handler(self, node: ast.Try, error: Exception, scope: Scope) -> ast.ExceptHandler | None:
        return next((item for item in node.handlers if self._catches(item.type, error, scope)), None)

    def _catches(self, kind: ast.expr | None, error: Exception, scope: Scope) -> bool:
        if kind is None:
            return True
        if isinstance(kind, ast.Tuple):
            return any(self._catches(item, error, scope) for item in kind.elts)
        try:
            wanted = self.value(kind, scope)
        except NotSplittable:
            wanted = None
        if not isinstance(wanted, type):  # a class of the program, known by its name
            return isinstance(error, Stopped) and ast.unparse(kind).rpartition(".")[2] == error.name
        if isinstance(error, Stopped):
            return wanted.__name__ in error.bases
        return isinstance(error, wanted)

    # -- names --

    def bind(self, target: ast.expr, value: Any, scope: Scope) -> None:
        if isinstance(target, ast.Name):
            (self._names if target.id in scope.shared else scope).names[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            self._unpack(target, value, scope)
        elif isinstance(target, ast.Subscript):
            self._set_item(target, value, scope)
        elif isinstance(target, ast.Attribute):
            base = self.plain(target.value, scope)
            if not isinstance(base, Foreign) and (not isinstance(base, Unknown) or base.ref is None):
                raise NotSplittable("it sets an attribute")
            self.world.step("set", target.attr, (base, self.seen(value)), {})
        else:
            raise NotSplittable(f"it assigns to {type(target).__name__}")

    def _unpack(self, target: ast.Tuple | ast.List, value: Any, scope: Scope) -> None:
        count = len(target.elts)
        star = next((n for n, item in enumerate(target.elts) if isinstance(item, ast.Starred)), None)
        if isinstance(value, Unknown) and star is None:
            found: list[Any] = [Unknown() for _ in range(count)]
        else:
            found = list(self.items(value))
        if star is not None:
            after = count - star - 1
            if len(found) < count - 1:
                raise ValueError(f"not enough values to unpack (expected at least {count - 1}, got {len(found)})")
            end = len(found) - after
            found = [*found[:star], found[star:end], *found[end:]]
        if len(found) != count:
            word = "too many" if len(found) > count else "not enough"
            raise ValueError(f"{word} values to unpack (expected {count})")
        for item, part in zip(target.elts, found, strict=True):
            self.bind(item.value if isinstance(item, ast.Starred) else item, part, scope)

    def _set_item(self, target: ast.Subscript, value: Any, scope: Scope) -> None:
        base, key = self.plain(target.value, scope), self.plain(target.slice, scope)
        if isinstance(base, Foreign):
            self.world.step("op", "setitem", (base, key, self.seen(value)), {})
        elif isinstance(base, Unknown) or isinstance(key, Unknown):
            raise Blocked
        else:
            base[key] = self.seen(value)

    def _do_assign(self, node: ast.Assign, scope: Scope) -> None:
        value = self.value(node.value, scope)
        for target in node.targets:
            self.bind(target, value, scope)

    def _do_annassign(self, node: ast.AnnAssign, scope: Scope) -> None:
        if node.value is not None:
            self.bind(node.target, self.value(node.value, scope), scope)

    def _do_augassign(self, node: ast.AugAssign, scope: Scope) -> None:
        old, new = self.plain(node.target, scope), self.plain(node.value, scope)
        if isinstance(old, list) and isinstance(node.op, ast.Add) and isinstance(new, list | tuple):
            fits(len(old) + len(new))
            old.extend(new)
        else:
            self.bind(node.target, self.binary(type(node.op), old, new), scope)

    def _do_global(self, node: ast.Global, scope: Scope) -> None:
        scope.shared.update(node.names)

    def _do_import(self, node: ast.Import, scope: Scope) -> None:
        for item in node.names:
            scope.names[item.asname or item.name.partition(".")[0]] = self._module(item.name)

    def _do_importfrom(self, node: ast.ImportFrom, scope: Scope) -> None:
        module = self._module(node.module or ".")
        for item in node.names:
            if item.name == "*":
                raise NotSplittable(f"it imports everything of {module.name}")
            scope.names[item.asname or item.name] = member(module, item.name)

    def _module(self, name: str) -> modules.Module:
        found = modules.find(name, self._seed)
        if found is None:
            raise NotSplittable(f"it imports {name}")
        return found

    def _do_functiondef(self, node: ast.FunctionDef, scope: Scope) -> None:
        if node.decorator_list or any(isinstance(item, ast.Yield | ast.YieldFrom) for item in ast.walk(node)):
            raise NotSplittable("it has a decorator or a generator")
        scope.names[node.name] = self.function(node.name, node.args, node.body, scope)

    # -- the order of things --

    def _do_expr(self, node: ast.Expr, scope: Scope) -> None:
        self.value(node.value, scope)

    def _do_pass(self, _: ast.Pass, __: Scope) -> None:
        pass

    def _do_return(self, node: ast.Return, scope: Scope) -> None:
        raise _Return(None if node.value is None else self.value(node.value, scope))

    def _do_break(self, _: ast.Break, __: Scope) -> None:
        raise _Break

    def _do_continue(self, _: ast.Continue, __: Scope) -> None:
        raise _Continue

    def _do_if(self, node: ast.If, scope: Scope) -> None:
        self._block(node.body if self.truth(self.value(node.test, scope)) else node.orelse, scope)

    def _do_for(self, node: ast.For, scope: Scope) -> None:
        for item in self.items(self.value(node.iter, scope)):
            self.bind(node.target, item, scope)
            try:
                self._block(node.body, scope)
            except _Break:
                return
            except _Continue:
                continue
        self._block(node.orelse, scope)

    def _do_while(self, node: ast.While, scope: Scope) -> None:
        while True:
            test = self.value(node.test, scope)
            if isinstance(test, Unknown):
                raise Blocked
            if not self.truth(test):
                break
            try:
                self._block(node.body, scope)
            except _Break:
                return
            except _Continue:
                continue
        self._block(node.orelse, scope)


def _source(node: ast.Assert) -> str:
    text = " ".join(ast.unparse(node.test).split())
    return text if len(text) <= _MAX_SOURCE else text[: _MAX_SOURCE - 1] + "…"
