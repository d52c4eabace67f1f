"""Find the program in a model's reply: text in; language, code and whether its fence was closed, out.

Order (EvalPlus's sanitizer and the SODA paper's runner, section 3.3.2): the fenced block that defines the entry
point, else the first block in the asked language, else the first block in a language that can be executed; a
reply without fences is taken whole when it reads as code of the asked language. Time is linear in the reply.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# What people and models write after the three backticks.
TAGS: Final = {
    "python": "python", "py": "python", "python3": "python", "py3": "python",
    "java": "java",
    "javascript": "javascript", "js": "javascript", "node": "javascript", "nodejs": "javascript",
    "c": "c", "h": "c",
    "cpp": "cpp", "c++": "cpp", "cc": "cpp", "cxx": "cpp", "hpp": "cpp",
    "go": "go", "golang": "go",
}  # fmt: skip

# A line that only a program of the language has; for replies without fences.
SIGNS: Final = {
    "python": re.compile(r"^(?:def|class|import|from)\s+\w", re.MULTILINE),
    "java": re.compile(r"^\s*(?:public\s+)?(?:class|interface|record|enum)\s+\w+", re.MULTILINE),
    "javascript": re.compile(r"^(?:function|const|let|var|class|async function)\s+\w", re.MULTILINE),
    "c": re.compile(
        r"^(?:#include|(?:unsigned |static |const )*(?:int|void|char|double|long|float)\b)", re.MULTILINE
    ),
    "cpp": re.compile(r"^(?:#include|using namespace|template|(?:int|void|bool|double|auto|std::))", re.MULTILINE),
    "go": re.compile(r"^(?:package|func|import)\s", re.MULTILINE),
}


@dataclass(frozen=True)
class Extracted:
    """The program found. `language` is None when no block is in a language that can be executed."""

    language: str | None
    code: str
    is_complete: bool


@dataclass(frozen=True)
class _Block:
    tag: str
    code: str
    closed: bool


def extract(text: str, *, language: str | None = None, entry_point: str | None = None) -> Extracted:
    """The program in `text`; `language` and `entry_point` are what the question asked for, when it said so."""
    blocks = [(TAGS.get(block.tag) if block.tag else language, block) for block in _blocks(text)]
    usable = [(found, block) for found, block in blocks if found is not None]
    if entry_point is not None:
        defines = re.compile(rf"\b{re.escape(entry_point)}\b")
        usable.sort(key=lambda item: defines.search(item[1].code) is None)
    if language is not None:
        usable.sort(key=lambda item: item[0] != language)
    if usable:
        found, block = usable[0]
        return Extracted(found, block.code, block.closed)
    if blocks:
        return Extracted(None, "", blocks[0][1].closed)
    return _bare(text, language)


def answer_code(text: str) -> str:
    """What a judge is shown of a reply: its program, or all of it when it has none."""
    found = extract(text)
    return found.code if found.code.strip() else text


def _blocks(text: str) -> Iterator[_Block]:
    """Fenced blocks in order; one that is still open at the end is given as not closed."""
    fence, tag = "", ""
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        bare = line.strip()
        mark = "```" if bare.startswith("```") else "~~~" if bare.startswith("~~~") else ""
        if not fence and mark:
            fence, lines = mark, []
            words = bare.strip("`~").replace("{", " ").replace("}", " ").replace(".", " ").split()
            tag = words[0].lower().rstrip(":") if words else ""
        elif fence and bare.startswith(fence):
            yield _Block(tag, "".join(lines), closed=True)
            fence = ""
        elif fence:
            lines.append(line)
    if fence:
        yield _Block(tag, "".join(lines), closed=False)


def _bare(text: str, language: str | None) -> Extracted:
    """A reply without a fence: code of the asked language, or of the first whose signs it shows."""
    for name in [language] if language else SIGNS:
        if name in SIGNS and SIGNS[name].search(text):
            return Extracted(name, _python_span(text) if name == "python" else text, is_complete=True)
    return Extracted(None, "", is_complete=True)


def _python_span(text: str) -> str:
    """The whole text when it parses, else from its first line of code to the last line that still parses."""
    if _parses(text):
        return text
    start = SIGNS["python"].search(text)
    lines = text[start.start() if start else 0 :].splitlines(keepends=True)
    for end in _cuts(lines):
        code = "".join(lines[:end])
        if _parses(code):
            return code
    return text


def _cuts(lines: list[str]) -> Iterator[int]:
    """Line counts to try, longest first: where a new top-level line begins, at most twenty of them."""
    tops = [index for index, line in enumerate(lines) if index and line[:1].strip()]
    yield from [len(lines), *tops[::-1][:20]]


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
