"""The one pod template of soda. It passes Pod Security `restricted` and holds no right and no token.

In: a role, argv, environment. Out: the template of a Job. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from soda_jobs.names import ROLE_LABEL, labels, service_name
from soda_jobs.spec import DistillationRun, PodSettings, SecretKeyRef, Storage
from soda_jobs.spec.pod_rules import quantity
from soda_jobs.spec.pods import EnvVar, Resources
from soda_operator.config import Config
from soda_operator.observed import GPU

Raw = dict[str, Any]
USER: Final = 65532
STATE: Final = "/var/lib/soda"
CA_FOLDER: Final = "/etc/soda/ca"
RESULT: Final = "/dev/termination-log"
COMPILER_MIB: Final = 768  # of a sandbox worker: a compiler at work, and one of 200 MiB that stays warm
AWS_KEYS: Final = {"AWS_ACCESS_KEY_ID": False, "AWS_SECRET_ACCESS_KEY": False, "AWS_SESSION_TOKEN": True}
# What a pod reserves when the spec says nothing; enough for a toy, and for real runs the spec says more.
REQUESTS: Final[Mapping[str, Raw]] = {
    "jobs": {"cpu": "100m", "memory": "256Mi"},
    "train": {"cpu": "500m", "memory": "1Gi"},
    "teacher": {"cpu": "100m", "memory": "512Mi"},
    "student": {"cpu": "250m", "memory": "512Mi"},
    "judge": {"cpu": "250m", "memory": "512Mi"},
    "sandbox": {"cpu": "100m", "memory": "256Mi"},
}


@dataclass(frozen=True)
class Owner:
    """The run that pods belong to, and what they are made with."""

    run: DistillationRun
    namespace: str
    uid: str
    storage: Storage
    config: Config

    @property
    def name(self) -> str:
        return self.run.metadata.name

    def settings(self, role: str) -> PodSettings:
        found: PodSettings = getattr(self.run.spec.pods, role)
        return found


@dataclass(frozen=True)
class Work:
    """What one pod is for."""

    role: str
    image: str
    argv: Sequence[str]
    env: Mapping[str, str]
    stage: str | None = None
    service: str | None = None
    gpus: int = 0
    needs_store: bool = True
    health: str | None = None
    port: int = 8000


def template(owner: Owner, work: Work) -> Raw:
    """The pod template of a Job."""
    settings = owner.settings(work.role)
    meta: Raw = {"labels": pod_labels(owner.name, work)}
    if settings.annotations:
        meta["annotations"] = dict(settings.annotations)
    spec: Raw = {
        "restartPolicy": "Never",
        "serviceAccountName": settings.service_account_name or service_name(owner.name, work.role),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(owner, work, settings)],
        "volumes": _volumes(owner, work),
        **_placement(settings),
    }
    if work.role == "sandbox":
        spec["runtimeClassName"] = owner.run.spec.execution.runtime_class_name
    return {"metadata": meta, "spec": spec}


def pod_labels(run: str, work: Work) -> dict[str, str]:
    return {**labels(run, stage=work.stage, service=work.service), ROLE_LABEL: work.role}


def _container(owner: Owner, work: Work, settings: PodSettings) -> Raw:
    container: Raw = {
        "name": "main",
        "image": settings.image or owner.config.image(work.image),
        "imagePullPolicy": owner.config.pull_policy,
        "command": list(work.argv),
        "env": _env(owner, work, settings),
        "resources": _resources(owner, work, settings),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": _mounts(owner, work),
    }
    if work.health is not None:
        container["ports"] = [{"name": "http", "containerPort": work.port}]
        container["readinessProbe"] = {
            "httpGet": {"path": work.health, "port": "http"},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        }
    return container


def _env(owner: Owner, work: Work, settings: PodSettings) -> list[Raw]:
    plain = {
        **work.env,
        "SODA_STATE": STATE,
        "SODA_RESULT": RESULT,
        "SODA_LOG": "json",
        "HOME": STATE,
        "HF_HOME": f"{STATE}/hub",
    }
    found: list[Raw] = [{"name": name, "value": value} for name, value in plain.items()]
    if work.role == "sandbox":
        secret = {"name": service_name(owner.name, "sandbox-token"), "key": "token", "optional": False}
        return [*found, {"name": "SODA_SANDBOX_TOKEN", "valueFrom": {"secretKeyRef": secret}}]
    hub = owner.run.spec.hub.token_ref
    if hub is not None:
        found.append(_from_secret("HF_TOKEN", hub))
    if work.needs_store:
        found += _store_env(owner.storage)
    if work.stage is not None:
        found += _stage_secrets(owner)
    return [*found, *map(_extra, settings.env)]


def _stage_secrets(owner: Owner) -> list[Raw]:
    """API keys of external endpoints, and the token of the run's sandboxes."""
    found = []
    for role in ("teacher", "judge"):
        block = getattr(owner.run.spec, role)
        if block.endpoint is not None and block.secret_ref is not None:
            found.append(_from_secret(f"SODA_{role.upper()}_API_KEY", block.secret_ref))
    token = {"name": service_name(owner.name, "sandbox-token"), "key": "token", "optional": True}
    return [*found, {"name": "SODA_SANDBOX_TOKEN", "valueFrom": {"secretKeyRef": token}}]


