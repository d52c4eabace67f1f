"""What the operator keeps of Jobs and pods: the few fields it decides by. In: objects as the API sends them.

Pure. Memory follows the number of pods, so nothing else of them is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from soda_jobs.names import PRIORITY_LABEL, QUEUE_LABEL, RUN_LABEL, SERVICE_LABEL, STAGE_LABEL

OWNER_ANNOTATION: Final = "soda.dev/run-uid"  # of a Job that outlives its run
JOB_NAME_LABEL: Final = "batch.kubernetes.io/job-name"
GPU: Final = "nvidia.com/gpu"
Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt of a stage, or of a server."""

    name: str
    run: str
    stage: str
    service: str
    uid: str
    owner: str  # uid of the run that it belongs to
    created: float
    completions: int
    gpus: int  # of all its pods together
    active: int = 0
    started: float | None = None
    ended: float | None = None
    outcome: str = ""  # Complete | Failed, also while pods are still ending
    reason: str = ""
    message: str = ""
    is_suspended: bool = False
    queue: str = ""  # Kueue's
    priority: str = ""  # a WorkloadPriorityClass
    is_deleting: bool = False

    @property
    def is_queued(self) -> bool:
        """Whether Kueue holds it back: it waits to be admitted, or gave its place to another."""
        return self.is_suspended and bool(self.queue)


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of such a Job."""

    name: str
    run: str
    job: str
    uid: str
    owner: str  # uid of its Job
    created: float
    phase: str
    is_ready: bool = False
    is_deleting: bool = False
    gone_by: float | None = None  # when its node must have ended it
    node: str = ""
    started: float | None = None
    unschedulable: str = ""  # the scheduler's message
    waiting: str = ""  # reason of a container that does not start
    waiting_message: str = ""
    exit_code: int | None = None
    exit_reason: str = ""  # OOMKilled, Error, Completed
    termination: str = ""  # the container's last message
    disruption: str = ""  # reason of DisruptionTarget
    disruption_message: str = ""


@dataclass(frozen=True, slots=True)
class Warned:
    """An Event of type Warning, or a Workload's condition: one reason, one message."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Progress:
    """The last progress line a stage's pod wrote, and when."""

    done: int
    total: int | None
    at: float


@dataclass(frozen=True)
class Observed:
    """Everything seen of one run now."""

    jobs: Mapping[str, Job] = field(default_factory=dict)
    pods: Mapping[str, Pod] = field(default_factory=dict)
    warnings: Mapping[str, tuple[Warned, ...]] = field(default_factory=dict)  # by the name of the Job or pod
    progress: Mapping[str, Progress] = field(default_factory=dict)  # by the name of the pod
    refused: Mapping[str, Warned] = field(default_factory=dict)  # objects the API server would not create

    def pods_of(self, job: str) -> list[Pod]:
        """The pods of this very Job, and not of one that had its name before; oldest first."""
        uid = self.jobs[job].uid if job in self.jobs else ""
        found = [pod for pod in self.pods.values() if pod.job == job and uid in ("", pod.owner)]
        return sorted(found, key=lambda pod: (pod.created, pod.name))

    def is_over(self, job: Job) -> bool:
        """Whether nothing of it runs or will run."""
        return bool(job.outcome) or self.has_succeeded(job)

    def has_succeeded(self, job: Job) -> bool:
        """Whether all its work is done. The Job itself says so a while later, on a busy cluster half a minute."""
        pods = self.pods_of(job.name)
        is_one = job.completions == 1 and any(pod.phase == "Succeeded" for pod in pods)
        return job.outcome == "Complete" or (is_one and not any(pod.phase == "Running" for pod in pods))


