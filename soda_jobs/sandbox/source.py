"""How code and tests become source files, and what can be seen in a text without compiling it. Pure, linear time.

Where tests are given, something is added that writes to descriptor 3 once they have reached their end: leaving
early with exit code 0 is not a pass. It catches accidents such as `sys.exit()` in the code, not a program that
means to cheat.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from soda_jobs.sandbox.diagnostics import Reading
from soda_jobs.sandbox.precompiled import headers_of

_TESTS_EXIT: Final = re.compile(r"\bexit\s*\(|\bunittest\.main\s*\(|\bpytest\.main\s*\(", re.IGNORECASE)
_TOKENS: Final = re.compile(
    r"""//[^\n]*|/\*.*?(?:\*/|\Z)|\"\"\".*?(?:\"\"\"|\Z)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?|`[^`]*(?:`|\Z)""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Source:
    """`files` by name; `main` is what is compiled or run: a file, or Java's main class ("" when there is none).

    `has_entry` is False when there is nothing to run, `has_proof` True when a run must write to descriptor 3;
    `headers` may be taken precompiled.
    """

    files: dict[str, str]
    main: str
    has_entry: bool = True
    has_proof: bool = False
    headers: tuple[str, ...] = ()


def without_comments(text: str) -> str:
    """C-like source with comments, strings and characters blanked; line breaks stay."""
    return blanked(_TOKENS, text)


def blanked(tokens: re.Pattern[str], text: str) -> str:
    return tokens.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def tests_leave_by_themselves(tests: str) -> bool:
    return bool(_TESTS_EXIT.search(tests))


# -- Python -------------------------------------------------------------------------------------------------------

_GUARD: Final = re.compile(r"""^if\s+__name__\s*==\s*(["'])__main__\1\s*:""", re.MULTILINE)
_PYTHON_PROOF: Final = '__import__("posix").write(3, b".")\n'


def join_python(code: str, tests: str) -> Source:
    """Code, then tests. The code's own `if __name__ == "__main__"` is off when there are tests."""
    if not tests:
        return Source({"main.py": code}, "main.py")
    code = _GUARD.sub("if False:", code)
    parts = (code, _PYTHON_PROOF, tests) if tests_leave_by_themselves(tests) else (code, tests, _PYTHON_PROOF)
    return Source({"main.py": "\n\n".join(parts)}, "main.py", has_proof=True)


# -- JavaScript ---------------------------------------------------------------------------------------------------

_MODULE: Final = re.compile(r"^(?:import\s+[\w{*\"']|export\s+[\w{*])", re.MULTILINE)
_REQUIRE: Final = re.compile(r"\brequire\s*\(")
PRELOAD: Final = ".preload.cjs"
# Node's console.assert only prints; here a false assertion is an error.
_PRELOAD_TEXT: Final = (
    "const {AssertionError} = require('assert');\n"
    "console.assert = (value, ...words) => {\n"
    "  if (!value) throw new AssertionError({message: words.join(' ') || 'console.assert failed'});\n"
    "};\n"
)


def join_javascript(code: str, tests: str) -> Source:
    text, has_proof = code, False
    is_module = bool(_MODULE.search(code) or _MODULE.search(tests)) and not _REQUIRE.search(code + tests)
    if tests:
        proof = "(await import('fs')).writeSync(3, '.');\n" if is_module else "require('fs').writeSync(3, '.');\n"
        parts = (code, proof, tests) if tests_leave_by_themselves(tests) else (code, tests, proof)
        text, has_proof = "\n;\n".join(parts), True
    name = "main.mjs" if is_module else "main.js"
    return Source({name: text, PRELOAD: _PRELOAD_TEXT}, name, has_proof=has_proof)


# -- C and C++ ----------------------------------------------------------------------------------------------------

_C_MAIN: Final = re.compile(r"\bmain\s*\(")
# The linker's --wrap=main calls this instead of main, so that `main` keeps its meaning (it may lack a return). The
# one call of the system has a name of its own here, because a program may define a `write` that is none.
_C_PROOF: Final = (
    "{c}int __real_main(int, char **, char **); "
    '{c}long __soda_write(int, const void *, unsigned long) __asm__("write"); '
    "{c}int __wrap_main(int count, char **words, char **env) {{ int code = __real_main(count, words, env); "
    'return code == 0 && __soda_write(3, ".", 1) < 0 ? 1 : code; }}\n#line 1\n'
)


