"""What must happen next to one run. In: the resource, what is seen, the clock. Out: a `Decision`. Pure.

The new status is written before anything is made or deleted. So an attempt is counted before its Job exists, and
whatever moment the operator dies at, the next look sees either the old status and nothing new, or the new status
and makes the same objects under the same names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from soda_jobs.names import CLEANUP, job_name
from soda_operator import summary
from soda_operator.accept import Accepted
from soda_operator.config import Config
from soda_operator.decision import Decision, Raw
from soda_operator.faults import Fault
from soda_operator.look import DEADLINE_SECONDS, Look
from soda_operator.manifests import resource_env, task_job
from soda_operator.observed import OWNER_ANNOTATION, Observed, epoch
from soda_operator.status import RunStatus

FINALIZER: Final = "soda.dev/artifacts"
CLEANUP_KEPT_SECONDS: Final = 300


def reconcile(
    resource: Raw, accepted: Accepted | Fault, observed: Observed, config: Config, now: float
) -> Decision:
    """One look at one run."""
    metadata, spec = resource["metadata"], resource["spec"]
    old = resource.get("status") or {}
    decision = Decision()
    if "deletionTimestamp" in metadata:
        return _deleted(resource, accepted, observed, decision)
    _finalizers(metadata, spec, decision)
    status = RunStatus.model_validate(old)
    if status.state in summary.TERMINAL and not _is_retried(status, spec):
        _after_the_end(status, spec, observed, decision, now)
    elif isinstance(accepted, Fault):
        summary.stop(status, accepted, "Stalled")
        if observed.jobs:
            decision.look_again(DEADLINE_SECONDS)
    else:
        Look(accepted, observed, config, now, status, decision).go(spec)
    summary.conditions(status, metadata["generation"], now)
    new = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    decision.status = new if new != old else None
    return decision


def _is_retried(status: RunStatus, spec: Mapping[str, Any]) -> bool:
    is_new = (spec.get("retryToken") or "") != status.retry_token
    return status.state != "Succeeded" and is_new and not spec.get("cancel")


def _after_the_end(
    status: RunStatus, spec: Mapping[str, Any], observed: Observed, decision: Decision, now: float
) -> None:
    """Nothing is made any more: what still runs is removed, and the run itself when its time has come."""
    for job in observed.jobs.values():
        if (job.service or not observed.is_over(job)) and not job.is_deleting:
            decision.delete.append(("Job", job.name))
    ttl = spec.get("ttlSecondsAfterFinished")
    if ttl is not None:
        left = (epoch(status.finish_time) or now) + float(ttl) - now
        if left <= 0:
            decision.delete_run = True
        else:
            decision.look_again(left)


def _finalizers(metadata: Mapping[str, Any], spec: Mapping[str, Any], decision: Decision) -> None:
    """Only a run that deletes its artifacts has a finalizer, so that no other can be stuck without an operator."""
    present = list(metadata.get("finalizers") or ())
    is_wanted = spec.get("deletionPolicy") == "Delete"
    if is_wanted and FINALIZER not in present:
        decision.finalizers = [*present, FINALIZER]
    if not is_wanted and FINALIZER in present:
        decision.finalizers = [name for name in present if name != FINALIZER]


def _deleted(resource: Raw, accepted: Accepted | Fault, observed: Observed, decision: Decision) -> Decision:
    """A deleted run: its objects go with it; its artifacts only when it says so, by a Job that it waits for."""
    metadata = resource["metadata"]
    present = list(metadata.get("finalizers") or ())
    if FINALIZER not in present:  # somebody else's finalizer may keep it for long
        decision.delete += [("Job", job.name) for job in observed.jobs.values() if not job.is_deleting]
        return decision
    rest = [name for name in present if name != FINALIZER]
    started = (resource.get("status") or {}).get("startTime")
    if isinstance(accepted, Fault) or started is None or resource["spec"].get("deletionPolicy") != "Delete":
        decision.finalizers = rest
        return decision
    owner = accepted.owner
    running = [job for job in observed.jobs.values() if job.stage != CLEANUP and not job.outcome]
    decision.delete += [("Job", job.name) for job in running if not job.is_deleting]
    done = observed.jobs.get(job_name(owner.name, CLEANUP, 1))
    if done is not None and done.outcome:
        decision.finalizers = rest
    elif not running:
        pinned = json.dumps((resource.get("status") or {}).get("pinned") or {}, sort_keys=True)
        job = task_job(owner, CLEANUP, {**resource_env(owner), "SODA_PINNED": pinned}, 1)
        # A foreground deletion would take it away before it is done, and takes the run's ServiceAccounts.
        del job["metadata"]["ownerReferences"]
        job["metadata"]["annotations"] = {OWNER_ANNOTATION: owner.uid}
        job["spec"]["ttlSecondsAfterFinished"] = CLEANUP_KEPT_SECONDS
        account = owner.settings("jobs").service_account_name or "default"
        job["spec"]["template"]["spec"]["serviceAccountName"] = account
        decision.apply.append(job)
    decision.look_again(DEADLINE_SECONDS)
    return decision
