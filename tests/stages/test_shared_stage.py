"""A stage that several processes share, as the pods of an Indexed Job do: the same artifact as from one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from soda_jobs.artifacts import Artifacts
from soda_jobs.settings import StoreSettings
from soda_jobs.store import open_store

ROWS = 300  # five shards
KEY = "e" * 64


def artifacts(tmp_path: Path, name: str) -> Artifacts:
    store = Artifacts(open_store(str(tmp_path / name), create=True), tmp_path / "cache" / name)
    folder = tmp_path / "completions" / name
    folder.mkdir(parents=True)
    lines = (
        {"id": f"{number:064x}", "question_id": f"q{number}", "sample": 0, "text": f"no code {number}"}
        for number in range(ROWS)
    )
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts: Any = {"counts": {}, "headline": {}, "inputs": {}, "settings": {}, "telemetry": {}}
    store.commit("c" * 64, folder, kind="generate", code_version=1, **facts)
    return store


def start(tmp_path: Path, name: str, index: int, count: int) -> subprocess.Popen[str]:
    settings = {"languages": ["python"], "timeout_seconds": 1, "memory_mib": 64, "rules": "feedback"}
    task = {
        "run": "r",
        "stage": "r1-execute",
        "kind": "execute",
        "round": 1,
        "key": KEY,
        "settings": settings,
        "inputs": {"completions": [{"key": "c" * 64, "file": None}]},
        "digests": {},
        "code_version": 1,
    }
    env = {
        "SODA_STAGE": json.dumps(task),
        "SODA_SERVICES": json.dumps({"sandbox": "http://127.0.0.1:9"}),
        "SODA_STORE": StoreSettings(str(tmp_path / name)).to_env(),
        "SODA_STATE": str(tmp_path / f"state-{name}-{index}"),
        "SODA_RESULT": str(tmp_path / f"result-{name}-{index}"),
        "SODA_PODS": str(count),
        "JOB_COMPLETION_INDEX": str(index),
        "SODA_LOG": "json",
    }
    words = [sys.executable, "-m", "soda_jobs", "stage"]
    return subprocess.Popen(words, env={**os.environ, **env}, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], result: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    log = process.communicate(timeout=120)[1]
    assert process.returncode == 0, log
    return json.loads(result.read_text()), [json.loads(line) for line in log.splitlines()]


def test_three_processes_make_what_one_makes(tmp_path: Path) -> None:
    artifacts(tmp_path, "alone")
    shared = artifacts(tmp_path, "shared")
    one, _ = finish(start(tmp_path, "alone", 0, 1), tmp_path / "result-alone-0")
    running = {index: start(tmp_path, "shared", index, 3) for index in (0, 1)}
    running[1].communicate(timeout=120)
    assert shared.find(KEY) is None  # the first waits for what the third has not begun
    running[2] = start(tmp_path, "shared", 2, 3)
    assert finish(running[2], tmp_path / "result-shared-2")[0] == {"state": "shared"}
    whole, log = finish(running[0], tmp_path / "result-shared-0")
    assert json.loads((tmp_path / "result-shared-1").read_text()) == {"state": "shared"}
    assert (whole["digest"], whole["counts"]) == (one["digest"], one["counts"])
    assert whole["counts"]["rows"] == ROWS
    assert {line["total"] for line in log if line["event"] == "progress"} == {128}  # its own two shards


def test_a_process_that_comes_too_late_leaves_nothing_behind(tmp_path: Path) -> None:
    shared = artifacts(tmp_path, "shared")
    finish(start(tmp_path, "shared", 0, 1), tmp_path / "result-shared-0")
    late, _ = finish(start(tmp_path, "shared", 1, 2), tmp_path / "result-shared-1")
    assert late["state"] == "reused"
    assert shared.shards(KEY).done() == []