def join_c(code: str, tests: str) -> Source:
    return _join_c(code, tests, "main.c", _C_PROOF.format(c=""))


def join_cpp(code: str, tests: str) -> Source:
    joined = _join_c(code, tests, "main.cpp", _C_PROOF.format(c='extern "C" '))
    return replace(joined, headers=headers_of(code))


def _join_c(code: str, tests: str, name: str, proof: str) -> Source:
    """Code, then tests. When both have a `main`, the code's is renamed and the tests' rules."""
    if not tests:
        return Source({name: code}, name, has_entry=bool(_C_MAIN.search(without_comments(code))))
    if _C_MAIN.search(without_comments(code)) and _C_MAIN.search(without_comments(tests)):
        code = f"#define main program_main\n#line 1\n{code}\n#undef main"
    text = f"{code}\n\n{tests}\n"
    if tests_leave_by_themselves(tests):
        return Source({name: text}, name)
    return Source({name: f"{proof}{text}"}, name, has_proof=True)


# -- Java ---------------------------------------------------------------------------------------------------------

_TYPE: Final = re.compile(r"\b(?:class|interface|enum|record)\s+([A-Za-z_$][\w$]*)")
_PUBLIC_TYPE: Final = re.compile(
    r"\bpublic\s+((?:(?:final|abstract|sealed|strictfp)\s+)*(?:class|interface|enum|record)\s+([A-Za-z_$][\w$]*))"
)
_JAVA_MAIN: Final = re.compile(r"\bstatic\s+(?:final\s+)?void\s+main\s*\(|\bvoid\s+main\s*\(\s*String\b")
_JAVA_IMPORT: Final = re.compile(r"^[ \t]*import\s+(?:static\s+)?[\w.*$ ]+;[ \t]*$", re.MULTILINE)
_JAVA_PACKAGE: Final = re.compile(r"^[ \t]*package\s+[\w.]+\s*;[ \t]*$", re.MULTILINE)
_JAVA_PROOF: Final = (
    "class SodaProof {{\n"
    "    public static void main(String[] words) throws Throwable {{\n"
    "        {main}.main(words);\n"
    '        try (var proof = new java.io.FileOutputStream("/proc/self/fd/3")) {{ proof.write(46); }}\n'
    "    }}\n"
    "}}\n"
)


def join_java(code: str, tests: str) -> Source:
    """One file, named after the public class; the imports of the tests move to the top.

    With tests their `main` rules, and the code's public classes lose `public` when the tests bring their own.
    """
    text = _JAVA_PACKAGE.sub("", code)
    main = _main_class(text)
    if tests:
        if _public_types(tests):
            text = _PUBLIC_TYPE.sub(lambda found: f"       {found[1]}", text)
        tests = _JAVA_PACKAGE.sub("", tests)
        imports = "".join(f"{found.strip()} " for found in _JAVA_IMPORT.findall(tests))
        text = f"{imports}{text}\n{_JAVA_IMPORT.sub('', tests)}"
        main = _main_class(tests) or main
    public = _public_types(text)
    files = {f"{public[0] if public else main or 'Main'}.java": text}
    has_proof = bool(tests and main) and not tests_leave_by_themselves(tests)
    if has_proof:
        files["SodaProof.java"] = _JAVA_PROOF.format(main=main)
    has_entry = bool(main or tests)
    return Source(files, "SodaProof" if has_proof else main or "Main", has_entry, has_proof)


def _public_types(text: str) -> list[str]:
    """Public types of the top level, in order."""
    return [found[2] for depth, found in _at_depths(_PUBLIC_TYPE, text) if depth == 0]


def _main_class(text: str) -> str:
    """The first top-level type that holds a static `main`; "" when none does."""
    types = [(found.start(), found[1]) for depth, found in _at_depths(_TYPE, text) if depth == 0]
    mains = [found.start() for depth, found in _at_depths(_JAVA_MAIN, text) if depth == 1]
    owners = [name for start, name in types if mains and start < mains[0]]
    return owners[-1] if owners else ""


