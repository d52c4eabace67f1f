"""`soda` as a user calls it on a cluster, and runs whose status a test writes as the operator would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cluster.client import Cluster
from tests.cluster.programs import program

ROOT = Path(__file__).parents[2]
DEFINITION = ROOT / "crds/distillationruns.soda.dev.yaml"
STAGES = [
    {"name": "source", "state": "reused", "attempt": 0, "digest": "ab" * 32, "done": 60},
    {
        "name": "r1-sft",
        "state": "running",
        "attempt": 2,
        "done": 30,
        "total": 120,
        "startTime": "2026-01-01T00:00:00Z",
    },
]
RUNNING = {
    "observedGeneration": 1,
    "state": "Running",
    "reason": "StagesRunning",
    "message": "r1-sft running, 1/2 stages finished",
    "round": "1/1",
    "progress": "1/2",
    "startTime": "2026-01-01T00:00:00Z",
    "stages": STAGES,
}


class Commands:
    """`soda` with the options of one namespace, and the API server behind it."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self.cluster, self.namespace, self.folder = cluster, namespace, folder
        tools = folder / "tools"
        tools.mkdir()
        (tools / "kubectl").symlink_to(program("kubectl"))
        plugin = tools / "kubectl-soda"  # what pip writes for the entry point
        plugin.write_text(
            f"#!{sys.executable}\n"
            "from soda_jobs.__main__ import kubectl_plugin\n"
            "raise SystemExit(kubectl_plugin())\n"
        )
        plugin.chmod(0o755)
        self.env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}:{ROOT}/operator"}
        self.options = ["-n", namespace, "--kubeconfig", str(cluster.kubeconfig)]

    def start(self, *words: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "soda_jobs", *words, *self.options]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, cwd=self.folder, env=self.env, stdout=pipe, stderr=pipe, text=True)

    def __call__(self, *words: str, code: int = 0) -> str:
        """What a command prints; its one line of error when it ends with `code`."""
        process = self.start(*words)
        out, errors = process.communicate(timeout=120)
        assert process.returncode == code, (out, errors)
        if code:
            assert errors.startswith("soda: ")
            assert errors.count("\n") == 1, errors
        return errors if code else out

    def make(self, name: str = "demo", **spec: Any) -> None:
        body = {"method": "soda", "teacher": {"server": {"engine": "tutor"}}, "student": {"model": "a/b"}, **spec}
        run = {
            "apiVersion": "soda.dev/v1alpha1",
            "kind": "DistillationRun",
            "metadata": {"name": name},
            "spec": body,
        }
        self.cluster.apply(run, namespace=self.namespace)

    def become(self, status: dict[str, Any], name: str = "demo") -> None:
        """Write a status as the operator does."""
        patch = json.dumps({"status": status})
        words = ("patch", "drun", name, "-n", self.namespace, "--subresource=status", "--type=merge", "-p", patch)
        self.cluster.kubectl(*words)

    def spec(self, name: str = "demo") -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.get("drun", name, namespace=self.namespace)["spec"]
        return found


def apply_crd(cluster: Cluster) -> None:
    """Returns when the API server knows DistillationRun."""
    cluster.kubectl("apply", "-f", DEFINITION)

    def established(found: dict[str, Any]) -> bool:
        conditions = found.get("status", {}).get("conditions") or ()  # null at first
        return any(item["type"] == "Established" for item in conditions)

    cluster.wait(established, "crd", "distillationruns.soda.dev")
