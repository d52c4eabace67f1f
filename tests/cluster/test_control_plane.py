"""The API server that other tests stand on: tokens, roles, Pod Security and RuntimeClass admission are real."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.client import Cluster, KubectlError

pytest_plugins = ["tests.cluster.plugin"]

Kubectl = Callable[..., str]


def pod(**spec: Any) -> str:
    content = {"containers": [{"name": "main", "image": "localhost/none:1"}], **spec}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": content})


def test_pod_security_restricted_refuses_a_plain_pod(kubectl: Kubectl, namespace: str) -> None:
    with pytest.raises(KubectlError, match=r'violates PodSecurity "restricted:latest": allowPrivilegeEscalation'):
        kubectl("create", "-n", namespace, "-f", "-", stdin=pod())


def test_a_missing_runtime_class_is_refused(kubectl: Kubectl) -> None:
    with pytest.raises(KubectlError, match='RuntimeClass "nowhere" not found'):
        kubectl("create", "-n", "default", "-f", "-", stdin=pod(runtimeClassName="nowhere"))


def test_roles_decide_what_a_service_account_may_do(kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "serviceaccount", "reader", "-n", namespace)
    user = f"--as=system:serviceaccount:{namespace}:reader"
    with pytest.raises(KubectlError, match='cannot list resource "pods"'):
        kubectl("get", "pods", "-n", namespace, user)
    kubectl("create", "role", "read", "--verb=list", "--resource=pods", "-n", namespace)
    kubectl(
        "create", "rolebinding", "read", "--role=read", f"--serviceaccount={namespace}:reader", "-n", namespace
    )
    kubectl("get", "pods", "-n", namespace, user)


def test_a_token_of_a_service_account_is_accepted(kubectl: Kubectl, namespace: str) -> None:
    token = kubectl("create", "token", "default", "-n", namespace).strip()
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token},
    }
    status = json.loads(kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(review)))["status"]
    assert status["authenticated"]
    assert status["user"]["username"] == f"system:serviceaccount:{namespace}:default"


def test_controllers_make_the_pods_of_a_job(kubectl: Kubectl, control_plane: Cluster) -> None:
    name = control_plane.make_namespace(labels={})
    kubectl("create", "job", "work", "--image=localhost/none:1", "-n", name)
    found = control_plane.wait(lambda pods: pods["items"], "pods", "-l", "job-name=work", namespace=name)
    assert found["items"][0]["metadata"]["ownerReferences"][0]["name"] == "work"
    control_plane.drop_namespaces([name])
