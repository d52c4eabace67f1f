"""The run's servers: which must exist now, which of them answer, and which may go.

In: the servers that runnable stages need and what is seen. Out: rows of the status, objects to apply and to
delete. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from soda_jobs.names import ATTEMPT_MAX, job_name, service_name
from soda_jobs.plan import ServiceCommand
from soda_operator.decision import Raw, Ref
from soda_operator.faults import Fault, failure, fault, refusal
from soda_operator.ledger import ATTEMPTS, GRACE_SECONDS, used, why_waiting
from soda_operator.manifests import server
from soda_operator.observed import Job, Observed, stamp
from soda_operator.pods import Owner
from soda_operator.status import MESSAGE_MAX, ServiceStatus


@dataclass
class Servers:
    """The servers of one run, moved on by one look at it."""

    rows: list[ServiceStatus] = field(default_factory=list)
    apply: list[Raw] = field(default_factory=list)
    delete: list[Ref] = field(default_factory=list)
    failed: dict[str, Fault] = field(default_factory=dict)  # servers that cannot be had
    blocked: dict[str, Fault] = field(default_factory=dict)  # servers that wait for something
    queued: set[str] = field(default_factory=set)  # servers that Kueue holds back
    gpu_seconds: int = 0  # of Jobs that were given up in this look
    again: float | None = None

    def is_ready(self, name: str) -> bool:
        return any(row.name == name and row.ready for row in self.rows)


def move_on(
    owner: Owner,
    before: list[ServiceStatus],
    wanted: Mapping[str, ServiceCommand],
    observed: Observed,
    now: float,
) -> Servers:
    """Start what is wanted, stop what is not, and say of each whether it answers."""
    found = Servers()
    known = {row.name: row.model_copy() for row in before}
    for name, command in wanted.items():
        row = known.pop(name, None) or ServiceStatus(name=name, start_time=stamp(now))
        _keep(owner, row, command, observed, found, now)
        found.rows.append(row)
    current = {job_name(owner.name, row.name, row.attempt) for row in found.rows}
    for job in observed.jobs.values():
        if job.service and job.name not in current and not job.is_deleting:
            if job.service not in wanted and job.service not in known:
                found.delete.append(("Service", service_name(owner.name, job.service)))
            found.delete.append(("Job", job.name))
    for row in known.values():
        found.delete.append(("Service", service_name(owner.name, row.name)))
        _count(owner, row, observed, found, now)
    return found


def _keep(
    owner: Owner, row: ServiceStatus, command: ServiceCommand, observed: Observed, found: Servers, now: float
) -> None:
    name = job_name(owner.name, row.name, row.attempt)
    job = observed.jobs.get(name)
    pods = observed.pods_of(name)
    row.ready = job is not None and any(pod.is_ready and not pod.is_deleting for pod in pods)
    if row.ready or row.attempt == 1:  # else it says why there is another attempt
        row.reason, row.message = "", ""
    if row.ready:
        row.ready_time = row.ready_time or stamp(now)
        return
    *around, made = server(owner, command, row.attempt)
    found.apply += around  # also when the Job is there: somebody may have deleted what its pods wait for
    if job is None:
        ending = [item for item in observed.jobs.values() if item.service == row.name and item.is_deleting]
        if ending:
            found.again = 2.0
            return
        found.apply.append(made)
        said = next((observed.refused[key] for key in _names(owner, row, name) if key in observed.refused), None)
        if said is not None:
            _block(row, refusal(name, said), found)
        return
    if job.is_queued:
        found.queued.add(row.name)
    why = _ended(owner, row, job, observed, now)
    if why is None:
        waits = why_waiting(job, pods, observed, now)
        if waits is not None:
            _block(row, waits, found)
        return
    row.reason, row.message = why.reason, why.message[:MESSAGE_MAX]
    if why.kind != "retry" or row.attempt >= min(ATTEMPTS, ATTEMPT_MAX):
        found.failed[row.name] = why
    else:
        _count(owner, row, observed, found, now)
        row.attempt += 1
        row.start_time, row.ready_time = stamp(now), None


def _names(owner: Owner, row: ServiceStatus, job: str) -> tuple[str, ...]:
    tokens = (service_name(owner.name, "sandbox"), service_name(owner.name, "sandbox-token"))
    return (job, service_name(owner.name, row.name), *tokens)


def _ended(owner: Owner, row: ServiceStatus, job: Job, observed: Observed, now: float) -> Fault | None:
    """Why a server's Job is over, or must be: a server never ends by itself. One that has answered once and is too
    busy now is left alone; its clients wait."""
    pods = observed.pods_of(job.name)
    if job.outcome:
        known = any(pod.exit_code is not None for pod in pods)
        if not known and now - (job.ended or now) < GRACE_SECONDS:
            return None
        return failure(job, pods) if job.outcome == "Failed" else fault("Killed", f"Job {job.name}", "it ended")
    started = [pod.started for pod in pods if pod.started is not None and pod.phase == "Running"]
    if row.ready_time is None and started and now - min(started) > owner.config.start_seconds:
        return fault("StartDeadline", f"Job {job.name}", f"{int(owner.config.start_seconds)} s")
    return None


def _block(row: ServiceStatus, why: Fault, found: Servers) -> None:
    row.reason, row.message = why.reason, why.message[:MESSAGE_MAX]
    found.blocked[row.name] = why


def _count(owner: Owner, row: ServiceStatus, observed: Observed, found: Servers, now: float) -> None:
    """What a server's Job used is counted when its row moves on, which happens once."""
    job = observed.jobs.get(job_name(owner.name, row.name, row.attempt))
    if job is not None:
        found.gpu_seconds += used(job, now)
