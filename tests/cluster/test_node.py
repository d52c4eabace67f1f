"""The node that other tests stand on: gVisor, memory limits, names, Services and admission are real."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from tests.cluster.archive import PROBE, probe_image
from tests.cluster.client import KubectlError
from tests.cluster.node import Node

pytest_plugins = ["tests.cluster.plugin"]

RESTRICTED_CONTAINER = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
RESTRICTED_POD = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}


@pytest.fixture(autouse=True)
def _probe(node: Node) -> None:
    node.import_image(probe_image())


def pod(name: str, *words: str, memory: str = "", **spec: Any) -> dict[str, Any]:
    """A pod that passes Pod Security `restricted` and says one thing with the probe."""
    container: dict[str, Any] = {
        "name": "main",
        "image": PROBE,
        "args": list(words),
        "securityContext": RESTRICTED_CONTAINER,
    }
    if memory:
        container["resources"] = {"limits": {"memory": memory, "cpu": "1"}, "requests": {"cpu": "10m"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "securityContext": RESTRICTED_POD,
            "containers": [container],
            **spec,
        },
    }


def answer(node: Node, namespace: str, made: dict[str, Any], seconds: float = 60) -> tuple[dict[str, Any], str]:
    """How the pod's container ended, and what it printed."""
    name = made["metadata"]["name"]
    node.apply(made, namespace=namespace)
    ended = node.wait(
        lambda found: found["status"]["phase"] in ("Succeeded", "Failed"),
        "pod",
        name,
        namespace=namespace,
        seconds=seconds,
    )
    state: dict[str, Any] = ended["status"]["containerStatuses"][0]["state"]["terminated"]
    return state, node.kubectl("logs", name, "-n", namespace)


def test_a_restricted_pod_runs_under_gvisor(node: Node, namespace: str) -> None:
    state, said = answer(node, namespace, pod("inside", "dmesg", runtimeClassName="gvisor"))
    assert state["exitCode"] == 0
    assert "Starting gVisor" in said


def test_a_pod_without_the_class_runs_on_the_host_kernel(node: Node, namespace: str) -> None:
    _, said = answer(node, namespace, pod("plain", "dmesg"))
    assert "gVisor" not in said


@pytest.mark.parametrize("runtime", ["gvisor", None])
def test_the_root_file_system_is_read_only(node: Node, namespace: str, runtime: str | None) -> None:
    state, said = answer(node, namespace, pod("writer", "write", "/work/file", runtimeClassName=runtime))
    assert state["exitCode"] == 1
    assert "read-only file system" in said


@pytest.mark.parametrize(("runtime", "code"), [("gvisor", 128), (None, 137)])
def test_a_memory_limit_ends_in_oom_killed(node: Node, namespace: str, runtime: str | None, code: int) -> None:
    state, _ = answer(node, namespace, pod("eater", "eat", "400", memory="128Mi", runtimeClassName=runtime))
    assert (state["reason"], state["exitCode"]) == ("OOMKilled", code)


@pytest.mark.parametrize("runtime", ["gvisor", None])
def test_memory_below_the_limit_is_granted(node: Node, namespace: str, runtime: str | None) -> None:
    _, said = answer(node, namespace, pod("modest", "eat", "40", memory="128Mi", runtimeClassName=runtime))
    assert said.startswith("has 40 MiB")


def test_a_pod_calls_the_api_server_by_name(node: Node, namespace: str) -> None:
    token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    url = f"https://kubernetes.default.svc/api/v1/namespaces/{namespace}/pods"
    _, said = answer(node, namespace, pod("caller", "get", url, token))
    refused = json.loads(said.partition(" ")[2])
    assert said.startswith("403 ")
    assert f'User "system:serviceaccount:{namespace}:default" cannot list resource "pods"' in refused["message"]


def test_pods_find_each_other_through_a_headless_service(node: Node, namespace: str) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "train"},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"app": "server"},
            "ports": [{"port": 8080}],
        },
    }
    server = pod("server", "serve", "8080", hostname="train-0", subdomain="train")
    node.apply(service, server, namespace=namespace)
    _, found = answer(node, namespace, pod("finder", "lookup", "train-0.train"))
    assert found.strip() == f"[{node.get('pod', 'server', namespace=namespace)['status']['podIP']}]"
    _, said = answer(node, namespace, pod("client", "get", "http://train-0.train:8080/"))
    assert said.split() == ["200", "train-0"]


@pytest.mark.parametrize("runtime", ["gvisor", None])
def test_a_service_address_leads_to_its_pod(node: Node, namespace: str, runtime: str | None) -> None:
    server = pod("server", "serve", "8080")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    node.apply(service, server, namespace=namespace)
    node.kubectl("wait", "--for=condition=Ready", "pod/server", "-n", namespace, "--timeout=60s")
    _, said = answer(node, namespace, pod("client", "get", "http://web/", runtimeClassName=runtime))
    assert said.split() == ["200", "server"]


def test_a_pod_reaches_a_server_on_this_machine(node: Node, namespace: str) -> None:
    class Hello(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((node.address, 0), Hello) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://{node.address}:{server.server_port}/"
        _, said = answer(node, namespace, pod("caller", "get", url))
        server.shutdown()
    assert said.split() == ["200", "hello"]


def test_a_pod_leaves_a_termination_message_and_an_exit_code(node: Node, namespace: str) -> None:
    state, _ = answer(node, namespace, pod("ender", "exit", "75", "try again", runtimeClassName="gvisor"))
    assert (state["exitCode"], state["message"]) == (75, "try again")


def test_kubectl_exec_reaches_a_pod(node: Node, namespace: str) -> None:
    node.apply(pod("sleeper", "sleep", "10m", runtimeClassName="gvisor"), namespace=namespace)
    node.kubectl("wait", "--for=condition=Ready", "pod/sleeper", "-n", namespace, "--timeout=60s")
    assert "Starting gVisor" in node.kubectl("exec", "sleeper", "-n", namespace, "--", "/probe", "dmesg")


def test_a_missing_runtime_class_is_refused(node: Node, namespace: str) -> None:
    with pytest.raises(KubectlError, match='pod rejected: RuntimeClass "nowhere" not found'):
        node.apply(pod("refused", "dmesg", runtimeClassName="nowhere"), namespace=namespace)


def test_pod_security_restricted_refuses_a_root_pod(node: Node, namespace: str) -> None:
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        node.apply(pod("refused", "dmesg", securityContext={"runAsUser": 0}), namespace=namespace)


def test_an_image_that_is_nowhere_says_so(node: Node, namespace: str) -> None:
    made = pod("absent", "dmesg")
    made["spec"]["containers"][0]["image"] = "localhost/absent:1"
    node.apply(made, namespace=namespace)

    def waiting(found: Any) -> bool:
        [state] = found["status"].get("containerStatuses") or [{}]
        return state.get("state", {}).get("waiting", {}).get("reason") in ("ErrImagePull", "ImagePullBackOff")

    node.wait(waiting, "pod", "absent", namespace=namespace)
