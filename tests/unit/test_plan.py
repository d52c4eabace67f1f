"""The plan: what may start now, and keys that change exactly when the work does."""

import json
from typing import Any

import pytest

from soda_jobs.graph import Graph, Service
from soda_jobs.methods import draw
from soda_jobs.plan import Finished, command, options, plan, service_command, stage_key
from soda_jobs.spec import DistillationRun


def run(name: str = "run", **spec: Any) -> DistillationRun:
    base: dict[str, Any] = {
        "method": "soda",
        "rounds": 2,
        "teacher": {"endpoint": "http://localhost:9", "model": "m"},
        "student": {"model": "a/b", "server": {"engine": "cpu"}},
        "judge": {"server": {"engine": "cpu"}},
        "evaluation": {"benchmarks": [{"name": "humaneval"}]},
    }
    document = {
        "apiVersion": "soda.dev/v1alpha1",
        "kind": "DistillationRun",
        "metadata": {"name": name},
        "spec": base | spec,
    }
    return DistillationRun.model_validate(document)


def play(item: DistillationRun, graph: Graph) -> dict[str, Finished]:
    """Finish everything, in whatever order the plan allows; the digest of a stage is made from its key."""
    finished: dict[str, Finished] = {}
    while ready := plan(item, graph, finished):
        command = ready[-1]
        finished[command.stage] = Finished(command.key, f"digest of {command.key}")
    return finished


def test_a_run_starts_with_what_needs_nothing() -> None:
    item = run()
    assert [command.stage for command in plan(item, draw(item), {})] == [
        "benchmark-humaneval",
        "source",
        "student",
    ]


def test_every_stage_is_planned_and_then_nothing() -> None:
    item = run()
    graph = draw(item)
    finished = play(item, graph)
    assert set(finished) == {stage.name for stage in graph}
    assert plan(item, graph, finished) == []


def test_a_stage_is_ready_only_when_all_it_needs_is_finished() -> None:
    item = run()
    graph = draw(item)
    finished = play(item, graph)
    for stage in graph:
        for need in stage.needs:
            known = {name: done for name, done in finished.items() if name not in (stage.name, need)}
            assert stage.name not in [command.stage for command in plan(item, graph, known)]


def test_the_order_of_work_changes_no_key() -> None:
    item = run()
    graph = draw(item)
    one = play(item, graph)
    other: dict[str, Finished] = {}
    while ready := plan(item, graph, other):
        other[ready[0].stage] = Finished(ready[0].key, f"digest of {ready[0].key}")
    assert one == other


def test_another_beta_changes_the_keys_of_what_depends_on_it_and_no_other() -> None:
    first, second = run(), run(training={"preference": {"beta": 0.5}})
    one, two = play(first, draw(first)), play(second, draw(second))
    changed = {name for name in one if one[name].key != two[name].key}
    assert "r1-preference" in changed
    untouched = {"source", "r0-screen", "r1-split", "r1-correct", "r1-fault", "r1-pairs", "r1-sft", "student"}
    assert not changed & untouched
    depends = {"r1-preference"}
    for stage in draw(first):
        if depends & set(stage.needs):
            depends.add(stage.name)
    assert changed == depends


def test_the_runs_name_is_in_no_key() -> None:
    first, second = run("one"), run("two")
    assert play(first, draw(first)) == play(second, draw(second))


def test_how_an_endpoint_is_asked_is_told_to_the_stage_and_is_in_no_key() -> None:
    endpoint = {"endpoint": "http://localhost:9", "model": "m"}
    limits = {"requests_per_minute": 60.0, "tokens_per_minute": None, "concurrent_requests": 4}
    price = {"input": 0.5, "output": 1.5, "cached_input": None}
    asked = {"rateLimits": {"requestsPerMinute": 60.0, "concurrentRequests": 4}, "yieldFloor": 0.2}
    first, second = run(), run(teacher=endpoint | asked | {"price": {"input": 0.5, "output": 1.5}})
    graph = draw(second)
    finished = play(second, graph)
    assert play(first, draw(first)) == finished
    told = {
        stage.name: json.loads(command(second, stage, finished).env["SODA_STAGE"])["options"] for stage in graph
    }
    assert told["r1-correct"] == {"yield_floor": 0.2, "rate_limits": limits, "price": price}
    assert told["r1-annotate"] == told["r1-new"] == told["r1-correct"]
    assert told["r1-judge"] == {"yield_floor": 0.1}
    assert told["r1-attempts"] == told["r1-execute"] == told["r1-sft"] == {}


