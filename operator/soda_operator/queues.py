"""A run whose Jobs wait for each other's quota in a queue. In: what may run and what is seen. Pure.

A server that is ready holds quota until its stage has run. Two of them can hold so much that neither stage gets
in; then nothing of the run would ever move, and the first stage has to go alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from soda_jobs.plan import Command
from soda_operator.ledger import ACTIVE
from soda_operator.manifests import servers_of
from soda_operator.observed import Job, Observed
from soda_operator.pods import Owner
from soda_operator.status import StageStatus

QUEUED_SECONDS: Final = 60.0


def alone(
    owner: Owner, runnable: Sequence[Command], rows: Mapping[str, StageStatus], observed: Observed, now: float
) -> Command | None:
    """The one stage that must go alone because the run holds up itself; None when something moves, or when
    nothing would be gained."""
    jobs = [job for job in observed.jobs.values() if not job.outcome and not job.is_deleting]
    queued = [job for job in jobs if job.is_queued]
    holders = {job.service for job in jobs if job.service and not job.is_queued and _is_ready(job, observed)}
    is_moving = any(not job.is_queued and job.service not in holders for job in jobs)
    if not queued or is_moving or any(now - job.created < QUEUED_SECONDS for job in queued):
        return None
    first = next((item for item in runnable if rows[item.stage].state in ACTIVE), None)
    first = first or next(iter(runnable), None)
    if first is None:
        return None
    needed = {each.name for each in servers_of(owner, first.service)} if first.service else set()
    return first if holders - needed else None


def _is_ready(job: Job, observed: Observed) -> bool:
    return any(pod.is_ready for pod in observed.pods_of(job.name))
