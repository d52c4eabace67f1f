"""The runs that prove one verdict, kind by kind: each says what to run next and is told what came of it."""

from __future__ import annotations

import hashlib
from base64 import b64decode
from binascii import Error as NotBase64
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from soda_jobs.sandbox.diagnostics import Reading, clean
from soda_jobs.sandbox.oracle import observe, stdio
from soda_jobs.sandbox.oracle.codec import Garbled
from soda_jobs.sandbox.oracle.control import perturbed
from soda_jobs.sandbox.oracle.frames import Frames, read_frames
from soda_jobs.sandbox.oracle.session import Session
from soda_jobs.sandbox.oracle.values import NotSplittable
from soda_jobs.sandbox.types import Program, Verdict

Proof = Literal["observed", "controlled", "official"]

MAX_ROUNDS: Final = 5
_OURS: Final = ("sandbox_error", "unsupported")  # verdicts that say nothing of the program
_EARLY: Final = "it ended before its tests did"


@dataclass(frozen=True, slots=True)
class Proven:
    """A final verdict and what it rests on. `reason` is why not on more.

    `official` is what the tests said beside the program, when both ways were asked for.
    """

    verdict: Verdict
    proof: Proof
    reason: str = ""
    official: Verdict | None = None


class Trial(Protocol):
    """`next` is the program to run now; None when `proven` is there. `take` is given its verdict."""

    def next(self) -> Program | None: ...

    def take(self, verdict: Verdict) -> None: ...

    @property
    def proven(self) -> Proven: ...


class Official:
    """One run, whose word is taken."""

    def __init__(self, program: Program, reason: str) -> None:
        self._program, self._reason = program, reason
        self._verdict: Verdict | None = None

    def next(self) -> Program | None:
        return self._program if self._verdict is None else None

    def take(self, verdict: Verdict) -> None:
        self._verdict = verdict

    @property
    def proven(self) -> Proven:
        assert self._verdict is not None
        return Proven(self._verdict, "official", self._reason)


class Controlled:
    """A run with the tests as they are and, when it passes, one with a wrong expectation, which must fail."""

    def __init__(self, program: Program, reason: str) -> None:
        self._program, self._reason = program, reason
        self._first: Verdict | None = None
        self._control: Program | None = None
        self._proven: Proven | None = None

    def next(self) -> Program | None:
        if self._proven is not None:
            return None
        return self._program if self._first is None else self._control

    def take(self, verdict: Verdict) -> None:
        if self._first is not None:
            self._proven = self._compared(self._first, verdict)
            return
        self._first = verdict
        if verdict.verdict != "pass":
            self._proven = Proven(verdict, "controlled", self._reason)
            return
        if verdict.phase != "run":
            self._proven = Proven(verdict, "official", "its tests were compiled and not run")
            return
        tests = perturbed(self._program.language, self._program.tests, _seed(self._program))
        if tests is None:
            why = "; ".join(filter(None, (self._reason, "no expected value stands in its tests")))
            self._proven = Proven(verdict, "official", why)
        else:
            self._control = replace(self._program, tests=tests)

    def _compared(self, first: Verdict, control: Verdict) -> Proven:
        if control.verdict in _OURS:
            return Proven(control, "controlled", self._reason)
        if control.verdict == "pass":
            said = "it passes a test that no right program passes"
            return Proven(replace(first, verdict="tampered", detail=said), "controlled", self._reason)
        if control.verdict not in _CHECKED:
            said = f"with another expected value it ended as {control.verdict}: {control.detail}"
            return Proven(replace(first, verdict="flaky", detail=said[:500]), "controlled", self._reason)
        return Proven(first, "controlled", self._reason)

    @property
    def proven(self) -> Proven:
        assert self._proven is not None
        return self._proven


_CHECKED: Final = ("logic", "runtime")  # how a failed check ends, by language


