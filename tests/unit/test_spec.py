"""The contract: the paper's defaults, bounds on everything, immutability, samples and reference in step."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from soda_jobs import spec_docs
from soda_jobs.load import load, problems
from soda_jobs.spec import CHANGEABLE, DistillationRun, InitModel, Student, Teacher, Training, forbidden_changes
from soda_jobs.spec.sentences import accepted, resolve, schema

SAMPLES = sorted((Path(__file__).parents[2] / "crds" / "samples").glob("*.yaml"))
SMALLEST: dict[str, Any] = {
    "apiVersion": "soda.dev/v1alpha1",
    "kind": "DistillationRun",
    "metadata": {"name": "a"},
    "spec": {"method": "soda", "teacher": {"model": "owner/teacher"}, "student": {"model": "owner/student"}},
}


def run_with(**spec: Any) -> DistillationRun:
    data = copy.deepcopy(SMALLEST)
    data["spec"] |= spec
    return load(json.dumps(data))


def field(data: Any, place: str) -> Any:
    for step in place.split("."):
        data = data[step]
    return data


# SODA sections 3.2, 3.3, 3.4, 4.5 and 4.6; beta is LLaMA-Factory's default, the paper gives none.
@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("rounds", 3),
        ("questions.newPerRound", 10_000),
        ("questions.ratio", {"easy": 1, "medium": 1, "hard": 2}),
        ("questions.preferenceShare", 0.2),
        ("questions.screen.ngram", 5),
        ("questions.screen.jaccard", 0.7),
        ("training.sft.learningRate", 2e-5),
        ("training.sft.epochs", 3),
        ("training.sft.batchSize", 512),
        ("training.sft.maxLength", 2048),
        ("training.sft.schedule", "cosine"),
        ("training.preference.learningRate", 5e-7),
        ("training.preference.epochs", 3),
        ("training.preference.batchSize", 512),
        ("training.preference.maxLength", 2048),
        ("training.preference.schedule", "cosine"),
        ("training.preference.beta", 0.1),
        ("training.lora", None),
        ("judge.train.samples", 15_000),
        ("judge.train.learningRate", 4e-5),
        ("judge.train.epochs", 3),
        ("judge.train.batchSize", 256),
        ("judge.train.maxLength", 2048),
        ("judge.train.retrainEveryRound", False),
        ("student.sampling.temperature", 0),
        ("student.sampling.maxTokens", 512),
        ("evaluation.sampling.temperature", 0),
        ("evaluation.sampling.maxTokens", 512),
        ("evaluation.samples", 1),
        ("evaluation.passK", [1]),
        ("teacher.sampling.correct.temperature", 0.2),
        ("teacher.sampling.correct.topP", 0.95),
        ("execution.languages", ["python", "java", "javascript", "c", "cpp", "go"]),
        ("ablation.skip", []),
    ],
)
def test_defaults_are_the_papers(place: str, value: Any) -> None:
    run = run_with()
    assert field(run.spec.model_dump(mode="json", by_alias=True), place) == value


def nodes(node: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node of the schema with `$ref` followed; endless if a `$ref` led back."""
    node = dict(node)
    if "$ref" in node:
        target = node.pop("$ref").removeprefix("#/$defs/")
        assert target not in place.split("/"), f"{place} leads back to {target}"
        yield from nodes(schema()["$defs"][target], f"{place}/{target}")
        return
    yield place, node
    for key, child in node.get("properties", {}).items():
        yield from nodes(child, f"{place}/.{key}")
    for key in ("items", "additionalProperties", "propertyNames"):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], f"{place}/{key}")
    for option in node.get("anyOf", ()):
        yield from nodes(option, place)


BOUNDS: dict[str, list[tuple[str, ...]]] = {
    "string": [("maxLength",), ("enum",), ("const",)],
    "integer": [("minimum", "maximum")],
    "number": [("minimum", "maximum"), ("exclusiveMinimum", "maximum"), ("minimum", "exclusiveMaximum")],
    "array": [("items", "maxItems")],
    "object": [("properties", "additionalProperties"), ("additionalProperties", "maxProperties")],
    "boolean": [()],
    "null": [()],
}


def test_every_number_text_list_and_block_is_bounded() -> None:
    seen = 0
    for place, node in nodes(schema()):
        if "anyOf" in node:
            continue
        seen += 1
        assert any(all(key in node for key in keys) for keys in BOUNDS[node["type"]]), f"{place}: {node}"
    assert seen > 150


def test_the_only_choice_between_types_is_null() -> None:
    for place, node in nodes(schema()):
        assert not {"oneOf", "allOf", "discriminator", "patternProperties"} & node.keys(), place
        if "anyOf" in node:
            assert [option.get("type") for option in node["anyOf"]].count("null") == 1, place
            assert len(node["anyOf"]) == 2, place


