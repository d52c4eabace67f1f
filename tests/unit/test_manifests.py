"""Every object of every role: Pod Security `restricted`, no right, no credential too many, names that fit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from soda_jobs.errors import ExitCode
from soda_jobs.names import LABEL_MAX, job_name, run_name_limit
from soda_jobs.plan import Command, Finished, command
from soda_operator.accept import Accepted, accept
from soda_operator.config import Config
from soda_operator.manifests import ROLES, resource_env, server, servers_of, service_account, stage_job, task_job
from soda_operator.pods import AWS_KEYS, Owner, sandbox_memory, sandbox_workers
from tests.unit.operator_world import tiny_run

Raw = dict[str, Any]
TRAINING = {**tiny_run()["spec"]["training"], "gpusPerNode": 1}
RICH: Raw = {
    "rounds": 2,
    "ablation": {"skip": []},
    "execution": {"languages": ["python", "c"], "runtimeClassName": "kata"},
    "training": TRAINING,
    "hub": {"tokenRef": {"name": "hub", "key": "token"}},
    "queue": "team-a",
    "priority": "high",
    "storage": {
        "url": "s3://bucket/prefix",
        "secretRef": {"name": "s3"},
        "caSecretRef": {"name": "store-ca"},
        "endpoint": "https://store:9000",
    },
    "pods": {
        "jobs": {"env": [{"name": "A", "value": "b"}], "serviceAccountName": "ours", "imagePullSecrets": ["pull"]},
        "train": {"limits": {"memory": "64Gi"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]},
        "sandbox": {
            "requests": {"cpu": "1500m"},
            "nodeSelector": {"pool": "sandbox"},
            "annotations": {"a.b/c": "d"},
        },
    },
}


def accepted(**spec: Any) -> Accepted:
    document = tiny_run(**spec)
    document["metadata"]["uid"] = "run-uid"
    found = accept(document, Config(images={"jobs": "registry/jobs@sha256:1"}))
    assert isinstance(found, Accepted), found
    return found


def commands(run: Accepted) -> Iterator[Command]:
    finished = {stage.name: Finished("a" * 64, "b" * 64) for stage in run.graph}
    for stage in run.graph:
        yield command(run.owner.run, stage, finished)


def objects(run: Accepted) -> list[Raw]:
    """Everything that a run ever makes."""
    owner, found = run.owner, []
    for item in commands(run):
        found.append(stage_job(owner, item, 1))
        for each in servers_of(owner, item.service) if item.service else ():
            found += server(owner, each, 1)
    found += [task_job(owner, task, resource_env(owner), 1) for task in ("preflight", "publish", "cleanup")]
    found += [item for item in (service_account(owner, role) for role in ROLES) if item is not None]
    return found


@pytest.fixture(scope="module", params=["tiny", "rich"])
def run(request: pytest.FixtureRequest) -> Accepted:
    return accepted(**(RICH if request.param == "rich" else {}))


@pytest.fixture(scope="module")
def made(run: Accepted) -> list[Raw]:
    return objects(run)


def jobs(made: list[Raw]) -> list[Raw]:
    return [item for item in made if item["kind"] == "Job"]


def role(job: Raw) -> str:
    return str(job["metadata"]["labels"]["soda.dev/role"])


def env(job: Raw) -> dict[str, Raw]:
    return {item["name"]: item for item in job["spec"]["template"]["spec"]["containers"][0]["env"]}


def secrets_of(job: Raw) -> set[str]:
    pod = job["spec"]["template"]["spec"]
    found = {item["valueFrom"]["secretKeyRef"]["name"] for item in env(job).values() if "valueFrom" in item}
    return found | {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}


VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def not_restricted(pod: Mapping[str, Any]) -> list[str]:
    """What Pod Security's level `restricted` (Kubernetes 1.36) would say about a pod's spec."""
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC", "hostUsers") if pod.get(name)]
    security = pod.get("securityContext") or {}
    found += [f"volume {v['name']}" for v in pod.get("volumes", ()) if not (set(v) - {"name"}) <= VOLUMES]
    for container in (*pod["containers"], *pod.get("initContainers", ()), *pod.get("ephemeralContainers", ())):
        own = container.get("securityContext") or {}
        both = {**security, **own}
        profile = (both.get("seccompProfile") or {}).get("type")
        capabilities = own.get("capabilities") or {}
        found += ["privileged"] if own.get("privileged") else []
        found += [] if own.get("allowPrivilegeEscalation") is False else ["allowPrivilegeEscalation"]
        found += [] if "ALL" in capabilities.get("drop", ()) else ["capabilities.drop"]
        found += [] if set(capabilities.get("add", ())) <= {"NET_BIND_SERVICE"} else ["capabilities.add"]
        found += [] if both.get("runAsNonRoot") is True and both.get("runAsUser") != 0 else ["runAsNonRoot"]
        found += [] if profile in ("RuntimeDefault", "Localhost") else ["seccompProfile"]
        found += ["hostPort"] if any(port.get("hostPort") for port in container.get("ports", ())) else []
        found += ["procMount"] if own.get("procMount", "Default") != "Default" else []
        probes = (container.get(name) or {} for name in ("livenessProbe", "readinessProbe", "startupProbe"))
        found += ["probe host"] if any((probe.get("httpGet") or {}).get("host") for probe in probes) else []
    return found


def test_every_pod_is_restricted(made: list[Raw]) -> None:
    assert {role(job) for job in jobs(made)} == set(ROLES) - ({"judge"} if len(made) < 40 else set())
    for job in jobs(made):
        assert not_restricted(job["spec"]["template"]["spec"]) == [], job["metadata"]["name"]


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        (("hostNetwork",), True, "hostNetwork"),
        (("securityContext", "runAsNonRoot"), False, "runAsNonRoot"),
        (("securityContext", "seccompProfile"), None, "seccompProfile"),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True, "allowPrivilegeEscalation"),
        (("containers", 0, "securityContext", "capabilities"), {}, "capabilities.drop"),
        (("volumes",), [{"name": "root", "hostPath": {"path": "/"}}], "volume root"),
    ],
)
def test_the_check_of_restricted_can_fail(path: tuple[Any, ...], value: Any, word: str) -> None:
    pod = task_job(accepted().owner, "preflight", {}, 1)["spec"]["template"]["spec"]
    place = pod
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert not_restricted(pod) == [word]


def test_no_pod_has_a_right_or_a_writable_root(made: list[Raw]) -> None:
    for job in jobs(made):
        pod = job["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["restartPolicy"] == "Never"
        assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
        assert not any("projected" in volume for volume in pod["volumes"])
    for item in made:
        if item["kind"] == "ServiceAccount":
            assert item["automountServiceAccountToken"] is False


def test_each_role_has_its_own_account_that_exists(run: Accepted, made: list[Raw]) -> None:
    accounts = {item["metadata"]["name"] for item in made if item["kind"] == "ServiceAccount"}
    named = run.owner.settings("jobs").service_account_name
    for job in jobs(made):
        account = job["spec"]["template"]["spec"]["serviceAccountName"]
        expected = named if role(job) == "jobs" and named else f"tiny-{role(job)}"
        assert account == expected
        assert account in accounts | {named}


def test_a_sandbox_has_the_wall_and_nothing_to_steal(run: Accepted, made: list[Raw]) -> None:
    sandboxes = [job for job in jobs(made) if role(job) == "sandbox"]
    assert sandboxes
    for job in sandboxes:
        assert (
            job["spec"]["template"]["spec"]["runtimeClassName"] == run.owner.run.spec.execution.runtime_class_name
        )
        assert secrets_of(job) == {"tiny-sandbox-token"}
        assert not set(AWS_KEYS) & set(env(job))
        assert not {"SODA_STORE", "HF_TOKEN", "SODA_RUN", "SODA_STAGE", "A"} & set(env(job))
        mounts = {item["name"] for item in job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}
        assert mounts == {"state", "tmp"}
    for job in jobs(made):
        is_sandbox = role(job) == "sandbox"
        assert ("runtimeClassName" in job["spec"]["template"]["spec"]) == is_sandbox


def test_the_policy_of_sandboxes_lets_only_this_runs_jobs_in(made: list[Raw]) -> None:
    policy = next(item for item in made if item["kind"] == "NetworkPolicy")["spec"]
    assert policy["egress"] == []
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    chosen = policy["podSelector"]["matchLabels"]
    allowed = policy["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    for job in jobs(made):
        labels = job["spec"]["template"]["metadata"]["labels"]
        assert (chosen.items() <= labels.items()) == (role(job) == "sandbox")
        assert (allowed.items() <= labels.items()) == (role(job) == "jobs")


def test_secrets_go_only_where_they_are_needed(run: Accepted, made: list[Raw]) -> None:
    for job in jobs(made):
        if role(job) in ("jobs", "train"):
            assert "s3" in secrets_of(job)
            assert all("valueFrom" in env(job)[name] for name in AWS_KEYS)
    for item in made:
        assert "AWS_SECRET" not in json.dumps(item) or item["kind"] == "Job"
        if item["kind"] == "Secret":
            assert not {"data", "stringData"} & set(item)  # the token never passes through a manifest


def test_an_api_key_is_for_stages_only() -> None:
    ref = {"name": "key", "key": "k"}
    run = accepted(**{**RICH, "teacher": {"endpoint": "https://api.example.com", "model": "m", "secretRef": ref}})
    for job in jobs(objects(run)):
        assert ("key" in secrets_of(job)) == (role(job) in ("jobs", "train"))
        assert role(job) != "teacher"


def test_everything_belongs_to_the_run(made: list[Raw]) -> None:
    for item in made:
        (owner,) = item["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("DistillationRun", "run-uid", True)
        assert item["metadata"]["labels"]["soda.dev/run"] == "tiny"


def test_jobs_end_and_are_retried_as_the_exit_codes_say(made: list[Raw]) -> None:
    for job in jobs(made):
        spec = job["spec"]
        assert spec["completionMode"] == "Indexed"
        assert spec["podReplacementPolicy"] == "Failed"
        ignore, fail = spec["podFailurePolicy"]["rules"]
        assert ignore["onPodConditions"][0]["type"] == "DisruptionTarget"
        assert fail["onExitCodes"]["values"] == sorted(
            {ExitCode.INVALID_INPUT, ExitCode.GIVE_UP, ExitCode.BUG, ExitCode.SANDBOX_NOT_ISOLATED}
        )
        assert "suspend" not in spec  # Kueue's, never ours
        assert "activeDeadlineSeconds" not in spec


def test_a_queue_and_a_priority_are_passed_through(run: Accepted, made: list[Raw]) -> None:
    for job in jobs(made):
        labels = job["metadata"]["labels"]
        assert labels.get("kueue.x-k8s.io/queue-name") == run.owner.run.spec.queue
        assert labels.get("kueue.x-k8s.io/priority-class") == run.owner.run.spec.priority
        assert "kueue.x-k8s.io/queue-name" not in job["spec"]["template"]["metadata"]["labels"]


def test_names_are_labels_and_differ(made: list[Raw]) -> None:
    names = [(item["kind"], item["metadata"]["name"]) for item in made]
    for kind, name in names:
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
        assert len(name) <= LABEL_MAX - (len("-0") if kind == "Job" else 0)
    assert len({name for name in names if name[0] == "Job"}) == len(
        {json.dumps(item, sort_keys=True) for item in made if item["kind"] == "Job"}
    )


def test_the_longest_name_that_is_accepted_fits() -> None:
    limit = run_name_limit(2, 1)
    document = tiny_run(**RICH)
    document["metadata"] |= {"name": "a" * limit, "uid": "run-uid"}
    run = accept(document, Config())
    assert isinstance(run, Accepted)
    for item in commands(run):
        stage_job(run.owner, item, 99)
        for each in servers_of(run.owner, item.service) if item.service else ():
            assert all(len(made["metadata"]["name"]) <= LABEL_MAX for made in server(run.owner, each, 99))
    assert len(job_name("a" * limit, "publish", 99)) <= LABEL_MAX


def test_the_same_in_gives_the_same_out() -> None:
    first, second = (json.dumps(objects(accepted(**RICH))) for _ in range(2))
    assert first == second
    assert len(first) > 10_000


def test_settings_of_a_role_reach_its_pods_and_no_others() -> None:
    made = jobs(objects(accepted(**RICH)))
    for job in made:
        pod, labels = job["spec"]["template"]["spec"], job["spec"]["template"]["metadata"]
        container = pod["containers"][0]
        assert ("tolerations" in pod) == (role(job) == "train")
        assert (pod.get("nodeSelector") == {"pool": "sandbox"}) == (role(job) == "sandbox")
        assert ("annotations" in labels) == (role(job) == "sandbox")
        assert (pod.get("imagePullSecrets") == [{"name": "pull"}]) == (role(job) == "jobs")
        assert (container["image"] == "registry/jobs@sha256:1") == (role(job) == "jobs")
        gpus = container["resources"].get("limits", {}).get("nvidia.com/gpu")
        assert gpus == ("1" if role(job) == "train" else None)


def test_a_service_finds_the_pods_of_its_server(made: list[Raw]) -> None:
    for service in (item for item in made if item["kind"] == "Service"):
        assert service["spec"]["clusterIP"] == "None"
        selector = service["spec"]["selector"].items()
        (job,) = [
            each
            for each in {item["metadata"]["name"]: item for item in jobs(made)}.values()
            if selector <= each["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert job["spec"]["template"]["spec"]["containers"][0]["ports"][0]["name"] == "http"


def test_a_stage_is_told_where_its_server_is(run: Accepted) -> None:
    found = {
        item.stage: json.loads(env(stage_job(run.owner, item, 1))["SODA_SERVICES"]["value"])
        for item in commands(run)
        if item.service
    }
    assert found["r1-correct"] == {"teacher": "http://tiny-teacher.team.svc:8000"}
    assert found["r0-tutor-heldout-run"] == {"sandbox": "http://tiny-sandbox-{language}.team.svc:8000"}


@pytest.mark.parametrize(("cpu", "workers"), [(None, 1), ("4", 4), ("500m", 1), ("3500m", 3), ("2.5", 2)])
def test_a_sandbox_runs_as_many_programs_as_it_has_cores(cpu: str | None, workers: int) -> None:
    pods = {"sandbox": {"limits": {"cpu": cpu}}} if cpu else {}
    owner: Owner = accepted(pods=pods).owner
    assert sandbox_workers(owner) == workers
    assert sandbox_memory(owner) >= workers * owner.run.spec.execution.memory_mib
