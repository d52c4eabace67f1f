"""The status of a run: its shape, from which the CRD is made. Every field is computed by `summary.py` from one
observation, so that no two fields can contradict each other."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

State = Literal[
    "Pending", "Running", "Waiting", "Suspended", "Stalled", "Failed", "Succeeded", "Cancelled", "Deleting"
]
StageState = Literal["waiting", "starting", "running", "done", "reused", "failed"]
CONDITIONS = ("Accepted", "Reconciling", "Stalled", "Suspended", "Succeeded")
MESSAGE_MAX = 1024

Count = Annotated[int, Field(ge=0, le=2**53)]
Short = Annotated[str, Field(max_length=128)]
Message = Annotated[str, Field(max_length=MESSAGE_MAX)]
Time = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]
Sha = Annotated[str, Field(max_length=64)]
Number = Annotated[float, Field(ge=-1e18, le=1e18)]
Numbers = Annotated[dict[str, Number], Field(max_length=16)]
Generation = Annotated[int, Field(ge=-1, le=2**53)]


class Block(BaseModel):
    """A block of the status: camelCase in the API, unset fields left out."""

    model_config = ConfigDict(
        extra="ignore", alias_generator=to_camel, validate_by_name=True, use_attribute_docstrings=True
    )


class Condition(Block):
    """One observation about the run, in the sense of the Kubernetes API conventions."""

    type: Short
    """Accepted, Reconciling, Stalled, Suspended or Succeeded."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Short
    """One word for why."""
    message: Message = ""
    """One sentence for people, with the next step where there is one."""
    last_transition_time: Time
    """When `status` last changed."""
    observed_generation: Generation = -1
    """The generation this was seen at."""


class StageStatus(Block):
    """One stage of the run."""

    name: Short
    """Name of the stage, as in r2-train-sft."""
    state: StageState = "waiting"
    """`reused` means that a committed artifact of the same key was found."""
    attempt: Annotated[int, Field(ge=0, le=99)] = 0
    """Jobs started for it so far."""
    failures: Annotated[int, Field(ge=0, le=99)] = 0
    """How many of them failed since the last retry."""
    key: Sha = ""
    """Key of its artifact: the SHA-256 of all that decides its bytes."""
    digest: Sha = ""
    """SHA-256 of its artifact."""
    done: Count | None = None
    """Rows or steps done so far."""
    total: Count | None = None
    """Rows or steps in all."""
    reason: Short = ""
    """One word for why it waits or failed."""
    message: Message = ""
    """One sentence for why it waits or failed, with the next step."""
    start_time: Time | None = None
    """When its first Job was made."""
    finish_time: Time | None = None
    """When it ended."""
    gpu_seconds: Count = 0
    """GPUs times seconds of its Jobs."""
    headline: Numbers = Field(default_factory=dict)
    """Its main results."""


class ServiceStatus(Block):
    """One model server or sandbox that the run has now."""

    name: Short
    """Name of the server, as in student-r1-train-sft."""
    attempt: Annotated[int, Field(ge=1, le=99)] = 1
    """Jobs started for it so far."""
    ready: bool = False
    """Whether it answers now."""
    start_time: Time | None = None
    """When its Job was made."""
    ready_time: Time | None = None
    """When it answered first; the start-up deadline is over then."""
    reason: Short = ""
    """One word for why it is not ready."""
    message: Message = ""
    """One sentence for why it is not ready, with the next step."""


class RoundStatus(Block):
    """Scores of the student after one round; round 0 is the untouched student."""

    round: Annotated[int, Field(ge=0, le=99)]
    """Number of the round."""
    scores: Numbers = Field(default_factory=dict)
    """Mean of each metric over the benchmarks, as in pass@1."""


class RunStatus(Block):
    """Where a run stands."""

    observed_generation: Generation = -1
    """The generation of the spec that this status is about; -1 before the operator has seen it."""
    state: State = "Pending"
    """One word for where the run stands."""
    reason: Short = ""
    """One word for why."""
    message: Message = ""
    """One sentence for why, with the next step where there is one."""
    round: Short = ""
    """Round under way, as in 2/3."""
    stage: Short = ""
    """Stage under way; the first of them when there are several."""
    progress: Short = ""
    """Stages finished, as in 31/57."""
    score: Short = ""
    """Score of the last measured round, as in 0.48."""
    conditions: Annotated[list[Condition], Field(max_length=16)] = Field(default_factory=list)
    """Observations by type."""
    start_time: Time | None = None
    """When the run was accepted."""
    finish_time: Time | None = None
    """When the run ended."""
    best_round: Annotated[int, Field(ge=0, le=99)] | None = None
    """The round with the best score so far."""
    rounds: Annotated[list[RoundStatus], Field(max_length=21)] = Field(default_factory=list)
    """Scores by round."""
    gpu_seconds: Count = 0
    """GPUs times seconds of all stages and servers."""
    artifacts: Annotated[str, Field(max_length=1024)] = ""
    """Store that the artifacts and the report are in."""
    retry_token: Short = ""
    """The value of `spec.retryToken` that was acted on last."""
    pinned: Annotated[dict[str, Short], Field(max_length=64)] = Field(default_factory=dict)
    """Contents of sources, by stage, as they were when the run began."""
    stages: Annotated[list[StageStatus], Field(max_length=512)] = Field(default_factory=list)
    """Every stage, in order."""
    services: Annotated[list[ServiceStatus], Field(max_length=128)] = Field(default_factory=list)
    """Servers of the run now."""
