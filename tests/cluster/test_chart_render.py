"""What the chart renders, without a cluster: only the helm binary is needed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from soda_jobs.spec import Storage
from soda_operator import chart_docs, config, metrics
from tests.cluster import chart
from tests.cluster.chart import CHART, NAMESPACE, VALUES, HelmError, of_kind, one, template

pytestmark = pytest.mark.cluster  # helm is built by Go, which `make test` does not need

DIGEST = f"sha256:{'c' * 64}"
each_values = pytest.mark.parametrize("values", VALUES, ids=[path.stem for path in VALUES])
everywhere = pytest.mark.parametrize("scope", ["namespaced", "cluster"])


@each_values
def test_helm_finds_nothing_to_say(values: Path) -> None:
    said = chart.helm("lint", "--strict", CHART, "-f", values)
    assert "0 chart(s) failed" in said
    assert not re.search(r"\[(WARNING|ERROR)\]", said), said


@each_values
def test_every_pod_is_restricted_and_writes_nowhere_but_tmp(values: Path) -> None:
    found = list(chart.pods(template(values=values)))
    assert len(found) == 2, "the operator and the test"
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert [mount["mountPath"] for mount in container.get("volumeMounts", [])] in ([], ["/tmp"])
        assert all(set(volume) <= {"name", "emptyDir"} for volume in pod.get("volumes", []))
        assert pod["enableServiceLinks"] is False


@each_values
def test_selectors_hold_only_what_never_changes(values: Path, tmp_path: Path) -> None:
    newer = tmp_path / "soda"
    shutil.copytree(CHART, newer)
    text = (newer / "Chart.yaml").read_text()
    (newer / "Chart.yaml").write_text(re.sub(r"(?m)^(version|appVersion): .*$", r"\1: 9.9.9", text))
    later = chart.helm("template", "one", newer, "--namespace", NAMESPACE, "-f", values)
    for objects in (template(values=values), list(yaml.safe_load_all(later))):
        selector = one(objects, "Deployment")["spec"]["selector"]["matchLabels"]
        assert selector == {
            "app.kubernetes.io/name": "soda",
            "app.kubernetes.io/instance": "one",
            "app.kubernetes.io/component": "operator",
        }
        assert one(objects, "Service")["spec"]["selector"] == selector
        labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
        assert selector.items() <= labels.items()
        assert not selector.items() <= one(objects, "Pod")["metadata"]["labels"].items(), "the test's own pod"


@each_values
def test_secrets_may_be_created_and_nothing_else(values: Path) -> None:
    roles = [item for item in template(values=values) if item["kind"] in ("Role", "ClusterRole")]
    granted = {grant for role in roles for grant in chart.grants(role)}
    assert {verb for _, resource, verb in granted if resource.startswith("secrets")} == {"create"}
    assert not any("*" in part for grant in granted for part in grant)


def test_the_scope_moves_the_rights_and_nothing_of_them_is_lost() -> None:
    small, big = template('scope="namespaced"'), template('scope="cluster"')
    own = {"aggregate": "rbac.authorization.k8s.io/aggregate-to-edit"}["aggregate"]

    def cluster_roles(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [role for role in of_kind(objects, "ClusterRole") if own not in role["metadata"]["labels"]]

    assert cluster_roles(small) == []
    assert of_kind(small, "ClusterRoleBinding") == []
    [cluster_role] = cluster_roles(big)
    scanning = {("apiextensions.k8s.io", "customresourcedefinitions", verb) for verb in ("list", "watch")}
    in_namespace = chart.grants(one(small, "Role"))
    assert chart.grants(cluster_role) | chart.grants(one(big, "Role")) == in_namespace | scanning
    assert {resource for _, resource, _ in chart.grants(one(big, "Role"))} == {"leases"}
    assert chart.environment(one(small, "Deployment"))["SODA_NAMESPACE"] == NAMESPACE
    assert chart.environment(one(big, "Deployment"))["SODA_NAMESPACE"] == ""
    for objects in (small, big):
        for binding in [*of_kind(objects, "RoleBinding"), *of_kind(objects, "ClusterRoleBinding")]:
            account = one(objects, "ServiceAccount")["metadata"]
            assert binding["subjects"] == [
                {"kind": "ServiceAccount", "name": account["name"], "namespace": NAMESPACE}
            ]
            assert binding["roleRef"]["name"] in {
                item["metadata"]["name"] for item in of_kind(objects, binding["roleRef"]["kind"])
            }


def test_two_releases_of_one_name_share_no_object_of_the_cluster() -> None:
    def shared(namespace: str) -> set[tuple[str, str]]:
        objects = template('scope="cluster"', 'crds={"enabled":false}', namespace=namespace)
        return {
            (item["kind"], item["metadata"]["name"]) for item in objects if "namespace" not in item["metadata"]
        }

    assert shared("team-a")
    assert not shared("team-a") & shared("team-b")


def test_without_rights_in_the_cluster_every_object_is_in_the_namespace() -> None:
    objects = template(values=CHART / "ci/unprivileged-values.yaml")
    assert {item["metadata"].get("namespace") for item in objects} == {NAMESPACE}


@each_values
def test_the_operator_reads_what_the_chart_sets(values: Path) -> None:
    env = chart.environment(one(template(values=values), "Deployment"))
    read = config.read({name: value for name, value in env.items() if isinstance(value, str)})
    assert set(read.images) == set(config.IMAGES)
    assert read.pull_policy == "IfNotPresent"
    assert (read.start_seconds, read.progress_seconds) == (3600, 14400)
    assert env["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert env["POD_NAMESPACE"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}


def test_a_storage_reaches_the_operator_whole() -> None:
    env = chart.environment(one(template(values=CHART / "ci/cluster-values.yaml"), "Deployment"))
    assert config.read({"SODA_STORAGE": env["SODA_STORAGE"]}).storage == Storage.model_validate(
        {
            "url": "s3://soda/runs",
            "endpoint": "https://s3.example.com",
            "region": "eu-central-1",
            "pathStyle": True,
            "secretRef": {"name": "soda-s3"},
            "caSecretRef": {"name": "soda-s3-ca"},
        }
    )
    assert "SODA_STORAGE" not in chart.environment(one(template(), "Deployment"))
    off = chart.environment(one(template('storage={"url":"s3://soda/x","pathStyle":false}'), "Deployment"))
    assert json.loads(off["SODA_STORAGE"]) == {"url": "s3://soda/x", "pathStyle": False}


def test_digests_win_over_tags() -> None:
    sets = [
        'image={"registry":"registry.example.com/ml/","tag":"2","digest":"' + DIGEST + '"}',
        'images={"train":{"tag":"3","digest":"' + DIGEST + '"},"vllm":{"tag":"4"}}',
    ]
    objects = template(*sets)
    images = json.loads(chart.environment(one(objects, "Deployment"))["SODA_IMAGES"])
    prefix = "registry.example.com/ml/soda-"
    assert {pod["containers"][0]["image"] for pod in chart.pods(objects)} == {f"{prefix}operator@{DIGEST}"}
    assert images["train"] == f"{prefix}train@{DIGEST}"
    assert images["vllm"] == f"{prefix}vllm:4"
    assert images["jobs"] == f"{prefix}jobs:2"
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    plain = json.loads(chart.environment(one(template(), "Deployment"))["SODA_IMAGES"])
    assert plain["jobs"] == f"soda-jobs:{version}"


def test_the_operator_gets_time_to_end_and_is_never_doubled() -> None:
    deployment = one(template(), "Deployment")
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > 20
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert deployment["spec"]["replicas"] == 1


@pytest.mark.parametrize("keep", [True, False])
def test_the_definition_is_the_repositorys(keep: bool) -> None:
    rendered = one(template('crds={"keep":' + json.dumps(keep) + "}"), "CustomResourceDefinition")
    annotations = rendered["metadata"].pop("annotations", {})
    assert annotations == ({"helm.sh/resource-policy": "keep"} if keep else {})
    assert rendered["metadata"].pop("labels")["app.kubernetes.io/managed-by"] == "Helm"
    assert rendered == yaml.safe_load((chart.ROOT / chart_docs.COPY).read_text())
    assert of_kind(template('crds={"enabled":false}'), "CustomResourceDefinition") == []


def test_only_what_was_asked_for_is_made() -> None:
    kinds = {"ServiceMonitor", "PrometheusRule", "ConfigMap", "NetworkPolicy", "ValidatingAdmissionPolicy"}
    assert not kinds & {item["kind"] for item in template()}
    watched = template(values=CHART / "ci/monitoring-values.yaml")
    assert kinds & {item["kind"] for item in watched} == {"ServiceMonitor", "PrometheusRule", "ConfigMap"}


# The values of `--set-json`, and what the answer must name.
WRONG = {
    "an unknown name": ("replicas=2", "replicas"),
    "an unknown name inside": ('storage={"bucket":"x"}', "bucket"),
    "an unknown image": ('images={"sandbox-rust":{"repository":"x"}}', "sandbox-rust"),
    "a scope": ('scope="everywhere"', "'namespaced', 'cluster'"),
    "a digest": ('image={"digest":"abc"}', "/image/digest"),
    "a folder as storage": ('storage={"url":"/data"}', "/storage/url"),
    "too little time to end": ("terminationGracePeriodSeconds=5", "minimum: got 5, want 21"),
    "a limit of nothing": ('admissionPolicy={"limits":[{"name":"x"}]}', "maxGpus"),
    "a text for a switch": ('crds={"keep":"yes"}', "got string, want boolean"),
}


@pytest.mark.parametrize(("word", "said"), WRONG.values(), ids=WRONG)
def test_wrong_values_are_refused_by_name(word: str, said: str) -> None:
    with pytest.raises(HelmError, match=re.escape(said)):
        template(word)


def test_a_limit_for_a_namespace_that_is_not_looked_after_is_refused() -> None:
    limit = '[{"name":"x","namespaces":["elsewhere"],"maxGpus":1}]'
    with pytest.raises(HelmError, match="use scope cluster"):
        template('admissionPolicy={"enabled":true,"limits":' + limit + "}")


def _families() -> set[str]:
    """Names of the operator's series, as Prometheus stores them."""
    found = {"up"}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            for family in metric.describe():
                ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
                found |= {f"{family.name}{end}" for end in ends.get(family.type, [""])}
    return found | {"process_resident_memory_bytes"}


