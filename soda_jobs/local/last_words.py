"""Why a server ended: a log in, one sentence out. Of the pages that an engine writes, one line counts."""

from __future__ import annotations

import re
from typing import Final

# "(EngineCore pid=17) ERROR 11-21 16:46:10 [core.py:512] " before the line that matters, by vLLM
_HEAD: Final = re.compile(r"^(\(\w+ pid=\d+\) ?)?([A-Z]+ [\d-]+ [\d:]+ (\[[^]]*\] ?)?)?")
_OURS: Final = re.compile(r"^soda: (?P<words>.+)")
_RAISED: Final = re.compile(r"^([a-z_]\w*\.)*(?P<words>[A-Z]\w*(Error|Exception): .+)")
_REFUSED: Final = re.compile(r"^ *Value error, (?P<words>.+?)( \[type=.*)?$")  # a setting, by pydantic
_ECHOES: Final = re.compile(r"validation errors? for|Engine core initialization failed")
_LONGEST: Final = 300  # characters


def last_words(log: str) -> str:
    """The last error that a log names, else its last line, in at most 300 characters."""
    lines = [_HEAD.sub("", line).rstrip() for line in log.splitlines()]
    for line in reversed(lines):
        for form in (_OURS, _RAISED, _REFUSED):
            if (found := form.match(line)) and not _ECHOES.search(line):
                return found["words"][:_LONGEST]
    return next((line.strip()[:_LONGEST] for line in reversed(lines) if line.strip()), "nothing")
