"""One operator at a time: a Lease that is held before any write, and whose echo proves that watches are alive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from soda_jobs.errors import SodaError
from soda_operator.cluster import Cluster, Conflict, Gone
from soda_operator.metrics import LEADER

DURATION: Final = 30.0  # after so long without a renewal another process may take over
RENEW: Final = 8.0
MARGIN: Final = 5.0  # stop writing this long before somebody else may start


class Lease:
    """`held` is True only while no other process can believe that it holds the lease.

    Only the local monotonic clock and changes of the object count, never another machine's clock.
    """

    def __init__(self, cluster: Cluster, namespace: str, name: str, identity: str) -> None:
        self._cluster, self._namespace, self._name, self.identity = cluster, namespace, name, identity
        self._until = 0.0
        self._seen: tuple[str, float] = ("", 0.0)  # version of another's lease, and when we first saw it

    @property
    def held(self) -> bool:
        return time.monotonic() < self._until

    async def keep(self, on_held: Callable[[], None]) -> None:
        """Take the lease and renew it for ever; `on_held` is called each time it is taken anew."""
        while True:
            was = self.held
            with suppress(SodaError):  # the next round tries again; `held` ends by itself
                await self._try()
            if self.held and not was:
                on_held()
            LEADER.set(float(self.held))
            await asyncio.sleep(RENEW if self.held else RENEW / 4)

    async def _try(self) -> None:
        asked = time.monotonic()
        try:
            lease = await self._cluster.get("Lease", self._namespace, self._name)
        except Gone:
            await self._cluster.create(self._manifest({}))
            self._until = asked + DURATION - MARGIN
            return
        spec, version = lease.get("spec") or {}, lease["metadata"]["resourceVersion"]
        if spec.get("holderIdentity") not in (self.identity, "", None):
            if self._seen[0] != version:
                self._seen = (version, asked)
            if asked - self._seen[1] < float(spec.get("leaseDurationSeconds") or DURATION):
                return
        try:
            await self._cluster.replace(self._manifest(lease))
            self._until = asked + DURATION - MARGIN
        except Conflict:
            return

    async def release(self) -> None:
        """Let the next process take over at once."""
        if not self.held:
            return
        self._until = 0.0
        lease = await self._cluster.get("Lease", self._namespace, self._name)
        lease["spec"]["holderIdentity"] = ""
        await self._cluster.replace(lease)

    def _manifest(self, old: dict[str, Any]) -> dict[str, Any]:
        spec = old.get("spec") or {}
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        is_mine = spec.get("holderIdentity") == self.identity
        meta = old.get("metadata") or {"labels": {"app.kubernetes.io/name": "soda-operator"}}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {**meta, "name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": int(DURATION),
                "acquireTime": spec.get("acquireTime") if is_mine else now,
                "renewTime": now,
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (not is_mine),
            },
        }
