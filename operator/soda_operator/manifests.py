"""Objects of a run: a Command as a Job, a server as a Job with a headless Service, and what they need around them.

In: the run and what `plan` made. Out: manifests for server-side apply. Pure; the names are from `names.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from soda_jobs.errors import ExitCode, is_retryable
from soda_jobs.names import PRIORITY_LABEL, QUEUE_LABEL, ROLE_LABEL, RUN_LABEL, job_name, labels, service_name
from soda_jobs.plan import Command, ServiceCommand
from soda_operator.pods import Owner, Work, pod_labels, sandbox_workers, template

Raw = dict[str, Any]
PORT: Final = 8000
GVISOR: Final = "gvisor"
RETRIES: Final = 3  # pods after the first, by the Job itself, for failures that may pass
SERVER_RETRIES: Final = 6
KEPT_SECONDS: Final = 24 * 3600  # a finished Job and its log; its result is in the status long before
FATAL: Final = sorted(int(code) for code in ExitCode if code != ExitCode.DONE and not is_retryable(code))
ROLES: Final = ("jobs", "train", "teacher", "student", "judge", "sandbox")


def stage_job(owner: Owner, command: Command, attempt: int) -> Raw:
    """The Job of one attempt of a stage."""
    role = "train" if command.image == "train" else "jobs"
    spec = owner.run.spec
    gpus = spec.training.gpus_per_node if role == "train" else 0
    urls = {command.service.role: url(owner, command.service)} if command.service else {}
    env = {**command.env, "SODA_SERVICES": json.dumps(urls)}
    if command.pods > 1:
        env["SODA_PODS"] = str(command.pods)
    work = Work(role=role, image=command.image, argv=command.argv, env=env, stage=command.stage, gpus=gpus)
    return _job(owner, work, job_name(owner.name, command.stage, attempt), RETRIES * command.pods, command.pods)


def task_job(owner: Owner, task: str, env: Mapping[str, str], attempt: int) -> Raw:
    """The Job of what a run does besides its stages: preflight, publish, cleanup."""
    work = Work(role="jobs", image="jobs", argv=("python", "-m", "soda_jobs", task), env=env, stage=task)
    return _job(owner, work, job_name(owner.name, task, attempt), RETRIES, 1)


def server(owner: Owner, command: ServiceCommand, attempt: int) -> list[Raw]:
    """The Service and the Job of a server, with what the Job needs to exist before it."""
    address = ("--port", str(PORT), "--host", "0.0.0.0")
    work = Work(
        role=command.role,
        image=command.image,
        argv=(*command.argv, *address),
        env=command.env,
        service=command.name,
        gpus=command.gpus,
        needs_store=_needs_store(command),
        health=command.health,
        port=PORT,
    )
    around: list[Raw] = []
    if command.role == "sandbox":
        is_gvisor = owner.run.spec.execution.runtime_class_name == GVISOR  # a node may fall back in silence
        own = ("--workers", str(sandbox_workers(owner)), "--require-isolation")
        argv = (*work.argv, *own, *(["--require-gvisor"] if is_gvisor else []))
        work = replace(work, image=command.name, argv=argv)
        around = [_sandbox_token(owner), _sandbox_policy(owner)]
    name = job_name(owner.name, command.name, attempt)
    job = _job(owner, work, name, SERVER_RETRIES, replicas(owner, command))
    return [*around, _service(owner, command), job]


def servers_of(owner: Owner, command: ServiceCommand) -> list[ServiceCommand]:
    """The servers that a stage's service stands for: the sandbox is one for each language."""
    if command.url is not None:
        return []
    if command.role != "sandbox":
        return [command]
    languages = owner.run.spec.execution.languages
    return [replace(command, name=f"sandbox-{language}") for language in languages]


def replicas(owner: Owner, command: ServiceCommand) -> int:
    """Pods of a server."""
    if command.role == "sandbox":
        return owner.run.spec.execution.replicas
    block: Any = getattr(owner.run.spec, command.role)
    return block.server.replicas if block.server else 1


def url(owner: Owner, command: ServiceCommand) -> str:
    """Where a stage finds its server; `{language}` in it stands for the program's language."""
    if command.url is not None:
        return command.url
    if command.role == "sandbox":
        return f"http://{owner.name}-sandbox-{{language}}.{owner.namespace}.svc:{PORT}"
    return f"http://{service_name(owner.name, command.name)}.{owner.namespace}.svc:{PORT}"


def service_account(owner: Owner, role: str) -> Raw | None:
    """The run's own ServiceAccount of a role, unless the spec names another."""
    if owner.settings(role).service_account_name is not None:
        return None
    meta = _metadata(owner, service_name(owner.name, role))
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": meta,
        "automountServiceAccountToken": False,
    }


def resource_env(owner: Owner) -> dict[str, str]:
    """The run itself, for what reads it whole."""
    spec = owner.run.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    resource = {
        "apiVersion": owner.run.api_version,
        "kind": owner.run.kind,
        "metadata": {"name": owner.name, "namespace": owner.namespace},
        "spec": {**spec, "storage": owner.storage.model_dump(mode="json", by_alias=True, exclude_unset=True)},
    }
    return {"SODA_RUN": json.dumps(resource, ensure_ascii=False)}


def _job(owner: Owner, work: Work, name: str, retries: int, completions: int) -> Raw:
    meta = _metadata(owner, name, pod_labels(owner.name, work))
    spec = owner.run.spec
    if spec.queue is not None:
        meta["labels"][QUEUE_LABEL] = spec.queue
    if spec.priority is not None:
        meta["labels"][PRIORITY_LABEL] = spec.priority
    rules: list[Raw] = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": FATAL}},
    ]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": {
            "completionMode": "Indexed",
            "completions": completions,
            "parallelism": completions,
            "backoffLimit": retries,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": rules},
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": template(owner, work),
        },
    }


def _service(owner: Owner, command: ServiceCommand) -> Raw:
    name = service_name(owner.name, command.name)
    selector = labels(owner.name, service=command.name)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(owner, name, {**selector, ROLE_LABEL: command.role}),
        "spec": {
            "clusterIP": "None",
            "selector": selector,
            "ports": [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def _sandbox_policy(owner: Owner) -> Raw:
    """Sandboxes answer this run's own pods and speak to nobody, not even to a name server."""
    peers = {"podSelector": {"matchLabels": {RUN_LABEL: owner.name, ROLE_LABEL: "jobs"}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(owner, service_name(owner.name, "sandbox")),
        "spec": {
            "podSelector": {"matchLabels": {RUN_LABEL: owner.name, ROLE_LABEL: "sandbox"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [peers], "ports": [{"port": PORT, "protocol": "TCP"}]}],
            "egress": [],
        },
    }


def _sandbox_token(owner: Owner) -> Raw:
    """A Secret that is created once and never read back; `cluster.py` puts the random token in."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(owner, service_name(owner.name, "sandbox-token")),
        "type": "Opaque",
    }


def _needs_store(command: ServiceCommand) -> bool:
    task = json.loads(command.env.get("SODA_SERVICE", "{}"))
    return bool(task.get("artifact")) or str(task.get("model") or "").startswith("s3://")


def _metadata(owner: Owner, name: str, own: Mapping[str, str] | None = None) -> Raw:
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": dict(own or labels(owner.name)),
        "ownerReferences": [
            {
                "apiVersion": owner.run.api_version,
                "kind": owner.run.kind,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }
