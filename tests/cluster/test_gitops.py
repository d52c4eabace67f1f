"""The recipes of docs/gitops.md, judged by the code of Flux and by the interpreter of Argo CD, over what the
operator writes."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from soda_operator.cluster import Refused
from soda_operator.status import State
from soda_operator.summary import TERMINAL
from tests import gobuild
from tests.unit.operator_world import RUN, World, tiny_run

pytestmark = pytest.mark.cluster  # Go builds the judge

HERE = Path(__file__).parent
DOCS = (HERE.parents[1] / "docs/gitops.md").read_text()
MARKS = {
    "labels": {"app.kubernetes.io/instance": "team-app", "kustomize.toolkit.fluxcd.io/name": "team-app"},
    "annotations": {"argocd.argoproj.io/tracking-id": "team-app:soda.dev/DistillationRun:team/tiny"},
}
# By state: kstatus (also Flux with `wait`), Argo CD once accepted, Argo CD until finished, Flux until finished.
EXPECTED = {
    None: ("InProgress", "Progressing", "Progressing", "InProgress"),
    "Pending": ("InProgress", "Progressing", "Progressing", "InProgress"),
    "Waiting": ("Current", "Healthy", "Progressing", "InProgress"),
    "Running": ("Current", "Healthy", "Progressing", "InProgress"),
    "Suspended": ("Current", "Suspended", "Suspended", "InProgress"),
    "Stalled": ("Failed", "Degraded", "Degraded", "Failed"),
    "Succeeded": ("Current", "Healthy", "Healthy", "Current"),
    "Failed": ("Failed", "Degraded", "Degraded", "Failed"),
    "Cancelled": ("Failed", "Degraded", "Degraded", "Failed"),
}
DELETED = (
    "Terminating",
    "Progressing",
    "Progressing",
)  # whatever the status says; Flux's checks are not asked then
Story = list[dict[str, Any]]


def recipes(language: str) -> dict[str, str]:
    """The marked blocks of a language, by name."""
    return dict(re.findall(rf"```{language} (\w+)\n(.*?)```", DOCS, re.DOTALL))


def judge(objects: Story) -> list[dict[str, Any]]:
    source = hashlib.sha256((HERE / "gitops/main.go").read_bytes()).hexdigest()
    program = gobuild.build(HERE / "gitops", ".", "gitops", ldflags=f"-X main.source={source}")
    [check] = yaml.safe_load(recipes("yaml")["finished"])["healthCheckExprs"]
    assert (check.pop("apiVersion"), check.pop("kind")) == ("soda.dev/v1alpha1", "DistillationRun")
    question = {"lua": recipes("lua"), "cel": {"finished": check}, "objects": objects}
    done = subprocess.run([program], input=json.dumps(question), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def shown(verdict: Mapping[str, Any]) -> tuple[str, str, str, str]:
    lua, cel = verdict["lua"], verdict["cel"]
    return verdict["kstatus"], lua["accepted"]["status"], lua["finished"]["status"], cel["finished"]


async def told(world: World, *states: str, steps: int = 3000) -> Story:
    """Each version of the run until it has one of the states."""
    story = [copy.deepcopy(world.run)]
    for _ in range(steps):
        if world.status.get("state") in states:
            return story
        await world.step()
        if world.run["metadata"]["resourceVersion"] != story[-1]["metadata"]["resourceVersion"]:
            story.append(copy.deepcopy(world.run))
    raise AssertionError(f"still {world.status.get('state')}, not one of {states}")


def started(seed: int, **fields: Any) -> World:
    world = World(seed, **fields)
    document = tiny_run()
    world.apply_run({**document, "metadata": {**document["metadata"], **copy.deepcopy(MARKS)}})
    return world


def assert_as_expected(story: Story) -> set[Any]:
    states = set()
    for document, verdict in zip(story, judge(story), strict=True):
        status, generation = document["status"], document["metadata"]["generation"]
        is_seen = status["observedGeneration"] == generation
        state = status.get("state") if is_seen else None
        assert shown(verdict) == EXPECTED[state], (state, status)
        if is_seen:
            assert verdict["lua"]["finished"]["message"] == status.get("message", "")
        states.add(state)
    return states


async def test_a_run_is_healthy_for_hours_and_finished_once() -> None:
    story = await told(started(1), "Succeeded")
    assert assert_as_expected(story) == {None, "Pending", "Running", "Succeeded"}
    finished = [shown(verdict)[3] for verdict in judge(story)]
    assert finished.count("Current") == 1


async def test_a_failed_run_is_failed_for_everybody() -> None:
    story = await told(started(2, ends=lambda world, pod: (64, "")), *TERMINAL)
    assert "Failed" in assert_as_expected(story)


async def test_a_run_that_waits_for_a_person_is_degraded_until_it_goes_on() -> None:
    world = started(3)
    missing = Refused("RefusedForbidden", 'pod rejected: RuntimeClass "gvisor" not found')
    world.refuses = lambda item: (
        missing if item["kind"] == "Job" and "sandbox" in item["metadata"]["name"] else None
    )
    story = await told(world, "Stalled")
    world.refuses = lambda item: None
    story += await told(world, "Succeeded")
    assert {"Stalled", "Running", "Succeeded"} <= assert_as_expected(story)


async def test_a_run_that_waits_for_quota_is_healthy() -> None:
    world = started(8)
    quota = Refused("RefusedForbidden", "exceeded quota: gpus, requested: pods=1, used: pods=9, limited: pods=9")
    story = await told(world, "Running")
    world.refuses = lambda item: quota if item["kind"] == "Job" else None
    story += await told(world, "Waiting")
    world.refuses = lambda item: None
    story += await told(world, "Succeeded")
    assert {"Waiting", "Succeeded"} <= assert_as_expected(story)


async def test_a_change_is_in_progress_until_it_is_seen() -> None:
    world = started(4)
    story = await told(world, "Running")
    world.change(suspend=True)
    story += await told(world, "Suspended")
    world.change(suspend=False)
    story += await told(world, "Running")
    world.change(cancel=True)
    story += await told(world, "Cancelled")
    world.change(cancel=False, retryToken="again")
    story += await told(world, "Succeeded")
    assert {None, "Suspended", "Cancelled", "Succeeded"} <= assert_as_expected(story)


async def test_the_same_again_changes_nothing() -> None:
    world = started(5)
    await told(world, "Succeeded")
    await world.settle()
    before, writes = world.run["metadata"]["resourceVersion"], len(world.writes)
    world.apply_run({**tiny_run(), "metadata": {**tiny_run()["metadata"], **copy.deepcopy(MARKS)}})
    await world.settle()
    assert (world.run["metadata"]["resourceVersion"], len(world.writes)) == (before, writes)


async def test_a_marked_run_makes_objects_without_the_marks() -> None:
    world = started(6)
    made: set[str] = set()
    for _ in range(3000):
        for kind, name in list(world.objects):
            if kind == "DistillationRun":
                continue
            meta = world.objects[kind, name]["metadata"]
            made.add(kind)
            assert not set(MARKS["labels"]) & set(meta.get("labels", {})), (kind, name)
            assert not set(MARKS["annotations"]) & set(meta.get("annotations", {})), (kind, name)
        if world.status.get("state") == "Succeeded":
            break
        await world.step()
    assert {"Job", "Pod", "Service", "ServiceAccount", "Secret", "NetworkPolicy"} <= made


async def test_a_run_that_is_being_deleted_is_neither_healthy_nor_failed() -> None:
    world = started(7)
    world.change(deletionPolicy="Delete")
    await told(world, "Running")
    world.drop_run()
    story = []
    while ("DistillationRun", RUN) in world.objects:
        story.append(copy.deepcopy(world.run))
        await world.step()
    assert {shown(verdict)[:3] for verdict in judge(story)} == {DELETED}


def test_every_state_has_been_thought_of() -> None:
    assert set(get_args(State)) - {"Deleting"} == set(EXPECTED) - {None}
