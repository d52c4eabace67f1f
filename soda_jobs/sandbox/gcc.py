"""How C and C++ are compiled. What the compiler then says is read in compilers.py."""

from __future__ import annotations

from functools import cache
from typing import Final

from soda_jobs.sandbox import precompiled, tools
from soda_jobs.sandbox.source import Source
from soda_jobs.sandbox.tools import path_of

Argv = tuple[str, ...]

# No -fmax-errors: when it stops the compiler, the JSON is never written. No -pipe: a file costs less than a pipe
# where system calls are dear.
_FLAGS: Final = ("-fdiagnostics-format=json", "-w", "-fno-diagnostics-show-caret")
CPP_FLAGS: Final = ("-std=gnu++17", *_FLAGS)


@cache
def _linker() -> Argv:
    """Linking is most of what a small C program costs, and costs half with the linker that reads less."""
    return ("-fuse-ld=gold",) if tools.find("ld.gold") is not None else ()


def _compile(tool: str, joined: Source, *flags: str) -> tuple[Argv, ...]:
    wrap = ("-Wl,--wrap=main",) if joined.has_proof else ()
    linking = (*_linker(), *wrap) if joined.has_entry else ("-c",)
    return ((path_of(tool), *flags, *linking, *sorted(joined.files), "-o", "program", "-lm"),)


def compile_c(joined: Source) -> tuple[Argv, ...]:
    return _compile("gcc", joined, "-std=gnu17", *_FLAGS)


def compile_cpp(joined: Source) -> tuple[Argv, ...]:
    header = precompiled.header_for(joined.headers, CPP_FLAGS)
    return _compile("g++", joined, *CPP_FLAGS, *(("-include", str(header)) if header is not None else ()))