def _at_depths(pattern: re.Pattern[str], text: str) -> list[tuple[int, re.Match[str]]]:
    """Matches outside comments and strings, each with the number of braces open around it."""
    bare = without_comments(text)
    found, depth, last = [], 0, 0
    for match in pattern.finditer(bare):
        depth += bare.count("{", last, match.start()) - bare.count("}", last, match.start())
        last = match.start()
        found.append((depth, match))
    return found


# -- Go -----------------------------------------------------------------------------------------------------------

_GO_PACKAGE: Final = re.compile(r"^[ \t]*package\s+(\w+)[ \t]*;?", re.MULTILINE)
_GO_IMPORTS: Final = re.compile(
    r"""^[ \t]*import\s*(?:\(([^)]*)\)|((?:[\w.]+[ \t]+)?(?:"[^"\n]*"|`[^`\n]*`)))[ \t]*;?""", re.MULTILINE
)
_GO_IMPORT: Final = re.compile(r"""(?:([\w.]+)[ \t]+)?(?:"([^"\n]*)"|`([^`\n]*)`)""")
_GO_FIRST_LINE: Final = "//line main.go:1\n"  # what follows keeps its line numbers
_GO_MAIN: Final = re.compile(r"^func\s+main\s*\(\s*\)", re.MULTILINE)
_GO_TEST: Final = re.compile(r"^func\s+(Test(?:[^a-z\s(][^\s(]*)?)\s*\(\s*\w+\s+\*testing\.T\s*\)", re.MULTILINE)
_GO_PROOF: Final = (
    "func main() {{\n\ttesting.Main(func(string, string) (bool, error) {{ return true, nil }}, "
    '[]testing.InternalTest{{{tests}, {{Name: "end", F: func(*testing.T) {{ proof.Write(3, []byte{{46}}) }}}}}}, '
    "nil, nil)\n}}\n"
)


def join_go(code: str, tests: str) -> Source:
    """One file of package main. With `func Test…` in the tests, a `main` that runs them in order."""
    if not tests:
        package = _GO_PACKAGE.search(code)
        is_program = package is None or package[1] == "main"
        has_entry = is_program and bool(_GO_MAIN.search(without_comments(code)))
        return Source(
            {"main.go": code if package else f"package main\n{_GO_FIRST_LINE}{code}"}, "main.go", has_entry
        )
    imports = dict.fromkeys(go_imports(code))
    names = _GO_TEST.findall(without_comments(tests))
    needed = [("", "testing"), ("proof", "syscall")] if names else []
    imports.update(dict.fromkeys([*go_imports(tests), *needed]))
    body, extra = (_GO_IMPORTS.sub(_blank, _GO_PACKAGE.sub("", text, count=1)) for text in (code, tests))
    if names or _GO_MAIN.search(without_comments(extra)):
        body = _GO_MAIN.sub("func programMain()", body)
    lines = "".join(f'\t{name} "{path}"\n' for name, path in imports)
    head = f"package main\nimport (\n{lines})\n{_GO_FIRST_LINE}"
    listed = ", ".join(f'{{Name: "{name}", F: {name}}}' for name in names)
    main = _GO_PROOF.format(tests=listed) if names else ""
    return Source({"main.go": f"{head}{body}\n{extra}\n{main}"}, "main.go", has_proof=bool(names))


# What reads files while compiling, or reaches into other packages: there are none of its own here.
_GO_REFUSED: Final = re.compile(r"//go:(?:embed|linkname|cgo_\w+)\b")


def refuse_go(joined: Source) -> Reading | None:
    text = joined.files["main.go"]
    found = next((match for match in _TOKENS.finditer(text) if _GO_REFUSED.match(match[0])), None)
    return found and Reading("import", f"{found[0].split()[0]} has nothing to name here", "compile")


def go_imports(text: str) -> list[tuple[str, str]]:
    """(name or "", path) of each import, in order."""
    found = []
    for block in _GO_IMPORTS.finditer(text):
        for item in _GO_IMPORT.finditer(block[1] if block[1] is not None else block[2]):
            found.append((item[1] or "", item[2] if item[2] is not None else item[3]))
    return found


def _blank(found: re.Match[str]) -> str:
    return "\n" * found[0].count("\n")
