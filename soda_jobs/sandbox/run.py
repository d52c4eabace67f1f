"""One program in, one verdict out: its files, its compiler, its run, each in one jail of its own."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from soda_jobs.log import event
from soda_jobs.sandbox import machine, tools
from soda_jobs.sandbox.diagnostics import Reading, clean
from soda_jobs.sandbox.inside import BOX, Walls
from soda_jobs.sandbox.jail import Ended, ForkServer, Jail, JailEnded, JailFault
from soda_jobs.sandbox.languages import COMPILE_MIB, COMPILE_SECONDS, LANGUAGES, Language, Resident, version_in
from soda_jobs.sandbox.service import SECONDS, Reply, Service
from soda_jobs.sandbox.source import Source
from soda_jobs.sandbox.types import Phase, Program, Verdict
from soda_jobs.sandbox.watch import Job, Limit

_ENV: Final = {"PATH": tools.PATH, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC", "USER": "program"}
_LIMIT_WORDS: Final[Mapping[Limit, str]] = {
    "time": "timeout",
    "memory": "memory",
    "processes": "process_limit",
    "output": "output_limit",
    "disk": "disk_limit",
}
# A limit may be met by us, by the kernel or by the runtime, whichever is first: the detail says the same for all.
_LIMIT_DETAILS: Final[Mapping[str, str]] = {
    "timeout": "it used up its time limit",
    "memory": "it used up its memory limit",
    "process_limit": "it started too many processes or threads",
    "output_limit": "it wrote too much output",
    "disk_limit": "it wrote too much to its disk",
    "compile_limit": "the compiler used up a limit of time, memory or output",
}
_NO_PROOF: Final = "it ended before its tests did"
_OBSERVING: Final = ("hashlib", "struct")  # modules that the driver of observations imports as well
_NO_ENTRY: Final = "compiled; there is no entry point to run"


@dataclass(frozen=True, slots=True)
class Result:
    """`is_final` is False when a busy machine may be the cause: run it again, alone, before believing it.
    `is_idle`: it slept or waited for most of its time."""

    verdict: Verdict
    is_final: bool = True
    is_idle: bool = False


def execute(program: Program, walls: Walls) -> Result:
    """Run one program. Never raises for what a program does; a fault of ours is a verdict `sandbox_error`."""
    language = LANGUAGES.get(program.language)
    if language is None:
        detail = f"{program.language[:40]!r} is not one of {', '.join(LANGUAGES)}"
        return Result(_verdict(program, "unsupported", "extract", detail))
    missing = [tool for tool in language.tools if tools.find(tool) is None]
    if missing:
        return Result(
            _verdict(program, "environment", "extract", f"{missing[0]} is not installed in this sandbox")
        )
    try:
        joined = _join(program, language)
        if reading := language.refuse(joined):
            return Result(_verdict(program, reading.word, reading.phase, reading.detail))
        return _run(program, language, joined, walls)
    except JailEnded:  # once may be the machine's memory; twice, and alone, is the program
        return Result(_verdict(program, "runtime", "run", "it ended the process that watches it"), is_final=False)
    except (JailFault, OSError) as error:
        return Result(_verdict(program, "sandbox_error", "run", str(error)))


def _run(program: Program, language: Language, joined: Source, walls: Walls) -> Result:
    """Raises JailFault and OSError."""
    made, seconds = _compile_warm(program, language, joined, walls)
    if made is not None and made.errors:
        reading = language.read_compile(made.errors)
        return Result(_verdict(program, reading.word, "compile", reading.detail, seconds))
    content = _encoded({**joined.files, **language.extra_files(joined)})
    if made is not None:
        content = {**made.files, **content}
    server = _fork_server(program, language, joined)
    with Jail(walls, content, language.links(), shown=_shown(language), fork_server=server) as jail:
        if made is None:
            ended, seconds = _compile_in_jail(language, joined, jail)
            if ended is not None:
                reading = _read_compile(language, ended)
                return _result(program, reading._replace(phase="compile"), ended, jail.box, seconds)
        if not joined.has_entry:
            return Result(_verdict(program, "pass", "compile", _NO_ENTRY, seconds))
        ended = jail.run(_job(program, language, joined, jail.box))
        reading = _read_run(program, language, joined, ended)
        return _result(program, reading, ended, jail.box, seconds + ended.seconds)


_services: Final[dict[str, Service]] = {}


def _compile_warm(
    program: Program, language: Language, joined: Source, walls: Walls
) -> tuple[Reply | None, float]:
    """What this worker's compiler service says, if it has one and it says something; and the seconds it took."""
    resident = language.service
    if resident is None:
        return None, 0.0
    service = _services.setdefault(program.language, Service(lambda walls: _opening(language, resident, walls)))
    started = time.monotonic()
    sources = {name: text for name, text in joined.files.items() if name.endswith(resident.suffixes)}
    reply = service.ask(_encoded(sources), walls)
    return reply, time.monotonic() - started


def _opening(language: Language, resident: Resident, walls: Walls) -> tuple[Jail, Job]:
    jail = Jail(walls, _encoded(resident.files()), {}, shown=_shown(language))
    return jail, Job(resident.argv(), _env(language, jail.box), SECONDS, COMPILE_MIB << 20)


