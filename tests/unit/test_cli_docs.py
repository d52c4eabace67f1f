"""docs/cli.md names every command and option, whatever the terminal's width."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from soda_jobs.__main__ import main
from soda_jobs.cli_docs import render

ROOT = Path(__file__).parents[2]


def test_the_page_is_fresh() -> None:
    argv = [sys.executable, "-m", "soda_jobs.cli_docs", "--check"]
    done = subprocess.run(argv, cwd=ROOT, env={"COLUMNS": "40"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_is_on_it() -> None:
    for command in ("run", "status", "watch", "explain", "suspend", "retry", "preflight", "serve"):
        assert f"\n## soda {command}\n" in render()


def test_a_cluster_command_says_that_it_needs_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", "r"]) == 64
    assert "`resume` is for a run in a cluster: add -n NAMESPACE or --cluster" in capsys.readouterr().err


def test_a_missing_kubectl_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["status", "r"], program="kubectl soda") == 64
    assert "the program kubectl cannot be started" in capsys.readouterr().err
