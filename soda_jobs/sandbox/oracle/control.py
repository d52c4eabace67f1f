"""Tests with one expectation made wrong, so that every right program must fail them. Pure.

Of all checks in the tests one is drawn. Where it compares with literals, one of these changes its value and keeps
its length: a condition turned round would not catch an object that equals everything. Only a check without a
literal, such as `assert is_prime(7)`, is compared with false instead.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from soda_jobs.sandbox.oracle.tokens import Token, Tokens, tokens

Span = tuple[int, int]

_HOLDS: Final = frozenset(
    ("assert", "assertTrue", "assert_true", "assertFalse", "assert_false", "ok", "True", "False")
)
_EQUAL: Final = frozenset(
    (
        *(
            "assertEquals",
            "assertEqual",
            "assert_eq",
            "assert_equal",
            "Equal",
            "EqualValues",
            "equal",
            "strictEqual",
        ),
        *("deepEqual", "deepStrictEqual", "assertArrayEquals", "assertIterableEquals", "assertListEqual"),
        *("assertDictEqual", "assertTupleEqual", "assertSetEqual", "assertCountEqual", "EXPECT_EQ", "ASSERT_EQ"),
        *("toBe", "toEqual", "toStrictEqual"),
    )
)
_SAME: Final = re.compile(r"same|equal|^eq$|close|approx|^eqv", re.IGNORECASE)
_FAILS: Final = re.compile(r"throw|exit|abort|Fatal|Error|panic|fail|return|raise", re.IGNORECASE)
# Names that may stand in a literal: types and their constructors.
_MAKERS: Final = frozenset(
    (
        *("new", "int", "long", "short", "byte", "char", "float", "double", "bool", "boolean", "string", "rune"),
        *("String", "Integer", "Long", "Double", "Float", "Boolean", "Character", "Object", "List", "ArrayList"),
        *("Arrays", "asList", "of", "Map", "Set", "HashMap", "HashSet", "Collections", "emptyList", "Optional"),
        *("vec", "from", "to_string", "to_owned", "Some", "Ok", "Err", "Vec", "iter", "into", "collect"),
        *("std", "vector", "map", "set", "pair", "tuple", "make_pair", "array", "JSON", "stringify", "Object"),
        *(
            "int8",
            "int16",
            "int32",
            "int64",
            "uint",
            "uint8",
            "uint32",
            "uint64",
            "float32",
            "float64",
            "interface",
        ),
        *("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "usize", "isize", "f32", "f64", "str"),
        *("list", "dict", "frozenset", "bytes", "complex", "sorted", "nil", "null", "None", "undefined", "struct"),
        *("unsigned", "const", "size_t", "Array", "Number", "BigInt", "const", "any"),
    )
)
_BOOLEANS: Final = {"true": "false", "false": "true", "True": "False", "False": "True"}
_WORD: Final = re.compile(r"[A-Za-z0-9]")
_AGAINST_FALSE: Final = {
    "javascript": "({}) === false",
    "typescript": "({} as unknown) === false",
    "python": "({}) == False",
}


@dataclass(frozen=True, slots=True)
class Edit:
    start: int
    end: int
    text: str


def perturbed(language: str, tests: str, seed: str) -> str | None:
    """The tests with one check that must fail; None when no check was found that can be made to."""
    found = tokens(language, tests)
    draw = random.Random(seed)
    checks = list(_checks(found, language))
    draw.shuffle(checks)
    checks.sort(key=lambda check: check.is_guard)
    for check in checks:
        edit = _edit(found, check, draw, language, tests)
        if edit is not None:
            return tests[: edit.start] + edit.text + tests[edit.end :]
    return None


@dataclass(frozen=True, slots=True)
class Check:
    """`values` are spans of which one is expected; without one, `condition` is what has to hold."""

    values: tuple[Span, ...]
    condition: Span | None = None
    is_guard: bool = False  # what all other checks may come together in: only taken where there is no other


# -- finding checks -----------------------------------------------------------------------------------------------


def _checks(found: Tokens, language: str) -> Iterator[Check]:
    for at, token in enumerate(found.items):
        if token.kind != "name" or _is_defined(found, at):
            continue
        first = at + 2 if found.text(at + 1) == "!" else at + 1
        if token.text in _HOLDS:
            condition = _condition_after(found, at, first, language)
            if condition is not None:
                yield _holding(found, condition)
        elif token.text in _EQUAL and found.partner.get(first) is not None:
            parts = found.split(first + 1, found.partner[first])
            yield Check(tuple(part for part in parts[:2] if _is_literal(found, part)))
        elif token.text == "asList" and "Boolean" in [found.text(n) for n in range(at - 9, at)]:
            for part in found.split(first + 1, found.partner.get(first, first)):
                yield _holding(found, part)
        elif token.text in ("if", "unless"):
            yield from _guarded(found, at, language)


def _is_defined(found: Tokens, at: int) -> bool:
    """Whether this name is being declared: `def assertTrue(…)`, `assert := …`."""
    return found.text(at - 1) in ("def", "func", "function", "fn", "bool", "void") or found.text(at + 1) in (
        ":",
        "=",
    )


def _condition_after(found: Tokens, at: int, first: int, language: str) -> Span | None:
    """The condition of `assert (…)` and of the statement `assert …`."""
    is_statement = found.text(at) == "assert" and language in ("python", "java", "ruby")
    if not is_statement:
        last = found.partner.get(first) if found.text(first) == "(" else None
        parts = [] if last is None else found.split(first + 1, last)
        return parts[0] if parts else None
    ends = (";",) if language == "java" else ("\n",)
    last = next((n for n in found.flat(first, len(found.items)) if found.text(n) in ends), len(found.items))
    parts = found.split(first, last)
    if language == "java":
        parts = [part for whole in parts for part in found.split(*whole, ":")]
    return parts[0] if parts else None


def _guarded(found: Tokens, at: int, language: str) -> Iterator[Check]:
    """`if (f(2) != 4) throw …`, where a condition, at best a comparison with a literal, guards what fails."""
    end = min(at + 60, len(found.items))
    stop = next((n for n in range(at, end) if found.text(n) in ("{", ":", "\n")), end)
    last = found.partner.get(at + 1) if found.text(at + 1) == "(" else stop
    if last is None or last <= at:
        return
    span = _bare(found, (at + 1, last + 1 if found.text(at + 1) == "(" else last))
    span = _bare(found, (found.split(*span, ";") or [span])[-1])
    before = [found.text(n) for n in range(max(at - 6, 0), at) if found.text(at) == "unless"]
    after = [found.text(n) for n in range(last, min(last + 16, len(found.items)))]
    sign = "==" if before else "!="
    compared = _compared(found, span, (sign, sign + "="))
    asks = span[1] - span[0] == 3 or any(found.text(n) == "(" for n in range(*span))  # a name, or a call
    if compared and asks and any(map(_FAILS.search, (*before, *after))):
        yield Check(compared)
    elif not compared and [word for word in after if word not in ("{", ")", "(")][:1] == ["throw"]:
        yield Check((), span, is_guard=True)


def _bare(found: Tokens, span: Span) -> Span:
    """Without brackets around the whole."""
    first, last = span
    while last - first > 2 and found.text(first) == "(" and found.partner.get(first) == last - 1:
        first, last = first + 1, last - 1
    return first, last


def _holding(found: Tokens, condition: Span) -> Check:
    span = _bare(found, condition)
    flat = [found.text(n) for n in found.flat(*span)]
    if any(word in ("&&", "||", "?", "and", "or", "in", "is") for word in flat):
        return Check((), condition)
    values = _compared(found, span, ("==", "==="))
    if not values and any(word in ("<", "<=") for word in flat):
        values = _near(found, span)
    if not values and flat and flat[0] not in ("!", "not") and not any(len(w) > 1 and w[1] == "=" for w in flat):
        values = _same(found, span)
    return Check(values, condition)


def _compared(found: Tokens, span: Span, signs: tuple[str, ...]) -> tuple[Span, ...]:
    """The literal side of a comparison of which the other side calls something."""
    at = [n for n in found.flat(*span) if found.text(n) in signs]
    if len(at) != 1:
        return ()
    sides = ((span[0], at[0]), (at[0] + 1, span[1]))
    literal = [side for side in sides if _is_literal(found, side)]
    return tuple(literal) if len(literal) == 1 else ()


def _near(found: Tokens, span: Span) -> tuple[Span, ...]:
    """The number in `abs(f(2) - 0.5) < 1e-6`."""
    opens = [n for n in found.flat(*span) if found.text(n) == "(" and found.text(n - 1) in ("abs", "fabs", "Abs")]
    if len(opens) != 1 or opens[0] not in found.partner:
        return ()
    inside = (opens[0] + 1, found.partner[opens[0]])
    minus = [n for n in found.flat(*inside) if found.text(n) == "-" and n > inside[0]]
    side = (minus[-1] + 1, inside[1]) if minus else inside
    return (side,) if minus and _is_literal(found, side) else ()


def _same(found: Tokens, span: Span) -> tuple[Span, ...]:
    """The literal in `issame(f(2), {1, 2})`, `f(2).equals(…)` and their like."""
    flat = list(found.flat(*span))
    opens = [n for n in flat if found.text(n) == "(" and _SAME.search(found.text(n - 1))]
    if len(opens) != 1 or opens[0] not in found.partner:
        return ()
    parts = found.split(opens[0] + 1, found.partner[opens[0]])[:2]
    return tuple(part for part in parts if _is_literal(found, part))[:1]


def _is_literal(found: Tokens, span: Span) -> bool:
    names = [item.text for item in found.items[span[0] : span[1]] if item.kind == "name"]
    return all(name in _MAKERS or name in _BOOLEANS for name in names) and bool(_changeable(found, span))


# -- changing one -------------------------------------------------------------------------------------------------


def _changeable(found: Tokens, span: Span) -> list[int]:
    places = [n for n in range(*span) if _changed(found.items[n], random.Random(0)) is not None]
    places = [
        n for n in places if not (found.text(n - 1) == "[" and found.text(n + 1) == "]" and _names_type(found, n))
    ]
    values = [n for n in places if found.text(n + 1) not in (":", "=>")]  # keys may have to differ
    computed = any(found.text(n) in ("+", "*", "/", "%") or _is_minus(found, n, span) for n in range(*span))
    return (values or places)[:1] if computed else values or places


def _names_type(found: Tokens, at: int) -> bool:
    return found.items[at + 2].kind == "name" if at + 2 < len(found.items) else False


def _is_minus(found: Tokens, at: int, span: Span) -> bool:
    return found.text(at) == "-" and at > span[0] and found.items[at - 1].kind == "number"


def _edit(found: Tokens, check: Check, draw: random.Random, language: str, tests: str) -> Edit | None:
    places = [place for span in check.values for place in _changeable(found, span)]
    if places:
        token = found.items[draw.choice(places)]
        return Edit(token.start, token.end, _changed(token, draw) or token.text)
    if check.condition is None:
        return None
    start, end = found.items[check.condition[0]].start, found.items[check.condition[1] - 1].end
    return Edit(start, end, _AGAINST_FALSE.get(language, "({}) == false").format(tests[start:end]))


def _changed(token: Token, draw: random.Random) -> str | None:
    """Another value of the same length; None for what has none."""
    if token.kind == "name":
        return _BOOLEANS.get(token.text)
    if token.kind == "number":
        return _other_number(token.text, draw)
    return _other_text(token.text, draw) if token.kind == "text" else None


def _other_number(text: str, draw: random.Random) -> str | None:
    """Its units change, downwards where it can, so that it still fits its type."""
    if re.match(r"0[xXbBoO]", text) or re.search(r"[eE]-", text):
        return None
    whole = re.match(r"\d[\d_]*", text)
    at = whole.end() - 1 if whole else 1
    old = int(text[at])
    new = draw.randrange(1, old) if old > 1 else draw.choice("23456789")
    return f"{text[:at]}{new}{text[at + 1 :]}"


def _other_text(text: str, draw: random.Random) -> str | None:
    quote = text[-1]
    first, last = text.index(quote) + 1, len(text) - 1
    if "\\" in text or text.startswith(("'''", '"""')) or set(text[: first - 1].lower()) - set("ub"):
        return None
    places = [found.start() for found in _WORD.finditer(text, first, last)]
    if not places:  # "()" or ""; but a character has no room for another
        return None if last == 2 and quote == "'" else f"{text[:-1]}x{quote}"
    at = draw.choice(places)
    alike = "0123456789" if text[at].isdigit() else "abcdefghijklmnopqrstuvwxyz"
    new = draw.choice([letter for letter in alike if letter != text[at].lower()])
    return text[:at] + (new.upper() if text[at].isupper() else new) + text[at + 1 :]