def test_the_yield_is_not_watched_more_closely_than_a_finished_stage_is_judged() -> None:
    for minimum, floor in ((0.95, 0.5), (0.3, 0.3), (0.0, 0.0)):
        item = run(questions={"minimumYield": minimum})
        (stage,) = (stage for stage in draw(item) if stage.name == "r1-correct")
        assert options(item, stage)["yield_floor"] == floor


def test_the_key_changes_with_the_content_of_an_input() -> None:
    item = run()
    graph = draw(item)
    finished = play(item, graph)
    stage = graph.stage("r1-pairs")
    before = stage_key(stage, finished)
    after = stage_key(stage, finished | {"r1-correct": Finished("key", "another digest")})
    assert before != after


def test_a_command_is_the_same_bytes_each_time_and_holds_no_secret() -> None:
    item = run()
    graph = draw(item)
    finished = play(item, graph)
    for stage in graph:
        known = {name: done for name, done in finished.items() if name != stage.name}
        (one,) = [command for command in plan(item, graph, known) if command.stage == stage.name]
        (two,) = [command for command in plan(item, graph, known) if command.stage == stage.name]
        assert one == two
        assert json.loads(one.env["SODA_STAGE"])["key"] == one.key


def test_an_endpoint_is_reached_and_a_checkpoint_is_served() -> None:
    item = run()
    graph = draw(item)
    finished = play(item, graph)
    known = {name: finished[name] for name in ("source", "r0-screen", "benchmark-humaneval")}
    (teacher,) = [command.service for command in plan(item, graph, known) if command.stage == "r1-correct"]
    assert teacher is not None
    assert teacher.url == "http://localhost:9"
    known = {name: done for name, done in finished.items() if name != "r1-attempts"}
    (student,) = [command.service for command in plan(item, graph, known) if command.stage == "r1-attempts"]
    assert student is not None
    assert student.url is None
    assert json.loads(student.env["SODA_SERVICE"])["artifact"] == finished["r1-preference"].key


PINNED: dict[str, Any] = {
    "teacher": {"model": "a/teacher", "server": {"engine": "cpu"}},
    "student": {"model": "a/b", "server": {"engine": "cpu"}},
    "judge": {"model": "a/judge", "server": {"engine": "cpu"}},
    "questions": {"source": "hf:a/questions"},
}


def revised(block: str, revision: str | None) -> DistillationRun:
    return run(**PINNED | {block: PINNED[block] | {"revision": revision}})


@pytest.mark.parametrize(
    ("block", "first", "stages"),
    [
        ("teacher", "r1-correct", {"r1-correct", "r1-fault", "r1-new", "r2-correct", "r2-fault", "r1-annotate"}),
        ("student", "student", {"student"}),
        ("judge", "scorer-base", {"scorer-base"}),
        ("questions", "source", {"source"}),
    ],
)
def test_a_revision_changes_the_settings_of_what_reads_it_and_no_other(
    block: str, first: str, stages: set[str]
) -> None:
    plain, pinned = draw(revised(block, None)), draw(revised(block, "v1"))
    assert plain == draw(run(**PINNED))
    assert all("revision" not in stage.settings for stage in plain)
    changed = {one.name for one, two in zip(plain, pinned, strict=True) if one.settings != two.settings}
    assert changed == stages
    assert pinned.stage(first).settings["revision"] == "v1"


def test_a_server_is_told_the_revision_of_a_hub_s_model_and_not_of_a_checkpoint() -> None:
    item = run(**PINNED | {"teacher": PINNED["teacher"] | {"revision": "v1"}})
    options = json.loads(service_command(item, Service("teacher"), {}).env["SODA_SERVICE"])["options"]
    assert options["revision"] == "v1"
    item = run(**PINNED | {"student": PINNED["student"] | {"revision": "v1"}})
    known = {"student": Finished("key", "digest")}
    command = service_command(item, Service("student", checkpoint="student"), known)
    assert "revision" not in json.loads(command.env["SODA_SERVICE"])["options"]
