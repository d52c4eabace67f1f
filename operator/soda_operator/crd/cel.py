"""Writing CEL, the language of rules in a CRD. In: text. Out: expressions as text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

FORBIDDEN: Final = "FieldValueForbidden"  # fine by itself, not beside what another field says
REQUIRED: Final = "FieldValueRequired"
_HOLE: Final = re.compile(r"\$\{([^{}]+)\}")


@dataclass(frozen=True)
class Rule:
    """One rule of a CRD. `must` is true for what is fine; `say` may hold `${CEL}`.

    `of` names soda's own rule. `at` is the node that `self` is: `*` stands for every key and `[]` for every item;
    empty for the run itself. `field` lies below it and is what the user is to change.
    """

    of: str
    at: str
    field: str
    must: str
    say: str
    reason: str = FORBIDDEN


def quoted(text: str) -> str:
    """A CEL string."""
    return json.dumps(text, ensure_ascii=False)


def matches(expression: str, pattern: str) -> str:
    """Whether a text matches. A raw string: backslashes stay as they are."""
    if "'" in pattern:
        raise ValueError(f"{pattern} has a quote, which would end the CEL string")
    return f"{expression}.matches(r'{pattern}')"


def sentence(text: str) -> dict[str, str]:
    """`"${self.x} is wrong"` -> a `messageExpression`; a sentence without holes -> a `message`.

    A `message` beside it is what the server says when the values are too long or have line breaks. One `format`,
    because the server cannot tell how long `string(self.x)` is and refuses to join it to anything.
    """
    plain, *rest = _HOLE.split(text)
    if not rest:
        return {"message": text}
    pattern = "%s".join(piece.replace("%", "%%") for piece in [plain, *rest[1::2]])
    shown = f"{quoted(pattern)}.format([{', '.join(rest[::2])}])"
    return {"message": "…".join([plain, *rest[1::2]]), "messageExpression": shown}
