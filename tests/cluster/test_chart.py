"""Releases of the chart on a real API server. It has no nodes: pods are admitted and never run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import chart
from tests.cluster.audited import DEFINITION, Audited
from tests.cluster.chart import CHART, VALUES, HelmError
from tests.cluster.client import KubectlError

pytest_plugins = ["tests.cluster.chart_plugin"]
pytestmark = pytest.mark.cluster

FOREIGN = {
    "ServiceMonitor",
    "PrometheusRule",
}  # kinds of the Prometheus operator; their shape is checked elsewhere
RUN = yaml.safe_load((chart.ROOT / "crds/samples/quickstart.yaml").read_text())


class Releases:
    """Releases in one namespace; the test leaves none behind."""

    def __init__(self, plane: Audited, namespace: str) -> None:
        self.plane, self.namespace = plane, namespace

    def __call__(self, *words: str | Path) -> str:
        return chart.helm(*words, "--namespace", self.namespace, kubeconfig=self.plane.kubeconfig)

    def exists(self, *words: str) -> bool:
        try:
            self.plane.get(*words)
        except KubectlError as error:
            if "not found" in str(error) or "the server doesn't have" in str(error):
                return False
            raise
        return True

    def gone(self, *words: str, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while self.exists(*words):
            assert time.monotonic() < end, f"{words} is still there"
            time.sleep(0.2)


@pytest.fixture
def helm(plane: Audited, place: str) -> Iterator[Releases]:
    releases = Releases(plane, place)
    yield releases
    for name in json.loads(releases("list", "-o", "json")):
        releases("uninstall", name["name"])
    plane.drop_definition()


def apply_run(plane: Audited, namespace: str, **spec: Any) -> str:
    document = {**RUN, "spec": {**RUN["spec"], **spec}}
    return plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(document))


@pytest.mark.parametrize("values", VALUES, ids=[path.stem for path in VALUES])
def test_the_api_server_accepts_every_object(values: Path, plane: Audited, place: str) -> None:
    objects = [item for item in chart.template(values=values, namespace=place) if item["kind"] not in FOREIGN]
    assert len(objects) >= 6
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    words = ["apply", "--server-side", "--dry-run=server", "--field-manager=check", "-n", place, "-f", "-"]
    said = plane.kubectl(*words, stdin=listed).splitlines()
    assert len(said) == len(objects)
    assert all("serverside-applied (server dry run)" in line for line in said), said


def test_install_upgrade_rollback_uninstall(helm: Releases) -> None:
    plane, namespace = helm.plane, helm.namespace
    notes = helm("install", "one", CHART, "--set", "storage.url=s3://soda/x", "--set", "storage.secretRef.name=s3")
    assert f"looks after DistillationRuns in the namespace {namespace}" in notes
    assert "needs the Secret s3 with AWS_ACCESS_KEY_ID" in notes
    assert "stays when this release is uninstalled" in notes

    def has_pod(found: Any) -> bool:
        return bool(found["items"])

    # Pod Security `restricted` of the namespace let it in.
    operators = ("pods", "-l", "app.kubernetes.io/component=operator")
    plane.wait(has_pod, *operators, namespace=namespace)
    before = plane.get("deployment", "one-soda", namespace=namespace)
    assert apply_run(plane, namespace).strip().endswith("created")

    same = helm("upgrade", "one", CHART, "--reuse-values")
    assert "REVISION: 2" in same
    assert plane.get("deployment", "one-soda", namespace=namespace)["metadata"]["generation"] == 1, "a no-op"
    said = helm("upgrade", "one", CHART, "--reuse-values", "--set", "scope=cluster", "--set-string", "image.tag=2")
    assert "in all namespaces" in said
    assert "stays" in helm("get", "notes", "one")
    after = plane.get("deployment", "one-soda", namespace=namespace)
    assert after["spec"]["selector"] == before["spec"]["selector"]
    assert after["spec"]["template"]["spec"]["containers"][0]["image"] == "soda-operator:2"
    assert helm.exists("clusterrole", f"{namespace}:one-soda")
    helm("rollback", "one", "1")
    helm.gone("clusterrole", f"{namespace}:one-soda")

    helm("uninstall", "one")
    assert not helm.exists("clusterrole", f"{namespace}:one-soda-view")
    kinds = "deployment,service,serviceaccount,role,rolebinding"
    left = plane.get(kinds, "-l", "app.kubernetes.io/instance=one", namespace=namespace)["items"]
    assert left == []
    assert helm.exists("distillationrun", "quickstart", "-n", namespace), "crds.keep keeps the runs"
    helm("install", "one", CHART)  # and a release takes up what it left
    assert helm.exists("distillationrun", "quickstart", "-n", namespace)


def test_without_keep_the_definition_goes_with_the_release(helm: Releases) -> None:
    notes = helm("install", "one", CHART, "--set", "crds.keep=false")
    assert "deletes the CustomResourceDefinition and every run in the cluster" in notes
    apply_run(helm.plane, helm.namespace)
    helm("uninstall", "one")
    helm.gone("crd", DEFINITION)


def test_a_second_release_leaves_the_definition_to_the_first(helm: Releases) -> None:
    helm("install", "one", CHART)
    with pytest.raises(HelmError, match=re.escape(DEFINITION)):
        helm("install", "two", CHART)
    helm("uninstall", "two", "--ignore-not-found")
    notes = helm("install", "two", CHART, "--set", "crds.enabled=false", "--set", "fullnameOverride=two")
    assert "was not installed (crds.enabled is false)" in notes
    helm("uninstall", "two")
    assert helm.exists("crd", DEFINITION)


def test_a_release_fits_into_its_secret(helm: Releases) -> None:
    """A release is kept in a Secret with the chart and all it rendered; the API server takes at most 1 MiB."""
    helm("install", "one", CHART, "-f", CHART / "ci/everything-values.yaml")
    secret = helm.plane.get("secret", "sh.helm.release.v1.one.v1", namespace=helm.namespace)
    assert len(secret["data"]["release"]) < 500_000


def test_limits_of_a_namespace_are_enforced(helm: Releases) -> None:
    plane, namespace = helm.plane, helm.namespace
    other = plane.make_namespace()
    prefix = "registry.example.com/ml/"
    limit = {
        "name": "small",
        "namespaces": [namespace],
        "maxGpus": 2,
        "imagePrefixes": [prefix],
    }
    values = {"scope": "cluster", "admissionPolicy": {"enabled": True, "limits": [limit]}}
    helm("install", "one", CHART, *(w for k, v in values.items() for w in ("--set-json", f"{k}={json.dumps(v)}")))
    training = {**RUN["spec"]["training"], "gpusPerNode": 4, "strategy": "ddp"}
    end = time.monotonic() + 30
    while True:  # a policy takes a moment to be seen
        try:
            apply_run(plane, namespace, training=training)
        except KubectlError as error:
            said = str(error)
            break
        assert time.monotonic() < end, "the policy never refused"
        plane.kubectl("delete", "distillationrun", "quickstart", "-n", namespace)
    assert "spec.training.gpusPerNode may be at most 2 in this namespace." in said
    vllm = {**RUN["spec"]["student"], "server": {"engine": "vllm", "gpus": 3}}
    with pytest.raises(KubectlError, match="gpus of a server may be at most 2 in this namespace"):
        apply_run(plane, namespace, student=vllm)
    with pytest.raises(KubectlError, match=f"must start with one of {re.escape(prefix)} in this namespace"):
        apply_run(plane, namespace, pods={"train": {"image": "docker.io/somebody/else:1"}})
    fine = {"train": {"image": "registry.example.com/ml/soda-train:1"}, "jobs": {}}
    assert "created" in apply_run(plane, namespace, pods=fine)
    assert "created" in apply_run(plane, other, training=training), "another namespace has no limit"
    plane.drop_namespaces([other])


def test_people_with_the_role_edit_work_with_runs(helm: Releases) -> None:
    plane, namespace = helm.plane, helm.namespace
    helm("install", "one", CHART)
    for role in ("view", "edit"):
        words = ["create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}er", "-n", namespace]
        plane.kubectl(*words)

    def may(user: str, verb: str, part: str = "") -> bool:
        words = ["auth", "can-i", verb, "distillationruns.soda.dev", "-n", namespace, f"--as={user}"]
        words += [f"--subresource={part}"] if part else []
        try:
            return plane.kubectl(*words).strip() == "yes"
        except KubectlError:
            return False

    end = time.monotonic() + 30
    while not may("editer", "create"):  # the controller manager puts roles together
        assert time.monotonic() < end, "the role was not aggregated"
        time.sleep(0.2)
    assert may("viewer", "watch")
    assert not may("viewer", "patch")
    assert may("editer", "patch")
    assert may("viewer", "get", "status")
    assert not may("editer", "update", "status")
