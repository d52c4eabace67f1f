"""Programs whose verdicts are known, run among the others: a server that judges one of them wrong is not believed.

A check runs them all. It is due at the start, every 500 programs and after an anomaly, and whoever collects
verdicts asks for one before believing them; fewer than 32 programs since the last good check are believed without
another. A wrong canary begins a new epoch: verdicts of the one before that nobody had proved are void.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from soda_jobs.log import event
from soda_jobs.sandbox.types import Program, Verdict

EVERY: Final = 500
FEW: Final = 32
TRIES: Final = 3  # of a canary that met a fault of ours, and of a check that was wrong

_ADD: Final = "def add(a, b):\n    return a {} b\n"
_TEST: Final = "assert add(2, 1) == 3"
_FORKS: Final = "import os, time\nwhile True:\n    if os.fork() == 0:\n        time.sleep(60)\n"
# In Python, which every sandbox has: each kind of verdict that a wall, a limit or a test gives.
_COMMON: Final[Mapping[str, Program]] = {
    "pass": Program("", "python", _ADD.format("+"), _TEST),
    "logic": Program("", "python", _ADD.format("-"), _TEST),
    "syntax": Program("", "python", "def add(a, b:\n    return a + b\n"),
    "timeout": Program("", "python", "import time\ntime.sleep(60)\n", timeout_seconds=0.3),
    "memory": Program("", "python", "x = bytearray(1 << 30)\n", memory_mib=128),
    "process_limit": Program("", "python", _FORKS, memory_mib=8192),  # where pages that are shared count for each
}
# In the other languages: their toolchain compiles and runs, and refuses what is no program.
_GOOD_AND_BROKEN: Final[Mapping[str, tuple[str, str]]] = {
    "java": ('class Main { public static void main(String[] a) { System.out.print("1"); } }', "class Main {"),
    "javascript": ("console.log(1);", "function ("),
    "typescript": ("const one: number = 1;\nconsole.log(one);", "function ("),
    "c": ("int main(void) { return 0; }", "int main(void) {"),
    "cpp": ("int main() { return 0; }", "int main() {"),
    "go": ("package main\n\nfunc main() {}\n", "package main\n\nfunc main() {\n"),
    "rust": ("fn main() {}", "fn main() {"),
    "ruby": ("puts 1", "def ("),
}


_WATCHED: Final = ("timeout", "memory", "process_limit")


@dataclass(frozen=True, slots=True)
class Canary:
    program: Program
    expected: str


def canaries(languages: Iterable[str]) -> list[Canary]:
    """Those that every server has, and two for each of these languages."""
    found = [Canary(program, word) for word, program in _COMMON.items()]
    for language in sorted({*languages} & _GOOD_AND_BROKEN.keys()):
        good, broken = _GOOD_AND_BROKEN[language]
        found.append(Canary(Program("", language, good), "pass"))
        found.append(Canary(Program("", language, broken), "syntax"))
    return found


class Canaries:
    """The canaries of one server. `heal` is called after a wrong check, before the next; `epoch` counts those."""

    def __init__(
        self, run: Callable[[Program], Awaitable[Verdict]], heal: Callable[[str], Awaitable[None]]
    ) -> None:
        self._run, self._heal = run, heal
        self._lock = asyncio.Lock()
        self._since, self._is_odd = 0, True
        self._used: set[str] = set()
        self.epoch = 0

    def saw(self, verdict: Verdict) -> None:
        """Count a verdict that was given."""
        self._since += 1
        self._is_odd = self._is_odd or verdict.verdict == "sandbox_error"
        if verdict.phase != "extract":
            self._used.add(verdict.language)

    @property
    def is_due(self) -> bool:
        return self._is_odd or self._since >= EVERY

    async def check(self) -> str:
        """Prove that what was given until now is right: the empty text, or which canary was wrong.

        Raises CanariesWrong when healing does not help.
        """
        async with self._lock:
            first, wrong = "", None
            for _ in range(TRIES):
                if not self._is_odd and self._since < FEW:
                    return first
                wrong = await self._check()
                if wrong is None:
                    return first
                first = first or str(wrong)
                self.epoch += 1
                event("canary_wrong", reason=str(wrong), epoch=self.epoch)
                await self._heal(str(wrong))
        assert wrong is not None
        raise wrong

    async def _check(self) -> CanariesWrong | None:
        used, self._used, self._since, self._is_odd = self._used, set(), 0, False
        found = await asyncio.gather(*map(self._one, canaries(used)))
        wrong = next((one for one in found if one is not None), None)
        self._is_odd = self._is_odd or wrong is not None
        return wrong

    async def _one(self, canary: Canary) -> CanariesWrong | None:
        for _ in range(TRIES):
            verdict = await self._run(canary.program)
            if verdict.verdict != "sandbox_error":
                break
        if verdict.verdict == canary.expected:
            return None
        name = f"a {canary.program.language} program that is {canary.expected}"
        is_unwatched = canary.expected in _WATCHED and verdict.verdict != "sandbox_error"
        return CanariesWrong(f"{name} was judged {verdict.verdict} ({verdict.detail})", is_unwatched)


class CanariesWrong(Exception):
    """Which canary was judged how. `is_unwatched`: a program was over a limit and was not stopped for that."""

    def __init__(self, sentence: str, is_unwatched: bool) -> None:
        super().__init__(sentence)
        self.is_unwatched = is_unwatched
