"""The pure parts of the commands on a cluster: what kubectl says, which pods, what changed, which store."""

from __future__ import annotations

from typing import Any

import pytest

from soda_jobs.cli import remote, watching
from soda_jobs.cli.kubectl import NoSuchRun, sentence
from soda_jobs.errors import InvalidInput, Retry, SodaError


@pytest.mark.parametrize(
    ("said", "kind", "text"),
    [
        (
            'Error from server (NotFound): distillationruns.soda.dev "x" not found',
            NoSuchRun,
            'distillationruns.soda.dev "x" not found',
        ),
        (
            'error: the server doesn\'t have a resource type "distillationruns"',
            InvalidInput,
            "the cluster does not know DistillationRun; install soda's chart",
        ),
        (
            'Error from server (Forbidden): distillationruns.soda.dev "x" is forbidden: User "jo" cannot get',
            InvalidInput,
            'you may not do this (Error from server (Forbidden): distillationruns.soda.dev "x" is '
            'forbidden: User "jo"',
        ),
        (
            "E1121 12:00:00.1 1 memcache.go:265] couldn't get current server API group list\n"
            "The connection to the server localhost:8080 was refused - did you specify the right host or port?",
            Retry,
            "the cluster cannot be reached (The connection to the server localhost:8080 was refused",
        ),
        (
            "Unable to connect to the server: dial tcp: lookup nowhere: no such host",
            Retry,
            "the cluster cannot be reached (Unable to connect",
        ),
        (
            'error: context "nowhere" does not exist',
            InvalidInput,
            'context "nowhere" does not exist; `kubectl config get-contexts`',
        ),
        (
            "Error in configuration: context was not found for specified context: nowhere",
            InvalidInput,
            "Error in configuration: context was not found for specified context: nowhere; `kubectl config",
        ),
        (
            "error: You must be logged in to the server (Unauthorized)",
            InvalidInput,
            "the cluster refuses your credentials",
        ),
        ("something else\nerror: odd", InvalidInput, "kubectl: odd"),
        ("", InvalidInput, "kubectl: nothing"),
    ],
)
def test_what_kubectl_says_becomes_one_sentence(said: str, kind: type[SodaError], text: str) -> None:
    error = sentence(said)
    assert type(error) is kind
    assert str(error).startswith(text)
    assert "\n" not in str(error)


def pod(name: str, made: str, **labels: str) -> dict[str, Any]:
    labels = {key.replace("__", "/").replace("_", "."): value for key, value in labels.items()}
    return {
        "metadata": {"name": name, "creationTimestamp": made, "labels": labels},
        "status": {"phase": "Running"},
    }


def test_pods_are_found_by_label_and_shown_newest_first() -> None:
    assert remote.selector("r", None) == "soda.dev/run=r"
    assert remote.selector("r", "r1-sft") == "soda.dev/run=r,soda.dev/stage=r1-sft"
    assert remote.selector("r", "service-teacher") == "soda.dev/run=r,soda.dev/service=teacher"
    pods = [
        pod("r-r1-sft-1-b", "2026-11-21T10:00:00Z", soda_dev__stage="r1-sft"),
        pod("r-r1-sft-2-a", "2026-11-21T11:00:00Z", soda_dev__stage="r1-sft"),
        pod("r-r1-sft-1-a", "2026-11-21T10:00:00Z", soda_dev__stage="r1-sft"),
    ]
    found = [item["metadata"]["name"] for item in remote.newest_first(pods)]
    assert found == ["r-r1-sft-2-a", "r-r1-sft-1-a", "r-r1-sft-1-b"]
    assert remote.what_of(pods[0]) == "r1-sft"
    assert remote.what_of(pod("p", "", soda_dev__service="teacher")) == "service-teacher"
    assert remote.what_of(pod("p", "")) == "p"
    job = {"batch.kubernetes.io/job-name": "r-r1-sft-1"}
    pods[0]["metadata"]["labels"] |= job
    assert remote.title(pods[0]) == "r1-sft, job r-r1-sft-1, pod r-r1-sft-1-b, Running"


def run(status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "r", "namespace": "n"}, "spec": spec, "status": status}


def test_only_changes_are_told() -> None:
    first = run(
        {"state": "Running", "progress": "0/2", "stages": [{"name": "a", "state": "running", "attempt": 1}]}
    )
    told = list(watching.changes({"status": {}}, first))
    assert told == [
        {"stage": "a", "state": "running", "attempt": 1},
        {"run": "r", "state": "Running", "progress": "0/2"},
    ]
    moved = run({**first["status"], "stages": [{"name": "a", "state": "running", "attempt": 1, "done": 5}]})
    assert list(watching.changes(first, moved)) == [], "rows done are not a change worth a line"
    done = {"name": "a", "state": "done", "attempt": 1, "digest": "ab" * 32, "headline": {"pass@1": 0.5}}
    waits = {"name": "b", "state": "waiting", "message": "no node fits"}
    server = {"name": "teacher", "ready": True, "attempt": 1}
    last = run({"state": "Waiting", "message": "no node fits", "stages": [done, waits], "services": [server]})
    told = list(watching.changes(moved, last))
    assert told == [
        {"stage": "a", "state": "done", "attempt": 1, "digest": "abababababab", "pass@1": 0.5},
        {"stage": "b", "state": "waiting", "message": "no node fits"},
        {"service": "teacher", "ready": True, "attempt": 1},
        {"run": "r", "state": "Waiting", "message": "no node fits"},
    ]
    assert watching.line(told[0])[9:] == "a done attempt=1 digest=abababababab pass@1=0.5"


def test_a_run_without_a_status_is_pending() -> None:
    assert watching.headline(run()) == "r  Pending"
    assert watching.rows(run()) == []


def test_the_table_shows_what_a_stage_did() -> None:
    stage = {
        "name": "r1-sft",
        "state": "done",
        "attempt": 2,
        "done": 3,
        "total": 9,
        "startTime": "2026-11-21T10:00:00Z",
        "finishTime": "2026-11-21T10:05:30Z",
        "digest": "ab" * 32,
        "headline": {"loss": 0.51234},
    }
    assert watching.rows(run({"stages": [stage]})) == [
        ("r1-sft", "done", "3/9", "2", "5m", "abababababab", "loss 0.512")
    ]


def test_the_store_of_a_run_is_what_the_caller_then_the_status_then_the_spec_says() -> None:
    storage = {"url": "s3://spec/p", "endpoint": "http://inside:9000", "region": "r", "pathStyle": True}
    found = remote.store_of(run(storage=storage), None, None)
    assert (found.url, found.endpoint, found.region, found.path_style) == (
        "s3://spec/p",
        "http://inside:9000",
        "r",
        True,
    )
    found = remote.store_of(run({"artifacts": "s3://status/p"}, storage=storage), None, "http://here")
    assert (found.url, found.endpoint) == ("s3://status/p", "http://here")
    assert remote.store_of(run(storage=storage), "s3://mine/p", None).url == "s3://mine/p"
    with pytest.raises(InvalidInput, match="--store"):
        remote.store_of(run(storage={"url": ".soda/store"}), None, None)
