"""The graph a method draws: stages, what they read, and the server each needs while it runs.

A method is a pure function from a spec to a `Graph`. Nothing here knows where a stage runs or whether it ran.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final


class Kind(StrEnum):
    """The twelve stage kinds every method is composed of."""

    SOURCE = "source"
    GENERATE = "generate"
    EVOLVE = "evolve"
    SCREEN = "screen"
    SELECT = "select"
    EXECUTE = "execute"
    JUDGE = "judge"
    CLASSIFY = "classify"
    INFLUENCE = "influence"
    TRAIN = "train"
    EVALUATE = "evaluate"
    REPORT = "report"


# The code version of each kind enters its stages' keys: raise it when the same inputs would give other bytes.
CODE_VERSION: Final[Mapping[Kind, int]] = dict.fromkeys(Kind, 1)


@dataclass(frozen=True)
class Service:
    """A server a stage needs while it runs: a model server (by role) or the sandbox.

    `checkpoint` names the stage whose artifact a model server loads; None means the model or endpoint that the
    spec gives for this role. Two stages that name an equal service share one server.
    """

    role: str  # teacher | student | judge | sandbox
    checkpoint: str | None = None

    @property
    def name(self) -> str:
        return self.role if self.checkpoint is None else f"{self.role}-{self.checkpoint}"


@dataclass(frozen=True)
class Stage:
    """One step of a round.

    `settings` is everything that changes the result and nothing that does not; it enters the stage's key.
    `inputs` maps an input's name to the stages it reads, in order; `"stage:file"` picks one file of an artifact
    instead of its `rows.jsonl`.
    """

    name: str
    kind: Kind
    round: int
    settings: Mapping[str, Any]
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    service: Service | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """The stages that must be finished before this one may start, each once, in reading order."""
        names = [split_input(ref)[0] for refs in self.inputs.values() for ref in refs]
        if self.service is not None and self.service.checkpoint is not None:
            names.append(self.service.checkpoint)
        return tuple(dict.fromkeys(names))


def split_input(ref: str) -> tuple[str, str | None]:
    """`"r1-split:sft.jsonl"` -> `("r1-split", "sft.jsonl")`; without a colon the file is None."""
    stage, _, file = ref.partition(":")
    return stage, file or None


@dataclass(frozen=True)
class Graph:
    """Stages in an order in which each comes after what it needs."""

    method: str
    rounds: int
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for stage in self.stages:
            if stage.name in seen:
                raise ValueError(f"stage {stage.name} is drawn twice")
            missing = [name for name in stage.needs if name not in seen]
            if missing:
                raise ValueError(f"stage {stage.name} needs {missing}, which are not drawn before it")
            seen.add(stage.name)

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)


def with_pinned(graph: Graph, pinned: Mapping[str, str]) -> Graph:
    """The graph whose source stages, by name, are of exactly these contents (SHA-256 each)."""
    if not pinned:
        return graph
    return replace(
        graph,
        stages=tuple(
            replace(stage, settings={**stage.settings, "digest": pinned[stage.name]})
            if stage.name in pinned
            else stage
            for stage in graph
        ),
    )
