"""Text of models and programs, made safe to store and to show.

In: any string, even one with half a surrogate pair, terminal escapes or a million characters on one line.
Out: text that encodes to UTF-8, shows what was there instead of doing it, and says how much was left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

LIMIT: Final = 4000
LINE_LIMIT: Final = 400

# Half surrogate pairs, C1 controls, non-characters, and marks that reorder text so that code reads as other code.
_INVISIBLE = re.compile("[\ud800-\udfff\x80-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


class Clip(TypedDict):
    """A text cut to a length that a page can show; `cut` counts the characters left out."""

    text: str
    cut: int


def visible(text: str) -> str:
    """The same text with nothing in it that acts: control characters become their pictures (ESC is ␛)."""
    plain = text.replace("\r\n", "\n")
    return _INVISIBLE.sub("\ufffd", _CONTROL.sub(_picture, plain))


def clip(text: str, *, limit: int = LIMIT, line: int = LINE_LIMIT) -> Clip:
    """At most `limit` characters, and of each line at most `line`; what was left out is counted."""
    kept, cut = text[:limit], max(0, len(text) - limit)
    lines = kept.split("\n")
    cut += sum(max(0, len(item) - line) for item in lines)
    shown = "\n".join(item if len(item) <= line else item[:line] + " …" for item in lines)
    return Clip(text=visible(shown), cut=cut)


def plain(value: Any) -> Any:
    """A copy that any JSON reader accepts: no lone surrogates, no NaN, no infinities, no tuples."""
    if isinstance(value, str):
        return _INVISIBLE.sub("\ufffd", value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return value


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    return "\u2421" if code == 0x7F else chr(0x2400 + code)
