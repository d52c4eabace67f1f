"""Errors, typed by what the caller should do next, and the one table of exit codes.

    SodaError
    ├── InvalidInput      fix the input: the message says value, accepted values, field
    ├── Retry             try again later, the same way: a store, server or node was away
    ├── GiveUp            trying again gives the same answer: a stage lost too many rows, a loss was not finite
    └── SandboxNotIsolated  untrusted code could escape: never run it, never fall back

Anything else that escapes a stage is our bug (exit code 70). The Kubernetes `podFailurePolicy` and the local
executor both read this table; nothing else decides what a failure means.
"""

from __future__ import annotations

import errno
from enum import IntEnum
from typing import ClassVar, Final


class ExitCode(IntEnum):
    """Process exit codes, after sysexits.h where it has a name."""

    DONE = 0
    INVALID_INPUT = 64
    GIVE_UP = 65
    BUG = 70
    RETRY = 75
    SANDBOX_NOT_ISOLATED = 77


class SodaError(Exception):
    """Base of every error we raise on purpose; `str(error)` is one plain sentence for the user."""

    exit_code: ClassVar[ExitCode] = ExitCode.BUG


class InvalidInput(SodaError):
    """The user's input must change. `field` is the path to change, as in `spec.questions.ratio.easy`."""

    exit_code = ExitCode.INVALID_INPUT

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message if field is None else f"{field}: {message}")
        self.field = field


class Retry(SodaError):
    """Something outside was away. `after` is the least number of seconds to wait, when known."""

    exit_code = ExitCode.RETRY

    def __init__(self, message: str, *, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class GiveUp(SodaError):
    """The same attempt would end the same way; a person must look."""

    exit_code = ExitCode.GIVE_UP


class SandboxNotIsolated(SodaError):
    """A start-up probe got through a wall that must hold."""

    exit_code = ExitCode.SANDBOX_NOT_ISOLATED


def is_retryable(exit_code: int) -> bool:
    """True when the same command may succeed later: our RETRY, or a death by signal (negative, or 128+n)."""
    return exit_code == ExitCode.RETRY or exit_code < 0 or exit_code > 128


_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
# Libraries written in other languages say it only in words: safetensors, then torch.
_DISK_WORDS: Final = ("No space left on device", "PytorchStreamWriter failed writing file")


def disk_fault(error: BaseException) -> Retry | None:
    """What to raise instead when a full or failing disk is behind `error`; None when it is something else."""
    if isinstance(error, OSError) and error.errno in _DISK:
        where, why = error.filename or "a folder of the run", error.strerror
    elif any(words in str(error) for words in _DISK_WORDS):
        where, why = "a folder of the run", _DISK_WORDS[0]
    else:
        return None
    return Retry(f"{where} could not be written ({why}); make room, then the same command goes on from here")