def _names(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:soda|process)_\w+|\bup\b", re.sub(r"\{[^}]*\}", "", expression)))


def test_alerts_and_panels_ask_only_for_series_that_exist() -> None:
    objects = template(values=CHART / "ci/monitoring-values.yaml")
    [group] = one(objects, "PrometheusRule")["spec"]["groups"]
    board = json.loads(one(objects, "ConfigMap")["data"]["soda.json"])
    panels = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for expression in [*(rule["expr"] for rule in group["rules"]), *panels]:
        assert _names(expression), expression
        assert _names(expression) <= _families(), expression
        assert expression.count("(") == expression.count(")")
    shown = {name for expression in panels for name in _names(expression)}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in _families() - {"up"}} <= {
        re.sub(r"_bucket$", "", name) for name in shown
    }, "the dashboard shows every series"


def test_alerts_say_what_to_read() -> None:
    [group] = one(template(values=CHART / "ci/monitoring-values.yaml"), "PrometheusRule")["spec"]["groups"]
    for rule in group["rules"]:
        assert 'namespace="team-a",service="one-soda"' in rule["expr"]
        annotations = rule["annotations"]
        assert annotations["summary"]
        assert annotations["runbook_url"] == f"https://example.com/docs/troubleshooting.md#{rule['alert'].lower()}"
    monitor, service = (
        one(template(values=CHART / "ci/monitoring-values.yaml"), kind) for kind in ("ServiceMonitor", "Service")
    )
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()
    assert [end["port"] for end in monitor["spec"]["endpoints"]] == [
        port["name"] for port in service["spec"]["ports"]
    ]


