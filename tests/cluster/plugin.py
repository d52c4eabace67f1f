"""Fixtures for tests on a real cluster. A test module says `pytest_plugins = ["tests.cluster.plugin"]`.

`control_plane`  an API server with its controllers and scheduler; pods are accepted and never run
`node`           the same with one real node: containerd, kubelet, gVisor, services and DNS
`namespace`      the name of a new namespace that enforces Pod Security `restricted`
`kubectl`        kubectl for the `node` when the test asks for one, else for the `control_plane`

Every test that asks for one of them is marked `cluster`. `SODA_TEST_KUBECONFIG` names a cluster to use instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.client import Cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.node import ExternalNode, Node, missing, on_this_machine

FIXTURES = {"control_plane", "node", "namespace", "kubectl"}


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.cluster)


def given_kubeconfig() -> Path | None:
    given = os.environ.get("SODA_TEST_KUBECONFIG")
    return Path(given) if given else None


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An API server of this test session alone, unless a cluster was given."""
    if given := given_kubeconfig():
        yield Cluster(given)
        return
    if sys.platform != "linux":
        pytest.skip(
            f"a control plane runs on Linux, this is {sys.platform}; name a cluster in SODA_TEST_KUBECONFIG"
        )
    plane = ControlPlane(tmp_path_factory.mktemp("control-plane"))
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()


@pytest.fixture(scope="session")
def node() -> Iterator[Node | ExternalNode]:
    """The node that `python -m tests.cluster up` left running, else one for this session."""
    if given := given_kubeconfig():
        yield ExternalNode(given)
        return
    if reason := missing():
        pytest.skip(f"{reason}; or name a cluster in SODA_TEST_KUBECONFIG")
    with on_this_machine() as running:
        yield running


def _asked_for(request: pytest.FixtureRequest) -> Cluster:
    wanted = "node" if "node" in request.fixturenames else "control_plane"
    cluster: Cluster = request.getfixturevalue(wanted)
    return cluster


@pytest.fixture
def kubectl(request: pytest.FixtureRequest) -> Callable[..., str]:
    """`kubectl("get", "pods", "-n", namespace, stdin=None)`: stdout, or KubectlError with stderr."""
    return _asked_for(request).kubectl


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    cluster = _asked_for(request)
    name = cluster.make_namespace()
    yield name
    cluster.drop_namespaces([name])
