"""A small cluster in dictionaries for the operator's controller: objects with versions, a Job controller, a
garbage collector and a kubelet that move on at random, watches that lag, lose and repeat, and a clock.

Nothing sleeps and everything follows from the seed. The real API server's part is in `tests/faults`.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import yaml

from soda_jobs.errors import SodaError
from soda_jobs.names import STAGE_LABEL
from soda_operator.cluster import Away, Conflict, Exists, Gone, Refused
from soda_operator.config import Config
from soda_operator.controller import Controller
from soda_operator.observed import JOB_NAME_LABEL, stamp
from soda_operator.summary import TERMINAL

Raw = dict[str, Any]
NAMESPACE, RUN = "team", "tiny"
CONFIG = Config(progress_seconds=10_000.0)
RESYNC_SECONDS = 300.0
QUICKSTART = Path(__file__).parents[2] / "crds" / "samples" / "quickstart.yaml"


def tiny_run(**spec: Any) -> Raw:
    """The quickstart with one round and nothing that can be left out: 15 stages, four servers."""
    document: Raw = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    document["metadata"] = {"name": RUN, "namespace": NAMESPACE}
    document["spec"] |= {
        "rounds": 1,
        "ablation": {"skip": ["fault", "judge", "execution", "classification"]},
        "execution": {"languages": ["python"]},
        "storage": {"url": "s3://bucket/prefix", "secretRef": {"name": "s3"}},
        **spec,
    }
    return document


class Killed(BaseException):
    """The operator's process is gone."""


# What may happen to a write: see `World.write`.
FAULTS = ("before", "after", "conflict", "away", "lost")


