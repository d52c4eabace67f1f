"""Calls in tests: of their own functions, of tabled builtins and methods, and of the program."""

from __future__ import annotations

import ast
import contextlib
import marshal
from collections.abc import Callable
from typing import Any, Final

from soda_jobs.sandbox.oracle import modules
from soda_jobs.sandbox.oracle.expressions import MAX_DEPTH, Expressions
from soda_jobs.sandbox.oracle.library import METHODS, PLAIN, PLAIN_METHODS, TYPES
from soda_jobs.sandbox.oracle.natives import Native, member, no_attribute
from soda_jobs.sandbox.oracle.scope import Function, Scope
from soda_jobs.sandbox.oracle.values import Blocked, Foreign, Large, NotSplittable, Own, Unknown

# Of a value of the program's own type these are asked inside.
_ASKED: Final = ("len", "str", "repr", "bool", "int", "float", "hash", "abs", "next")
_DRAWN: Final = (
    "list",
    "tuple",
    "set",
    "frozenset",
    "sorted",
    "sum",
    "max",
    "min",
    "all",
    "any",
    "enumerate",
    "iter",
)
_WORTH: Final = 2000  # evaluated nodes from which on a result is kept
_FAST: Final = (str, int, float, bool)


class Calls(Expressions):
    def _call(self, node: ast.Call, scope: Scope) -> Any:
        if isinstance(node.func, ast.Attribute):
            return self._method(node, node.func, scope)
        function = self.value(node.func, scope)
        found = self._arguments(node, scope)
        if found is None:
            return self._unpacked_unknown(function)
        return self.call(function, *found)

    def _unpacked_unknown(self, function: Any) -> Unknown:
        """A call with arguments that are not there yet: of the program it has to wait."""
        if isinstance(function, Function | Native | type):
            return Unknown()
        raise Blocked

    def _arguments(self, node: ast.Call, scope: Scope) -> tuple[list[Any], dict[str, Any]] | None:
        args: list[Any] = []
        options: dict[str, Any] = {}
        for item in node.args:
            if isinstance(item, ast.Starred):
                try:
                    args.extend(self.items(self.value(item.value, scope)))
                except Blocked:
                    return None
            else:
                args.append(self.value(item, scope))
        for keyword in node.keywords:
            value = self.value(keyword.value, scope)
            if keyword.arg is not None:
                options[keyword.arg] = value
            elif isinstance(value, dict):
                options.update(value)
            else:
                raise NotSplittable("it unpacks what is not a dict")
        return args, options

    def call(self, function: Any, args: list[Any], options: dict[str, Any]) -> Any:
        if isinstance(function, Own):
            return self.world.step("call", function.name, tuple(args), options)
        if isinstance(function, Function):
            return self._run(function, args, options)
        if isinstance(function, Native):
            return self._native(function, args, options)
        if isinstance(function, Foreign) or (isinstance(function, Unknown) and function.ref is not None):
            return self.world.step("method", "__call__", (function, *args), options)
        if isinstance(function, Unknown):
            raise Blocked
        if isinstance(function, type) and issubclass(function, BaseException):
            return self.known(lambda: function(*map(self.seen, args)))
        if isinstance(function, type) and function in TYPES.values():
            return self._native(Native(function.__name__), args, options)
        raise TypeError(f"'{type(function).__name__}' object is not callable")

    # -- functions of the tests --

    def _lambda(self, node: ast.Lambda, scope: Scope) -> Function:
        return self.function("<lambda>", node.args, node.body, scope)

    def function(
        self, name: str, arguments: ast.arguments, body: list[ast.stmt] | ast.expr, scope: Scope
    ) -> Function:
        defaults = tuple(self.value(item, scope) for item in arguments.defaults)
        named = {
            item.arg: self.value(default, scope)
            for item, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            if default is not None
        }
        return Function(name, arguments, body, scope, defaults, named, self._is_pure(name, arguments, body, scope))

    def _is_pure(self, name: str, arguments: ast.arguments, body: list[ast.stmt] | ast.expr, scope: Scope) -> bool:
        """Whether it names nothing but its own variables, builtins and modules without a state."""
        if not isinstance(body, list) or arguments.vararg or arguments.kwarg:
            return False
        nodes = [node for statement in body for node in ast.walk(statement)]
        if any(isinstance(node, ast.Global | ast.Import | ast.ImportFrom | ast.Lambda) for node in nodes):
            return False
        names = [node for node in nodes if isinstance(node, ast.Name)]
        local = {item.arg for item in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
        local |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
        return all(self._is_stateless(node, scope) for node in names if node.id not in local)

    def _is_stateless(self, node: ast.Name, scope: Scope) -> bool:
        value = self.value(node, scope)
        return isinstance(value, Native | type) or (isinstance(value, modules.Module) and value.name != "random")

    def _run(self, function: Function, args: list[Any], options: dict[str, Any]) -> Any:
        names = _bound(function, args, options)
        key = self._key(function, names)
        if key in self.memory:
            return marshal.loads(self.memory[key])
        start = self.left
        value = self._once(function, names)
        if key is not None and start - self.left > _WORTH and key == self._key(function, names):
            with contextlib.suppress(ValueError):
                self.memory[key] = marshal.dumps(value)
        return value

    def _key(self, function: Function, names: dict[str, Any]) -> tuple[int, bytes] | None:
        """What to remember a call by; None when its value may depend on more than its arguments."""
        if not function.is_pure:
            return None
        try:
            return id(function.arguments), marshal.dumps(names)
        except ValueError:
            return None

    def _once(self, function: Function, names: dict[str, Any]) -> Any:
        self.depth += 1
        try:
            if self.depth > MAX_DEPTH:
                raise NotSplittable("its functions call each other too deeply")
            scope = Scope(names, function.scope)
            if isinstance(function.body, list):
                return self.run_body(function.body, scope)
            return self.value(function.body, scope)
        finally:
            self.depth -= 1

    def run_body(self, body: list[ast.stmt], scope: Scope) -> Any:
        raise NotImplementedError

    # -- builtins --

    def _python(self, value: Any) -> Any:
        """A value that a builtin may call."""
        if isinstance(value, Function | Own | Native):
            return lambda *args: self.call(value, list(args), {})
        return value

    def _native(self, function: Native, args: list[Any], options: dict[str, Any]) -> Any:
        if function.function is None and function.name not in PLAIN:
            return self._special(function.name, args)
        if function.name in ("copy", "deepcopy") and isinstance(args[0] if args else None, Unknown):
            return args[0]  # it goes inside as it is
        is_callback = function.name in ("sorted", "max", "min", "reduce", "accumulate", "takewhile", "dropwhile")
        args = [self._python(item) if is_callback and isinstance(item, Own) else self.seen(item) for item in args]
        options = {name: self._python(item) for name, item in options.items()}
        if args and (isinstance(args[0], Foreign) or (isinstance(args[0], Unknown) and args[0].is_foreign)):
            args[0] = self._asked(function.name, args[0])
            if function.name in _ASKED or isinstance(args[0], Unknown):
                return args[0]
        entry, guard = function.entry()
        args = [self._python(item) for item in args]
        return self.known(lambda: (guard(*args, **options), entry(*args, **options))[1])

    def _asked(self, name: str, value: Any) -> Any:
        if name in _ASKED:
            return self.world.step("op", name, (value,), {})
        return self.world.step("op", "iter", (value,), {}) if name in _DRAWN else value

    def _special(self, name: str, args: list[Any]) -> Any:
        if name in ("map", "filter"):
            return self._mapped(name, args)
        if name == "callable":
            return isinstance(args[0], Own | Function | Native | type)
        value = self.seen(args[0])
        if isinstance(value, Unknown):
            return Unknown()
        if name == "hash":
            return self.known(lambda: hash(value))
        if name == "type":
            if isinstance(value, Foreign | Large) or len(args) > 1:
                raise NotSplittable("it asks for the type of an object of the program")
            return type(value)
        return self._is_instance(value, self.seen(args[1]))

    def _is_instance(self, value: Any, kinds: Any) -> bool:
        wanted = [self.seen(kind) for kind in kinds] if isinstance(kinds, tuple) else [kinds]
        if not all(isinstance(kind, type) for kind in wanted):
            raise NotSplittable("it asks for a type of the program")
        if isinstance(value, Foreign):
            return object in wanted
        if isinstance(value, Large):
            raise NotSplittable("the program returns too large a value")
        return isinstance(value, tuple(wanted))

    def _mapped(self, name: str, args: list[Any]) -> Any:
        function, *rows = args
        try:
            lists = [list(self.items(row)) for row in rows]
        except Blocked:
            return Unknown()
        if name == "map":
            if function in _FAST and len(lists) == 1:
                return self.known(lambda: iter(list(map(function, lists[0]))))
            return iter([self.call(function, list(items), {}) for items in zip(*lists, strict=False)])
        kept = [
            item for item in lists[0] if self.truth(item if function is None else self.call(function, [item], {}))
        ]
        return iter(kept)

    # -- methods --

    def _method(self, node: ast.Call, func: ast.Attribute, scope: Scope) -> Any:
        base, name = self.value(func.value, scope), func.attr
        if isinstance(base, Own) and modules.is_known(base.name):
            base = modules.find(base.name, self._seed)
        base = self.seen(base)
        found = self._arguments(node, scope)
        if found is None:
            return self._unpacked_unknown(base)
        args, options = found
        if isinstance(base, modules.Module):
            return self.call(member(base, name), args, options)
        if isinstance(base, Foreign):
            return self.world.step("method", name, (base, *args), options)
        if isinstance(base, Unknown):
            if base.ref is not None and (base.is_foreign or name not in PLAIN_METHODS):
                return self.world.step("method", name, (base, *args), options)
            return Unknown()
        return self._plain_method(base, name, args, options)

    def _plain_method(self, base: Any, name: str, args: list[Any], options: dict[str, Any]) -> Any:
        guard = METHODS.get(type(base), {}).get(name)
        if guard is None:
            raise no_attribute(base, name)
        args = [self._python(self.seen(item)) for item in args]
        options = {key: self._python(item) for key, item in options.items()}
        if (
            name == "join"
            and args
            and not isinstance(args[0], list | tuple | set | frozenset | dict | str | Unknown)
        ):
            args[0] = self.known(lambda: list(args[0]))
        method: Callable[..., Any] = getattr(base, name)
        return self.known(lambda: (guard(base, *args, **options), method(*args, **options))[1])


def _bound(function: Function, args: list[Any], options: dict[str, Any]) -> dict[str, Any]:
    """Names of parameters to values. Raises TypeError as Python does."""
    found = function.arguments
    positional = [item.arg for item in (*found.posonlyargs, *found.args)]
    names = dict(zip(positional[len(positional) - len(function.defaults) :], function.defaults, strict=True))
    names.update(function.keyword_defaults)
    names.update(zip(positional, args, strict=False))
    rest = args[len(positional) :]
    if found.vararg is not None:
        names[found.vararg.arg] = tuple(rest)
    elif rest:
        raise TypeError(f"{function.name}() takes {len(positional)} arguments but {len(args)} were given")
    known = {*positional, *(item.arg for item in found.kwonlyargs)}
    more = {name: value for name, value in options.items() if name not in known}
    names.update({name: value for name, value in options.items() if name in known})
    if found.kwarg is not None:
        names[found.kwarg.arg] = more
    elif more:
        raise TypeError(f"{function.name}() got an unexpected keyword argument '{next(iter(more))}'")
    missing = [name for name in known if name not in names]
    if missing:
        raise TypeError(f"{function.name}() is missing the argument '{missing[0]}'")
    return names
