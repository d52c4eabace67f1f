"""A cluster as tests see it: a kubeconfig file and the real kubectl."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.cluster.programs import program

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


class KubectlError(RuntimeError):
    """What kubectl wrote to stderr."""


class Cluster:
    """Any cluster with a kubeconfig file."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def kubectl(self, *words: str | Path, stdin: str | None = None, timeout: float = 120) -> str:
        """stdout of one kubectl command; KubectlError with its stderr when it fails."""
        done = subprocess.run(
            [program("kubectl"), f"--kubeconfig={self.kubeconfig}", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise KubectlError(done.stderr.strip())
        return done.stdout

    def apply(self, *objects: Mapping[str, Any], namespace: str | None = None) -> str:
        """Server-side apply of objects given as dictionaries."""
        where = ["-n", namespace] if namespace else []
        items = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        return self.kubectl("apply", "--server-side", *where, "-f", "-", stdin=items)

    def get(self, *words: str, namespace: str | None = None) -> Any:
        """The object, or the List, that `kubectl get WORDS -o json` gives."""
        where = ["-n", namespace] if namespace else []
        return json.loads(self.kubectl("get", *where, *words, "-o", "json"))

    def wait(
        self, done: Callable[[Any], bool], *words: str, namespace: str | None = None, seconds: float = 60
    ) -> Any:
        """The object of `get WORDS` once `done(object)` is true. A missing object is waited for too."""
        end, last = time.monotonic() + seconds, "nothing"
        while time.monotonic() < end:
            try:
                found = self.get(*words, namespace=namespace)
                if done(found):
                    return found
                last = json.dumps(found.get("status", found), indent=1)
            except KubectlError as error:
                if "NotFound" not in str(error):
                    raise
                last = str(error)
            time.sleep(0.2)
        raise TimeoutError(f"{' '.join(words)}: not as awaited within {seconds:g} s; last seen: {last}")

    def make_namespace(self, labels: Mapping[str, str] = RESTRICTED) -> str:
        """A new namespace, ready for pods (it has its default ServiceAccount)."""
        name = f"test-{uuid.uuid4().hex[:8]}"
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}})
        self.wait(lambda _: True, "serviceaccount", "default", namespace=name)
        return name

    def drop_namespaces(self, names: Iterable[str]) -> None:
        """Begins to delete namespaces without waiting for their pods."""
        if names := list(names):
            self.kubectl("delete", "namespace", "--wait=false", "--ignore-not-found", *names)
