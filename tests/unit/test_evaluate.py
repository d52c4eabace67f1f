"""The evaluate stage: right numbers from complete samples, and refusals for anything less."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.context import Context, Input, Summary
from soda_jobs.errors import GiveUp, InvalidInput
from soda_jobs.records import read_rows, write_rows
from soda_jobs.stages.evaluate import Settings, run

TASKS = [{"id": f"p{i}", "language": "python"} for i in range(3)] + [{"id": "c0", "language": "c"}]


def execution(task: str, sample: int, status: str = "pass") -> dict[str, Any]:
    return {
        "question_id": task,
        "sample": sample,
        "status": status,
        "completion_id": f"{task}/{sample}",
        "detail": "it broke",
    }


def evaluate(
    folder: Path, executions: list[dict[str, Any]], judgements: list[dict[str, Any]] | None = None, **settings: Any
) -> Summary:
    inputs = {"tasks": TASKS, "executions": executions, **({"judgements": judgements} if judgements else {})}
    for name, rows in inputs.items():
        (folder / name).mkdir()
        write_rows(folder / name / "rows.jsonl", rows)
    (folder / "out").mkdir()
    context = Context(
        run="r",
        stage="s",
        round=1,
        inputs={name: (Input(folder / name),) for name in inputs},
        out=folder / "out",
        work=folder,
        services={},
        shards=None,  # type: ignore[arg-type]  # this stage has none
        progress=lambda unit, done, total: None,
    )
    return run(Settings(benchmark="x", bootstrap_samples=200, **settings), context)


def complete(samples: int, passing: set[str]) -> list[dict[str, Any]]:
    return [
        execution(task["id"], sample, "pass" if f"{task['id']}/{sample}" in passing else "fail")
        for sample in range(samples)
        for task in TASKS
    ]


def test_all_is_the_mean_over_languages(tmp_path: Path) -> None:
    summary = evaluate(tmp_path, complete(1, {"p0/0", "c0/0"}))
    rows = {row["language"]: row for row in read_rows(tmp_path / "out" / "rows.jsonl")}
    assert list(rows) == ["c", "python", "all"]
    assert rows["python"]["value"] == pytest.approx(1 / 3)
    assert rows["all"]["value"] == pytest.approx((1 / 3 + 1) / 2)
    assert summary.headline == {"pass@1": rows["all"]["value"]}
    assert (rows["python"]["n"], rows["all"]["n"]) == (3, 4)
    assert rows["all"]["per_task"] == {"c0": 1, "p0": 1, "p1": 0, "p2": 0}
    for row in rows.values():
        assert row["ci"][0] <= row["value"] <= row["ci"][1]


def test_pass_at_k_from_several_samples(tmp_path: Path) -> None:
    evaluate(tmp_path, complete(4, {"p0/0", "p0/3", "c0/1"}), pass_k=(1, 2))
    rows = {(row["metric"], row["language"]): row for row in read_rows(tmp_path / "out" / "rows.jsonl")}
    assert rows["pass@1", "c"]["value"] == 0.25
    assert rows["pass@2", "c"]["value"] == 0.5
    assert rows["pass@2", "python"]["per_task"]["p0"] == pytest.approx(5 / 6)


@pytest.mark.parametrize("status", ["fail", "timeout", "env_error", "unsupported"])
def test_everything_but_a_pass_is_no_pass(tmp_path: Path, status: str) -> None:
    summary = evaluate(tmp_path, [execution(task["id"], 0, status) for task in TASKS])
    assert summary.headline == {"pass@1": 0}


def test_a_missing_task_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(GiveUp, match=r"1 of 4 tasks.*p1"):
        evaluate(tmp_path, [execution(name, 0) for name in ("p0", "p2", "c0")])


def test_a_missing_sample_is_an_error_that_names_its_task(tmp_path: Path) -> None:
    rows = [row for row in complete(2, set()) if row["completion_id"] != "c0/1"]
    with pytest.raises(GiveUp, match="c0"):
        evaluate(tmp_path, rows)


def test_no_executions_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GiveUp, match="4 of 4"):
        evaluate(tmp_path, [])


def test_a_sandbox_fault_is_never_a_failed_task(tmp_path: Path) -> None:
    with pytest.raises(GiveUp, match="it broke"):
        evaluate(tmp_path, [execution(task["id"], 0, "infra_error") for task in TASKS])


def test_more_k_than_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="pass@2 needs at least 2 samples"):
        evaluate(tmp_path, complete(1, set()), pass_k=(1, 2))


def test_model_score_is_of_the_first_answer(tmp_path: Path) -> None:
    judgements = [
        {"question_id": task["id"], "total": total}
        for total in (4.0, 1.0)  # the second samples come later and do not count
        for task in TASKS
        if task["id"] != "p2"
    ] + [{"question_id": "p2", "total": None}, {"question_id": "p2", "total": 6.0}]
    summary = evaluate(tmp_path, complete(2, set()), judgements)
    assert summary.headline["model_score"] == 4
    rows = [row for row in read_rows(tmp_path / "out" / "rows.jsonl") if row["metric"] == "model_score"]
    assert [(row["language"], row["n"], row["k"]) for row in rows] == [
        ("c", 1, None),
        ("python", 2, None),
        ("all", 3, None),
    ]


def test_the_order_of_executions_changes_no_byte(tmp_path: Path) -> None:
    rows = complete(3, {"p0/1", "c0/2"})
    for name, given in (("a", rows), ("b", rows[::-1])):
        (tmp_path / name).mkdir()
        evaluate(tmp_path / name, given)
    for file in ("rows.jsonl", "metrics.json"):
        assert (tmp_path / "a" / "out" / file).read_bytes() == (tmp_path / "b" / "out" / file).read_bytes()
    assert all("per_task" not in row for row in json.loads((tmp_path / "a" / "out" / "metrics.json").read_text()))


def test_disagreements_with_the_official_harness_are_listed(tmp_path: Path) -> None:
    rows = [
        {**row, "language": "python", "verdict": verdict, "official": official, "proof": "observed"}
        for row, verdict, official in zip(
            complete(1, {"p0/0"}),
            ("pass", "logic", "tampered", "logic"),
            ("pass", "pass", "pass", "runtime"),
            strict=True,
        )
    ]
    summary = evaluate(tmp_path, rows)
    listed = list(read_rows(tmp_path / "out" / "disagreements.jsonl"))
    assert [(row["completion_id"], row["official"], row["verdict"]) for row in listed] == [
        ("p1/0", "pass", "logic"),
        ("p2/0", "pass", "tampered"),
    ]
    assert summary.counts["disagreements"] == 2


def test_without_the_official_harness_nothing_is_listed(tmp_path: Path) -> None:
    summary = evaluate(tmp_path, complete(1, {"p0/0"}))
    assert "disagreements" not in summary.counts
    assert not (tmp_path / "out" / "disagreements.jsonl").exists()
