"""A small run, written as its stages would write it, and ways to take it through the real report stage."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from soda_jobs.context import Context, Input
from soda_jobs.metrics.bootstrap import confidence_interval
from soda_jobs.records import record_id
from soda_jobs.report import RunFacts, StageFact
from soda_jobs.stages.report import Settings, run

LANGUAGES = ("python", "java", "javascript")
SKILL = (0.0, 0.3, 0.55, 0.75)  # share of tasks solved after each round
Rows = list[dict[str, Any]]
Files = dict[str, list[tuple[str, dict[str, Rows]]]]  # input -> [(stage, {file: rows})]


class NoShards:
    """The report stage commits no shards; asking it to would be a bug."""

    def done(self) -> list[str]:
        raise AssertionError

    def read(self, name: str) -> bytes:
        raise AssertionError(name)

    def commit(self, name: str, data: bytes) -> bool:
        raise AssertionError(name)


# -- a small run of three rounds, written as its stages would write it ---------------------------------


def question(round_: int, number: int, language: str, source: str = "seed") -> dict[str, Any]:
    text = f"Write a {language} function `scale_{number}`: the sum of the first n multiples of {number + 2}."
    return {
        "id": record_id(source, round_, number, language),
        "iteration": round_,
        "parents": [],
        "instruction": text,
        "source": source,
        "language": language,
    }


def completion(item: dict[str, Any], round_: int, good: bool) -> dict[str, Any]:
    body = "return k * n * (n + 1) // 2" if good else "retrun n n n"
    text = f"```{item['language']}\ndef scale(n, k=3):\n    # sum of the first n multiples\n    {body}\n```"
    return {
        "id": record_id("completion", item["id"], round_),
        "iteration": round_,
        "parents": [item["id"]],
        "question_id": item["id"],
        "text": text,
        "finish_reason": "stop" if good else "length",
        "sample": 0,
        "usage": {"prompt_tokens": 40, "completion_tokens": 60},
    }


def execution(answer: dict[str, Any], language: str, good: bool, draw: random.Random) -> dict[str, Any]:
    verdict = "pass" if good else draw.choice(["syntax", "syntax", "logic", "name", "timeout", "type"])
    status = {"pass": "pass", "timeout": "timeout"}.get(verdict, "fail")
    return {
        "id": record_id("execution", answer["id"]),
        "iteration": answer["iteration"],
        "parents": [answer["id"]],
        "completion_id": answer["id"],
        "question_id": answer["question_id"],
        "sample": 0,
        "language": language,
        "status": status,
        "verdict": verdict,
        "detail": "" if good else "SyntaxError: invalid syntax (line 3)",
    }


def judgement(answer: dict[str, Any], good: bool, draw: random.Random) -> dict[str, Any]:
    total = draw.choice([2.5, 4.0, 5.0, 5.5, 6.0] if good else [0.0, 1.0, 1.5, 2.0, 4.0])
    return {
        "id": record_id("judgement", answer["id"]),
        "iteration": answer["iteration"],
        "completion_id": answer["id"],
        "question_id": answer["question_id"],
        "analysis": "Code Analysis: the function follows the closed form and handles n = 0.",
        "per_rule": {"1": 2.0 if good else 0.0, "2": 1.0, "3": 1.0, "4": 0.5, "5": None},
        "total": total,
    }


def classification(item: dict[str, Any], round_: int, good: bool, total: float) -> dict[str, Any]:
    level = "easy" if good and total >= 4 else "medium" if good else "hard"
    return {"question_id": item["id"], "iteration": round_, "level": level, "rule": f"pass={good}"}


def metric(round_: int, language: str, groups: list[dict[str, float]]) -> dict[str, Any]:
    """A Metric row over groups of tasks, every group weighing the same."""
    means = [sum(group.values()) / len(group) for group in groups]
    return {
        "iteration": round_,
        "benchmark": "tutor",
        "language": language,
        "metric": "pass@1",
        "k": 1,
        "n": sum(map(len, groups)),
        "value": sum(means) / len(means),
        "ci": confidence_interval([list(group.values()) for group in groups], samples=500, seed=0),
        "per_task": {task: value for group in groups for task, value in group.items()},
        "settings": {},
    }


def small_run(languages: tuple[str, ...] = LANGUAGES, rounds: int = 3, tasks: int = 30) -> Files:
    """Every input of the report stage, as {input: [(stage name, {file: rows})]}."""
    draw = random.Random(7)
    files: Files = {name: [] for name in INPUTS}
    held_out = [question(0, n, lang, "benchmark:tutor") for lang in languages for n in range(tasks)]
    files["tasks"].append(("benchmark-tutor", {"rows.jsonl": held_out}))
    seeds = [question(0, n, lang) for lang in languages for n in range(40)]
    dropped = [{"id": f"d{n}", "reason": "benchmark" if n % 3 else "duplicate"} for n in range(14)]
    files["screened"].append(("r0-screen", {"rows.jsonl": seeds, "dropped.jsonl": dropped}))
    asked = list(seeds)
    for round_ in range(rounds + 1):
        _measure(files, held_out, round_, draw)
        if round_ == 0:
            continue
        for what in ("sft", "preference"):
            history = [
                {"step": s, "loss": 3.0 / (1 + s / 40) + 0.1, "learning_rate": 1e-3, "accuracy": 0.9}
                for s in range(1, 321)
            ]
            files["history"].append((f"r{round_}-{what}", {"history.jsonl": history}))
        if round_ < rounds:
            asked += _feedback(files, asked, round_, draw)
    files["questions"] = files["screened"] + files["new"]
    return files


def _measure(files: Files, held_out: Rows, round_: int, draw: random.Random) -> None:
    answers, executions, metrics = [], [], []
    scores: dict[str, dict[str, float]] = {}
    for item in held_out:
        good = draw.random() < SKILL[round_]
        answers.append(completion(item, round_, good))
        executions.append(execution(answers[-1], item["language"], good, draw))
        scores.setdefault(item["language"], {})[item["id"]] = float(good)
    for lang, per_task in scores.items():
        metrics.append(metric(round_, lang, [per_task]))
    metrics.append(metric(round_, "all", list(scores.values())))
    files["metrics"].append((f"r{round_}-tutor-evaluate", {"rows.jsonl": metrics}))
    files["answers"].append((f"r{round_}-tutor-answers", {"rows.jsonl": answers}))
    files["answer_executions"].append((f"r{round_}-tutor-execute", {"rows.jsonl": executions}))


def _feedback(files: Files, asked: Rows, round_: int, draw: random.Random) -> Rows:
    answers, executions, judgements, levels = [], [], [], []
    for item in asked:
        good = draw.random() < SKILL[round_] + 0.1
        answers.append(completion(item, round_, good))
        executions.append(execution(answers[-1], item["language"], good, draw))
        judgements.append(judgement(answers[-1], good, draw))
        levels.append(classification(item, round_, good, judgements[-1]["total"]))
    new = [question(round_, n, lang, "new") for lang in LANGUAGES for n in range(20)]
    dropped = [{"id": f"n{n}", "reason": "near_duplicate"} for n in range(9)]
    files["attempts"].append((f"r{round_}-attempts", {"rows.jsonl": answers}))
    files["executions"].append((f"r{round_}-execute", {"rows.jsonl": executions}))
    files["judgements"].append((f"r{round_}-judge", {"rows.jsonl": judgements}))
    files["classifications"].append((f"r{round_}-classify", {"rows.jsonl": levels}))
    files["new"].append((f"r{round_}-screen", {"rows.jsonl": new, "dropped.jsonl": dropped}))
    return new


INPUTS = (
    "metrics", "screened", "new", "questions", "attempts", "executions", "judgements", "classifications",
    "tasks", "answers", "answer_executions", "history",
)  # fmt: skip


def summarise(files: Files, root: Path, **settings: Any) -> dict[str, Any]:
    """The summary that the real stage writes for these artifacts."""
    inputs: dict[str, tuple[Input, ...]] = {}
    for name, artifacts in files.items():
        folders = []
        for stage, contents in artifacts:
            folder = root / "in" / stage
            folder.mkdir(parents=True, exist_ok=True)
            for file, rows in contents.items():
                (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
            folders.append(Input(folder))
        if folders:
            inputs[name] = tuple(folders)
    out = root / "out"
    out.mkdir()
    context = Context("demo", "report", 3, inputs, out, root, {}, NoShards(), lambda unit, done, total: None)
    run(Settings(**{"method": "soda", "rounds": 3, **settings}), context)
    return dict(json.loads((out / "summary.json").read_bytes()))


def facts_of(files: Files, **changes: Any) -> RunFacts:
    """The run as the executor would describe it: a stage for every artifact, then the report."""
    roles = {"attempts": "student", "answers": "student", "executions": "sandbox", "judgements": "judge"}
    stages = {
        stage: StageFact(
            name=stage,
            kind="train" if name == "history" else name.rstrip("s"),
            round=int(stage[1]) if stage[0] == "r" else 0,
            key=record_id("key", stage) * 4,
            digest=record_id("digest", stage) * 4,
            state="reused" if stage == "r0-screen" else "done",
            seconds=3.0 + 7.5 * len(stage) % 19,
            rows=len(contents.get("rows.jsonl", ())),
            telemetry={"prompt_tokens": 4000.0, "completion_tokens": 6000.0} if name in roles else {},
            inputs={"questions": ["r0-screen"]} if name == "attempts" else {},
            role=roles.get(name, ""),
        )
        for name, artifacts in files.items()
        for stage, contents in artifacts
    }
    inputs = {name: [stage for stage, _ in artifacts] for name, artifacts in files.items()}
    report = StageFact("report", "report", 3, "k" * 64, "e" * 64, "done", 0.4, 0, inputs=inputs)
    ordered = sorted(stages.values(), key=lambda stage: stage.round)
    return RunFacts(
        **{
            "run": "quickstart",
            "method": "soda",
            "spec_yaml": "kind: DistillationRun\nspec:\n  method: soda\n",
            "stages": [*ordered, report],
            "versions": {"soda": "0.1.0", "torch": "2.15"},
            **changes,
        }
    )


@pytest.fixture
def make(tmp_path: Path) -> SimpleNamespace:
    """`files` of a small run, the `summary` the stage writes of them, and the `facts` of such a run."""
    return SimpleNamespace(
        files=small_run, summary=lambda files, root=tmp_path: summarise(files, root), facts=facts_of
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], RunFacts]:
    files = small_run()
    return summarise(files, tmp_path_factory.mktemp("run")), facts_of(files)
