"""Prompts are files; this module fills them in.

`<set>/<name>.txt` holds one prompt: the system text, a line `---`, the user text; a file without that line is all
user text. `{field}` is replaced once and never again, so a question may contain braces. Two sets: `paper` has the
content of the paper's prompts, `compact` the same markers and few words, for models with a short context.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from soda_jobs.errors import InvalidInput
from soda_jobs.prompts import faults

PROMPT_IDS: Final = tuple(
    f"{group}/{name}"
    for group in ("paper", "compact")
    for name in ("correct", "fault", "new_similar", "new_harder", "score")
)

# A reply to a `new_*` prompt starts with this marker (paper, figure 3).
CREATED: Final = "#Created Instruction#:"

# Fields that need no caller: the taxonomy in two lengths.
_OWN_FIELDS: Final[Mapping[str, Callable[[], str]]] = {"errors": faults.describe, "error_names": faults.names}
_FIELD: Final = re.compile(r"\{([a-z_]+)\}")
_DIVIDER: Final = "\n---\n"


@cache
def _template(prompt_id: str) -> str:
    """The file's text with our own fields filled in: what is left depends on the caller alone."""
    if prompt_id not in PROMPT_IDS:
        raise InvalidInput(f"unknown prompt {prompt_id!r}; known are {', '.join(PROMPT_IDS)}", field="prompt_id")
    text = (Path(__file__).parent / f"{prompt_id}.txt").read_text(encoding="utf-8")
    return _FIELD.sub(_own_field, text.rstrip("\n"))


def _own_field(found: re.Match[str]) -> str:
    own = _OWN_FIELDS.get(found[1])
    return own() if own else found[0]


def render(prompt_id: str, **fields: str) -> list[dict[str, str]]:
    """The OpenAI messages of one prompt. Fields: `question`, and `code` for `score`; neither more nor fewer."""
    template = _template(prompt_id)
    wanted = set(_FIELD.findall(template))
    if wanted != set(fields):
        given = ", ".join(sorted(fields)) or "none"
        raise InvalidInput(f"the fields are {', '.join(sorted(wanted))}, not {given}", field=prompt_id)
    system, found, user = template.partition(_DIVIDER)
    parts = [("system", system), ("user", user)] if found else [("user", template)]
    return [{"role": role, "content": _FIELD.sub(lambda m: fields[m[1]], text)} for role, text in parts]


def digest(prompt_id: str) -> str:
    """SHA-256 (hex) of the prompt as sent, before the caller's fields: it moves with the file and the taxonomy."""
    return hashlib.sha256(_template(prompt_id).encode("utf-8")).hexdigest()
