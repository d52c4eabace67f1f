"""A namespace that enforces Pod Security `restricted` lets every pod of every role in."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.cluster.client import Cluster, KubectlError
from tests.unit.test_manifests import RICH, accepted, jobs, not_restricted, objects

pytest_plugins = ["tests.cluster.plugin"]
pytestmark = pytest.mark.cluster

Raw = dict[str, Any]


@pytest.fixture
def pods(control_plane: Cluster, namespace: str) -> list[Raw]:
    """One pod of each Job; the ServiceAccounts and the RuntimeClass that they name are there."""
    meta = {"name": "kata"}
    control_plane.apply(
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": meta, "handler": "kata"}
    )
    found, accounts = {}, set()
    for job in jobs(objects(accepted(**RICH))):
        template = copy.deepcopy(job["spec"]["template"])
        accounts.add(template["spec"]["serviceAccountName"])
        name = job["metadata"]["name"]
        found[name] = {
            "apiVersion": "v1",
            "kind": "Pod",
            **template,
            "metadata": {**template["metadata"], "name": name},
        }
    for account in accounts:
        control_plane.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}, namespace=namespace
        )
    return list(found.values())


def test_every_pod_is_let_in(control_plane: Cluster, namespace: str, pods: list[Raw]) -> None:
    made = control_plane.apply(*pods, namespace=namespace)
    assert made.count("serverside-applied") == len(pods) > 40


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("securityContext", {}),
        ("hostNetwork", True),
        ("volumes", [{"name": "root", "hostPath": {"path": "/"}}]),
    ],
)
def test_our_check_refuses_what_the_server_refuses(
    control_plane: Cluster, namespace: str, pods: list[Raw], part: str, value: Any
) -> None:
    pod = copy.deepcopy(pods[0])
    pod["spec"][part] = value
    if part == "volumes":
        pod["spec"]["containers"][0]["volumeMounts"] = []
    assert not_restricted(pod["spec"])
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        control_plane.apply(pod, namespace=namespace)
