"""A node for a control plane without one: the scheduler binds pods to it, and a Player says what becomes of them.

Without a node a pod that is deleted is gone at once; bound to one it is terminating until its kubelet is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import time
from typing import Any, Final

from soda_jobs.errors import SodaError
from soda_operator.cluster import Cluster as Api
from soda_operator.observed import stamp

NODE: Final = "played"
ROOM: Final = {"cpu": "1000", "memory": "4Ti", "pods": "1000", "nvidia.com/gpu": "1000"}
LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
RENEWED_SECONDS: Final = 10.0
MERGE: Final = "application/merge-patch+json"


@asynccontextmanager
async def played_node(api: Api) -> AsyncIterator[None]:
    """A node with room for everything, alive as long as the block."""
    meta = {"name": NODE}
    await api._call("POST", "/api/v1/nodes", body={"apiVersion": "v1", "kind": "Node", "metadata": meta})
    ready = {"type": "Ready", "status": "True", "reason": "Played", "lastTransitionTime": stamp(time())}
    status = {"capacity": ROOM, "allocatable": ROOM, "conditions": [ready]}
    await api._call("PATCH", f"/api/v1/nodes/{NODE}/status", body={"status": status}, content=MERGE)
    await api._call("POST", LEASES, body=_lease())
    renewing = asyncio.create_task(_renew(api))
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        for path in (f"/api/v1/nodes/{NODE}", f"{LEASES}/{NODE}"):
            with suppress(SodaError):
                await api._call("DELETE", path)


def _lease() -> dict[str, Any]:
    spec = {"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": f"{stamp(time())[:-1]}.000000Z"}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NODE}, "spec": spec}


async def _renew(api: Api) -> None:
    while True:
        await asyncio.sleep(RENEWED_SECONDS)
        with suppress(SodaError):  # the server was away: the next one counts
            await api._call("PATCH", f"{LEASES}/{NODE}", body={"spec": _lease()["spec"]}, content=MERGE)
