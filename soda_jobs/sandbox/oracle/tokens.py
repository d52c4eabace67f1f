"""Tests of any language as tokens, well enough to find their checks: comments gone, brackets matched. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["number", "text", "name", "sign", "line"]

_NUMBER: Final = r"(?P<number>(?<![\w.])(?:0[xXbBoO][\da-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+)\w*)"
_NAME: Final = r"(?P<name>[A-Za-z_$][\w$]*)"
_SIGN: Final = r"(?P<sign>===|!==|==|!=|<=|>=|&&|\|\||::|:=|->|=>|[-+*/%<>=!(){}\[\],;:.?&|^~@#])"
_LINE: Final = r"(?P<line>\n)"
_QUOTED: Final = r'"(?:\\.|[^"\\\n])*"'
_SINGLE: Final = r"'(?:\\.|[^'\\\n])*'"
_TICKED: Final = r"`(?:\\.|[^`\\])*`"
_SLASHES: Final = r"(?P<comment>//[^\n]*|/\*.*?\*/)"
_HASHES: Final = r"(?P<comment>\#[^\n]*)"
_CHARACTER: Final = r"'(?:\\[^\n]{1,9}?|[^'\\\n])'"


def _lexer(comment: str, *texts: str) -> re.Pattern[str]:
    parts = (comment, f"(?P<text>{'|'.join(texts)})", _NUMBER, _NAME, _SIGN, _LINE)
    return re.compile("|".join(parts), re.DOTALL)


_TRIPLE: Final = r'[rRbBfFuU]{0,2}(?:"""(?:\\.|[^\\])*?"""|\'\'\'(?:\\.|[^\\])*?\'\'\')'
_DIRECTIVES: Final = r"(?P<comment>//[^\n]*|/\*.*?\*/|\#[ \t]*\w[^\n]*)"
_C: Final = _lexer(_DIRECTIVES, _QUOTED, _CHARACTER)
_LEXERS: Final = {
    "python": _lexer(_HASHES, _TRIPLE, f"[rRbBfFuU]{{0,2}}(?:{_QUOTED}|{_SINGLE})"),
    "ruby": _lexer(_HASHES, _QUOTED, _SINGLE),
    "javascript": _lexer(_SLASHES, _QUOTED, _SINGLE, _TICKED),
    "typescript": _lexer(_SLASHES, _QUOTED, _SINGLE, _TICKED),
    "go": _lexer(_SLASHES, _QUOTED, _CHARACTER, _TICKED),
}
_CLOSES: Final = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Token:
    kind: Kind
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Tokens:
    """`items` in order; `partner` of an opening bracket is the place of its closing one."""

    items: tuple[Token, ...]
    partner: dict[int, int]

    def text(self, at: int) -> str:
        return self.items[at].text if 0 <= at < len(self.items) else ""

    def flat(self, first: int, last: int) -> Iterator[int]:
        """Places from `first` up to `last` that are in no bracket of their own; brackets count, insides do not."""
        at = first
        while at < last:
            yield at
            at = self.partner.get(at, at) + 1 if self.text(at) in _CLOSES else at + 1

    def split(self, first: int, last: int, sign: str = ",") -> list[tuple[int, int]]:
        """The parts between `first` and `last` that `sign` separates."""
        cuts = [at for at in self.flat(first, last) if self.text(at) == sign]
        starts, ends = [first, *(cut + 1 for cut in cuts)], [*cuts, last]
        return [part for part in zip(starts, ends, strict=True) if part[0] < part[1]]


def tokens(language: str, text: str) -> Tokens:
    """What is not a token is left out, so that any text gives tokens."""
    keeps_lines = language in ("python", "ruby")
    found: list[Token] = []
    for match in _LEXERS.get(language, _C).finditer(text):
        kind = match.lastgroup
        if kind in ("number", "text", "name", "sign") or (kind == "line" and keeps_lines):
            found.append(Token(kind, match[0], match.start()))  # type: ignore[arg-type]
    open_: list[int] = []
    partner: dict[int, int] = {}
    for at, token in enumerate(found):
        if token.kind == "sign" and token.text in _CLOSES:
            open_.append(at)
        elif token.kind == "sign" and token.text in ")]}":
            while open_ and _CLOSES[found[open_[-1]].text] != token.text:
                open_.pop()
            if open_:
                partner[open_.pop()] = at
    return Tokens(tuple(found), partner)