def test_every_field_says_what_it_means_and_what_it_accepts() -> None:
    for place, node in nodes(schema()):
        for name, child in node.get("properties", {}).items():
            described = child.get("description") or resolve(child).get("description")
            assert described, f"{place}.{name}"
            assert accepted(resolve(child)), f"{place}.{name}"


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_samples_are_valid(sample: Path) -> None:
    assert [str(problem) for problem in problems(sample.read_bytes())] == []
    assert load(sample.read_text()).metadata.name


def test_the_codellama_sample_is_the_papers_run() -> None:
    (sample,) = [path for path in SAMPLES if path.name == "soda-codellama-7b.yaml"]
    given, paper = load(sample.read_text()).spec, run_with().spec
    assert given.questions == paper.questions
    for part in ("sft", "preference"):
        block = getattr(given.training, part).model_copy(update={"micro_batch_size": None})
        assert block == getattr(paper.training, part)
    assert given.evaluation == paper.evaluation
    assert given.judge.train == paper.judge.train


def test_a_run_survives_being_written_and_read_again() -> None:
    for sample in SAMPLES:
        run = load(sample.read_text())
        assert load(run.model_dump_json(by_alias=True)) == run


def test_a_spec_cannot_be_changed_in_place() -> None:
    run = run_with()
    with pytest.raises(ValidationError, match="frozen"):
        run.spec.rounds = 5
    with pytest.raises(ValidationError, match="frozen"):
        run.spec.training.sft.learning_rate = 1.0


def test_python_code_cannot_make_an_invalid_run_either() -> None:
    run = run_with()
    spec = run.spec.model_copy(update={"student": Student()})
    with pytest.raises(ValidationError, match=r"spec\.student\.model: null leaves the student open"):
        DistillationRun(api_version=run.api_version, kind=run.kind, metadata=run.metadata, spec=spec)


def test_yaml_wants_camel_case_and_python_takes_snake_case() -> None:
    assert Training(gpus_per_node=0).gpus_per_node == 0
    assert problems(json.dumps(SMALLEST | {"spec": {**SMALLEST["spec"], "training": {"gpus_per_node": 0}}}))


CHANGED: list[tuple[dict[str, Any], list[str]]] = [
    ({"suspend": True}, []),
    ({"queue": "team-a"}, []),
    ({"priority": "high"}, []),
    ({"budget": {"gpuHours": 5}}, []),
    ({"ttlSecondsAfterFinished": 60}, []),
    ({"rounds": 3}, []),  # the default, written out
    ({"rounds": 4}, ["spec.rounds"]),
    ({"method": "iterkd"}, ["spec.method"]),
    ({"training": {"preference": {"beta": 0.2}}}, ["spec.training.preference.beta"]),
    ({"training": {"lora": {}}}, ["spec.training.lora"]),
    ({"execution": {"languages": ["c"]}, "suspend": True}, ["spec.execution.languages"]),
    ({"seed": 1, "rounds": 4}, ["spec.rounds", "spec.seed"]),
    ({"deletionPolicy": "Delete", "cancel": True, "retryToken": "again"}, []),
    ({"pods": {"train": {"env": []}}}, []),
    ({"pods": {"train": {"image": "soda/train:2"}}}, ["spec.pods.train.image"]),
    ({"hub": {"tokenRef": {"name": "hub", "key": "HF_TOKEN"}}}, ["spec.hub.tokenRef"]),
]


@pytest.mark.parametrize(("change", "forbidden"), CHANGED)
def test_a_started_run_may_change_only_what_does_not_change_its_result(
    change: dict[str, Any], forbidden: list[str]
) -> None:
    assert forbidden_changes(run_with(), run_with(**change)) == forbidden
    assert forbidden_changes(run_with(**change), run_with()) == forbidden


def test_every_changeable_field_exists() -> None:
    properties = resolve(schema()["properties"]["spec"])["properties"]
    assert {place.removeprefix("spec.") for place in CHANGEABLE} <= properties.keys()


def test_the_reference_is_in_step_with_the_models() -> None:
    assert (Path(__file__).parents[2] / spec_docs.TARGET).read_text(encoding="utf-8") == spec_docs.render()


def test_a_stale_reference_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()
    assert spec_docs.main(["--check"]) == 1
    assert spec_docs.main([]) == 0
    assert spec_docs.main(["--check"]) == 0
    spec_docs.TARGET.write_text(spec_docs.render() + "x")
    assert spec_docs.main(["--check"]) == 1


def test_servers_resolve_their_defaults() -> None:
    teacher = run_with().spec.teacher.serving
    assert teacher is not None
    assert (teacher.engine, teacher.gpu_count) == ("vllm", 1)
    assert Teacher(endpoint="http://localhost:8000/v1", model="x").serving is None
    run = run_with(student={"model": "owner/student", "server": {"engine": "cpu"}})
    assert run.spec.student.serving.gpu_count == 0


def test_a_student_from_nothing_fits_the_paper_s_lengths_by_default() -> None:
    assert run_with(student={"init": {}}).spec.student.init == InitModel()