def _store_env(storage: Storage) -> list[Raw]:
    store = {
        "url": storage.url,
        "endpoint": storage.endpoint,
        "region": storage.region,
        "path_style": storage.path_style,
        "ca_file": f"{CA_FOLDER}/ca.crt" if storage.ca_secret_ref else None,
    }
    text = json.dumps({key: value for key, value in store.items() if value is not None})
    found: list[Raw] = [{"name": "SODA_STORE", "value": text}]
    if storage.secret_ref is not None:
        for key, is_optional in AWS_KEYS.items():
            secret = {"name": storage.secret_ref.name, "key": key, "optional": is_optional}
            found.append({"name": key, "valueFrom": {"secretKeyRef": secret}})
    return found


def _from_secret(name: str, ref: SecretKeyRef) -> Raw:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": ref.name, "key": ref.key, "optional": False}}}


def _extra(item: EnvVar) -> Raw:
    if item.secret_ref is not None:
        return _from_secret(item.name, item.secret_ref)
    return {"name": item.name, "value": item.value or ""}


def _resources(owner: Owner, work: Work, settings: PodSettings) -> Raw:
    requests = {**REQUESTS[work.role], **_amounts(settings.requests)}
    limits = _amounts(settings.limits)
    if work.role == "sandbox":
        limits.setdefault("memory", f"{sandbox_memory(owner)}Mi")
    if work.gpus:
        limits[GPU] = str(work.gpus)
    return {"requests": requests, **({"limits": limits} if limits else {})}


def _amounts(resources: Resources) -> Raw:
    names = {"cpu": resources.cpu, "memory": resources.memory, "ephemeral-storage": resources.ephemeral_storage}
    return {name: value for name, value in names.items() if value is not None}


def sandbox_workers(owner: Owner) -> int:
    """Programs at once in one sandbox: the whole processors it may use, at least one."""
    settings = owner.settings("sandbox")
    return max(1, int(quantity(settings.limits.cpu or settings.requests.cpu or "1")))


def sandbox_memory(owner: Owner) -> int:
    """MiB that a sandbox pod needs: each program's limit, the supervisor, and what a compiler takes beside it."""
    return 512 + sandbox_workers(owner) * (owner.run.spec.execution.memory_mib + COMPILER_MIB)


def _mounts(owner: Owner, work: Work) -> list[Raw]:
    found = [{"name": "state", "mountPath": STATE}, {"name": "tmp", "mountPath": "/tmp"}]
    if work.image in ("train", "vllm"):
        found.append({"name": "shm", "mountPath": "/dev/shm"})
    if work.needs_store and owner.storage.ca_secret_ref is not None:
        found.append({"name": "ca", "mountPath": CA_FOLDER})
    return found


def _volumes(owner: Owner, work: Work) -> list[Raw]:
    found: list[Raw] = [{"name": "state", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    if work.image in ("train", "vllm"):
        found.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
    if work.needs_store and owner.storage.ca_secret_ref is not None:
        found.append({"name": "ca", "secret": {"secretName": owner.storage.ca_secret_ref.name}})
    return found


def _placement(settings: PodSettings) -> Raw:
    found: Raw = {}
    if settings.node_selector:
        found["nodeSelector"] = dict(settings.node_selector)
    if settings.node_affinity:
        items = [item.model_dump(mode="json") for item in settings.node_affinity]
        terms = [{"matchExpressions": [_pruned({**item, "values": item["values"] or None}) for item in items]}]
        found["affinity"] = {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
            }
        }
    if settings.tolerations:
        found["tolerations"] = [
            _pruned(item.model_dump(mode="json", by_alias=True)) for item in settings.tolerations
        ]
    if settings.priority_class_name:
        found["priorityClassName"] = settings.priority_class_name
    if settings.image_pull_secrets:
        found["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    return found


def _pruned(block: Raw) -> Raw:
    return {key: value for key, value in block.items() if value is not None}
