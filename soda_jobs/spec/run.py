"""The blocks of a run as a whole: its metadata and its spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from soda_jobs.spec.base import Block, DnsLabel, LabelValue, Note, RunName, Word
from soda_jobs.spec.models import Judge, Student, Teacher
from soda_jobs.spec.pods import Hub, Pods
from soda_jobs.spec.questions import Questions
from soda_jobs.spec.running import Ablation, Budget, Classification, Evaluation, Execution, Storage
from soda_jobs.spec.training import Training

Method = Literal["soda", "iterkd", "scoder", "ssd", "evol-instruct", "oss-instruct", "persd", "mft"]
PromptStyle = Literal["paper", "compact"]


class Metadata(Block):
    """What Kubernetes knows the run by."""

    name: RunName
    """Name of the run. Everything the run makes is named after it, so it must be short; how short depends on the
    run."""
    namespace: DnsLabel | None = None
    """Namespace in a cluster. Null: the one that is current."""
    labels: Annotated[dict[str, LabelValue], Field(max_length=64, default_factory=dict)]
    """Labels for people and tools. They are not copied to what the run makes: tools that prune by label would
    delete it."""
    annotations: Annotated[dict[str, Note], Field(max_length=64, default_factory=dict)]
    """Notes for people and tools."""


class Prompts(Block):
    """How prompts are worded."""

    teacher: PromptStyle = "paper"
    """`paper`: after SODA Fig. 3. `compact`: a line or two, for models with a small context."""
    student: PromptStyle = "paper"
    """As for the teacher. Training and answering use the same wording."""
    judge: PromptStyle = "paper"
    """As for the teacher. `compact` leaves the rubric out, which a trained scoring model knows."""


class Spec(Block):
    """What to do. Once a run has started only `suspend`, `cancel`, `retryToken`, `queue`, `priority`, `budget`,
    `ttlSecondsAfterFinished` and `deletionPolicy` may change."""

    method: Method
    """The method; `iterkd` is the earlier name and preset of `soda`."""
    rounds: Annotated[int, Field(ge=1, le=20)] = 3
    """Rounds of learning, feedback and new questions. Default: SODA 4.6."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """Seed of every draw: sampling, splits, shuffling, initial weights."""
    prompts: Prompts = Prompts()
    """How prompts are worded."""
    teacher: Teacher = Teacher()
    """The strong model."""
    student: Student
    """The small model that learns."""
    judge: Judge = Judge()
    """The scoring model."""
    questions: Questions = Questions()
    """What the student is asked."""
    training: Training = Training()
    """How models are trained."""
    execution: Execution = Execution()
    """How programs are run."""
    classification: Classification = Classification()
    """How questions are sorted by difficulty."""
    evaluation: Evaluation = Evaluation()
    """How the student is measured."""
    ablation: Ablation = Ablation()
    """What is left out."""
    storage: Storage = Storage()
    """Where artifacts are kept."""
    hub: Hub = Hub()
    """Where models and datasets named by a hub id come from."""
    pods: Pods = Pods()
    """Where and how the run's pods run in a cluster."""
    parallelism: Annotated[int, Field(ge=1, le=256)] = 1
    """Pods that share each stage which works row by row (generate, execute, judge) in a cluster. What comes out is
    the same for any number."""
    queue: DnsLabel | None = None
    """Kueue LocalQueue in which the run's Jobs wait. Null: none."""
    priority: DnsLabel | None = None
    """Kueue WorkloadPriorityClass of the run's Jobs. Null: none."""
    suspend: bool = False
    """Start nothing new and stop what runs; work that is committed stays."""
    cancel: bool = False
    """End the run for good; what is committed and what the status says stays."""
    retry_token: Word | None = None
    """A new value makes a failed or cancelled run go on from what is committed."""
    budget: Budget = Budget()
    """Limits on what the run may use."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """Delete the finished run after so many seconds. Null: never."""
    deletion_policy: Literal["Retain", "Delete"] = "Retain"
    """Whether deleting the run leaves its artifacts or deletes those that no other run uses."""
