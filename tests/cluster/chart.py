"""The chart through the real helm: what it renders, and releases on a cluster."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.programs import program

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/soda"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
NAMESPACE = "team-a"
Raw = dict[str, Any]


class HelmError(RuntimeError):
    """What helm wrote to stderr."""


def helm(*words: str | Path, kubeconfig: Path | None = None, timeout: float = 300) -> str:
    """stdout of one helm command; HelmError when it fails. It sees no cluster but the given one."""
    env = {**os.environ, "KUBECONFIG": str(kubeconfig or "/dev/null"), "HELM_MAX_HISTORY": "10"}
    done = subprocess.run(
        [program("helm"), *words], env=env, capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        raise HelmError(f"{done.stdout}\n{done.stderr}".strip())
    return done.stdout


def template(*sets: str, values: Path | None = None, name: str = "one", namespace: str = NAMESPACE) -> list[Raw]:
    """The objects that a values file and `--set` words render to."""
    files: list[str | Path] = ["-f", values] if values else []
    words = [word for item in sets for word in ("--set-json", item)]
    text = helm("template", name, CHART, "--namespace", namespace, *files, *words)
    return [item for item in yaml.safe_load_all(text) if item]


def of_kind(objects: Iterable[Raw], kind: str) -> list[Raw]:
    return [item for item in objects if item["kind"] == kind]


def one(objects: Iterable[Raw], kind: str) -> Raw:
    [found] = of_kind(objects, kind)
    return found


def pods(objects: Iterable[Raw]) -> Iterator[Raw]:
    """Every pod spec among the objects."""
    for item in objects:
        if item["kind"] == "Pod":
            yield item["spec"]
        elif "template" in item.get("spec", {}):
            yield item["spec"]["template"]["spec"]


def environment(deployment: Raw) -> dict[str, Any]:
    """The operator's environment; a variable that is not a text is its `valueFrom`."""
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}


def grants(role: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    """(group, resource with subresource, verb) of every rule of a role."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
