"""Expressions of tests, computed outside the sandbox: plain values, tabled builtins, and steps for the rest."""

from __future__ import annotations

import ast
import marshal
import operator
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from soda_jobs.sandbox.oracle import modules
from soda_jobs.sandbox.oracle.library import (
    BINARY,
    COMPARE,
    ERRORS,
    FIELDS,
    OPERATOR_GUARDS,
    TYPES,
    UNARY,
    WIDE,
    fits,
    hashed,
)
from soda_jobs.sandbox.oracle.natives import REFUSED, Native, is_native, member, no_attribute
from soda_jobs.sandbox.oracle.scope import Frozen, Scope, World
from soda_jobs.sandbox.oracle.values import Blocked, Foreign, NotSplittable, Own, Touched, Unknown

MAX_NODES: Final = 12_000_000
MAX_SECONDS: Final = 60.0
MAX_DEPTH: Final = 60

_CONVERT: Final[Mapping[int, Callable[[Any], Any]]] = {115: str, 114: repr, 97: ascii}


class Expressions:
    """`value(node, scope)`. Subclasses know statements; `world` knows the program."""

    def __init__(self, world: World, seed: str, shadowed: frozenset[str], memory: dict[Any, bytes]) -> None:
        self.world, self._seed, self._shadowed, self.memory = world, seed, shadowed, memory
        self.left = MAX_NODES
        self._deadline = time.process_time() + MAX_SECONDS
        self._evaluators: dict[type, Callable[[Any, Scope], Any]] = {}
        self.depth = 0
        self.compared: tuple[Any, Any] | None = None

    def value(self, node: ast.expr, scope: Scope) -> Any:
        self.left -= 1
        if self.left < 0 or (self.left % 256 == 0 and time.process_time() > self._deadline):
            raise NotSplittable("it takes too many steps")
        evaluate = self._evaluators.get(type(node))
        if evaluate is None:
            kind = type(node).__name__
            evaluate = getattr(self, f"_{kind.lower()}", None)
            if evaluate is None:
                raise NotSplittable(f"it has {kind}")
            self._evaluators[type(node)] = evaluate
        return evaluate(node, scope)

    def plain(self, node: ast.expr, scope: Scope) -> Any:
        """The value, where a name of the program is looked at and not passed on."""
        return self.seen(self.value(node, scope))

    def seen(self, value: Any) -> Any:
        return self.world.step("name", value.name, (), {}) if isinstance(value, Own) else value

    def truth(self, value: Any) -> bool:
        value = self.seen(value)
        if isinstance(value, Foreign):
            value = self.world.step("op", "bool", (value,), {})
        return value.guess if isinstance(value, Unknown) else bool(value)

    def items(self, value: Any) -> Iterator[Any]:
        value = self.seen(value)
        if isinstance(value, Foreign):
            value = self.world.step("op", "iter", (value,), {})
        if isinstance(value, Unknown):
            raise Blocked
        return iter(value)

    # -- leaves --

    def _constant(self, node: ast.Constant, _: Scope) -> Any:
        return marshal.loads(node.value.data) if isinstance(node.value, Frozen) else node.value

    def _name(self, node: ast.Name, scope: Scope) -> Any:
        name = node.id
        try:
            return scope.find(name)
        except KeyError:
            pass
        if name in self._shadowed:
            return Own(name)
        if name in TYPES:
            return TYPES[name]
        if name in ERRORS:
            return ERRORS[name]
        if is_native(name):
            return Native(name)
        if name == "__name__":
            return "__main__"
        if name in REFUSED:
            raise NotSplittable(f"it uses {name}")
        return Own(name)

    def _display(self, node: ast.List | ast.Tuple | ast.Set, scope: Scope) -> Any:
        found: list[Any] = []
        for item in node.elts:
            if isinstance(item, ast.Starred):
                found.extend(self.items(self.plain(item.value, scope)))
            else:
                found.append(self.plain(item, scope))
        build: Any = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return self.known(lambda: build(found))

    _list = _tuple = _set = _display

    def _dict(self, node: ast.Dict, scope: Scope) -> Any:
        found: dict[Any, Any] = {}
        for key, item in zip(node.keys, node.values, strict=True):
            if key is None:
                more = self.plain(item, scope)
                if not isinstance(more, dict):
                    raise NotSplittable("it unpacks what is not a dict")
                found.update(more)
            else:
                name = self.plain(key, scope)
                if isinstance(name, Unknown):
                    raise Blocked
                found[name] = self.plain(item, scope)
        return found

    def _joinedstr(self, node: ast.JoinedStr, scope: Scope) -> Any:
        parts = [self.plain(part, scope) for part in node.values]
        return self.known(lambda: "".join(parts))

    def _formattedvalue(self, node: ast.FormattedValue, scope: Scope) -> Any:
        value = self.plain(node.value, scope)
        spec = "" if node.format_spec is None else self.plain(node.format_spec, scope)
        if isinstance(spec, str) and WIDE.search(spec):
            raise NotSplittable("it formats with too large a width")
        convert = _CONVERT.get(node.conversion, lambda item: item)
        return self.known(lambda: format(convert(value), spec))

    # -- operators --

    def known(self, compute: Callable[[], Any], *, guess: bool = True) -> Any:
        """The result, or an Unknown when something in it is."""
        try:
            return compute()
        except Touched:
            return Unknown(guess=guess)

    def binary(self, kind: type, left: Any, right: Any) -> Any:
        name = BINARY.get(kind)
        if name is None:
            raise NotSplittable(f"it has {kind.__name__}")
        if any(isinstance(side, Foreign) for side in (left, right)):
            return self.world.step("op", name.rstrip("_"), (left, right), {})
        if isinstance(left, Unknown) or isinstance(right, Unknown):
            return Unknown()
        guard = OPERATOR_GUARDS.get(name)
        if guard is not None:
            guard(left, right)
        return self.known(lambda: getattr(operator, name)(left, right))

    def _binop(self, node: ast.BinOp, scope: Scope) -> Any:
        left = self.plain(node.left, scope)
        return self.binary(type(node.op), left, self.plain(node.right, scope))

    def _unaryop(self, node: ast.UnaryOp, scope: Scope) -> Any:
        value = self.plain(node.operand, scope)
        if isinstance(node.op, ast.Not):
            is_true = self.truth(value)
            return Unknown(guess=not is_true) if isinstance(value, Unknown) else not is_true
        if isinstance(value, Foreign) and isinstance(node.op, ast.USub):
            return self.world.step("op", "neg", (value,), {})
        return self.known(lambda: getattr(operator, UNARY[type(node.op)])(value))

    def _boolop(self, node: ast.BoolOp, scope: Scope) -> Any:
        """A guess decides whether what follows is looked at; the result is unknown when any part was."""
        value: Any = None
        is_guess = False
        for item in node.values:
            value = self.plain(item, scope)
            is_guess = is_guess or isinstance(value, Unknown)
            if self.truth(value) == isinstance(node.op, ast.Or):
                break
        return Unknown(guess=self.truth(value)) if is_guess else value

    def _compare(self, node: ast.Compare, scope: Scope) -> Any:
        left = self.plain(node.left, scope)
        result: Any = True
        is_guess = False
        for kind, item in zip(node.ops, node.comparators, strict=True):
            right = self.plain(item, scope)
            self.compared = (left, right)
            result = self._compared(kind, left, right)
            is_guess = is_guess or isinstance(result, Unknown)
            if not self.truth(result):
                break
            left = right
        return Unknown(guess=self.truth(result)) if is_guess else result

    def _compared(self, kind: ast.cmpop, left: Any, right: Any) -> Any:
        negative = isinstance(kind, ast.IsNot | ast.NotIn | ast.NotEq)
        if isinstance(kind, ast.Is | ast.IsNot):
            if isinstance(left, Unknown) or isinstance(right, Unknown):
                expected = next((side for side in (left, right) if not isinstance(side, Unknown)), True)
                return Unknown(guess=negative if expected is None else not negative)
            if isinstance(left, Foreign) and isinstance(right, Foreign):
                return (left.number == right.number) != negative
            return (left is right) != negative
        if isinstance(kind, ast.In | ast.NotIn):
            if isinstance(right, Foreign) or (isinstance(right, Unknown) and right.is_foreign):
                found = self.world.step("op", "contains", (right, left), {})
                return Unknown(guess=not negative) if isinstance(found, Unknown) else bool(found) != negative
            return self.known(lambda: (left in right) != negative, guess=not negative)
        compare = getattr(operator, COMPARE[type(kind)])
        return self.known(lambda: compare(left, right), guess=not negative)

    def _ifexp(self, node: ast.IfExp, scope: Scope) -> Any:
        chosen = node.body if self.truth(self.value(node.test, scope)) else node.orelse
        return self.plain(chosen, scope)

    # -- parts --

    def _subscript(self, node: ast.Subscript, scope: Scope) -> Any:
        base, key = self.plain(node.value, scope), self.plain(node.slice, scope)
        if isinstance(base, Foreign) or (isinstance(base, Unknown) and base.is_foreign and base.ref is not None):
            return self.world.step("op", "getitem", (base, key), {})
        if isinstance(base, type) or base is modules.NoValue:
            return base  # a type such as list[int]
        return self.known(lambda: operator.getitem(base, key))

    def _slice(self, node: ast.Slice, scope: Scope) -> Any:
        ends = (None if end is None else self.plain(end, scope) for end in (node.lower, node.upper, node.step))
        return slice(*ends)

    def _attribute(self, node: ast.Attribute, scope: Scope) -> Any:
        base = self.value(node.value, scope)
        if isinstance(base, Own) and modules.is_known(base.name):
            base = modules.find(base.name, self._seed)
        base = self.seen(base)
        if isinstance(base, modules.Module):
            return member(base, node.attr)
        if isinstance(base, Foreign) or (isinstance(base, Unknown) and base.ref is not None):
            return self.world.step("get", node.attr, (base,), {})
        if isinstance(base, Unknown):
            return Unknown()
        if node.attr in FIELDS.get(type(base), ()) or (isinstance(base, BaseException) and node.attr == "args"):
            return getattr(base, node.attr)
        if isinstance(base, type) and node.attr == "__name__":
            return base.__name__
        raise no_attribute(base, node.attr)

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, scope: Scope
    ) -> Any:
        found: list[Any] = []
        inner = Scope(parent=scope)
        try:
            self._nest(node, list(node.generators), inner, found)
        except Blocked:
            return Unknown()
        if isinstance(node, ast.DictComp):
            return self.known(lambda: dict(found))
        if isinstance(node, ast.GeneratorExp):
            return iter(found)
        return self.known(lambda: _set(found)) if isinstance(node, ast.SetComp) else found

    _listcomp = _setcomp = _dictcomp = _generatorexp = _comprehension

    def _nest(self, node: Any, left: list[ast.comprehension], scope: Scope, found: list[Any]) -> None:
        if not left:
            fits(len(found))
            if isinstance(node, ast.DictComp):
                found.append((self.plain(node.key, scope), self.plain(node.value, scope)))
            else:
                found.append(self.plain(node.elt, scope))
            return
        first, *rest = left
        for item in self.items(self.value(first.iter, scope)):
            self.bind(first.target, item, scope)
            if all(self.truth(self.value(test, scope)) for test in first.ifs):
                self._nest(node, rest, scope, found)

    def bind(self, target: ast.expr, value: Any, scope: Scope) -> None:
        raise NotImplementedError


def _set(items: list[Any]) -> set[Any]:
    hashed(items)
    return set(items)
