"""The one door to the API server: server-side apply, status, deletion, lists, logs. In and out: plain dicts.

Errors say what the caller should do: `Conflict` look again, `Gone` it is not there, `Refused` tell the user,
`Away` try later.
"""

from __future__ import annotations

import json
import secrets
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import aiohttp
from kubernetes.aio import config as kubeconfig
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException

from soda_jobs.errors import Retry, SodaError
from soda_operator.metrics import API_REQUESTS

Raw = dict[str, Any]
MANAGER: Final = "soda-operator"
TIMEOUT: Final = 20.0
LOG_TIMEOUT: Final = 5.0  # a log is asked of the pod's node, which may be lost
CHUNK: Final = 50  # a finished run is 20 kB of JSON, and ten times that in memory
NO_WEBHOOK: Final = "failed calling webhook"  # what the API server says with a 500
GROUP: Final = "/apis/soda.dev/v1alpha1"
PATHS: Final = {
    "DistillationRun": (GROUP, "distillationruns"),
    "Job": ("/apis/batch/v1", "jobs"),
    "Pod": ("/api/v1", "pods"),
    "Service": ("/api/v1", "services"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "Secret": ("/api/v1", "secrets"),
    "Event": ("/api/v1", "events"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    "Workload": ("/apis/kueue.x-k8s.io/v1beta1", "workloads"),
}


class Conflict(SodaError):
    """Somebody else changed the object first."""


class Exists(Conflict):
    """There is an object of that name already. Not every 409 of a POST says so: a quota's may not."""


class Gone(SodaError):
    """The object, its namespace or its kind is not there."""


class Refused(SodaError):
    """The API server does not accept it; trying again would end the same way until somebody changes something."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Away(Retry):
    """The API server is away or asks for patience."""


class Cluster:
    """A connection to the API server."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    @classmethod
    async def connect(cls, config_file: str | None = None) -> Cluster:
        """By the file that is named; else by the pod's own account, or by the usual kubeconfig."""
        settings = Configuration()
        try:
            if config_file is not None:
                raise kubeconfig.ConfigException("a file is named")
            kubeconfig.load_incluster_config(client_configuration=settings)
        except kubeconfig.ConfigException:
            await kubeconfig.load_kube_config(config_file=config_file, client_configuration=settings)
        settings.connection_pool_maxsize = 32
        return cls(ApiClient(configuration=settings))

    async def close(self) -> None:
        await self._client.close()

    async def get(self, kind: str, namespace: str, name: str) -> Raw:
        found: Raw = await self._call("GET", _path(kind, namespace, name))
        return found

    async def apply(self, manifest: Raw) -> Raw | None:
        """Server-side apply: makes the object, or changes the fields we gave; the same again changes nothing.

        Returns the object as it is now, or None for a Secret, which the operator may not read."""
        meta, kind = manifest["metadata"], manifest["kind"]
        if kind == "Secret":
            await self._make_secret(manifest)
            return None
        query = {"fieldManager": MANAGER, "force": "true"}
        path = _path(kind, meta["namespace"], meta["name"])
        content = "application/apply-patch+yaml"
        try:
            found: Raw = await self._call("PATCH", path, body=manifest, query=query, content=content)
        except Refused as error:
            if kind == "Job" and error.reason == "RefusedInvalid":
                return await self._job_before_us(manifest, error)
            raise
        return found

    async def _job_before_us(self, manifest: Raw, error: Refused) -> Raw:
        """A Job cannot be changed: it is there already, made by an earlier version of the operator, or it is
        another run's."""
        meta = manifest["metadata"]
        try:
            found = await self.get("Job", meta["namespace"], meta["name"])
        except Gone:
            raise error from None
        uids = [{item["uid"] for item in each.get("ownerReferences") or ()} for each in (meta, found["metadata"])]
        if uids[0] != uids[1]:
            raise Refused("NameTaken", "there is a Job of this name that does not belong to the run") from error
        return found

    async def _make_secret(self, manifest: Raw) -> None:
        """A Secret with a random token, made once: the operator may not read any, so it cannot look."""
        token = b64encode(secrets.token_urlsafe(32).encode()).decode()
        try:
            path = _path("Secret", manifest["metadata"]["namespace"])
            await self._call("POST", path, body={**manifest, "data": {"token": token}})
        except Exists:
            return

    async def put_status(self, resource: Raw) -> Raw:
        """Replace a run's status; Conflict unless the resourceVersion is still the one given."""
        meta = resource["metadata"]
        path = _path("DistillationRun", meta["namespace"], meta["name"]) + "/status"
        found: Raw = await self._call("PUT", path, body=resource, query={"fieldManager": MANAGER})
        return found

    async def put_finalizers(self, resource: Raw, finalizers: list[str]) -> Raw:
        """Change a run's finalizers; Conflict unless the resourceVersion is still the one given."""
        meta = resource["metadata"]
        body = {"metadata": {"resourceVersion": meta["resourceVersion"], "finalizers": finalizers}}
        path = _path("DistillationRun", meta["namespace"], meta["name"])
        found: Raw = await self._call("PATCH", path, body=body, content="application/merge-patch+json")
        return found

    async def delete(self, kind: str, namespace: str, name: str, **preconditions: str) -> bool:
        """Delete an object and in the background what it owns; False when it is not there.

        Conflict when it is not the one that `uid` and `resourceVersion` say."""
        body = {"propagationPolicy": "Background", "preconditions": preconditions}
        try:
            await self._call("DELETE", _path(kind, namespace, name), body=body)
        except Gone:
            return False
        return True

    async def create(self, manifest: Raw) -> Raw:
        meta = manifest["metadata"]
        found: Raw = await self._call("POST", _path(manifest["kind"], meta["namespace"]), body=manifest)
        return found

    async def replace(self, manifest: Raw) -> Raw:
        meta = manifest["metadata"]
        path = _path(manifest["kind"], meta["namespace"], meta["name"])
        found: Raw = await self._call("PUT", path, body=manifest)
        return found

    async def list(self, kind: str, namespace: str = "", **selectors: str) -> AsyncIterator[Raw]:
        """Every object of a kind, by chunks; an empty namespace means all."""
        query = {"limit": str(CHUNK), **selectors}
        while True:
            page = await self._call("GET", _path(kind, namespace), query=query)
            for item in page["items"]:
                yield item
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    async def log_tail(self, namespace: str, pod: str, lines: int = 20) -> str:
        """The last lines of a pod's log; empty when there is none yet, or its node does not answer."""
        path = _path("Pod", namespace, pod) + "/log"
        query = {"tailLines": str(lines), "limitBytes": "65536"}
        try:
            return str(await self._call("GET", path, query=query, answer="str", timeout=LOG_TIMEOUT))
        except (Gone, Refused, Away):
            return ""

    async def _call(
        self,
        verb: str,
        path: str,
        *,
        body: Raw | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
        answer: str = "object",
        timeout: float = TIMEOUT,
    ) -> Any:
        code = "none"
        try:
            found = await self._client.call_api(
                path,
                verb,
                query_params=list((query or {}).items()),
                header_params={"Content-Type": content, "Accept": "application/json, */*"},
                body=body,
                response_types_map=dict.fromkeys((200, 201, 202), answer),
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=timeout,
            )
            code = "200"
            return found
        except ApiException as error:
            code = str(error.status)
            raise _typed(error) from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Away(f"the API server does not answer: {error!r}") from error
        finally:
            API_REQUESTS.labels(verb=verb, code=code).inc()


def _path(kind: str, namespace: str, name: str = "") -> str:
    prefix, plural = PATHS[kind]
    where = f"{prefix}/namespaces/{namespace}/{plural}" if namespace else f"{prefix}/{plural}"
    return f"{where}/{name}" if name else where


def _typed(error: ApiException) -> SodaError:
    try:
        said = json.loads(error.body or "{}")
    except ValueError:
        said = {}
    message = str(said.get("message") or error.reason or error.body or "")
    reason = str(said.get("reason") or "")
    if error.status == 409:
        return Exists(message) if reason == "AlreadyExists" else Conflict(message)
    if error.status in (404, 410):
        return Gone(message)
    if error.status == 500 and NO_WEBHOOK in message:
        return Refused("RefusedWebhook", message)  # told at once; it may be away for good
    if error.status == 429 or error.status >= 500:
        after = (error.headers or {}).get("Retry-After", "")
        return Away(message, after=float(after) if after.isdigit() else None)
    return Refused(f"Refused{reason}", message)
