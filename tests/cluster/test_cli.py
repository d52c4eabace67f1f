"""The commands on a run in a cluster, as a user calls them, against a real API server."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from soda_jobs.artifacts import Artifacts
from soda_jobs.store import open_store
from tests.cluster.client import Cluster
from tests.cluster.commands import RUNNING, STAGES, Commands, apply_crd

if TYPE_CHECKING:
    from tests.s3server.plugin import S3Server

pytest_plugins = ["tests.cluster.plugin", "tests.s3server.plugin"]
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def crd(control_plane: Cluster) -> None:
    apply_crd(control_plane)


@pytest.fixture
def soda(control_plane: Cluster, namespace: str, tmp_path: Path) -> Commands:
    return Commands(control_plane, namespace, tmp_path)


def test_status_shows_the_run_and_its_stages(soda: Commands) -> None:
    soda.make()
    assert soda("status", "demo").splitlines()[0] == "demo  Pending"
    soda.become(RUNNING)
    lines = soda("status", "demo").splitlines()
    assert lines[0] == "demo  Running  round 1/1  1/2 stages"
    assert lines[1] == "r1-sft running, 1/2 stages finished"
    assert lines[2].split() == ["STAGE", "STATE", "ROWS", "ATTEMPT", "TIME", "DIGEST", "RESULT"]
    assert lines[3].split() == ["source", "reused", "60", "abababababab"]
    assert lines[4].split()[:4] == ["r1-sft", "running", "30/120", "2"]
    document = json.loads(soda("status", "demo", "--output", "json"))
    assert (document["name"], document["namespace"]) == ("demo", soda.namespace)
    assert document["status"]["stages"][1]["total"] == 120


def test_the_plugin_means_the_cluster(soda: Commands) -> None:
    soda.make()
    soda.become(RUNNING)
    argv = ["kubectl", "soda", "status", "demo", *soda.options]
    done = subprocess.run(argv, env=soda.env, cwd=soda.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("demo  Running")
    env = {**soda.env, "KUBECONFIG": str(soda.cluster.kubeconfig)}
    argv = ["kubectl", "soda", "explain", "demo"]
    done = subprocess.run(argv, env=env, cwd=soda.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert done.stderr.startswith("soda: there is no run 'demo' in this namespace")


def test_explain_says_what_to_do(soda: Commands) -> None:
    soda.make()
    assert "The operator has not seen the run demo yet (made " in soda("explain", "demo")
    soda.become(RUNNING)
    assert "1/2 stages finished. Running: r1-sft at 30 of 120 for " in soda("explain", "demo")
    stuck = {"state": "Stalled", "reason": "SecretMissing", "message": "the Secret s3 does not exist; make it"}
    soda.become({**RUNNING, **stuck})
    text = soda("explain", "demo")
    assert text.startswith("The run demo is stuck: the Secret s3 does not exist; make it.")
    assert json.loads(soda("explain", "demo", "--output", "json"))["text"] == text.strip()


def test_suspend_resume_cancel_and_retry_change_the_spec(soda: Commands) -> None:
    soda.make()
    soda.become(RUNNING)
    assert "soda resume demo --namespace" in soda("suspend", "demo")
    assert soda.spec()["suspend"] is True
    soda("resume", "demo")
    assert soda.spec()["suspend"] is False
    assert "is Running; only one that failed or was cancelled is retried" in soda("retry", "demo", code=64)
    soda("cancel", "demo")
    assert soda.spec()["cancel"] is True
    soda.become({**RUNNING, "state": "Cancelled"})
    assert "is over (Cancelled), so there is nothing to suspend" in soda("suspend", "demo", code=64)
    soda("retry", "demo")
    first = soda.spec()
    assert first["cancel"] is False
    soda("retry", "demo")
    assert soda.spec()["retryToken"] != first["retryToken"]


@pytest.mark.parametrize(("state", "code"), [("Succeeded", 0), ("Failed", 1), ("Cancelled", 3)])
def test_watch_follows_the_run_until_it_is_over(soda: Commands, state: str, code: int) -> None:
    soda.make()
    soda.become(RUNNING)
    process = soda.start("watch", "demo", "--interval", "0.2")
    assert process.stdout is not None
    assert "r1-sft running attempt=2" in next(line for line in process.stdout if "r1-sft" in line)
    done = {"name": "r1-sft", "state": "done", "attempt": 2, "digest": "cd" * 32, "headline": {"loss": 0.25}}
    soda.become({**RUNNING, "progress": "2/2", "stages": [STAGES[0], done]})
    assert "r1-sft done attempt=2 digest=cdcdcdcdcdcd loss=0.25" in next(
        line for line in process.stdout if "r1-sft done" in line
    )
    soda.become({**RUNNING, "state": state, "progress": "2/2", "stages": [STAGES[0], done]})
    rest, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (code, "")
    assert rest.count("\n") == 1
    assert f"demo {state} progress=2/2" in rest


def test_watch_of_a_run_that_is_deleted_ends(soda: Commands) -> None:
    soda.make()
    soda.become(RUNNING)
    process = soda.start("watch", "demo", "--interval", "0.2", "--output", "json")
    assert process.stdout is not None
    assert json.loads(next(process.stdout)) == {"stage": "source", "state": "reused", "digest": "abababababab"}
    soda.cluster.kubectl("delete", "drun", "demo", "-n", soda.namespace)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 64
    assert "there is no run 'demo'" in errors


def pod(name: str, stage: str) -> dict[str, Any]:
    labels = {"soda.dev/run": "demo", "soda.dev/stage": stage, "batch.kubernetes.io/job-name": f"demo-{stage}-1"}
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "main", "image": "localhost/none:1", "securityContext": security}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [container], "automountServiceAccountToken": False},
    }


def test_logs_finds_the_pods_of_a_stage(soda: Commands) -> None:
    soda.make()
    assert "there are pods of: none" in soda("logs", "demo", code=64)
    soda.cluster.apply(pod("old", "r1-sft"), namespace=soda.namespace)
    time.sleep(1.1)  # creation times are whole seconds
    soda.cluster.apply(pod("new", "r1-sft"), pod("other", "source"), namespace=soda.namespace)
    titles = [line for line in soda("logs", "demo", "r1-sft").splitlines() if line.startswith("==>")]
    assert [line.split(", ")[:3] for line in titles] == [
        ["==> r1-sft", "job demo-r1-sft-1", "pod new"],
        ["==> r1-sft", "job demo-r1-sft-1", "pod old"],
    ]
    assert "there are pods of: r1-sft, source" in soda("logs", "demo", "r9-none", code=64)


def test_the_report_comes_from_the_store_of_the_run(
    soda: Commands, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    bucket = f"bucket-{os.urandom(4).hex()}"
    s3_server.make_bucket(bucket)
    soda.make(storage={"url": f"s3://{bucket}/p", "endpoint": s3_server.endpoint, "secretRef": {"name": "s3"}})
    soda.become({**RUNNING, "artifacts": f"s3://{bucket}/p"})
    soda.env = {name: value for name, value in soda.env.items() if not name.startswith("AWS_")}
    soda.env |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    soda.env |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1"}
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to ones that may read it" in soda(
        "report", "demo", code=64
    )

    request.getfixturevalue("s3_credentials")
    soda.env |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    assert f"the run demo has no report in s3://{bucket}/p yet; it is Running" in soda("report", "demo", code=64)
    artifacts = Artifacts(open_store(f"s3://{bucket}/p", endpoint=s3_server.endpoint), soda.folder / "cache")
    artifacts.put_document("demo", "report.html", b"<html>the page</html>")
    artifacts.put_document("demo", "report.json", b'{"run": "demo"}')
    path = Path(soda("report", "demo").strip())
    assert path.read_text() == "<html>the page</html>"
    assert json.loads((path.parent / "report.json").read_text()) == {"run": "demo"}
    assert json.loads(soda("report", "demo", "--output", "json")) == {"run": "demo"}


def test_every_error_is_one_sentence(soda: Commands, tmp_path: Path) -> None:
    soda.make("one")
    soda.make("two")
    assert soda("status", "three", code=64) == (
        "soda: there is no run 'three' in this namespace; runs there: one, two\n"
    )
    admin = yaml.safe_load(soda.cluster.kubeconfig.read_text())
    soda.cluster.kubectl("create", "serviceaccount", "nobody", "-n", soda.namespace)
    token = soda.cluster.kubectl("create", "token", "nobody", "-n", soda.namespace).strip()
    admin["users"] = [{"name": item["name"], "user": {"token": token}} for item in admin["users"]]
    (tmp_path / "nobody").write_text(yaml.safe_dump(admin))
    soda.options = ["-n", soda.namespace, "--kubeconfig", str(tmp_path / "nobody")]
    assert "you may not do this (" in soda("suspend", "one", code=64)
    soda.options = ["--context", "nowhere", "--kubeconfig", str(soda.cluster.kubeconfig)]
    assert "`kubectl config get-contexts` lists yours" in soda("status", "one", code=64)
    for cluster in admin["clusters"]:
        cluster["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "away").write_text(yaml.safe_dump(admin))
    soda.options = ["--kubeconfig", str(tmp_path / "away")]
    assert "the cluster cannot be reached (" in soda("status", "one", code=75)
