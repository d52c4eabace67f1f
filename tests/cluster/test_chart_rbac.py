"""The operator's rights against what it asks for: the API server's audit log of real runs is compared with the
rendered roles. A right that is not used fails, and so does a request that is refused.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from soda_jobs.names import STAGE_LABEL
from tests.cluster import chart
from tests.cluster.audited import Audited
from tests.cluster.chart_operator import Live, live
from tests.cluster.player import End, good_end

pytest_plugins = ["tests.cluster.chart_plugin"]
pytestmark = pytest.mark.cluster

CLASS = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "gvisor"},
    "handler": "runsc",
}
Grant = tuple[str, str, str]


def document(**spec: Any) -> str:
    run = yaml.safe_load((chart.ROOT / "crds/samples/quickstart.yaml").read_text())
    return json.dumps({**run, "spec": {**run["spec"], "rounds": 1, **spec}})


@contextmanager
def released(plane: Audited, place: str, source: Path, *sets: str) -> Iterator[None]:
    words = [word for item in (*sets, "storage.url=s3://soda/x") for word in ("--set", item)]
    chart.helm("install", "one", source, "-n", place, *words, kubeconfig=plane.kubeconfig)
    try:
        yield
    finally:
        chart.helm("uninstall", "one", "-n", place, kubeconfig=plane.kubeconfig)
        plane.kubectl("delete", "runtimeclass", "gvisor", "--ignore-not-found")
        plane.drop_definition()


class Script:
    """How the played pods end: one stage can be held, and one failure can be asked for."""

    def __init__(self) -> None:
        self.held = ""
        self.failures: list[str] = []

    def __call__(self, pod: Any) -> End | None:
        stage = pod["metadata"]["labels"][STAGE_LABEL]
        if self.held and self.held in stage:
            return None
        if stage in self.failures:
            self.failures.remove(stage)
            return End(code=137, reason="Error")
        return good_end(pod)


def asked(plane: Audited, user: str) -> tuple[set[Grant], list[str]]:
    """What a user did, as grants; and what was refused."""
    used: set[Grant] = set()
    refused = []
    for item in plane.requests(user):
        ref, code = item["objectRef"], (item.get("responseStatus") or {}).get("code")
        resource = "/".join(filter(None, (ref["resource"], ref.get("subresource"))))
        grant = (ref.get("apiGroup", ""), resource, item["verb"])
        if code == 403 and (item.get("annotations") or {}).get("authorization.k8s.io/decision") != "allow":
            refused.append(f"{grant} {item['requestURI']}")
        used.add(grant)
        if item["verb"] == "patch" and code == 201:  # server-side apply that makes an object needs both
            used.add((*grant[:2], "create"))
    return used, refused


def provoke_all(running: Live, script: Script) -> None:
    """One small run through all that makes the operator speak to the API server."""
    plane, namespace = running.plane, running.namespace
    script.held = "r1-sft"
    plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=document(deletionPolicy="Delete", queue="team"))
    # Events are read when pods are not made.
    running.run(lambda status: "RuntimeClassMissing" in {row.get("reason") for row in status.get("services", [])})
    plane.apply(CLASS)
    name = running.await_job("r1-sft")
    _hold_back(running, name)
    _lose_events(running, name)
    running.patch({"suspend": True})
    running.run(lambda status: status.get("state") == "Suspended")
    running.patch({"suspend": False})
    script.held, script.failures = "", ["r1-sft"]
    running.run(lambda status: status.get("state") == "Succeeded")
    assert script.failures == []
    running.patch({"ttlSecondsAfterFinished": 1})
    _wait(lambda: not _exists(running), "the run is deleted with its artifacts")


def _hold_back(running: Live, job: str) -> None:
    """As Kueue does, whose Workload says why."""
    workloads = ("kueue.x-k8s.io", "workloads", "list")
    _suspend_job(running, job, True)
    _wait(lambda: workloads in asked(running.plane, running.user)[0], "Kueue's Workload was asked for")
    _suspend_job(running, job, False)
    running.await_job(job)


def _suspend_job(running: Live, job: str, is_suspended: bool) -> None:
    patch = json.dumps({"spec": {"suspend": is_suspended}})
    running.plane.kubectl("patch", "job", job, "-n", running.namespace, "--type=merge", "-p", patch)


def _lose_events(running: Live, job: str) -> None:
    """A Job and its pod go, no watch tells of it, and the watches begin anew: the operator looks whether they are
    really gone."""
    running.proxy.deaf = True
    running.plane.kubectl("delete", "job", job, "-n", running.namespace)
    _wait(lambda: running.proxy.lost >= 2 and not _pods(running, job), "the Job and its pod went unseen")
    running.proxy.deaf = False
    running.background.call(running.proxy.expire())
    looks = {("batch", "jobs", "get"), ("", "pods", "get")}
    _wait(lambda: looks <= asked(running.plane, running.user)[0], "the operator asked for both")
    running.await_job("r1-sft")


def _pods(running: Live, job: str) -> list[Any]:
    selector = f"batch.kubernetes.io/job-name={job}"
    items: list[Any] = running.plane.get("pods", "-l", selector, namespace=running.namespace)["items"]
    return items


def _exists(running: Live) -> bool:
    return bool(running.plane.get("distillationruns", namespace=running.namespace)["items"])


def _wait(done: Any, what: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.3)


@pytest.mark.parametrize("scope", ["namespaced", "cluster"])
def test_every_right_is_used_and_none_is_missing(plane: Audited, place: str, tmp_path: Path, scope: str) -> None:
    with released(plane, place, chart.CHART, f"scope={scope}"), live(plane, place, tmp_path) as (running, player):
        script = Script()
        player.ends = script
        provoke_all(running, script)
        _check_health(running)
        roles = [
            role
            for kind in ("Role", "ClusterRole")
            for role in chart.of_kind(running.objects, kind)
            if "rbac.authorization.k8s.io/aggregate-to-edit" not in role["metadata"]["labels"]
        ]
        granted = {grant for role in roles for grant in chart.grants(role)}
        running.stop()
        used, refused = asked(plane, running.user)
        assert refused == []
        assert {"granted and unused": granted - used, "used and not granted": used - granted} == {
            "granted and unused": set(),
            "used and not granted": set(),
        }


def _check_health(running: Live) -> None:
    """The program of `helm test`, against the operator that runs here."""
    test = next(
        item
        for item in yaml.safe_load_all(
            chart.helm("get", "hooks", "one", "-n", running.namespace, kubeconfig=running.plane.kubeconfig)
        )
        if item and item["kind"] == "Pod"
    )
    *command, url = test["spec"]["containers"][0]["command"]
    assert url == f"http://one-soda.{running.namespace}.svc:8080/healthz"
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{running.port}/healthz"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "200 ok"


def earlier_chart(folder: Path) -> Path:
    """The chart of the earliest commit that has one."""
    git = ["git", "-C", str(chart.ROOT)]
    listed = subprocess.run(
        [*git, "log", "--format=%H", "--diff-filter=A", "--", "charts/soda/Chart.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    commits = listed.stdout.split()
    if not commits:
        pytest.skip("the history has no earlier chart (a shallow clone, or no git)")
    archive = subprocess.run([*git, "archive", commits[-1], "charts/soda"], capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder / "charts/soda"


def test_an_upgrade_leaves_a_live_run_alone(plane: Audited, place: str, tmp_path: Path) -> None:
    plane.apply(CLASS)
    with released(plane, place, earlier_chart(tmp_path)), live(plane, place, tmp_path) as (running, player):
        script = Script()
        script.held = "r1-sft"
        player.ends = script
        plane.kubectl("apply", "-n", place, "-f", "-", stdin=document())
        name = running.await_job("r1-sft")
        before = running.jobs()[name]["metadata"]["uid"]
        chart.helm(
            "upgrade", "one", chart.CHART, "-n", place, "--reset-then-reuse-values", kubeconfig=plane.kubeconfig
        )
        running.stop()  # a Deployment of type Recreate ends the old pod before it makes the new one
        running.reload()
        running.start()
        _wait(running.leads, "the new operator leads")
        script.held = ""
        running.run(lambda status: status.get("state") == "Succeeded")
        jobs = running.jobs()
        assert jobs[name]["metadata"]["uid"] == before
        of_stages = {job for job, made in jobs.items() if STAGE_LABEL in made["metadata"]["labels"]}
        stages = [job for job in player.started if job in of_stages]  # servers come and go with the need for them
        assert sorted(set(stages)) == sorted(stages), "the Job of a stage was run twice"
        assert name in stages
