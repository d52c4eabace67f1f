"""A sandbox server for this folder's tests, and `run`: one program in, its verdict out."""

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from soda_jobs.sandbox.client import run_programs
from soda_jobs.sandbox.languages import LANGUAGES
from soda_jobs.sandbox.types import Program, Verdict
from soda_jobs.sandbox.workers import TOKEN

Run = Callable[..., Verdict]


@pytest.fixture(scope="session")
def server() -> Iterator[dict[str, Any]]:
    """url and pid of a server, and what /healthz says. pid is None when its processes cannot be seen from here.

    `SODA_TEST_SANDBOX` is the URL of one that runs already, in a pod perhaps; `SODA_TEST_RUNSC` is a runsc to
    start it in.
    """
    if url := os.environ.get("SODA_TEST_SANDBOX"):
        yield {"url": url, "pid": None, **health(url)}
        return
    runsc = os.environ.get("SODA_TEST_RUNSC")
    place = [runsc, "--network=host", "--ignore-cgroups", "do", "--"] if runsc else []
    with subprocess.Popen(
        [*place, sys.executable, "-m", "soda_jobs.sandbox", "--workers", "2"],
        stderr=subprocess.PIPE,
        env={**os.environ, "SODA_LOG": "json", "SODA_TEST_SECRET": "hunter2"},
        text=True,
    ) as process:
        assert process.stderr is not None
        ready = next(found for line in process.stderr if (found := json.loads(line))["event"] == "sandbox_ready")
        yield {"url": ready["url"], "pid": None if runsc else process.pid, **health(ready["url"])}
        process.terminate()


def health(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/healthz", timeout=5) as reply:
        found: dict[str, Any] = json.load(reply)
        return found


@pytest.fixture
def run(server: dict[str, Any]) -> Run:
    def run_one(language: str, code: str, tests: str = "", **settings: Any) -> Verdict:
        assert language in LANGUAGES
        if server["languages"][language] is None:
            pytest.skip(f"no toolchain for {language} on this machine")
        program = Program("p", language, code, tests, **{"timeout_seconds": 5.0, "memory_mib": 256, **settings})
        return asyncio.run(run_programs(server["url"], [program], token=os.environ.get(TOKEN)))["p"]

    return run_one


@pytest.fixture
def walls(server: dict[str, Any]) -> None:
    """For properties that only namespaces give."""
    if not server["isolation"]["namespaces"]:
        pytest.skip(f"this machine allows no namespaces: {server['isolation']['missing']}")
