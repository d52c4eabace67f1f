"""The execute stage against real sandbox servers, one for each language as in a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from soda_jobs.artifacts import Artifacts
from soda_jobs.context import Context, Input
from soda_jobs.records import read_rows
from soda_jobs.sandbox.tools import find
from soda_jobs.stages import execute
from soda_jobs.stages.execute import Settings, run
from soda_jobs.store import open_store

ANSWERS = {"python": "```python\nprint(1)\n```", "javascript": "```javascript\nthrow new Error('no')\n```"}


@contextmanager
def sandbox(socket: Path) -> Iterator[None]:
    argv = [sys.executable, "-m", "soda_jobs.sandbox", "--workers", "1", "--socket", str(socket)]
    with subprocess.Popen(
        argv, stderr=subprocess.PIPE, text=True, env={**os.environ, "SODA_LOG": "json"}
    ) as server:
        assert server.stderr is not None
        try:
            next(line for line in server.stderr if json.loads(line)["event"] == "sandbox_ready")
            yield
        finally:
            server.kill()


def test_each_program_goes_to_the_sandbox_of_its_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "default_folder", lambda: tmp_path / "verdicts")
    if find("node") is None:
        pytest.skip("no toolchain for javascript on this machine")
    folder, out = tmp_path / "completions", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    (folder / "rows.jsonl").write_text(
        "".join(
            json.dumps({"id": f"{number:064x}", "question_id": language, "sample": 0, "text": text}) + "\n"
            for number, (language, text) in enumerate(ANSWERS.items())
        )
    )
    settings = Settings(languages=tuple(ANSWERS), timeout_seconds=10, memory_mib=512, rules="feedback")
    context = Context(
        run="r",
        stage="r1-execute",
        round=1,
        inputs={"completions": (Input(folder),)},
        out=out,
        work=tmp_path / "work",
        services={"sandbox": f"unix:{tmp_path}/{{language}}.sock"},
        shards=Artifacts(open_store(str(tmp_path / "store")), tmp_path / "cache").shards("k"),
        progress=lambda unit, done, total: None,
    )
    with ExitStack() as servers:
        for language in ANSWERS:
            servers.enter_context(sandbox(tmp_path / f"{language}.sock"))
        first = run(settings, context)
        assert (first.counts["rows"], first.telemetry["programs"]) == (2, 2)
    found = {row["language"]: row["status"] for row in read_rows(out / "rows.jsonl")}
    assert found == {"python": "pass", "javascript": "fail"}
