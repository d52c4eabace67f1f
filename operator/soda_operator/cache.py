"""What the watches have told: runs whole, Jobs and pods as the few fields of `observed.py`, by run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from soda_jobs.names import RUN_LABEL
from soda_operator import observed
from soda_operator.observed import Job, Pod
from soda_operator.summary import TERMINAL
from soda_operator.work_queue import Key

Raw = Mapping[str, Any]
KINDS: Final = ("DistillationRun", "Job", "Pod")
_METADATA: Final = (
    "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
    "finalizers", "labels",
)  # fmt: skip
_PROJECT: Final[dict[str, Callable[[Raw], Any]]] = {"Job": observed.job, "Pod": observed.pod}


class Cache:
    """Objects by run. A version that is older than the one known is ignored."""

    def __init__(self) -> None:
        self.runs: dict[Key, dict[str, Any]] = {}
        self._parts: dict[str, dict[Key, dict[str, Any]]] = {"Job": {}, "Pod": {}}
        self._versions: dict[tuple[str, str, str], int] = {}  # kind, namespace, name

    def jobs(self, key: Key) -> Mapping[str, Job]:
        return self._parts["Job"].get(key, {})

    def pods(self, key: Key) -> Mapping[str, Pod]:
        return self._parts["Pod"].get(key, {})

    def put(self, kind: str, raw: Raw) -> Key | None:
        """Keep an object; the run it belongs to when that is news."""
        meta = raw["metadata"]
        key = run_of(kind, raw)
        version = int(meta["resourceVersion"])
        place = (kind, meta["namespace"], meta["name"])
        if version <= self._versions.get(place, -1):
            return None
        self._versions[place] = version
        if kind == "DistillationRun":
            self.runs[key] = _kept(raw)
        else:
            self._parts[kind].setdefault(key, {})[meta["name"]] = _PROJECT[kind](raw)
        return key

    def remove(self, kind: str, raw: Raw) -> Key:
        meta = raw["metadata"]
        return self.forget(kind, run_of(kind, raw), meta["namespace"], meta["name"])

    def forget(self, kind: str, key: Key, namespace: str, name: str) -> Key:
        self._versions.pop((kind, namespace, name), None)
        if kind == "DistillationRun":
            self.runs.pop(key, None)
        else:
            found = self._parts[kind].get(key, {})
            found.pop(name, None)
            if not found:
                self._parts[kind].pop(key, None)
        return key

    def names(self, kind: str) -> Iterator[tuple[Key, str, str]]:
        """Every object of a kind that is known: its run, namespace and name."""
        if kind == "DistillationRun":
            yield from ((key, *key) for key in list(self.runs))
            return
        for key, found in list(self._parts[kind].items()):
            yield from ((key, key[0], name) for name in list(found))


def run_of(kind: str, raw: Raw) -> Key:
    meta = raw["metadata"]
    name = meta["name"] if kind == "DistillationRun" else (meta.get("labels") or {}).get(RUN_LABEL, "")
    return meta["namespace"], name


def is_at_rest(resource: Raw) -> bool:
    """A run that is over and has nothing left to happen to it."""
    status, spec, meta = resource.get("status") or {}, resource["spec"], resource["metadata"]
    return (
        status.get("state") in TERMINAL
        and status.get("observedGeneration") == meta["generation"]
        and "deletionTimestamp" not in meta
        and spec.get("ttlSecondsAfterFinished") is None
    )


def _kept(raw: Raw) -> dict[str, Any]:
    """A run without who managed which field and kubectl's own copy, which are half of it. Of a run at rest, and
    there may be thousands, only what says that it is at rest; any change of it brings the whole again."""
    meta = {name: raw["metadata"][name] for name in _METADATA if name in raw["metadata"]}
    if not is_at_rest(raw):
        return {**raw, "metadata": meta}
    status = {name: raw["status"].get(name) for name in ("state", "observedGeneration")}
    return {"metadata": meta, "spec": {}, "status": status}
