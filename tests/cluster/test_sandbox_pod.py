"""The sandbox's own tests against a pod as the operator makes it: gVisor by containerd and the shim, `restricted`.

The same attacks, languages and proofs that run natively in tests/sandbox, through the pod's door.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from typing import Any
from urllib.request import urlopen

import pytest

from soda_jobs.plan import SANDBOX_ARGV, ServiceCommand
from soda_operator.accept import Accepted, accept
from soda_operator.config import Config
from soda_operator.manifests import server, service_account
from tests.cluster.images import image_archive, image_name
from tests.cluster.node import Node
from tests.unit.operator_world import tiny_run

pytest_plugins = ["tests.cluster.plugin"]
pytestmark = [pytest.mark.slow, pytest.mark.cluster]

TOKEN = "a-token-for-this-test"
# What of tests/sandbox speaks to a server by its URL alone.
SUITES = {
    "python": ["test_attacks.py", "test_python.py", "test_protocols.py"],
    "c": ["test_c.py", "test_compile_attacks.py"],
}


@pytest.fixture(params=list(SUITES))
def pod(request: pytest.FixtureRequest, node: Node, namespace: str) -> tuple[str, str]:
    """A language and the URL of its sandbox pod, made by the operator's own manifests."""
    language = str(request.param)
    image = f"sandbox-{language}"
    node.import_image(image_archive(image))
    document = tiny_run(
        execution={"languages": [language]}, pods={"sandbox": {"limits": {"cpu": "2", "memory": "3Gi"}}}
    )
    document["metadata"] = {"name": "pod", "namespace": namespace, "uid": "none"}
    run = accept(document, Config(images={image: image_name(image)}))
    assert isinstance(run, Accepted), run
    command = ServiceCommand(name=image, role="sandbox", argv=SANDBOX_ARGV, image="sandbox", health="/healthz")
    account = service_account(run.owner, "sandbox")
    assert account is not None
    for item in (account, *server(run.owner, command, 1)):
        del item["metadata"]["ownerReferences"]  # there is no run here
        if item["kind"] == "Secret":
            item["data"] = {"token": base64.b64encode(TOKEN.encode()).decode()}
        node.apply(item)
    return language, f"http://{_address(node, namespace)}:8000"


def _address(node: Node, namespace: str, seconds: float = 300) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pods = node.get("pods", namespace=namespace)["items"]
        for pod in pods:
            conditions = {item["type"]: item["status"] for item in pod["status"].get("conditions", ())}
            if conditions.get("Ready") == "True":
                return str(pod["status"]["podIP"])
        time.sleep(0.5)
    raise TimeoutError(node.kubectl("describe", "pods", "-n", namespace)[-3000:])


def test_the_sandboxs_own_tests_pass_in_a_pod(pod: tuple[str, str]) -> None:
    language, url = pod
    with urlopen(f"{url}/healthz", timeout=10) as reply:
        health: dict[str, Any] = json.load(reply)
    assert health["isolation"]["namespaces"]
    assert health["isolation"]["missing"] == ""
    files = [f"tests/sandbox/{name}" for name in SUITES[language]]
    env = {**os.environ, "SODA_TEST_SANDBOX": url, "SODA_SANDBOX_TOKEN": TOKEN}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
