"""The CRD: structural, bounded, in step with the models; every rule of soda's has its place."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from soda_jobs.load import load
from soda_jobs.spec import CHANGEABLE, Spec
from soda_jobs.spec.base import PATTERN_WORDS
from soda_jobs.spec.check import check
from soda_jobs.spec.rules import RULES as SODA_RULES
from soda_operator.crd import __main__ as command
from soda_operator.crd.cel import Rule, matches, sentence
from soda_operator.crd.definition import COLUMNS, MAPS, definition, filled, render
from soda_operator.crd.rules import CRD_ONLY, ELSEWHERE, RULES
from soda_operator.status import RunStatus

ROOT = Path(__file__).parents[2]
DEFINITION = definition()
TEXT = render()
SAMPLES = sorted((ROOT / "crds" / "samples").glob("*.yaml"))
SMALLEST: dict[str, Any] = {
    "apiVersion": "soda.dev/v1alpha1",
    "kind": "DistillationRun",
    "metadata": {"name": "a"},
    "spec": {"method": "soda", "teacher": {"model": "owner/teacher"}, "student": {"model": "owner/student"}},
}
# What a structural schema may not hold, or what is not ours to use.
STRANGE = {"$ref", "anyOf", "oneOf", "allOf", "not", "nullable", "const", "pattern", "title"}
BOUNDS: dict[str, set[str]] = {
    "integer": {"minimum", "maximum"},
    "number": {"minimum", "maximum"},
    "array": {"items", "maxItems"},
    "boolean": set(),
}


def schema() -> dict[str, Any]:
    made: dict[str, Any] = DEFINITION["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return made


def nodes(node: dict[str, Any], place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield place, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{place}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in node:
            yield from nodes(node[key], f"{place}{mark}")


def test_every_node_is_structural_and_bounded() -> None:
    seen = 0
    for place, node in nodes(schema()):
        seen += 1
        assert not STRANGE & node.keys(), place
        if node["type"] == "string":
            assert "maxLength" in node or "enum" in node, place
        elif node["type"] == "object":
            maps = "additionalProperties" in node
            assert maps != ("properties" in node), place
            assert not maps or "maxProperties" in node, place
        else:
            assert BOUNDS[node["type"]] <= node.keys(), place
    assert seen > 400


def test_every_field_has_its_prose() -> None:
    for place, node in nodes(schema()):
        if re.fullmatch(r"\.(spec|status)(\..+)?", place) and not place.endswith(("[]", "{}")):
            assert len(node["description"]) >= 8, place
    sft = schema()["properties"]["spec"]["properties"]["training"]["properties"]["sft"]
    assert sft["description"].startswith("Correct-solution learning: supervised fine-tuning")


def with_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """As the server stores it."""
    return {**document, "spec": filled(schema()["properties"]["spec"], document["spec"])}


@pytest.mark.parametrize("text", [json.dumps(SMALLEST), *(path.read_text() for path in SAMPLES)])
def test_a_run_with_the_servers_defaults_is_the_same_run(text: str) -> None:
    run = load(text)
    document = run.model_dump(mode="json", by_alias=True, exclude_unset=True)
    stored = with_defaults(copy.deepcopy(document))
    assert len(json.dumps(stored)) > len(json.dumps(document))
    again, problems = check(stored)
    assert [str(problem) for problem in problems] == []
    assert again == run
    expected = run.spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"pods"})
    for benchmark in expected["evaluation"]["benchmarks"]:
        benchmark.pop("languages")  # an item of a list is kept as it was written
    assert stored["spec"] == expected  # so every default that is not null is written out


def test_pods_and_items_of_lists_stay_as_they_were_written() -> None:
    assert "pods" not in with_defaults(SMALLEST)["spec"]
    for place, node in nodes(schema()):
        assert "[]" not in place or "default" not in node, place


def test_defaults_that_a_rule_reads_stand_in_full() -> None:
    """The server tries a node's rules on its default as it is written, without defaults inside it."""
    for place, node in nodes(schema()):
        if "x-kubernetes-validations" in node and "default" in node:
            assert filled(node, node["default"]) == node["default"], place