def _seed(program: Program) -> str:
    text = f"{program.id}\0{program.code}\0{program.tests}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Observed:
    """Runs that answer calls, until the tests can be interpreted without a guess; what cannot, is controlled."""

    def __init__(self, program: Program, prepared: observe.Prepared) -> None:
        self._program, self._prepared = program, prepared
        self._steps = prepared.first.steps
        self._rounds = 0
        self._proven: Proven | None = None
        self._instead: Controlled | None = None

    def next(self) -> Program | None:
        if self._instead is not None:
            return self._instead.next()
        if self._proven is not None:
            return None
        return replace(self._program, tests=observe.driver(self._steps), returns="observations")

    def take(self, verdict: Verdict) -> None:
        if self._instead is not None:
            self._instead.take(verdict)
            return
        self._rounds += 1
        try:
            self._judge(verdict)
        except Garbled as error:
            is_whole = verdict.verdict == "pass"
            said = f"it wrote where only the harness may: {error}"
            self._end(replace(verdict, verdict="tampered", detail=said) if is_whole else verdict)
        except NotSplittable as reason:
            self._instead = Controlled(self._program, str(reason))

    def _judge(self, verdict: Verdict) -> None:
        if verdict.verdict in _OURS or verdict.phase == "extract":
            self._end(verdict)
            return
        frames = read_frames(_bytes(verdict.returned), len(self._steps))
        if frames.left and verdict.verdict == "pass":  # nothing cut its last message off
            raise Garbled("what it wrote is no message")
        if frames.load is None:
            self._end(_early(verdict))
        elif frames.load[0] == "unreadable":
            self._end(_as(verdict, Reading("syntax", f"{frames.load[1]}: {frames.load[2]}", "compile")))
        elif frames.load[0] == "raised":
            self._end(_as(verdict, observe.failure(frames.load[1], frames.load[2])))
        else:
            self._interpret(verdict, frames)

    def _interpret(self, verdict: Verdict, frames: Frames) -> None:
        session = Session(self._steps, frames.answers, is_over=len(frames.answers) < len(self._steps))
        found = observe.explore(self._prepared, session)
        if found.is_over:
            self._end(_early(verdict))
        elif found.reading is None:
            if self._rounds >= MAX_ROUNDS:
                raise NotSplittable("what it calls depends on too many answers")
            self._steps = found.steps
        elif found.reading.word == "pass" and (not frames.is_whole or verdict.verdict != "pass"):
            self._end(_early(verdict))
        elif found.reading.word == "pass" and found.is_shown:
            raise NotSplittable("it computes with an object of the program")
        else:
            self._end(_as(verdict, found.reading))

    def _end(self, verdict: Verdict) -> None:
        self._proven = Proven(replace(verdict, returned=""), "observed")

    @property
    def proven(self) -> Proven:
        if self._instead is not None:
            return self._instead.proven
        assert self._proven is not None
        return self._proven


class Printed:
    """A run for each case, until one fails: only its input goes in, and what it printed is compared outside."""

    def __init__(self, program: Program, suite: stdio.Suite) -> None:
        self._program, self._suite = program, suite
        self._number = 0
        self._proven: Proven | None = None

    def next(self) -> Program | None:
        if self._proven is not None:
            return None
        return replace(self._program, tests="", stdin=self._suite.cases[self._number].stdin, returns="stdout")

    def take(self, verdict: Verdict) -> None:
        said = None
        if verdict.verdict == "pass":
            said = self._suite.objection(self._number, _bytes(verdict.returned))
            verdict = verdict if said is None else _as(verdict, Reading("logic", said))
        self._number += 1
        if verdict.verdict != "pass" or self._number == len(self._suite.cases):
            self._proven = Proven(replace(verdict, returned=""), "observed")

    @property
    def proven(self) -> Proven:
        assert self._proven is not None
        return self._proven


def _bytes(returned: str) -> bytes:
    try:
        return b64decode(returned)
    except NotBase64 as error:
        raise Garbled(str(error)) from error


def _early(verdict: Verdict) -> Verdict:
    """The limit or signal that ended it; or, when it chose to end, that it did."""
    is_own_choice = verdict.verdict in ("pass", "logic")
    return _as(verdict, Reading("runtime", _EARLY)) if is_own_choice else verdict


def _as(verdict: Verdict, reading: Reading) -> Verdict:
    detail = clean(reading.detail, "/box")
    return replace(verdict, verdict=reading.word, phase=reading.phase, detail=detail)


class Both:
    """The official run first, then those of a trial."""

    def __init__(self, program: Program, trial: Trial) -> None:
        self._official, self._trial = Official(program, ""), trial

    def next(self) -> Program | None:
        return self._official.next() or self._trial.next()

    def take(self, verdict: Verdict) -> None:
        (self._trial if self._official.next() is None else self._official).take(verdict)

    @property
    def proven(self) -> Proven:
        return replace(self._trial.proven, official=self._official.proven.verdict)
