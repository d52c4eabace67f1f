"""What may start now: a pure function of the graph, the spec and the digests of what is finished.

The local executor and the operator call `plan` in a loop and only differ in how they start a `Command`. A stage's
key is the SHA-256 of everything that decides its bytes, so a key that is already committed, by any run, is done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from soda_jobs.graph import CODE_VERSION, Graph, Kind, Service, Stage, split_input
from soda_jobs.records import canonical
from soda_jobs.spec import DistillationRun, Judge, Server, Teacher

STAGE_ARGV: Final = ("python", "-m", "soda_jobs", "stage")
SERVE_ARGV: Final = ("python", "-m", "soda_jobs", "serve")
SANDBOX_ARGV: Final = ("python", "-m", "soda_jobs.sandbox")
SHARED: Final = frozenset({Kind.GENERATE, Kind.EXECUTE, Kind.JUDGE})  # stages that work row by row


@dataclass(frozen=True)
class Finished:
    """A committed artifact: the key it was made under, and the digest of its content."""

    key: str
    digest: str


@dataclass(frozen=True)
class ServiceCommand:
    """How to reach, or else start, a server. `url` is set when somebody else runs it already."""

    name: str
    role: str
    url: str | None = None
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    image: str = ""
    health: str = "/health"
    gpus: int = 0


@dataclass(frozen=True)
class Command:
    """One stage, ready to start anywhere: the same argv and environment in a pod and on a laptop.

    `cores` is how many processors it keeps busy while it runs; None is all there are. `pods` is how many may share
    it in a cluster, each with its part of the rows.
    """

    stage: str
    kind: Kind
    round: int
    key: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    image: str
    cores: int | None
    service: ServiceCommand | None
    pods: int = 1


def stage_key(stage: Stage, finished: Mapping[str, Finished]) -> str:
    """The SHA-256 of all that decides a stage's bytes: kind, code version, round, settings, inputs' digests.

    Raises KeyError while an input is not finished. The stage's and the run's names are not in it.
    """
    inputs = {
        name: [[finished[split_input(ref)[0]].digest, split_input(ref)[1]] for ref in refs]
        for name, refs in stage.inputs.items()
    }
    checkpoint = stage.service.checkpoint if stage.service else None
    parts = {
        "kind": stage.kind.value,
        "version": CODE_VERSION[stage.kind],
        "round": stage.round,
        "settings": dict(stage.settings),
        "inputs": inputs,
        "checkpoint": finished[checkpoint].digest if checkpoint else None,
    }
    return hashlib.sha256(canonical(parts)).hexdigest()


def plan(run: DistillationRun, graph: Graph, finished: Mapping[str, Finished]) -> list[Command]:
    """The commands whose inputs are all finished and which are not, in the graph's order; empty when done."""
    return [
        command(run, stage, finished)
        for stage in graph
        if stage.name not in finished and all(need in finished for need in stage.needs)
    ]


def command(run: DistillationRun, stage: Stage, finished: Mapping[str, Finished]) -> Command:
    """The command of one stage whose inputs are finished."""
    key = stage_key(stage, finished)
    task = {
        "run": run.metadata.name,
        "stage": stage.name,
        "kind": stage.kind.value,
        "round": stage.round,
        "key": key,
        "settings": dict(stage.settings),
        "inputs": {
            name: [{"key": finished[split_input(ref)[0]].key, "file": split_input(ref)[1]} for ref in refs]
            for name, refs in stage.inputs.items()
        },
        "digests": {
            name: [finished[split_input(ref)[0]].digest for ref in refs] for name, refs in stage.inputs.items()
        },
        "code_version": CODE_VERSION[stage.kind],
        "options": options(run, stage),
    }
    return Command(
        stage=stage.name,
        kind=stage.kind,
        round=stage.round,
        key=key,
        argv=STAGE_ARGV,
        env={"SODA_STAGE": json.dumps(task, ensure_ascii=False)},
        image="train" if stage.kind in (Kind.TRAIN, Kind.INFLUENCE) else "jobs",
        cores=cores(stage),
        service=service_command(run, stage.service, finished) if stage.service else None,
        pods=run.spec.parallelism if stage.kind in SHARED else 1,
    )


def options(run: DistillationRun, stage: Stage) -> dict[str, Any]:
    """How a stage that asks a model goes about it. Its result does not depend on them, nor does its key."""
    service = stage.service
    if service is None or service.role not in ("teacher", "judge"):  # whatever a student answers is data
        return {}
    block: Teacher | Judge = getattr(run.spec, service.role)
    floor = block.yield_floor
    if service.role == "teacher":
        floor = min(floor, run.spec.questions.minimum_yield)
    found: dict[str, Any] = {"yield_floor": floor}
    if service.checkpoint is None and block.endpoint is not None:
        given = {"rate_limits": block.rate_limits, "price": block.price}
        found |= {name: value.model_dump() for name, value in given.items() if value is not None}
    return found


def cores(stage: Stage) -> int | None:
    """Processors a stage keeps busy. Training has all to itself, for its threads wait for each other; a stage that
    asks a server mostly waits, and may share the machine with another."""
    return None if stage.kind in (Kind.TRAIN, Kind.INFLUENCE) else 1


def service_command(run: DistillationRun, service: Service, finished: Mapping[str, Finished]) -> ServiceCommand:
    """How a stage's server is reached or started."""
    spec = run.spec
    if service.role == "sandbox":
        return ServiceCommand(
            name=service.name, role="sandbox", argv=SANDBOX_ARGV, image="sandbox", health="/healthz"
        )
    block: Any = getattr(spec, service.role)
    if service.checkpoint is None and block.endpoint is not None:
        return ServiceCommand(name=service.name, role=service.role, url=block.endpoint)
    server = block.server or Server()
    options = server.model_dump(mode="json", exclude={"engine", "replicas"}, exclude_none=True)
    if service.checkpoint is None and block.revision is not None:
        options["revision"] = block.revision
    task = {
        "name": service.name,
        "engine": server.engine,
        "model": block.model if service.checkpoint is None else None,
        "artifact": finished[service.checkpoint].key if service.checkpoint else None,
        "options": options,
    }
    return ServiceCommand(
        name=service.name,
        role=service.role,
        argv=SERVE_ARGV,
        env={"SODA_SERVICE": json.dumps(task, ensure_ascii=False)},
        image="vllm" if server.engine == "vllm" else "train",
        gpus=server.gpu_count,
    )