@everywhere
def test_people_may_do_with_runs_what_they_may_do_with_other_things(scope: str) -> None:
    roles = [
        role
        for role in of_kind(template(f'scope="{scope}"'), "ClusterRole")
        if "rbac.authorization.k8s.io/aggregate-to-edit" in role["metadata"]["labels"]
    ]
    view, edit = sorted(roles, key=lambda role: role["metadata"]["name"], reverse=True)
    assert {verb for _, _, verb in chart.grants(view)} == {"get", "list", "watch"}
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in edit["metadata"]["labels"]
    assert ("soda.dev", "distillationruns/status", "update") not in chart.grants(edit)


def test_the_generated_files_are_fresh_and_every_value_is_told_of(tmp_path: Path) -> None:
    check = [sys.executable, "-m", "soda_operator.chart_docs", "--check"]
    assert subprocess.run(check, cwd=chart.ROOT, check=False).returncode == 0
    text = (CHART / "values.yaml").read_text()
    told = {value.path for value in chart_docs.values(text)}

    def untold(block: Any, path: tuple[str, ...]) -> list[str]:
        if path in told and not any(other[: len(path)] == path and other != path for other in told):
            return []
        if not isinstance(block, dict):
            return [".".join(path)]
        return [name for key, value in block.items() for name in untold(value, (*path, key))]

    missing = untold(yaml.safe_load(text), ())
    assert [name for name in missing if not name.startswith("images.sandbox-")] == []
    for part in ("charts/soda", "crds"):
        shutil.copytree(chart.ROOT / part, tmp_path / part)
    (tmp_path / "charts/soda/values.yaml").write_text("# New.\nnewer: 1\n" + text)
    assert subprocess.run(check, cwd=tmp_path, check=False, capture_output=True).returncode == 1
