"""One look at a run that is under way: move its rows on, keep its servers, start what may start. Pure.

`Look.go` reads top to bottom; it changes the working copy of the status and fills in the decision.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from soda_jobs.finished import decode
from soda_jobs.graph import Graph, Kind, with_pinned
from soda_jobs.names import ATTEMPT_MAX, PREFLIGHT, PUBLISH, job_name
from soda_jobs.plan import Command, Finished, ServiceCommand, plan, stage_key
from soda_operator import ledger, queues, summary
from soda_operator.accept import Accepted
from soda_operator.config import Config
from soda_operator.decision import Decision, Raw
from soda_operator.faults import Fault, fault, refusal
from soda_operator.manifests import resource_env, servers_of, service_account, stage_job, task_job
from soda_operator.observed import Observed, epoch, stamp
from soda_operator.servers import Servers, move_on
from soda_operator.status import RunStatus, StageStatus

DEADLINE_SECONDS: Final = 30.0  # how soon a run with deadlines is looked at again


@dataclass
class Look:
    """One look at a run that is not over; `status` is the working copy that becomes the new one."""

    accepted: Accepted
    observed: Observed
    config: Config
    now: float
    status: RunStatus
    decision: Decision

    def __post_init__(self) -> None:
        owner, graph = self.accepted.owner, self.accepted.graph
        self.owner, self.run = owner, owner.run
        names = (PREFLIGHT, *(stage.name for stage in graph), PUBLISH)
        known = {row.name: row for row in self.status.stages}
        self.status.stages = [known.get(name) or StageStatus(name=name) for name in names]
        self.rows = {row.name: row for row in self.status.stages}
        self.graph: Graph = with_pinned(graph, self.status.pinned)

    def go(self, spec: Mapping[str, Any]) -> None:
        status = self.status
        status.artifacts = self.owner.storage.url
        status.start_time = status.start_time or stamp(self.now)
        self._retry(spec)
        if self.run.spec.cancel:
            self._stop_all()
            summary.columns(status, self.graph)
            return summary.end(status, "Cancelled", "Cancelled", fault("Cancelled", "the run").message, self.now)
        halted = self._halted()
        if halted is not None:
            self._stop_all()
            summary.columns(status, self.graph)
            return summary.stop(status, halted, "Suspended")
        self._advance()
        servers = self._start()
        summary.columns(status, self.graph)
        self._conclude(servers)
        return None

    def _retry(self, spec: Mapping[str, Any]) -> None:
        """A new retry token: what failed is as if it had not been tried."""
        token = spec.get("retryToken") or ""
        if token == self.status.retry_token:
            return
        self.status.retry_token, self.status.finish_time = token, None
        for row in self.rows.values():
            if row.state == "failed" or (row.state == "waiting" and row.failures):
                ledger.clear(row, "waiting")
            row.failures = 0

    def _halted(self) -> Fault | None:
        """Why the run may not go on now: suspended by its user, or a budget is used up."""
        if self.run.spec.suspend:
            return fault("Suspended", "the run")
        budget = self.run.spec.budget
        hours = (self.now - (epoch(self.status.start_time) or self.now)) / 3600
        gpu_hours = (self.status.gpu_seconds + self._gpu_seconds_now()) / 3600
        if budget.hours is not None and hours >= budget.hours:
            return fault("BudgetExhausted", "spec.budget.hours", f"{hours:.1f} of {budget.hours:g} hours")
        if budget.gpu_hours is not None and gpu_hours >= budget.gpu_hours:
            used = f"{gpu_hours:.1f} of {budget.gpu_hours:g} hours"
            return fault("BudgetExhausted", "spec.budget.gpuHours", used)
        if budget.hours is not None or budget.gpu_hours is not None:
            self.decision.look_again(DEADLINE_SECONDS)
        return None

    def _gpu_seconds_now(self) -> int:
        """Of the Jobs that no row has counted yet."""
        active = [self._job(row) for row in self.rows.values() if row.state in ledger.ACTIVE]
        servers = [job_name(self.owner.name, row.name, row.attempt) for row in self.status.services]
        jobs = (self.observed.jobs.get(name) for name in (*active, *servers))
        return sum(ledger.used(job, self.now) for job in jobs if job is not None)

    def _stop_all(self) -> None:
        """Everything that runs is stopped, and nothing is made; what is committed stays, so rows just wait."""
        self.decision.apply.clear()
        for row in self.rows.values():
            if row.state in ledger.ACTIVE:
                self._give_up(row)
        for job in self.observed.jobs.values():
            if not (self.observed.is_over(job) or job.is_deleting or job.service):
                self.decision.delete.append(("Job", job.name))
        servers = move_on(self.owner, self.status.services, {}, self.observed, self.now)
        self.status.services = []
        self.status.gpu_seconds += servers.gpu_seconds
        self.decision.delete += servers.delete

    def _give_up(self, row: StageStatus) -> None:
        """An active row waits again; its Job becomes a stray. What it used is counted here, once."""
        job = self.observed.jobs.get(self._job(row))
        if job is not None:
            row.gpu_seconds += ledger.used(job, self.now)
            self.status.gpu_seconds += ledger.used(job, self.now)
        ledger.clear(row, "waiting")

    def _advance(self) -> None:
        for row in self.rows.values():
            if row.state not in ledger.ACTIVE:
                continue
            before = row.gpu_seconds
            result = ledger.advance(row, self._job(row), self.observed, self.config, self.now)
            self.status.gpu_seconds += row.gpu_seconds - before
            if result is not None and row.name == PREFLIGHT:
                self._take_over(result)

    def _job(self, row: StageStatus) -> str:
        return job_name(self.owner.name, row.name, row.attempt)

    def _take_over(self, result: Mapping[str, Any]) -> None:
        """What the first look at the store found: contents of sources, and stages that are committed already."""
        self.status.pinned = dict(result.get("pinned") or {})
        self.graph = with_pinned(self.accepted.graph, self.status.pinned)
        try:
            digests = decode([stage.name for stage in self.graph], result.get("finished") or "")
        except ValueError:
            digests = {}  # of another version of soda: each stage finds its own artifact
        finished: dict[str, Finished] = {}
        for stage in self.graph:
            # An evaluation is left to its own Job, which says `reused` and brings the scores along.
            is_whole = stage.kind is not Kind.EVALUATE and stage.name in digests
            if is_whole and all(need in finished for need in stage.needs):
                row = self.rows[stage.name]
                row.key, row.digest = stage_key(stage, finished), digests[stage.name]
                finished[stage.name] = Finished(row.key, row.digest)
                ledger.clear(row, "reused")
                row.finish_time = stamp(self.now)

    def _finished(self) -> dict[str, Finished]:
        rows = self.rows.values()
        return {
            row.name: Finished(row.key, row.digest) for row in rows if row.state in ledger.FINISHED and row.key
        }

    def _runnable(self) -> list[Command]:
        """Stages whose inputs are finished and that are not: those that run, and those that may start."""
        if self.rows[PREFLIGHT].state not in ledger.FINISHED:
            return []
        found = plan(self.run, self.graph, self._finished())
        return [item for item in found if self.rows[item.stage].state in ("waiting", *ledger.ACTIVE)]

    def _start(self) -> Servers:
        """Start what may start: servers first, and a stage once its servers answer."""
        is_failing = any(row.state == "failed" for row in self.rows.values())
        runnable = self._runnable()
        if is_failing:
            runnable = [item for item in runnable if self._may_end(self.rows[item.stage])]
        runnable = self._unlock(runnable)
        wanted: dict[str, ServiceCommand] = {}
        for item in runnable:
            for each in servers_of(self.owner, item.service) if item.service else ():
                wanted.setdefault(each.name, each)
        servers = move_on(self.owner, self.status.services, wanted, self.observed, self.now)
        self.status.services = servers.rows
        self.status.gpu_seconds += servers.gpu_seconds
        self.decision.delete += servers.delete
        if servers.again is not None:
            self.decision.look_again(servers.again)
        self._roles(runnable, servers)
        self.decision.apply += servers.apply
        for item in runnable:
            self._start_stage(item, servers)
        self._tasks(is_failing)
        self._remove_strays()
        return servers

    def _may_end(self, row: StageStatus) -> bool:
        """In a run that is failing: what runs may end, what has not begun is given up."""
        if row.state == "starting":
            self._give_up(row)
        return row.state == "running"

    def _unlock(self, runnable: list[Command]) -> list[Command]:
        """When the run's own servers keep its stages out of the queue, the first stage goes alone."""
        first = queues.alone(self.owner, runnable, self.rows, self.observed, self.now)
        for item in runnable if first is not None else ():
            if item is not first and self.rows[item.stage].state in ledger.ACTIVE:
                self._give_up(self.rows[item.stage])
        return runnable if first is None else [first]

    def _start_stage(self, item: Command, servers: Servers) -> None:
        row = self.rows[item.stage]
        needed = [each.name for each in servers_of(self.owner, item.service)] if item.service else []
        lost = next((servers.failed[name] for name in needed if name in servers.failed), None)
        if lost is not None:
            if row.state in ledger.ACTIVE:
                self._give_up(row)
            ledger.fail(row, Fault(lost.reason, f"its server: {lost.message}"), self.now)
            row.state = "failed"
            return
        if row.state == "waiting" and not all(map(servers.is_ready, needed)):
            return
        if row.state in ledger.ACTIVE and not servers.queued.isdisjoint(needed):
            self._give_up(row)  # it would fail without its server, and keep quota from it
            return
        row.key = item.key
        self._want(row, lambda attempt: stage_job(self.owner, item, attempt))

    def _tasks(self, is_failing: bool) -> None:
        """Look at the store first; make the report last."""
        rows = self.rows
        if rows[PREFLIGHT].state not in (*ledger.FINISHED, "failed"):
            self._want(rows[PREFLIGHT], lambda attempt: self._task_job(PREFLIGHT, {}, attempt))
        is_done = all(rows[stage.name].state in ledger.FINISHED for stage in self.graph)
        if is_done and not is_failing and rows[PUBLISH].state not in ledger.FINISHED:
            states = {stage.name: rows[stage.name].state for stage in self.graph}
            pinned = json.dumps(self.status.pinned, sort_keys=True)
            env = {"SODA_STATES": json.dumps(states), "SODA_PINNED": pinned}
            self._want(rows[PUBLISH], lambda attempt: self._task_job(PUBLISH, env, attempt))

    def _task_job(self, task: str, env: Mapping[str, str], attempt: int) -> Raw:
        return task_job(self.owner, task, {**resource_env(self.owner), **env}, attempt)

    def _want(self, row: StageStatus, make: Callable[[int], Raw]) -> None:
        """This stage is to run now: give it its next Job, or its Job again if that is gone."""
        if row.state == "waiting":
            wait = ledger.retry_at(row, self.config) - self.now
            if wait > 0 or ledger.is_ending(row, self.owner.name, self.observed, self.now):
                return self.decision.look_again(max(wait, 1.0))
            if row.attempt >= ATTEMPT_MAX:
                ledger.fail(row, fault("TooManyAttempts", f"stage {row.name}"), self.now)
                return None
            row.attempt += 1
            row.start_time = row.start_time or stamp(self.now)
            ledger.clear(row, "starting")
        name = self._job(row)
        if name not in self.observed.jobs:
            self.decision.apply.append(make(row.attempt))
        self.decision.look_again(DEADLINE_SECONDS)
        if name in self.observed.refused:
            why = refusal(f"Job {name}", self.observed.refused[name])
            row.reason, row.message = why.reason, why.message
        return None

    def _roles(self, runnable: list[Command], servers: Servers) -> None:
        """The ServiceAccounts of the pods that are made."""
        roles = {"jobs", *("train" for item in runnable if item.image == "train")}
        for row in servers.rows:
            roles.add("sandbox" if row.name.startswith("sandbox-") else row.name.split("-")[0])
        accounts = [service_account(self.owner, role) for role in sorted(roles)]
        self.decision.apply += [item for item in accounts if item is not None]

    def _remove_strays(self) -> None:
        """Jobs of stages that should not be running, such as an attempt that was given up; and Jobs that wait in
        a queue the spec no longer names: nothing of them runs, and they are made again."""
        current = {self._job(row) for row in self.rows.values() if row.state in ledger.ACTIVE}
        for job in self.observed.jobs.values():
            if self.observed.is_over(job) or job.is_deleting:
                continue
            is_stray = job.stage and job.name not in current
            if is_stray or ledger.is_misplaced(job, self.observed.pods_of(job.name), self.run.spec):
                self.decision.delete.append(("Job", job.name))

    def _conclude(self, servers: Servers) -> None:
        status, rows = self.status, self.rows
        failed = next((row for row in rows.values() if row.state == "failed"), None)
        if rows[PUBLISH].state in ledger.FINISHED:
            self._stop_all()
            text = (
                f"{status.progress} stages; the report is in {status.artifacts}/runs/{self.owner.name}/report.html"
            )
            summary.end(status, "Succeeded", "Succeeded", text, self.now)
        elif failed is not None and not any(row.state in ledger.ACTIVE for row in rows.values()):
            self._stop_all()
            summary.end(status, "Failed", failed.reason, f"stage {failed.name}: {failed.message}", self.now)
        else:
            summary.decide(status, servers.blocked)
