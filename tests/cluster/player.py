"""Plays the kubelet for a control plane without nodes: pods start, answer and end, but nothing is executed.

The API server, the Job controller and the garbage collector are real; only what a node would report is made up.
Tests that attack the operator use it: a whole run takes seconds, and any pod can be made to end in any way.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import time
from typing import Any

from soda_jobs.errors import SodaError
from soda_jobs.names import RUN_LABEL, STAGE_LABEL
from soda_operator.cluster import Cluster
from soda_operator.observed import stamp

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class End:
    """How a pod ends: exit code, last message, the reason Kubernetes gives, a DisruptionTarget reason."""

    code: int = 0
    message: str = ""
    reason: str = ""
    disruption: str = ""


TERMINATED = End(143)

INDEX_LABEL = "batch.kubernetes.io/job-completion-index"


def good_end(pod: Raw) -> End:
    """What the stage of a pod would report; its digest follows from its key, as that of a real one."""
    env = {item["name"]: item.get("value", "") for item in pod["spec"]["containers"][0]["env"]}
    name = pod["metadata"]["labels"][STAGE_LABEL]
    if "SODA_STAGE" not in env:
        return End(message=json.dumps({"state": "done", "pinned": {}, "finished": "", "stage": name}))
    if pod["metadata"]["labels"][INDEX_LABEL] != "0":  # the first of those that share a stage tells of it
        return End(message=json.dumps({"state": "shared"}))
    task = json.loads(env["SODA_STAGE"])
    digest = hashlib.sha256(task["key"].encode()).hexdigest()
    headline = {"pass@1": 0.1 * task["round"]} if task["kind"] == "evaluate" else {}
    return End(
        message=json.dumps(
            {"state": "done", "key": task["key"], "digest": digest, "counts": {"rows": 3}, "headline": headline}
        )
    )


@dataclass
class Player:
    """Moves every pod of every run on, one step each round."""

    cluster: Cluster
    namespace: str = ""
    ends: Callable[[Raw], End | None] = good_end  # None: the pod goes on running
    starts: Callable[[Raw], bool] = lambda pod: True
    waits: Callable[[Raw], tuple[str, str] | None] = lambda pod: None  # why a container does not start
    is_ready: Callable[[Raw], bool] = lambda pod: True
    pause: float = 0.1
    at_once: int = 1
    started: list[str] = field(default_factory=list)  # Jobs whose pods ran, in order

    async def play(self) -> None:
        while True:
            with suppress(SodaError):  # the server was away: the next round sees
                pods = [item async for item in self.cluster.list("Pod", self.namespace, labelSelector=RUN_LABEL)]
                await asyncio.gather(*(self._steps(pods[first :: self.at_once]) for first in range(self.at_once)))
            await asyncio.sleep(self.pause)

    async def _steps(self, pods: Sequence[Raw]) -> None:
        for pod in pods:
            with suppress(SodaError):  # it changed meanwhile
                await self._step(pod)

    async def _step(self, pod: Raw) -> None:
        phase = (pod.get("status") or {}).get("phase")
        if "deletionTimestamp" in pod["metadata"]:
            await self._remove(pod)
            return
        if phase in ("Succeeded", "Failed"):
            return
        if phase == "Pending":
            if (why := self.waits(pod)) is not None:
                if _waiting_reason(pod) != why[0]:
                    await self._report(pod, _waiting(*why))
            elif self.starts(pod):
                await self._report(pod, _running(pod, self.is_ready(pod)))
                self.started.append(pod["metadata"]["labels"]["batch.kubernetes.io/job-name"])
            return
        if STAGE_LABEL not in pod["metadata"]["labels"]:
            return  # a server runs until it is deleted
        end = self.ends(pod)
        if end is not None:
            await self._report(pod, _ended(pod, end))

    async def _remove(self, pod: Raw) -> None:
        """What a kubelet does with a pod of its node that is being deleted: ends it, says so, lets it go."""
        meta = pod["metadata"]
        if not pod["spec"].get("nodeName") or meta.get("deletionGracePeriodSeconds") == 0:
            return
        if pod["status"]["phase"] in ("Pending", "Running"):
            await self._report(pod, _ended(pod, TERMINATED))
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        await self.cluster._call("DELETE", path, body=body)

    async def _report(self, pod: Raw, status: dict[str, Any]) -> None:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status"
        body = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": status}
        await self.cluster._call("PATCH", path, body=body, content="application/merge-patch+json")


def _condition(kind: str, status: str, reason: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "lastTransitionTime": stamp(time())}


def _container(state: dict[str, Any], ready: bool) -> dict[str, Any]:
    return {"name": "main", "image": "", "imageID": "", "ready": ready, "restartCount": 0, "state": state}


def _waiting(reason: str, message: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [_container(state, False)]}


def _waiting_reason(pod: Raw) -> str:
    containers = (pod.get("status") or {}).get("containerStatuses") or [{}]
    return str(((containers[0].get("state") or {}).get("waiting") or {}).get("reason") or "")


def _running(pod: Raw, is_ready: bool = True) -> dict[str, Any]:
    now = stamp(time())
    return {
        "phase": "Running",
        "startTime": now,
        "conditions": [_condition("Ready", str(is_ready))],
        "containerStatuses": [_container({"running": {"startedAt": now}}, is_ready)],
    }


def _ended(pod: Raw, end: End) -> dict[str, Any]:
    now = stamp(time())
    reason = end.reason or ("Completed" if end.code == 0 else "Error")
    state = {"exitCode": end.code, "reason": reason, "message": end.message, "startedAt": now, "finishedAt": now}
    conditions = [_condition("Ready", "False")]
    if end.disruption:
        conditions.append(_condition("DisruptionTarget", "True", end.disruption))
    return {
        "phase": "Succeeded" if end.code == 0 else "Failed",
        "conditions": conditions,
        "containerStatuses": [_container({"terminated": state}, False)],
    }
