"""What the watches do not tell: warnings about things that do not start, and the progress of those that run.

Asked for only while something waits, or a stage runs, and not more often than each has news.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from soda_operator import observed
from soda_operator.cluster import Away, Cluster, Gone, Refused
from soda_operator.observed import JOB_NAME_LABEL, Job, Pod, Progress, Warned

WARNINGS_SECONDS: Final = 4.0
PROGRESS_SECONDS: Final = 15.0
LATE_SECONDS: Final = 120.0  # nobody asks about a Job that ended long ago
PATIENCE_SECONDS: Final = 3.0  # before anybody asks why something has not started
JOB_UID: Final = "kueue.x-k8s.io/job-uid"


@dataclass
class Surroundings:
    """The answers for one run, kept between looks."""

    warnings: dict[str, tuple[Warned, ...]] = field(default_factory=dict)
    progress: dict[str, Progress] = field(default_factory=dict)
    refused: dict[str, Warned] = field(default_factory=dict)
    _asked: dict[str, float] = field(default_factory=dict)

    async def last_words(
        self, cluster: Cluster, namespace: str, jobs: Mapping[str, Job], pods: dict[str, Pod], now: float
    ) -> None:
        """Fill up `pods` with how they ended, where their watch is behind that of Jobs. Before a decision."""
        names = {*jobs, *pods}
        for table in (self.warnings, self.progress, self._asked):
            for name in [name for name in table if name.partition("/")[0] not in names]:
                del table[name]
        for job in jobs.values():
            own = [pod for pod in pods.values() if pod.job == job.name]
            if own:
                self.warnings.pop(job.name, None)  # what kept it from a pod is over
            is_late = now - (job.ended or now) >= LATE_SECONDS
            if not job.outcome or is_late or any(pod.exit_code is not None for pod in own):
                continue
            if self._is_due(f"{job.name}/end", WARNINGS_SECONDS, now):
                selector = f"{JOB_NAME_LABEL}={job.name}"
                async for raw in cluster.list("Pod", namespace, labelSelector=selector):
                    pods[raw["metadata"]["name"]] = observed.pod(raw)

    async def refresh(
        self, cluster: Cluster, namespace: str, jobs: Mapping[str, Job], pods: Mapping[str, Pod], now: float
    ) -> bool:
        """Ask for what is due, about what is there now. True when there is news. After a decision: a log may take
        seconds, and what a run has to do must not wait for it."""
        before = (dict(self.warnings), dict(self.progress))
        for job in jobs.values():
            if job.outcome or job.is_deleting:
                continue
            own = [pod for pod in pods.values() if pod.job == job.name]
            if not own and now - job.created > PATIENCE_SECONDS and self._is_due(job.name, WARNINGS_SECONDS, now):
                self.warnings[job.name] = await _why_no_pod(cluster, namespace, job)
            for pod in own:
                await self._ask_pod(cluster, namespace, job, pod, now)
        return before != (self.warnings, self.progress)

    async def _ask_pod(self, cluster: Cluster, namespace: str, job: Job, pod: Pod, now: float) -> None:
        is_stuck = pod.phase == "Pending" and pod.node and now - pod.created > PATIENCE_SECONDS
        if is_stuck and self._is_due(pod.name, WARNINGS_SECONDS, now):
            self.warnings[pod.name] = await _events(cluster, namespace, pod.name, pod.uid)
        if job.stage and pod.phase == "Running" and self._is_due(pod.name, PROGRESS_SECONDS, now):
            found = last_progress(await cluster.log_tail(namespace, pod.name))
            if found is not None:
                self.progress[pod.name] = found

    def _is_due(self, name: str, seconds: float, now: float) -> bool:
        if now - self._asked.get(name, 0.0) < seconds:
            return False
        self._asked[name] = now
        return True


async def _why_no_pod(cluster: Cluster, namespace: str, job: Job) -> tuple[Warned, ...]:
    if job.is_queued:
        return await _kueue(cluster, namespace, job)
    return await _events(cluster, namespace, job.name, job.uid)


async def _events(cluster: Cluster, namespace: str, name: str, uid: str) -> tuple[Warned, ...]:
    """Warnings about one object, oldest first."""
    selector = f"involvedObject.name={name},involvedObject.uid={uid},type=Warning"
    found = [item async for item in cluster.list("Event", namespace, fieldSelector=selector)]
    found.sort(key=lambda item: item.get("lastTimestamp") or item.get("eventTime") or "")
    return tuple(Warned(item.get("reason") or "", item.get("message") or "") for item in found)


async def _kueue(cluster: Cluster, namespace: str, job: Job) -> tuple[Warned, ...]:
    """Why Kueue holds a Job back, from its Workload's conditions."""
    try:
        loads = [item async for item in cluster.list("Workload", namespace, labelSelector=f"{JOB_UID}={job.uid}")]
    except (Gone, Refused, Away):
        return ()
    return tuple(Warned("Kueue", text) for load in loads for text in _held(load))


def _held(load: Mapping[str, Any]) -> list[str]:
    conditions = (load.get("status") or {}).get("conditions") or ()
    evicted = [item for item in conditions if item["type"] == "Evicted" and item["status"] == "True"]
    waiting = [item for item in conditions if item["type"] == "QuotaReserved" and item["status"] == "False"]
    return [item.get("message") or item.get("reason") or "" for item in (*waiting, *evicted)]


def last_progress(log: str) -> Progress | None:
    """The last progress event in a log; lines that are not ours are skipped."""
    for line in reversed(log.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and found.get("event") == "progress":
            done, total, at = (found.get(name) for name in ("done", "total", "ts"))
            if isinstance(done, int) and isinstance(total, int | None) and isinstance(at, int | float):
                return Progress(done, total, float(at))
    return None
