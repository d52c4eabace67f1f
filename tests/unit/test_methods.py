"""The methods' graphs: the paper's figure, its ablations, and settings that every stage accepts."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.errors import InvalidInput
from soda_jobs.estimate import estimate
from soda_jobs.graph import Graph
from soda_jobs.methods import draw
from soda_jobs.spec import DistillationRun

GOLDEN = Path(__file__).parent / "golden"
PARTS = ["fault", "judge", "execution", "classification"]


def run(**spec: Any) -> DistillationRun:
    base: dict[str, Any] = {
        "method": "soda",
        "teacher": {"model": "meta-llama/Meta-Llama-3-70B-Instruct", "server": {"gpus": 8}},
        "student": {"model": "codellama/CodeLlama-7b-hf", "server": {"gpus": 1}},
        "judge": {"server": {"gpus": 1}},
        "evaluation": {"benchmarks": [{"name": "humaneval"}]},
        "storage": {"url": "s3://bucket/soda"},
    }
    document = {
        "apiVersion": "soda.dev/v1alpha1",
        "kind": "DistillationRun",
        "metadata": {"name": "run"},
        "spec": base | spec,
    }
    return DistillationRun.model_validate(document)


def text(graph: Graph) -> str:
    """The graph as a person reads it."""
    lines = [f"{graph.method}, {graph.rounds} rounds, {len(graph.stages)} stages", ""]
    for stage in graph:
        service = f"  @{stage.service.name}" if stage.service else ""
        reads = "; ".join(f"{name} = {', '.join(refs)}" for name, refs in stage.inputs.items())
        lines.append(f"{stage.name:<26}{stage.kind.value:<10}{reads}{service}".rstrip())
    return "\n".join(lines) + "\n"


def kinds(graph: Graph, needle: str) -> list[str]:
    return [stage.name for stage in graph if needle in stage.name]


def test_soda_is_the_reviewed_figure() -> None:
    assert text(draw(run())) == (GOLDEN / "soda.txt").read_text()


def test_iterkd_is_soda_under_its_earlier_name() -> None:
    soda, iterkd = draw(run()), draw(run(method="iterkd"))
    assert [stage for stage in soda if stage.name != "report"] == [
        stage for stage in iterkd if stage.name != "report"
    ]


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_each_round_teaches_and_each_but_the_last_asks_for_new_questions(rounds: int) -> None:
    graph = draw(run(rounds=rounds))
    assert len(kinds(graph, "-sft")) == rounds
    assert len(kinds(graph, "-new")) == rounds - 1
    assert len(kinds(graph, "-eval")) == rounds + 1


def test_the_scoring_model_is_trained_once_and_on_request_each_round() -> None:
    assert kinds(draw(run()), "-scorer") == ["r1-scorer"]
    again = draw(run(judge={"server": {"gpus": 1}, "train": {"retrainEveryRound": True}}))
    assert kinds(again, "-scorer") == ["r1-scorer", "r2-scorer"]


@pytest.mark.parametrize(
    ("part", "gone"),
    [
        ("fault", ["-fault", "-preference"]),
        ("judge", ["-judge", "-scorer", "-annotate"]),
        ("execution", ["r1-execute"]),
    ],
)
def test_an_ablation_takes_its_stages_away_and_only_those(part: str, gone: list[str]) -> None:
    graph = draw(run(ablation={"skip": [part]}))
    assert not [name for needle in gone for name in kinds(graph, needle)]
    assert kinds(graph, "-sft")
    assert kinds(graph, "-new")


def test_without_classification_parents_are_drawn_at_random() -> None:
    graph = draw(run(ablation={"skip": ["classification"]}))
    assert graph.stage("r1-parents").settings["random"] is True
    assert draw(run()).stage("r1-parents").settings["random"] is False


@pytest.mark.parametrize("skip", [[], *[[part] for part in PARTS]])
@pytest.mark.parametrize("init", [True, False])
def test_every_stage_accepts_the_settings_it_is_drawn_with(skip: list[str], init: bool) -> None:
    student = (
        {"init": {"contextLength": 2048}, "server": {"engine": "cpu"}} if init else {"model": "a/b", "server": {}}
    )
    for stage in draw(run(ablation={"skip": skip}, student=student)):
        module = importlib.import_module(f"soda_jobs.stages.{stage.kind.value}")
        module.Settings.model_validate(dict(stage.settings))


def test_the_paper_run_takes_the_papers_optimizer_steps() -> None:
    costs = estimate(draw(run()))
    assert costs["r1-sft"]["steps"] == 516  # 88,000 rows, batch 512, 3 epochs
    assert costs["r1-preference"]["steps"] == 129  # 22,000 rows
    assert costs["r1-annotate"]["calls"] == 15_000
    assert costs["r1-new"]["calls"] == 10_000


def test_a_method_that_is_not_built_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match=r"spec\.method: 'ssd' cannot be run yet; use one of soda, iterkd"):
        draw(run(method="ssd"))