def _compile_in_jail(language: Language, joined: Source, jail: Jail) -> tuple[Ended | None, float]:
    """The step that failed, if one did; and the seconds that all took."""
    env, seconds = _env(language, jail.box), 0.0
    if jail.box != BOX:  # no walls are built, and what we keep may be nothing that a program's user may read
        joined = replace(joined, headers=())
    for argv in language.compile(joined):
        ended = jail.run(Job(argv, env, COMPILE_SECONDS, COMPILE_MIB << 20))
        seconds += ended.seconds
        if ended.limit is not None or ended.code != 0:
            return ended, seconds
    return None, seconds


def _encoded(files: Mapping[str, str]) -> dict[str, bytes]:
    return {name: text.encode("utf-8", errors="surrogatepass") for name, text in files.items()}


def _join(program: Program, language: Language) -> Source:
    if program.returns == "observations" and program.language == "python":
        return Source({"program.py": program.code, "main.py": program.tests}, "main.py")
    return language.join(program.code, program.tests)


def versions(walls: Walls) -> dict[str, str | None]:
    """The version of each language's toolchain as a jail sees it; None where it does not start."""
    found: dict[str, str | None] = {}
    for name, language in LANGUAGES.items():
        try:
            found[name] = _version(language, walls)
        except JailFault as fault:
            event("toolchain_does_not_start", language=name, reason=str(fault))
            found[name] = None
    return found


def _version(language: Language, walls: Walls) -> str | None:
    """Raises JailFault."""
    if any(tools.find(tool) is None for tool in language.tools):
        return None
    with Jail(walls, {}, {}, shown=_shown(language)) as jail:
        ended = jail.run(Job(language.version(), _env(language, jail.box), COMPILE_SECONDS, COMPILE_MIB << 20))
    return version_in(ended.stdout + ended.stderr) if ended.code == 0 else None


def _fork_server(program: Program, language: Language, joined: Source) -> ForkServer | None:
    """What to keep started for programs of this language: the same command, waiting for its main file."""
    if language.preloaded is None:
        return None
    return ForkServer(
        argv=language.run(joined, program.memory_mib),
        env=tuple(_env(language, BOX).items()),
        awaited=joined.main,
        files=tuple(language.extra_files(joined).items()),
        links=tuple(language.links().items()),
        preloaded=language.preloaded + (_OBSERVING if program.returns == "observations" else ()),
    )


def _job(program: Program, language: Language, joined: Source, box: str) -> Job:
    memory = program.memory_mib
    return Job(
        argv=language.run(joined, memory),
        env=_env(language, box),
        seconds=program.timeout_seconds,
        memory_bytes=(memory + language.overhead_mib) << 20,
        address_bytes=memory << 20 if language.is_address_limited else None,
        stdin=program.stdin.encode("utf-8", errors="surrogatepass"),
        returns=program.returns,
    )


def _read_compile(language: Language, ended: Ended) -> Reading:
    if ended.limit is not None or ended.code < 0 or ended.disk_is_full:
        return Reading("compile_limit", "")
    return language.read_compile(ended.stderr or ended.stdout)


def _read_run(program: Program, language: Language, joined: Source, ended: Ended) -> Reading:
    if ended.limit is not None:
        return Reading(_LIMIT_WORDS[ended.limit], "")
    if ended.code == 0:
        return Reading("pass", "") if ended.is_proved or not joined.has_proof else Reading("runtime", _NO_PROOF)
    if ended.disk_is_full:
        return Reading("disk_limit", "")
    return language.read_run(ended.stderr, ended.code, bool(program.tests))


def _result(program: Program, reading: Reading, ended: Ended, box: str, seconds: float) -> Result:
    detail = _LIMIT_DETAILS.get(reading.word, reading.detail)
    verdict = _verdict(program, reading.word, reading.phase, clean(detail, box), seconds)
    if ended.returned:
        verdict = replace(verdict, returned=b64encode(ended.returned).decode())
    return Result(verdict, is_final=ended.limit != "time" or ended.is_certain, is_idle=ended.is_idle)


def _verdict(program: Program, word: str, phase: Phase, detail: str, seconds: float = 0.0) -> Verdict:
    return Verdict(program.id, program.language, word, phase, clean(detail, BOX), round(seconds, 3))


def _env(language: Language, box: str) -> dict[str, str]:
    temporary = "/tmp" if box == BOX else box
    return {**_ENV, "HOME": box, "TMPDIR": temporary, **dict(language.env)}


def _shown(language: Language) -> tuple[str, ...]:
    folders = [folder for tool in language.tools for folder in tools.folders(tool)]
    return tuple(dict.fromkeys((*folders, *language.shown())))


def find_walls(slot: int) -> Walls:
    """The strongest walls of this machine that Python runs within. Raises JailFault when it runs within none."""
    return machine.strongest(slot, _obstacle)


def _obstacle(walls: Walls) -> str | None:
    """Why Python does not run within these walls; None when it does."""
    try:
        return None if _version(LANGUAGES["python"], walls) else "Python does not start"
    except OSError as error:
        return str(error)
    except JailFault as fault:
        return str(fault)