def test_every_rule_of_soda_is_in_the_table_or_elsewhere_for_a_reason() -> None:
    soda = {f"{rule.__module__.rpartition('.')[2]}.{rule.__name__}" for rule in SODA_RULES}
    here = {rule.of for rule in RULES}
    assert here | ELSEWHERE.keys() == soda | CRD_ONLY
    assert not here & ELSEWHERE.keys()


def test_every_part_of_the_spec_is_bound_once_the_run_has_started_or_changeable() -> None:
    fixed = {rule.field for rule in RULES if rule.of == "resource.forbidden_changes"}
    every = {f"spec.{field.alias or name}" for name, field in Spec.model_fields.items()}
    assert fixed | CHANGEABLE == every
    assert not fixed & CHANGEABLE


def places(rule: Rule) -> Iterator[dict[str, Any]]:
    """The nodes that a rule names."""
    path = re.escape("." + rule.at if rule.at else "").replace(r"\*", "[^.]+")
    for place, node in nodes(schema()):
        if re.fullmatch(path, place):
            for step in filter(None, rule.field.split(".")):
                node = node["properties"][step]
            yield node


def test_every_rule_stands_somewhere_and_names_a_field() -> None:
    for rule in RULES:
        assert list(places(rule)), rule
        assert "\n" not in rule.must + rule.say
        assert re.search(r"; (use|add|leave|make|name|raise) |leave it out", rule.say), rule.say


def test_patterns_are_rules_in_words_that_go_can_read() -> None:
    told = {
        entry["message"]
        for _, node in nodes(schema())
        for entry in node.get("x-kubernetes-validations", ())
        if "messageExpression" not in entry
    }
    used = [words for words in PATTERN_WORDS.values() if any(words in message for message in told)]
    assert len(used) >= len(PATTERN_WORDS) - 1  # the run's own name has a rule with its value in it
    for pattern in PATTERN_WORDS:
        assert not re.search(r"\(\?[=!<]|\\[1-9]|[*+?}]\+", pattern), pattern
        assert pattern in matches("self", pattern)
        assert pattern.startswith("^")
        assert pattern.endswith("$")


def test_sentences_keep_their_braces_quotes_and_percents() -> None:
    assert sentence("use {a: [b]}") == {"message": "use {a: [b]}"}
    assert sentence('${self.x} is "5 %"; use ${2 * self.y}') == {
        "message": '… is "5 %"; use …',
        "messageExpression": r'"%s is \"5 %%\"; use %s".format([self.x, 2 * self.y])',
    }
    with pytest.raises(ValueError, match="quote"):
        matches("self", "it's")


def test_the_status_waits_for_the_operator() -> None:
    status = schema()["properties"]["status"]
    assert status["default"] == {"observedGeneration": -1}
    assert [place for place, node in nodes(status) if "default" in node] == [""]
    for name, key in MAPS.items():
        node = status["properties"][name]
        assert (node["x-kubernetes-list-type"], node["x-kubernetes-list-map-keys"]) == ("map", [key])
        assert key in node["items"]["required"]
    assert status["properties"].keys() == {field.alias for field in RunStatus.model_fields.values()}


def test_the_columns_read_fields_that_exist() -> None:
    known = {place for place, _ in nodes(schema())} | {".metadata.creationTimestamp"}
    assert [name.upper() for name, _, _, wide in COLUMNS if not wide] == [
        "METHOD",
        "ROUND",
        "STAGE",
        "PROGRESS",
        "SCORE",
        "STATUS",
        "AGE",
    ]
    assert {path for _, path, _, _ in COLUMNS} <= known


def test_the_definition_fits_an_annotation() -> None:
    """Client-side apply stores the object as JSON in an annotation; all annotations share 262,144 bytes."""
    assert len(json.dumps(DEFINITION, separators=(",", ":"))) < 180_000
    assert len(TEXT.encode()) < 262_144


def test_the_file_is_in_step_with_the_models() -> None:
    assert (ROOT / command.TARGET).read_text(encoding="utf-8") == TEXT
    assert yaml.safe_load(TEXT) == DEFINITION


def test_a_stale_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "render", lambda: TEXT)  # made once, it takes a second
    Path("crds").mkdir()
    assert command.main(["--check"]) == 1
    assert command.main([]) == 0
    assert command.main(["--check"]) == 0
    command.TARGET.write_text(TEXT + "# x\n")
    assert command.main(["--check"]) == 1
    assert command.main(["--chekc"]) == 64
