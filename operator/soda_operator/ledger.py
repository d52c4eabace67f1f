"""What happened to the stages: their rows in the status, moved on by what is seen of their Jobs.

In: a row, its Job and pods, the clock. Out: the row as it is now. Pure; nothing here starts anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from soda_jobs.names import ATTEMPT_MAX, job_name
from soda_jobs.spec import Spec
from soda_operator.config import Config
from soda_operator.faults import Fault, failure, fault, waiting
from soda_operator.observed import Job, Observed, Pod, Progress, epoch, stamp
from soda_operator.status import MESSAGE_MAX, StageStatus

ATTEMPTS: Final = 3  # Jobs of one stage, each with a few pods of its own, before a failure that may pass is final
GRACE_SECONDS: Final = 15.0  # between a Job's end and its pod's last message reaching us
LOST_SECONDS: Final = 60.0  # after a pod's grace: then its node is lost, and nobody can say whether it runs
ACTIVE: Final = ("starting", "running")
FINISHED: Final = ("done", "reused")


def advance(row: StageStatus, name: str, observed: Observed, config: Config, now: float) -> dict[str, Any] | None:
    """Move an active row on by its Job `name`; returns the stage's result when it has just ended well."""
    job = observed.jobs.get(name)
    if job is None:
        if name in observed.refused:
            return None  # the reason is set where the Job is wanted
        clear(row, "starting")
        return None
    pods = observed.pods_of(name)
    if observed.has_succeeded(job):
        return _complete(row, job, pods, now)
    if job.outcome == "Failed":
        if any(pod.exit_code is not None for pod in pods) or now - (job.ended or now) > GRACE_SECONDS:
            fail(row, failure(job, pods), now)
            row.gpu_seconds += used(job, now)
        return None
    _observe(row, job, pods, observed, now)
    starved = [pod for pod in pods if pod.exit_reason == "OOMKilled"]
    if starved:  # the Job would try the same again
        fail(row, failure(job, starved), now)
        row.gpu_seconds += used(job, now)
        return None
    begun = (pod.started for pod in pods if pod.started is not None)  # after hours in a queue, perhaps
    last = max((job.created, *begun, *(part.at for part in _progress(pods, observed))))
    if row.state == "running" and now - last > config.progress_seconds:
        fail(row, fault("NoProgress", f"Job {name}", f"the last was {int(now - last)} s ago"), now)
        row.gpu_seconds += used(job, now)
    return None


def _complete(row: StageStatus, job: Job, pods: Sequence[Pod], now: float) -> dict[str, Any] | None:
    result = next((found for found in map(read_result, reversed(pods)) if found is not None), None)
    if result is None:
        if now - (job.ended or now) > GRACE_SECONDS:
            fail(row, fault("ResultMissing", f"Job {job.name}"), now)
        return None
    row.gpu_seconds += used(job, now)
    clear(row, "reused" if result.get("state") == "reused" else "done")
    row.key, row.digest = str(result.get("key") or row.key), str(result.get("digest") or "")
    row.headline = _numbers(result.get("headline") or {})
    row.finish_time = stamp(job.ended or now)
    row.failures = 0
    rows = (result.get("counts") or {}).get("rows")
    if rows is not None:
        row.done = row.total = int(rows)
    return result


def _numbers(headline: Mapping[str, Any]) -> dict[str, float]:
    """What the status may hold: JSON has no NaN, and the CRD has bounds."""
    found = {str(key): float(value) for key, value in headline.items() if isinstance(value, int | float)}
    return {key: value for key, value in list(found.items())[:16] if abs(value) <= 1e18}


def _observe(row: StageStatus, job: Job, pods: Sequence[Pod], observed: Observed, now: float) -> None:
    is_running = any(pod.phase == "Running" for pod in pods)
    clear(row, "running" if is_running else "starting")
    why = None if is_running else why_waiting(job, pods, observed, now)
    if why is not None:
        row.reason, row.message = why.reason, why.message[:MESSAGE_MAX]
    parts = _progress(pods, observed)
    if parts:  # of pods that share the rows
        totals = [part.total for part in parts if part.total is not None]
        row.done = sum(part.done for part in parts)
        row.total = sum(totals) if len(totals) == len(parts) else None


def why_waiting(job: Job, pods: Sequence[Pod], observed: Observed, now: float) -> Fault | None:
    """Why a Job has no running pod: what keeps it from one, or what took the last one away."""
    alive = [pod for pod in pods if pod.phase in ("Pending", "Running")]
    about = [pod.name for pod in alive] or [job.name]  # once there is a pod, what kept the Job from it is over
    said = [item for name in about for item in observed.warnings.get(name, ())]
    found = waiting(job, alive, said, now)
    if found is None or (found.reason == "PodsNotCreated" and pods):
        ended = [pod for pod in pods if pod.disruption or pod.exit_code not in (None, 0)]
        if ended:  # what is fatal is told when its Job has failed, so that a retry means that failure
            last = failure(job, ended[-1:])
            return last if last.kind == "retry" else None
        return None if pods else found
    return found


def is_misplaced(job: Job, pods: Sequence[Pod], spec: Spec) -> bool:
    """Whether a Job waits in another queue, or with another priority, than the spec has by now."""
    is_idle = job.is_queued and not any(pod.phase in ("Pending", "Running") for pod in pods)
    return is_idle and (job.queue, job.priority) != (spec.queue or "", spec.priority or "")


def fail(row: StageStatus, why: Fault, now: float) -> None:
    """Count a failed Job; the row waits for its next one, or has failed for good."""
    row.failures = min(row.failures + 1, 99)
    is_final = why.kind != "retry" or row.failures >= ATTEMPTS or row.attempt >= ATTEMPT_MAX
    row.state = "failed" if is_final else "waiting"
    row.reason, row.message = why.reason, why.message[:MESSAGE_MAX]
    row.finish_time = stamp(now)


def clear(row: StageStatus, state: Any) -> None:
    """A new state without the reason of the old one."""
    row.state, row.reason, row.message = state, "", ""


def is_ending(row: StageStatus, run: str, observed: Observed, now: float) -> bool:
    """Whether an earlier Job or pod of a stage is still there; of a lost node's pod nobody can say."""
    if any(job.stage == row.name and not job.outcome for job in observed.jobs.values()):
        return True
    earlier = {job_name(run, row.name, number) for number in range(1, row.attempt + 1)}
    return any(
        pod.job in earlier
        and pod.phase in ("Pending", "Running")
        and (pod.gone_by is None or now < pod.gone_by + LOST_SECONDS)
        for pod in observed.pods.values()
    )


def retry_at(row: StageStatus, config: Config) -> float:
    """When a row that failed before may get its next Job."""
    if row.failures == 0:
        return 0.0
    return (epoch(row.finish_time) or 0.0) + float(config.retry_seconds * 2.0 ** (row.failures - 1))


def read_result(pod: Pod) -> dict[str, Any] | None:
    """What a stage wrote as its last word, when it ended well."""
    if pod.exit_code != 0:
        return None
    try:
        found = json.loads(pod.termination)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("state") in ("done", "reused") else None


def used(job: Job, now: float) -> int:
    """GPUs times seconds of a Job so far."""
    return int(job.gpus * max(0.0, (job.ended or now) - (job.started or now)))


def _progress(pods: Sequence[Pod], observed: Observed) -> list[Progress]:
    """Of each pod that runs or has done its part."""
    counted = [pod.name for pod in pods if pod.phase in ("Running", "Succeeded")]
    return [observed.progress[name] for name in counted if name in observed.progress]