@dataclass
class World:
    """`hit` says what happens to each write of the operator, by its number; "" lets it through."""

    seed: int
    hit: Callable[[int], str] = lambda number: ""
    ends: Callable[[World, Raw], tuple[int, str] | None] | None = None  # code and DisruptionTarget; None: not yet
    config: Config = CONFIG
    lag: float = 0.3  # the chance that a watch event is held back for another step
    loss: float = 0.0  # the chance that it never comes
    now: float = 1_800_000_000.0
    objects: dict[tuple[str, str], Raw] = field(default_factory=dict)
    events: list[tuple[str, str, Raw]] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)  # names of Jobs, in order
    ran: list[str] = field(default_factory=list)  # names of Jobs whose pods ended well
    jobs_of: dict[str, str] = field(default_factory=dict)  # the run of each Job there ever was, by uid
    told: list[Raw] = field(default_factory=list)  # every status
    is_booting: Callable[[Raw], bool] = lambda pod: False  # never gets ready
    refuses: Callable[[Raw], Refused | None] = lambda item: None
    version: int = 0

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.due = self.now + RESYNC_SECONDS
        self.is_down = True
        self.restart()

    def restart(self) -> None:
        lease: Any = SimpleNamespace(held=True)
        cluster: Any = self
        self.controller = Controller(cluster, self.config, lease, lambda: self.now)
        self.events.clear()  # new watches begin where the list ends
        self.is_down = True

    # What a user does.

    def apply_run(self, document: Raw) -> None:
        old = self.objects.get(("DistillationRun", document["metadata"]["name"]))
        if old is None:
            meta = {
                **document["metadata"],
                "uid": f"uid-{self.version}",
                "creationTimestamp": stamp(self.now),
                "generation": 1,
            }
            self._put({**document, "metadata": meta, "status": {"observedGeneration": -1}}, "ADDED")
        elif old["spec"] != document["spec"]:
            meta = {**old["metadata"], "generation": old["metadata"]["generation"] + 1}
            self._put({**old, "metadata": meta, "spec": document["spec"]})

    def change(self, **spec: Any) -> None:
        run = self.run
        self.apply_run({**run, "spec": {**run["spec"], **spec}})

    def drop_run(self) -> None:
        run = self.run
        if run["metadata"].get("finalizers"):
            self._put({**run, "metadata": {**run["metadata"], "deletionTimestamp": stamp(self.now)}})
        else:
            self._remove(("DistillationRun", RUN))

    # What a test looks at.

    @property
    def run(self) -> Raw:
        return self.objects["DistillationRun", RUN]

    @property
    def status(self) -> Raw:
        found: Raw = self.run["status"]
        return found

    def of(self, kind: str) -> list[Raw]:
        return [raw for (each, _), raw in self.objects.items() if each == kind]

    def active_jobs(self) -> list[Raw]:
        return [job for job in self.of("Job") if not is_over(job) and "deletionTimestamp" not in job["metadata"]]

    def digests(self) -> dict[str, str]:
        return {row["name"]: row.get("digest", "") for row in self.status["stages"]}

    # One step of everything.

    async def step(self) -> None:
        """Something happens somewhere, some time passes, the operator looks or not."""
        for key in self.random.sample(sorted(self.objects), len(self.objects)):
            if key in self.objects and self.random.random() < 0.5:
                self._move(key)
        self.deliver()
        self.now += self.random.choice((0.1, 1.0, 5.0))
        if self.random.random() < 0.8:
            await self.look()

    async def settle(self, steps: int = 60) -> None:
        for _ in range(steps):
            await self.step()

    async def until(self, *states: str, steps: int = 3000) -> None:
        for _ in range(steps):
            if self.status.get("state") in states:
                return
            await self.step()
        raise AssertionError(f"still {json.dumps(self.status, indent=1)} with {sorted(self.objects)}")

    async def look(self) -> None:
        try:
            if self.is_down or self.now > self.due:
                await self.controller.resync()
                self.is_down, self.due = False, self.now + RESYNC_SECONDS
            await self.controller._reconcile((NAMESPACE, RUN))
        except SodaError:
            pass  # the queue would bring the key back
        except Killed:
            self.restart()

    def deliver(self) -> None:
        """Watch events come in order for each kind, late, twice, or not at all."""
        if self.is_down:
            return
        held: set[str] = set()
        waiting = []
        for kind, type_, raw in self.events:
            if kind in held or self.random.random() < self.lag:
                held.add(kind)
                waiting.append((kind, type_, raw))
            elif self.random.random() >= self.loss:
                for _ in range(self.random.choice((1, 1, 2))):
                    self.controller.seen(kind, type_, copy.deepcopy(raw))
        self.events = waiting

    # Job controller, garbage collector, kubelet.

    def _move(self, key: tuple[str, str]) -> None:
        raw = self.objects[key]
        owners = raw["metadata"].get("ownerReferences") or ()
        alive = {item["metadata"]["uid"] for item in self.objects.values()}
        if owners and not any(owner["uid"] in alive for owner in owners):
            self._end(key)
        elif key[0] == "Job" and not is_over(raw):
            self._move_job(raw)
        elif key[0] == "Pod":
            self._move_pod(raw)

    def _end(self, key: tuple[str, str]) -> None:
        raw = self.objects[key]
        is_running = key[0] == "Pod" and raw["status"]["phase"] in ("Pending", "Running")
        if not is_running or "deletionTimestamp" in raw["metadata"]:
            self._remove(key)
        else:
            self._put({**raw, "metadata": {**raw["metadata"], "deletionTimestamp": stamp(self.now + 30)}})

    def _move_job(self, job: Raw) -> None:
        meta, spec = job["metadata"], job["spec"]
        pods = [pod for pod in self.of("Pod") if pod["metadata"]["ownerReferences"][0]["uid"] == meta["uid"]]
        phases = [pod["status"]["phase"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        counted = [pod for pod in pods if pod["status"]["phase"] == "Failed" and not is_disrupted(pod)]
        codes = {pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] for pod in counted}
        fatal = set(spec["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"])
        if "Succeeded" in phases:
            self._close(job, "Complete", "")
        elif codes & fatal or len(counted) > spec["backoffLimit"]:
            self._close(job, "Failed", "PodFailurePolicy" if codes & fatal else "BackoffLimitExceeded")
        elif not {"Pending", "Running"} & set(phases):
            name = f"{meta['name']}-0-{self.version:05d}"
            reference = {"kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
            labels = {**spec["template"]["metadata"]["labels"], JOB_NAME_LABEL: meta["name"]}
            pod_meta = {"name": name, "namespace": NAMESPACE, "labels": labels, "ownerReferences": [reference]}
            pod = {"kind": "Pod", "spec": spec["template"]["spec"], "status": {"phase": "Pending"}}
            self._create({**pod, "metadata": pod_meta})

    def _close(self, job: Raw, kind: str, reason: str) -> None:
        condition = {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": stamp(self.now)}
        self._put({**job, "status": {"conditions": [condition], "startTime": stamp(self.now - 1)}})

    def _move_pod(self, pod: Raw) -> None:
        meta, phase = pod["metadata"], pod["status"]["phase"]
        if "deletionTimestamp" in meta:
            self._remove(("Pod", meta["name"]))
        elif phase == "Pending":
            state = {"running": {"startedAt": stamp(self.now)}}
            ready = {"type": "Ready", "status": str(not self.is_booting(pod))}
            self._put_pod(pod, "Running", state, [ready])
        elif phase == "Running" and STAGE_LABEL in meta["labels"]:
            end = self.ends(self, pod) if self.ends else (0, "")
            if end is None:
                return
            code, disruption = end
            message = json.dumps(last_word(pod)) if code == 0 and not disruption else f"exit {code}"
            ended = {"exitCode": code, "message": message, "reason": "Completed" if code == 0 else "Error"}
            conditions = (
                [{"type": "DisruptionTarget", "status": "True", "reason": disruption}] if disruption else []
            )
            if not disruption and code == 0:
                self.ran.append(meta["labels"][JOB_NAME_LABEL])
            is_good = code == 0 and not disruption
            self._put_pod(pod, "Succeeded" if is_good else "Failed", {"terminated": ended}, conditions)

    def _put_pod(self, pod: Raw, phase: str, state: Raw, conditions: list[Raw]) -> None:
        containers = [{"name": "main", "state": state}]
        self._put({**pod, "status": {"phase": phase, "conditions": conditions, "containerStatuses": containers}})

    # Objects with versions.

    def _create(self, raw: Raw) -> Raw:
        meta = {**raw["metadata"], "uid": f"uid-{self.version}", "creationTimestamp": stamp(self.now)}
        if raw["kind"] == "Job":
            self.jobs_of[meta["uid"]] = meta.get("ownerReferences", [{}])[0].get("uid", "")
        return self._put({**raw, "metadata": meta}, "ADDED")

    def _put(self, raw: Raw, type_: str = "MODIFIED") -> Raw:
        self.version += 1
        raw = {**raw, "metadata": {**raw["metadata"], "resourceVersion": str(self.version)}}
        self.objects[raw["kind"], raw["metadata"]["name"]] = raw
        self._tell(type_, raw)
        return raw

    def _remove(self, key: tuple[str, str]) -> None:
        self.version += 1
        raw = self.objects.pop(key)
        self._tell("DELETED", {**raw, "metadata": {**raw["metadata"], "resourceVersion": str(self.version)}})

    def _tell(self, type_: str, raw: Raw) -> None:
        if raw["kind"] in ("DistillationRun", "Job", "Pod"):
            self.events.append((raw["kind"], type_, raw))

    # The door that the operator goes through: the methods of `soda_operator.cluster.Cluster`.

    def write(self, what: str, do: Callable[[], Any]) -> Any:
        self.writes.append(what)
        fault = self.hit(len(self.writes))
        if fault == "before":
            raise Killed
        if fault == "conflict":
            raise Conflict("somebody was faster")
        if fault == "away":
            raise Away("try later")
        found = do()
        if fault == "after":
            raise Killed
        if fault == "lost":
            raise Away("the answer was lost")
        return copy.deepcopy(found)

    async def get(self, kind: str, namespace: str, name: str) -> Raw:
        if (kind, name) not in self.objects:
            raise Gone(name)
        return copy.deepcopy(self.objects[kind, name])

    async def apply(self, item: Raw) -> Raw | None:
        found: Raw | None = self.write(
            f"apply {item['kind']}/{item['metadata']['name']}", lambda: self._apply(item)
        )
        return found

    def _apply(self, item: Raw) -> Raw | None:
        refused = self.refuses(item)
        if refused is not None:
            raise refused
        item = copy.deepcopy(item)
        old = self.objects.get((item["kind"], item["metadata"]["name"]))
        if old is not None:
            uids = [each["metadata"].get("ownerReferences", [{}])[0].get("uid") for each in (old, item)]
            if uids[0] != uids[1]:
                raise Refused("RefusedInvalid", "two controllers")
            return None if item["kind"] == "Secret" else old
        if item["kind"] == "Job":
            self._check_new_job(item)
        return self._create(item)

    def _check_new_job(self, item: Raw) -> None:
        """What must be true whenever a Job is made."""
        name = item["metadata"]["name"]
        self.made.append(name)
        stage, status = item["metadata"]["labels"].get(STAGE_LABEL), self.status
        if stage == "cleanup":
            return
        assert status["state"] not in TERMINAL, f"{name} is made after the end"
        if stage is not None:
            row = next(row for row in status["stages"] if row["name"] == stage)
            assert name == f"{RUN}-{stage}-{row['attempt']}", f"{name} is made before it is counted"
            others = [pod for pod in self.of("Pod") if pod["metadata"]["labels"].get(STAGE_LABEL) == stage]
            uid = self.run["metadata"]["uid"]
            busy = [
                pod["metadata"]["name"]
                for pod in others
                if pod["status"]["phase"] in ("Pending", "Running") and self._is_from(pod, uid)
            ]
            assert not busy, f"{name} is made beside {busy}"

    def _is_from(self, pod: Raw, uid: str) -> bool:
        return self.jobs_of.get(pod["metadata"]["ownerReferences"][0]["uid"]) == uid

    async def put_status(self, resource: Raw) -> Raw:
        found: Raw = self.write("status", lambda: self._replace(resource, "status"))
        return found

    async def put_finalizers(self, resource: Raw, finalizers: list[str]) -> Raw:
        meta = {**resource["metadata"], "finalizers": finalizers}
        found: Raw = self.write("finalizers", lambda: self._replace({**resource, "metadata": meta}, "metadata"))
        if not finalizers and "deletionTimestamp" in found["metadata"]:
            self._remove(("DistillationRun", RUN))
        return found

    def _replace(self, resource: Raw, part: str) -> Raw:
        old = self.objects.get(("DistillationRun", resource["metadata"]["name"]))
        if old is None:
            raise Gone("the run")
        if old["metadata"]["resourceVersion"] != resource["metadata"]["resourceVersion"]:
            raise Conflict("the run")
        assert part != "status" or old.get("status") != resource["status"], "nothing new was written"
        if part == "status":
            self.told.append(json.loads(json.dumps(resource["status"])))
        return self._put({**old, part: json.loads(json.dumps(resource[part]))})

    async def delete(self, kind: str, namespace: str, name: str, **preconditions: str) -> bool:
        found: bool = self.write(f"delete {kind}/{name}", lambda: self._delete(kind, name, preconditions))
        return found

    def _delete(self, kind: str, name: str, preconditions: Mapping[str, str]) -> bool:
        old = self.objects.get((kind, name))
        if old is None:
            return False
        if any(old["metadata"][key] != value for key, value in preconditions.items()):
            raise Conflict(name)
        if kind == "DistillationRun":
            self.drop_run()
        else:
            self._remove((kind, name))
        return True

    async def create(self, item: Raw) -> Raw:
        def make() -> Raw:
            if (item["kind"], item["metadata"]["name"]) in self.objects:
                raise Exists(item["metadata"]["name"])
            return self._create(item)

        found: Raw = self.write(f"create {item['kind']}", make)
        return found

    async def list(self, kind: str, namespace: str = "", **selectors: str) -> AsyncIterator[Raw]:
        for raw in copy.deepcopy(self.of(kind)):
            found = raw["metadata"].get("labels", {})
            name, _, value = selectors.get("labelSelector", "").partition("=")
            if not name or (name in found and value in ("", found[name])):
                yield raw

    async def log_tail(self, namespace: str, pod: str, lines: int = 20) -> str:
        return ""


def is_over(job: Raw) -> bool:
    return bool((job.get("status") or {}).get("conditions"))


def is_disrupted(pod: Raw) -> bool:
    return any(item["type"] == "DisruptionTarget" for item in pod["status"].get("conditions") or ())


def last_word(pod: Raw) -> Raw:
    """What the stage of a pod reports: its digest follows from its key."""
    env = {item["name"]: item.get("value", "") for item in pod["spec"]["containers"][0]["env"]}
    if "SODA_STAGE" not in env:
        return {"state": "done", "pinned": {"source": "a" * 64}, "finished": ""}
    task = json.loads(env["SODA_STAGE"])
    digest = hashlib.sha256(task["key"].encode()).hexdigest()
    headline = {"pass@1": 0.5} if task["kind"] == "evaluate" else {}
    return {"state": "done", "key": task["key"], "digest": digest, "counts": {"rows": 3}, "headline": headline}
