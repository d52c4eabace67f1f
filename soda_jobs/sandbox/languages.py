"""The one table of languages: how each is written to files, compiled, run and read. A language is a row."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from soda_jobs.sandbox import (
    compilers,
    gcc,
    golang,
    java,
    precompiled,
    ruby,
    runtimes,
    rust,
    source,
    tools,
    typescript,
)
from soda_jobs.sandbox.diagnostics import Reading
from soda_jobs.sandbox.source import Source
from soda_jobs.sandbox.tools import path_of

Argv = tuple[str, ...]

COMPILE_SECONDS: Final = 30.0
COMPILE_MIB: Final = 1024

_NODE_ENV: Final = (("NODE_DISABLE_COLORS", "1"), ("NO_UPDATE_NOTIFIER", "1"))


@dataclass(frozen=True, slots=True)
class Resident:
    """A compiler that stays, see service.py: what to run on which files of its own, and the sources it is sent."""

    argv: Callable[[], Argv]
    files: Callable[[], dict[str, str]]
    suffixes: Argv


@dataclass(frozen=True, slots=True)
class Language:
    """One row.

    tools           programs that must be installed
    version         argv of the question for the version, which is the first number with a dot in the reply
    join            code and tests -> Source
    extra_files     files that the toolchain needs, made outside the jail from the Source
    links           links that it needs among them, name -> where it leads
    shown           folders that it needs besides its tools' own
    refuse          what is refused without asking the compiler, as if it had
    compile         argv of each step, in order
    run             argv for a memory limit in MiB
    service         the same compiler as a service, which spares its start
    preloaded       modules of an interpreter that is started once and copied for each run; None: it is executed
    read_compile    stderr (or stdout) of a failed step -> Reading
    read_run        stderr, exit code, whether there were tests -> Reading
    is_address_limited   RLIMIT_AS works; where a runtime reserves addresses, only resident memory is watched
    overhead_mib    what the runtime itself needs beyond the program's memory
    env             variables that make it behave the same on all machines
    """

    tools: tuple[str, ...]
    version: Callable[[], Argv]
    join: Callable[[str, str], Source]
    compile: Callable[[Source], tuple[Argv, ...]]
    run: Callable[[Source, int], Argv]
    read_compile: Callable[[str], Reading]
    read_run: Callable[[str, int, bool], Reading]
    extra_files: Callable[[Source], dict[str, str]] = lambda joined: {}
    links: Callable[[], dict[str, str]] = dict
    shown: Callable[[], Argv] = tuple
    refuse: Callable[[Source], Reading | None] = lambda joined: None
    service: Resident | None = None
    preloaded: Argv | None = None
    is_address_limited: bool = False
    overhead_mib: int = 0
    env: tuple[tuple[str, str], ...] = ()


def _asking(tool: str, *words: str) -> Callable[[], Argv]:
    return lambda: (path_of(tool), *words)


def _nothing(joined: Source) -> tuple[Argv, ...]:
    return ()


# An environment of its own for each program, with no package in it: what else is installed on this machine, for
# the sandbox or for all, is not there to import. `-S` would do that too, but take exit() and quit() away.
_PYTHON: Final = ".python/bin/python"


def _python_files(joined: Source) -> dict[str, str]:
    home = Path(path_of("python")).parent
    return {".python/pyvenv.cfg": f"home = {home}\ninclude-system-site-packages = false\n"}


def _python_links() -> dict[str, str]:
    return {_PYTHON: path_of("python")}


def _run_python(joined: Source, memory_mib: int) -> Argv:
    return (f"./{_PYTHON}", "-B", "-s", joined.main)


def _run_node(joined: Source, memory_mib: int) -> Argv:
    main = joined.main.replace(".ts", ".js").replace(".mts", ".mjs")  # TypeScript is run as what it was made into
    return (path_of("node"), f"--max-old-space-size={memory_mib}", "--require", f"./{source.PRELOAD}", main)


def _run_native(joined: Source, memory_mib: int) -> Argv:
    return ("./program",)


def _go_config(joined: Source) -> dict[str, str]:
    paths = [path for _, path in source.go_imports(joined.files["main.go"])]
    return {"packages.cfg": golang.import_config(paths)}


def _compile_go(joined: Source) -> tuple[Argv, ...]:
    config = ("-importcfg", "packages.cfg")
    compile_ = (golang.tool("compile"), "-p", "main", "-complete", *config, "-pack", "-o", "main.a", "main.go")
    link = (golang.tool("link"), *config, "-s", "-w", "-o", "program", "main.a")
    return (compile_, link) if joined.has_entry else (compile_,)


LANGUAGES: Final[Mapping[str, Language]] = {
    "python": Language(
        tools=("python",),
        version=_asking("python", "--version"),
        join=source.join_python,
        compile=_nothing,
        run=_run_python,
        read_compile=lambda text: Reading("syntax", text),
        read_run=runtimes.python_run,
        extra_files=_python_files,
        links=_python_links,
        preloaded=("typing", "math"),  # what most programs import; each costs the others a little
        is_address_limited=True,
        env=(("PYTHONHASHSEED", "0"), ("PYTHONIOENCODING", "utf-8:surrogateescape")),
    ),
    "java": Language(
        tools=("javac", "java"),
        version=_asking("javac", "-version"),
        join=source.join_java,
        compile=java.compile_,
        run=java.run,
        service=Resident(java.serve, java.scripts, (".java",)),
        read_compile=compilers.javac_compile,
        read_run=runtimes.java_run,
        overhead_mib=256,
    ),
    "javascript": Language(
        tools=("node",),
        version=_asking("node", "--version"),
        join=source.join_javascript,
        compile=_nothing,
        run=_run_node,
        read_compile=lambda text: Reading("syntax", text),
        read_run=runtimes.node_run,
        overhead_mib=128,
        env=_NODE_ENV,
    ),
    "typescript": Language(
        tools=("node", "tsc"),
        version=lambda: (path_of("node"), "-p", "require(process.argv[1]).version", path_of("tsc")),
        join=typescript.join,
        compile=typescript.compile_,
        run=_run_node,
        read_compile=typescript.read_compile,
        read_run=runtimes.node_run,
        extra_files=lambda joined: typescript.scripts(),
        service=Resident(typescript.serve, typescript.scripts, (".ts", ".mts")),
        overhead_mib=128,
        env=_NODE_ENV,
    ),
    "c": Language(
        tools=("gcc",),
        version=_asking("gcc", "--version"),
        join=source.join_c,
        compile=gcc.compile_c,
        run=_run_native,
        read_compile=compilers.gcc_compile,
        read_run=runtimes.native_run,
        is_address_limited=True,
    ),
    "cpp": Language(
        tools=("g++",),
        version=_asking("g++", "--version"),
        join=source.join_cpp,
        compile=gcc.compile_cpp,
        shown=lambda: (str(precompiled.folder()),),
        run=_run_native,
        read_compile=compilers.gcc_compile,
        read_run=runtimes.native_run,
        is_address_limited=True,
    ),
    "go": Language(
        tools=("go",),
        version=_asking("go", "version"),
        join=source.join_go,
        compile=_compile_go,
        run=_run_native,
        read_compile=compilers.go_compile,
        read_run=runtimes.go_run,
        extra_files=_go_config,
        shown=lambda: (str(golang.cache_folder()),),
        refuse=source.refuse_go,
        overhead_mib=64,
        env=(("GOMAXPROCS", str(tools.CPUS)), ("GOTRACEBACK", "single")),
    ),
    "rust": Language(
        tools=("rustc", "gcc"),
        version=_asking("rustc", "--version"),
        join=rust.join,
        compile=rust.compile_,
        run=rust.run,
        read_compile=rust.read_compile,
        read_run=rust.read_run,
        refuse=rust.refuse,
        is_address_limited=True,
        env=(("RUST_BACKTRACE", "0"),),
    ),
    "ruby": Language(
        tools=("ruby",),
        version=_asking("ruby", "--version"),
        join=ruby.join,
        compile=_nothing,
        run=ruby.run,
        read_compile=lambda text: Reading("syntax", text),
        read_run=ruby.read_run,
        is_address_limited=True,
    ),
}

_NUMBER: Final = re.compile(r"\d+\.\d[\w.]*")


def version_in(reply: str) -> str:
    found = _NUMBER.search(reply)
    return found[0] if found else json.dumps(reply[:40])
