"""One jail from the outside: open it, run programs in it one after the other, close it and nothing is left.

Limits are watched from here, outside every namespace of the jail: memory, processes, output and time.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from soda_jobs.sandbox.forked import Forked
from soda_jobs.sandbox.launched import Launched, in_memory, open_launched
from soda_jobs.sandbox.messages import ForkServer as ForkServer
from soda_jobs.sandbox.pipes import Pipes
from soda_jobs.sandbox.walls import BOX, Reply, Setup, Walls
from soda_jobs.sandbox.walls import JailEnded as JailEnded
from soda_jobs.sandbox.walls import JailFault as JailFault
from soda_jobs.sandbox.watch import OUTPUT_BYTES, TICK_SECONDS, Job, Limit, Output, Watch

ENDING_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended. `limit`: what we stopped it for; `is_certain`: an idle machine would not have helped,
    `is_idle`: because it slept or waited for most of its time.

    `code` is the exit code, or minus the signal's number; `stdout` and `stderr` keep the first and last 64 KiB.
    `returned` is all that the job asked for. `cpu_seconds` is of all its processes as the kernel counts, and 0 for
    a job that was stopped.
    """

    code: int
    limit: Limit | None
    is_certain: bool
    disk_is_full: bool
    is_proved: bool
    stdout: str
    stderr: str
    seconds: float
    returned: bytes = b""
    is_idle: bool = False
    cpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a request has no answer: the limit that it met, or "ended", and then `stderr` may say more."""

    limit: Limit | Literal["ended"]
    is_certain: bool
    stderr: str


class Jail:
    """Use as a context manager. `run` may be called several times; the files stay between the calls.

    With `fork_server`, jobs are copies of a warm interpreter where the launcher can make one, and executed
    elsewhere; they must have its argv and environment, and do the same either way.
    """

    def __init__(
        self,
        walls: Walls,
        files: Mapping[str, bytes],
        links: Mapping[str, str],
        *,
        shown: tuple[str, ...] = (),
        fork_server: ForkServer | None = None,
    ) -> None:
        self._walls = walls
        self._folder = None if walls.namespaces else tempfile.mkdtemp(prefix="soda-box-")
        self.box = self._folder or BOX
        self._setup = Setup(walls, self.box, files, links, shown)
        self._fork_server = fork_server
        self._inside: Launched | Forked | None = None
        self._pipes: Pipes | None = None

    def __enter__(self) -> Jail:
        try:
            if self._walls.launcher:
                self._inside, self._fork_server = open_launched(self._setup, self._fork_server)
            else:
                self._inside, self._fork_server = Forked(self._setup), None
        except (OSError, JailFault):
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._pipes is not None:
            self._pipes.close()
        if self._inside is not None:
            self._inside.close()
        if self._folder is not None:  # rm, because folders may nest deeper than Python's stack
            subprocess.run([shutil.which("rm") or "/bin/rm", "-rf", self._folder], check=False)

    def run(self, job: Job) -> Ended:
        """Start the job and watch it to its end. Raises JailFault when the jail broke."""
        inside = self._open()
        given = in_memory(job.stdin) if job.stdin else os.open("/dev/null", os.O_RDONLY)
        outputs = [Output(job.returns == "stdout"), Output(), Output(job.returns == "observations")]
        with Pipes(inside.control, outputs, self._walls.program_id) as pipes:
            started = time.monotonic()
            self._begin(inside, job, [given, *pipes.writers()])
            watch = Watch(lambda: inside.init, job, outputs, self._folder)
            while not pipes.wait(TICK_SECONDS):
                if watch.is_over():
                    inside.close()
                    reply = Reply(signal.SIGKILL, watch.limit == "disk", 0.0)
                    break
            else:
                reply = inside.reply()
            seconds = time.monotonic() - started
            pipes.drain(ENDING_SECONDS)
        stdout, stderr, proof = outputs
        return Ended(
            code=os.waitstatus_to_exitcode(reply.status),
            limit=watch.limit or ("output" if sum(output.size for output in outputs) > OUTPUT_BYTES else None),
            is_certain=watch.is_certain,
            disk_is_full=reply.disk_is_full,
            is_proved=proof.size > 0,
            stdout=stdout.text(),
            stderr=stderr.text(),
            seconds=seconds,
            returned=bytes({"": b"", "stdout": stdout.head, "observations": proof.head}[job.returns]),
            is_idle=watch.is_idle,
            cpu_seconds=reply.cpu_seconds,
        )

    def start(self, job: Job) -> Running:
        """Start a job that answers requests on its standard input until the jail is closed: see Running."""
        inside = self._open()
        outputs = [Output(is_whole=True), Output(), Output()]
        pipes = self._pipes = Pipes(inside.control, outputs, self._walls.program_id)
        self._begin(inside, job, [pipes.input(), *pipes.writers()])
        return Running(inside, job, pipes, outputs)

    def _open(self) -> Launched | Forked:
        if self._inside is None:
            raise JailFault("the jail is not open")
        return self._inside

    def _begin(self, inside: Launched | Forked, job: Job, handles: list[int]) -> None:
        server = self._fork_server
        try:
            if server is not None and (job.argv, tuple(job.env.items())) != (server.argv, server.env):
                raise JailFault(f"{job.argv} is not what this jail keeps warm, {server.argv}")
            inside.start(job, int(job.seconds * 4) + 10, handles)  # seconds of CPU: a net below the watch
        finally:
            for handle in handles:
                os.close(handle)


class Running:
    """A job that answers requests, for as long as its jail is open."""

    def __init__(self, inside: Launched | Forked, job: Job, pipes: Pipes, outputs: list[Output]) -> None:
        self._inside, self._job, self._pipes, self._outputs = inside, job, pipes, outputs

    def ask(self, request: bytes, is_whole: Callable[[bytes], bool]) -> bytes | Stop:
        """Write a request and read until `is_whole` of what has come since; or why there will be no answer.

        The limits are the job's, with its time anew for each request. After a Stop the jail is of no more use.
        """
        stdout, stderr, _ = self._outputs
        for output in self._outputs:
            output.clear()
        watch = Watch(lambda: self._inside.init, self._job, self._outputs, None, is_continued=True)
        self._pipes.give(request)
        while not is_whole(bytes(stdout.head)):
            if self._pipes.wait(TICK_SECONDS):
                return Stop("ended", is_certain=True, stderr=stderr.text())
            if watch.is_over():
                return Stop(watch.limit or "time", watch.is_certain, stderr.text())
        return bytes(stdout.head)
