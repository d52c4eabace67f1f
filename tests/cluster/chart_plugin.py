"""The fixture `plane`: a control plane for releases of the chart, with an audit log. They own the CRD there, so no
other test may have made it. `place` is a new namespace on it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

import pytest

from tests.cluster.audited import POLICY, Audited


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    if os.environ.get("SODA_TEST_KUBECONFIG"):
        pytest.skip(
            "releases own the CRD and need an audit log, so they are tested on a control plane of their own"
        )
    if sys.platform != "linux":
        pytest.skip(f"a control plane runs on Linux, this is {sys.platform}")
    folder = tmp_path_factory.mktemp("chart")
    (folder / "policy.json").write_text(json.dumps(POLICY))
    found = Audited(folder)
    audit = [f"--audit-policy-file={folder / 'policy.json'}", f"--audit-log-path={folder / 'audit.log'}"]
    try:
        found.start(api_options=audit)
        yield found
    finally:
        found.stop()


@pytest.fixture
def place(plane: Audited) -> Iterator[str]:
    """A new namespace that enforces Pod Security `restricted`."""
    name = plane.make_namespace()
    yield name
    plane.drop_namespaces([name])