def job(raw: Raw) -> Job:
    """A Job as the API sends it."""
    metadata, spec, status = raw["metadata"], raw["spec"], raw.get("status") or {}
    labels = metadata.get("labels") or {}
    completions = spec.get("completions") or 1
    outcome, reason, message, ended = _outcome(status)
    return Job(
        name=metadata["name"],
        run=labels.get(RUN_LABEL, ""),
        stage=labels.get(STAGE_LABEL, ""),
        service=labels.get(SERVICE_LABEL, ""),
        uid=metadata["uid"],
        owner=(metadata.get("annotations") or {}).get(OWNER_ANNOTATION) or _owner(metadata),
        created=_required(metadata["creationTimestamp"]),
        completions=completions,
        gpus=completions * _gpus(spec["template"]["spec"]),
        active=status.get("active") or 0,
        started=epoch(status.get("startTime")),
        ended=ended,
        outcome=outcome,
        reason=reason,
        message=message,
        is_suspended=bool(spec.get("suspend")),
        queue=labels.get(QUEUE_LABEL, ""),
        priority=labels.get(PRIORITY_LABEL, ""),
        is_deleting="deletionTimestamp" in metadata,
    )


def _outcome(status: Raw) -> tuple[str, str, str, float | None]:
    """`FailureTarget` and `SuccessCriteriaMet` come before the last pod has ended, and decide the outcome."""
    words = {
        "Complete": "Complete",
        "Failed": "Failed",
        "FailureTarget": "Failed",
        "SuccessCriteriaMet": "Complete",
    }
    for condition in status.get("conditions") or ():
        if condition["status"] == "True" and condition["type"] in words:
            ended = epoch(status.get("completionTime")) or epoch(condition.get("lastTransitionTime"))
            outcome = words[condition["type"]]
            return outcome, condition.get("reason") or "", condition.get("message") or "", ended
    return "", "", "", None


def pod(raw: Raw) -> Pod:
    """A pod as the API sends it."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    labels = metadata.get("labels") or {}
    conditions = {item["type"]: item for item in status.get("conditions") or ()}
    scheduled, disruption = conditions.get("PodScheduled", {}), conditions.get("DisruptionTarget", {})
    container: Raw = next(iter(status.get("containerStatuses") or ()), {})
    state = container.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    is_disrupted = disruption.get("status") == "True"
    return Pod(
        name=metadata["name"],
        run=labels.get(RUN_LABEL, ""),
        job=labels.get(JOB_NAME_LABEL, ""),
        uid=metadata["uid"],
        owner=_owner(metadata),
        created=_required(metadata["creationTimestamp"]),
        phase=status.get("phase") or "Pending",
        is_ready=conditions.get("Ready", {}).get("status") == "True",
        is_deleting="deletionTimestamp" in metadata,
        gone_by=epoch(metadata.get("deletionTimestamp")),
        node=raw.get("spec", {}).get("nodeName") or "",
        started=epoch((state.get("running") or {}).get("startedAt")),
        unschedulable=scheduled.get("message") or "" if scheduled.get("status") == "False" else "",
        waiting=waiting.get("reason") or "",
        waiting_message=waiting.get("message") or "",
        exit_code=ended.get("exitCode"),
        exit_reason=ended.get("reason") or status.get("reason") or "",
        termination=ended.get("message") or "",
        disruption=disruption.get("reason") or "" if is_disrupted else "",
        disruption_message=disruption.get("message") or "" if is_disrupted else "",
    )


def _owner(metadata: Raw) -> str:
    owners = metadata.get("ownerReferences") or ()
    return next((str(item["uid"]) for item in owners if item.get("controller")), "")


def _gpus(spec: Raw) -> int:
    limits = [(item.get("resources") or {}).get("limits") or {} for item in spec.get("containers") or ()]
    return sum(int(item.get(GPU, 0)) for item in limits)


def epoch(text: str | None) -> float | None:
    """`"2026-11-21T16:00:00Z"` -> seconds since 1970; None stays None."""
    return None if text is None else _required(text)


def _required(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def stamp(seconds: float) -> str:
    """Seconds since 1970 -> `"2026-11-21T16:00:00Z"`."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
