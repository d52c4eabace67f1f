"""How Java is compiled, by javac or by a javac that stays, and run."""

from __future__ import annotations

from typing import Final

from soda_jobs.sandbox.service import text_of
from soda_jobs.sandbox.source import Source
from soda_jobs.sandbox.tools import CPUS, path_of

Argv = tuple[str, ...]

_JVM: Final = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    f"-XX:ActiveProcessorCount={CPUS}",
    "-XX:-UsePerfData",
)
_JAVAC: Final = (
    "-XDrawDiagnostics",
    "-proc:none",
    "-nowarn",
    "-Xmaxerrs",
    "3",
    "-encoding",
    "UTF-8",
    "-implicit:none",
)
_SERVICE: Final = "Compiler.java"
_JAVAC_LIMITS: Final = ("-Xmx512m", "-XX:MaxMetaspaceSize=256m", *_JVM)


def compile_(joined: Source) -> tuple[Argv, ...]:
    limits = (f"-J{flag}" for flag in _JAVAC_LIMITS)
    return ((path_of("javac"), *limits, *_JAVAC, "-d", ".", *sorted(joined.files)),)


def scripts() -> dict[str, str]:
    return {_SERVICE: text_of(_SERVICE)}


def serve() -> Argv:
    limits = ("-XX:MaxDirectMemorySize=16m", "-XX:+ExitOnOutOfMemoryError", *_JAVAC_LIMITS)
    return (path_of("java"), *limits, _SERVICE, *_JAVAC, "-classpath", "none")


def run(joined: Source, memory_mib: int) -> Argv:
    checks = ("-ea",) if joined.has_proof else ()
    limits = (
        f"-Xmx{memory_mib}m",
        *_JVM,
        "-XX:+DisableAttachMechanism",
        "-Dfile.encoding=UTF-8",
    )
    return (path_of("java"), *limits, *checks, "-cp", ".", joined.main)
