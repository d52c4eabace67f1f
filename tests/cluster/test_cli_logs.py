"""`soda logs` on pods that really run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.archive import PROBE, probe_image
from tests.cluster.commands import RUNNING, Commands, apply_crd
from tests.cluster.node import Node

pytest_plugins = ["tests.cluster.plugin"]
pytestmark = pytest.mark.cluster


@pytest.fixture
def soda(node: Node, namespace: str, tmp_path: Path) -> Commands:
    node.import_image(probe_image())
    apply_crd(node)
    commands = Commands(node, namespace, tmp_path)
    commands.make()
    commands.become(RUNNING)
    return commands


def pod(name: str, *words: str) -> dict[str, Any]:
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    user = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"soda.dev/run": "demo", "soda.dev/stage": "r1-sft"}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "securityContext": user,
            "containers": [{"name": "main", "image": PROBE, "args": list(words), "securityContext": security}],
        },
    }


def test_logs_of_every_attempt_newest_first(soda: Commands) -> None:
    for name, word in (("first", "one"), ("second", "two")):
        soda.cluster.apply(pod(name, "write", f"/no/such/{word}"), namespace=soda.namespace)
        soda.cluster.wait(
            lambda found: found["status"]["phase"] == "Failed", "pod", name, namespace=soda.namespace
        )
        time.sleep(1.1)  # creation times are whole seconds
    said = soda("logs", "demo", "r1-sft")
    places = [
        said.index(text) for text in ("pod second, Failed", "/no/such/two", "pod first, Failed", "/no/such/one")
    ]
    assert places == sorted(places)


def test_following_goes_on_with_the_next_attempt_until_the_stage_is_over(soda: Commands) -> None:
    soda.cluster.apply(pod("first", "write", "/no/such/one"), namespace=soda.namespace)
    process = soda.start("logs", "demo", "r1-sft", "--follow")
    assert process.stdout is not None
    assert "/no/such/one" in next(process.stdout)
    soda.cluster.apply(pod("second", "write", "/no/such/two"), namespace=soda.namespace)
    line = next(process.stdout)
    assert "second" in line
    assert "/no/such/two" in line
    assert process.poll() is None
    soda.become({**RUNNING, "stages": [{"name": "r1-sft", "state": "failed"}]})
    rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest, errors) == (0, "", "")
