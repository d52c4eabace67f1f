"""What a stage is given and what it gives back. A stage never learns where it runs or what its store is.

Every stage module has `class Settings(BaseModel)` (frozen, unknown keys refused) and
`def run(settings: Settings, context: Context) -> Summary`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import BaseModel, ConfigDict

from soda_jobs.errors import InvalidInput
from soda_jobs.records import read_rows

ROWS: Final = "rows.jsonl"
DROPPED: Final = "dropped.jsonl"


class StageSettings(BaseModel):
    """Base of every stage's `Settings`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Shards(Protocol):
    """Rows that an earlier attempt of this very stage has already committed."""

    def done(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def commit(self, name: str, data: bytes) -> bool: ...


@dataclass(frozen=True)
class Share:
    """Which part of a row stage's work this process does: the shards whose number leaves `index` by `count`."""

    index: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """The first of those that share a stage joins what all have done, and commits it."""
        return self.index == 0


class ShareDone(Exception):
    """This process's part of the stage is committed; the rest is up to the others."""


@dataclass(frozen=True)
class Input:
    """One artifact to read: its local folder, and the file of rows that was asked for."""

    folder: Path
    file: str = ROWS


@dataclass(frozen=True)
class Summary:
    """What a stage reports. Counts and headline are facts of the result; telemetry (seconds, tokens) is not."""

    counts: Mapping[str, int] = field(default_factory=dict)
    headline: Mapping[str, float] = field(default_factory=dict)
    telemetry: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """The world of one stage.

    `out` starts empty; what lies in it at the end is the artifact. `work` survives a restart and is never
    published. `services` maps a role (teacher, student, judge, sandbox) to a URL. `options` say how to go about
    the work; unlike settings they change nothing of the result (`models/asking.py` reads them).
    """

    run: str
    stage: str
    round: int
    inputs: Mapping[str, tuple[Input, ...]]
    out: Path
    work: Path
    services: Mapping[str, str]
    shards: Shards
    progress: Callable[[str, int, int | None], None]
    share: Share = Share()
    options: Mapping[str, Any] = field(default_factory=dict)

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """Rows of every artifact of the input `name`, in order; an absent optional input has no rows."""
        for item in self.inputs.get(name, ()):
            yield from read_rows(item.folder / item.file)

    def folder(self, name: str) -> Path:
        """The folder of the one artifact of the input `name`."""
        (item,) = self.inputs[name]
        return item.folder

    def service(self, role: str) -> str:
        url = self.services.get(role)
        if url is None:
            raise InvalidInput(f"stage {self.stage} was started without a URL for the service {role}")
        return url
