"""The program in a model's answer: text goes in; language, code and whether its block was closed come out. Pure.

Of the fenced blocks in the language that is wanted, the one that defines the entry point is taken, else the first
(EvalPlus's sanitizer; SODA's released runner takes the first). Time is linear in the text, whatever it holds.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

_TAGS: Final[Mapping[str, tuple[str, ...]]] = {
    "python": ("python", "python3", "py", "py3", "python-3", "python3.x", "ipython", "ipython3", "pycon", "sage"),
    "java": ("java", "java8", "java11", "java17", "java21", "openjdk"),
    "javascript": ("javascript", "js", "node", "nodejs", "node.js", "jsx", "mjs", "cjs", "ecmascript", "es6"),
    "c": ("c", "c99", "c11", "c17", "ansi-c", "gcc"),
    "cpp": ("cpp", "c++", "cxx", "cc", "hpp", "cplusplus", "c++11", "c++14", "c++17", "c++20", "g++"),
    "go": ("go", "golang"),
    "typescript": ("typescript", "ts", "mts", "cts", "tsx"),
    "rust": ("rust", "rs", "rust2021"),
    "ruby": ("ruby", "rb", "irb"),
}
_ALWAYS: Final = ("python", "java", "javascript", "c", "cpp", "go")  # those of SODA 3.3.2
_LANGUAGE_OF: Final = {tag: language for language, tags in _TAGS.items() for tag in tags}
_NO_TAG: Final = frozenset(("", "code", "text", "txt", "plain", "plaintext", "none", "solution", "program"))
_ALSO_READS: Final[Mapping[str, tuple[str, ...]]] = {"cpp": ("c",), "typescript": ("javascript",)}

_ANSI: Final = re.compile(r"\x1b\[[0-9;?]{0,16}[A-Za-z]")
_FENCE: Final = re.compile(r"([ \t]*)(`{3,}|~{3,})([^`\n]*)")
_LATE_FENCE: Final = re.compile(r"[^`\n]*[:.][ \t]*(`{3,})([A-Za-z][\w+.-]*)[ \t]*")
_TAG: Final = re.compile(r"\{?\.?\s*([\w+#.-]*)")
_LONGEST_PARSED: Final = 200_000

# What a text in a language cannot well do without; for text without a fence or a tag.
_LOOKS: Final[Mapping[str, re.Pattern[str]]] = {
    "go": re.compile(r"^package[ \t]+\w+|^func[ \t]+[\w(]", re.MULTILINE),
    "java": re.compile(
        r"\bpublic[ \t]+(?:final[ \t]+|static[ \t]+)*(?:class|void)\b|\bSystem\.out\b|^import java"
    ),
    "cpp": re.compile(r"#include[ \t]*<(?:iostream|vector|string|algorithm|map|bits)|\bstd::|\busing namespace\b"),
    "c": re.compile(r"#include[ \t]*[<\"]|^(?:int|void|char|double|long|size_t)[ \t*]+\w+[ \t]*\(", re.MULTILINE),
    "javascript": re.compile(
        r"\bconsole\.log\(|^(?:async )?function\b|^(?:const|let|var)[ \t]+[\w{\[]|=>[ \t]*\{", re.MULTILINE
    ),
    "python": re.compile(
        r"^[ \t]*(?:def|class|from|import|return|for|while|if|print|assert|with|try)\b|^\w+[ \t]*=[^=]",
        re.MULTILINE,
    ),
    "typescript": re.compile(
        r"\bconsole\.log\(|^(?:export |async )*function\b"
        r"|^(?:export )?(?:const|let|interface|type|enum)[ \t]+[\w{\[]"
        r"|[\w)][ \t]*:[ \t]*(?:number|string|boolean)\b",
        re.MULTILINE,
    ),
    "rust": re.compile(
        r"^(?:pub(?:\([a-z]+\))? )?(?:fn|struct|enum|impl|trait|use|mod)\b|\blet mut\b", re.MULTILINE
    ),
    "ruby": re.compile(r"^[ \t]*(?:def|class|module|require|puts|end)\b", re.MULTILINE),
}


@dataclass(frozen=True, slots=True)
class Extracted:
    """`language` is None when the text has no code in a language that is wanted, and `code` is then empty."""

    language: str | None
    code: str
    is_complete: bool


@dataclass(frozen=True, slots=True)
class _Block:
    tag: str
    code: str
    is_closed: bool


def extract(
    text: str, *, language: str | None = None, entry_point: str | None = None, also: Collection[str] = ()
) -> Extracted:
    """The program in `text`: in `language` when given, else in any of SODA's six or of those in `also`.

    Without a fence the whole text counts when a language is asked for and the text looks like it; then nothing is
    cut, so that the continuation of a prompt keeps its indentation.
    """
    text = _ANSI.sub("", text.replace("\r\n", "\n"))
    blocks = _blocks(text)
    if not blocks:
        if language is not None and _looks_like(text, language):
            return Extracted(language, text, True)
        return Extracted(None, "", True)
    known = (*_ALWAYS, *also) if language is None else (language,)
    found = [(name, block) for block in blocks if (name := _language(block, language, known)) is not None]
    if not found:
        return Extracted(None, "", all(block.is_closed for block in blocks))
    name, block = next((pair for pair in found if entry_point and _defines(pair[1].code, entry_point)), found[0])
    return Extracted(name, block.code, block.is_closed)


def answer_code(text: str) -> str:
    """What a judge should read as the answer: its program, else its first block, else the whole text."""
    found = extract(text)
    if found.language is not None:
        return found.code
    blocks = _blocks(text)
    return blocks[0].code if blocks else text.strip()


def _blocks(text: str) -> list[_Block]:
    """The fenced blocks in order. A tagged fence inside a block starts a new one: the first was cut short."""
    blocks: list[_Block] = []
    lines: list[str] | None = None
    indent = fence = tag = ""

    def end(is_closed: bool) -> None:
        if lines is not None:
            blocks.append(_Block(tag, "".join(f"{line}\n" for line in lines), is_closed))

    for line in text.split("\n"):
        opening = _opening(line, in_block=lines is not None)
        if lines is not None and _closes(line, fence):
            end(is_closed=True)
            lines = None
        elif opening is not None and (lines is None or (opening[2] and len(opening[0]) <= len(indent))):
            end(is_closed=False)
            indent, fence, tag = opening
            lines = []
        elif lines is not None:
            lines.append(line.removeprefix(indent))
    if lines is not None:
        while lines and not lines[-1].strip():
            lines.pop()
    end(is_closed=False)
    return blocks


def _opening(line: str, *, in_block: bool) -> tuple[str, str, str] | None:
    """(indent, fence, tag) of a line that opens a block; outside a block the fence may end a sentence."""
    if "```" not in line and "~~~" not in line:
        return None
    found = _FENCE.fullmatch(line)
    if found is not None:
        tag = _TAG.match(found[3].strip())
        return found[1], found[2], tag[1].lower() if tag else ""
    late = None if in_block else _LATE_FENCE.fullmatch(line)
    return None if late is None else ("", late[1], late[2].lower())


def _closes(line: str, fence: str) -> bool:
    bare = line.strip()
    return len(bare) >= len(fence) and not bare.strip(fence[0])


def _language(block: _Block, wanted: str | None, known: Collection[str]) -> str | None:
    """The language to run a block in; None when it is not one that is wanted, or known where none is."""
    if block.tag in _NO_TAG:
        if wanted is not None:
            return wanted
        return next((name for name in _LOOKS if name in known and _looks_like(block.code, name)), None)
    name = _LANGUAGE_OF.get(block.tag)
    if wanted is None or name == wanted:
        return name if name in known else None
    return wanted if name in _ALSO_READS.get(wanted, ()) else None


def _looks_like(text: str, language: str) -> bool:
    look = _LOOKS.get(language)
    if look is None or not text.strip():
        return False
    return bool(look.search(text)) or (language == "python" and _parses(text))


def _parses(text: str) -> bool:
    """True for a Python module, or for what may stand in a function: the continuation of a prompt."""
    if len(text) > _LONGEST_PARSED:
        return False
    body = f"def f():\n{text}" if text[:1].isspace() else text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return any(not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in tree.body)


def _defines(code: str, name: str) -> bool:
    """Whether the code defines a function, class or variable of this name, in any of the languages."""
    word = re.escape(name)
    keyword = rf"\b(?:def|function\*?|func|fn|class|const|let|var|interface|enum|record)[ \t]+{word}\b"
    typed = rf"^[ \t]*(?!return\b|else\b|new\b)[A-Za-z_][\w<>:,*&\[\] \t]*[ \t*&]{word}[ \t]*\("
    return bool(re.search(rf"{keyword}|^{word}[ \t]*=|{typed}", code, re.MULTILINE))
