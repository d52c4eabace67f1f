"""A control plane that writes down what ServiceAccounts ask of it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from tests.cluster.client import KubectlError
from tests.cluster.control_plane import ControlPlane

DEFINITION = "distillationruns.soda.dev"
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


class Audited(ControlPlane):
    """A control plane that writes down what ServiceAccounts ask for."""

    def drop_definition(self) -> None:
        """Delete the CRD and every run, also runs that an operator would have to let go."""
        try:
            runs = self.get("distillationruns", "-A")["items"]
        except KubectlError:
            return
        for run in runs:
            where = ["-n", run["metadata"]["namespace"], "--type=merge", "-p", '{"metadata":{"finalizers":null}}']
            with suppress(KubectlError):  # it may be gone by now
                self.kubectl("patch", "distillationrun", run["metadata"]["name"], *where)
        self.kubectl("delete", "crd", DEFINITION, "--ignore-not-found", "--timeout=60s")

    def requests(self, user: str) -> list[dict[str, Any]]:
        """Every answered request of a user for an object of the API, and every watch that has begun."""
        lines = (self.folder / "audit.log").read_text().splitlines()
        events = [json.loads(line) for line in lines if user in line]
        return [item for item in events if item["user"]["username"] == user and "objectRef" in item]
