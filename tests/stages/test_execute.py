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


def test_with_tests_the_row_says_what_its_verdict_rests_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "default_folder", lambda: tmp_path / "verdicts")
    lying = "class Any:\n    def __eq__(self, other): return True\n"
    lying += "def zero(xs): return Any()\ndef poly(xs, x): return 0"
    rows = {
        "completions": [
            {"id": "a" * 64, "question_id": "q", "sample": 0, "text": f"```python\n{lying}\n```"},
            {
                "id": "b" * 64,
                "question_id": "q",
                "sample": 1,
                "text": "```python\ndef zero(xs): return -xs[0]\n```",
            },
        ],
        "questions": [
            {
                "id": "q",
                "language": "python",
                "entry_point": "zero",
                "source": "benchmark:humaneval",
                "starter_code": "def poly(xs, x):\n    return xs[0] + x\n\ndef zero(xs):\n    'Doc.'\n",
                "tests": "assert zero([3]) == -3\nassert poly([3], zero([3])) == 0\n",
            }
        ],
    }
    for name, items in rows.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (tmp_path / "out").mkdir()
    context = Context(
        run="r",
        stage="r1-execute",
        round=1,
        inputs={name: (Input(tmp_path / name),) for name in rows},
        out=tmp_path / "out",
        work=tmp_path / "work",
        services={"sandbox": f"unix:{tmp_path}/python.sock"},
        shards=Artifacts(open_store(str(tmp_path / "store")), tmp_path / "cache").shards("k"),
        progress=lambda unit, done, total: None,
    )
    settings = Settings(
        languages=("python",), timeout_seconds=10, memory_mib=512, rules="benchmark", protocol="both"
    )
    with sandbox(tmp_path / "python.sock"):
        run(settings, context)
    first, second = read_rows(tmp_path / "out" / "rows.jsonl")
    assert (first["verdict"], first["official"], first["proof"]) == ("logic", "pass", "observed")
    assert (second["verdict"], second["official"], second["proof"]) == ("pass", "pass", "observed")
