"""The pipes of a job: what it writes is always drained, and what it is asked is written as it reads."""

from __future__ import annotations

import os
import select
import socket
import time

from soda_jobs.sandbox.watch import KEPT_BYTES, Output


class Pipes:
    """A pipe for each output. `control` is readable when the job has ended. Use it in a `with`."""

    def __init__(self, control: socket.socket, outputs: list[Output], owner: int | None) -> None:
        self._control = control.fileno()
        self._outputs: dict[int, Output] = {}
        self._writers: list[int] = []
        self._input, self._request = -1, b""
        self._poll = select.poll()
        self._poll.register(self._control, select.POLLIN)
        for output in outputs:
            reader, writer = os.pipe()
            self._outputs[reader] = output
            self._writers.append(writer)
            self._poll.register(reader, select.POLLIN)
            if owner is not None:  # so that a program may open /dev/stdout
                os.fchown(writer, owner, owner)

    def __enter__(self) -> Pipes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for handle in (*self._outputs, *self._writers, *([self._input] if self._input >= 0 else [])):
            os.close(handle)
        self._outputs, self._writers, self._input = {}, [], -1

    def writers(self) -> list[int]:
        """For the job, and the taker's to close: then the end of the job is the end of the pipes."""
        writers, self._writers = self._writers, []
        return writers

    def input(self) -> int:
        """For the job, and the taker's to close: where it reads what is given."""
        reader, self._input = os.pipe()
        os.set_blocking(self._input, False)
        return reader

    def give(self, request: bytes) -> None:
        """Write the request to the job while waiting."""
        self._request = request
        self._poll.register(self._input, select.POLLOUT)

    def wait(self, seconds: float) -> bool:
        """Move what can be moved; True when the job has ended."""
        found = self._poll.poll(seconds * 1000)
        if any(handle == self._control for handle, _ in found):
            return True
        for handle, _ in found:
            self._move(handle)
        return False

    def drain(self, seconds: float) -> None:
        """Read what is left. All writers are dead, so this ends; the deadline is for what a kernel may do."""
        self._poll.unregister(self._control)
        deadline = time.monotonic() + seconds
        while self._outputs and time.monotonic() < deadline:
            for handle, _ in self._poll.poll(seconds * 1000):
                self._move(handle)

    def _move(self, handle: int) -> None:
        if handle == self._input:
            self._write()
            return
        data = os.read(handle, KEPT_BYTES)
        if data:
            self._outputs[handle].add(data)
        else:
            self._poll.unregister(handle)
            del self._outputs[handle]
            os.close(handle)

    def _write(self) -> None:
        try:
            self._request = self._request[os.write(self._input, self._request[:KEPT_BYTES]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it reads no more; its end will be seen
            self._request = b""
        if not self._request:
            self._poll.unregister(self._input)
