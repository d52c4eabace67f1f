"""The operator in a small random world: whatever is lost, late, repeated or killed, a run ends the same, once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest

from soda_jobs.names import SERVICE_LABEL, STAGE_LABEL
from soda_operator.accept import Accepted, accept
from soda_operator.cache import is_at_rest
from soda_operator.cluster import Refused
from soda_operator.config import Config
from soda_operator.ledger import ACTIVE, FINISHED
from soda_operator.observed import Observed
from soda_operator.reconcile import FINALIZER, reconcile
from soda_operator.status import CONDITIONS
from soda_operator.summary import TERMINAL
from tests.unit import operator_world
from tests.unit.operator_world import CONFIG, FAULTS, NAMESPACE, RUN, World, tiny_run

STAGES = 17  # with preflight and publish


def random_hits(seed: int, share: float) -> Any:
    choice = Random(seed + 1)
    return lambda number: choice.choice(FAULTS) if choice.random() < share else ""


def now_and_then(seed: int, fault: str) -> Any:
    """This fault again and again, after three to fifteen writes each."""
    choice, left = Random(seed), [5]

    def hit(number: int) -> str:
        left[0] -= 1
        if left[0]:
            return ""
        left[0] = choice.randrange(3, 16)
        return fault

    return hit


def random_ends(share: float, limit: int = 2) -> Any:
    """Some pods fail in a way that may pass, each stage only as often as its attempts allow."""
    failed: dict[str, int] = {}

    def end(world: World, pod: Mapping[str, Any]) -> tuple[int, str]:
        stage = pod["metadata"]["labels"][STAGE_LABEL]
        if world.random.random() >= share:
            return 0, ""
        if world.random.random() < 0.5:
            return 143, "EvictionByEvictionAPI"
        if failed.get(stage, 0) >= limit * 4:
            return 0, ""
        failed[stage] = failed.get(stage, 0) + 1
        return world.random.choice((75, 137)), ""

    return end


async def started(world: World, **spec: Any) -> World:
    world.apply_run(tiny_run(**spec))
    return world


def assert_one_story(status: Mapping[str, Any]) -> None:
    """State, conditions, columns and rows say the same."""
    state = status["state"]
    found = {item["type"]: item for item in status["conditions"]}
    assert tuple(found) == CONDITIONS
    values = {kind: item["status"] for kind, item in found.items()}
    assert values["Succeeded"] == {"Succeeded": "True", "Failed": "False", "Cancelled": "False"}.get(
        state, "Unknown"
    )
    assert (values["Stalled"] == "True") == (state in ("Stalled", "Failed", "Cancelled"))
    assert (values["Reconciling"] == "True") == (state == "Pending")
    assert (values["Suspended"] == "True") == (state == "Suspended")
    assert [values["Stalled"], values["Reconciling"], values["Suspended"]].count("True") <= 1
    assert {item["observedGeneration"] for item in found.values()} == {status["observedGeneration"]}
    assert all(item["reason"] for item in found.values())
    assert ("finishTime" in status) == (state in TERMINAL)
    rows = status["stages"]
    done = [row for row in rows if row["state"] in FINISHED]
    if rows:
        assert status["progress"] == f"{len(done)}/{len(rows)}"
    assert (len(done) == len(rows) > 0) == (state == "Succeeded")
    assert not any(row["reason"] for row in done)
    if state in (*TERMINAL, "Suspended"):
        assert not any(row["state"] in ACTIVE for row in rows)
        assert status["services"] == []
    if state == "Failed":
        assert any(row["state"] == "failed" and row["reason"] == status["reason"] for row in rows)


def assert_over(world: World) -> None:
    assert world.active_jobs() == []
    assert world.of("Service") == []
    assert [job for job in world.of("Job") if SERVICE_LABEL in job["metadata"]["labels"]] == []
    for status in world.told:
        assert_one_story(status)


@pytest.fixture(scope="module")
def digests() -> dict[str, str]:
    """What an undisturbed run makes."""

    async def run() -> dict[str, str]:
        world = await started(World(0, lag=0.0))
        await world.until("Succeeded")
        return world.digests()

    return asyncio.run(run())


@pytest.mark.parametrize("seed", range(12))
async def test_a_disturbed_run_ends_as_an_undisturbed_one(seed: int, digests: dict[str, str]) -> None:
    share = (0.02, 0.1, 0.3)[seed % 3]
    world = await started(
        World(seed, hit=random_hits(seed, share), ends=random_ends(share), lag=0.4, loss=(0.0, 0.05)[seed % 2])
    )
    await world.until("Succeeded", *TERMINAL)
    assert world.status["state"] == "Succeeded", world.status["message"]
    assert world.digests() == digests
    assert len(digests) == STAGES
    await world.settle()
    written = len(world.writes)
    await world.settle(200)
    assert world.writes[written:] == []
    assert_over(world)


@pytest.mark.parametrize("fault", FAULTS)
async def test_any_kind_of_fault_may_come_again_and_again(fault: str, digests: dict[str, str]) -> None:
    for seed in (1, 2):
        world = await started(World(seed, hit=now_and_then(seed, fault)))
        await world.until("Succeeded")
        await world.settle()
        assert world.digests() == digests
        assert_over(world)


async def test_each_job_is_made_once_when_nothing_goes_wrong() -> None:
    world = await started(World(3))
    await world.until("Succeeded")
    stages = [name for name in world.made if "-sandbox-" not in name]
    assert len(stages) == len(set(stages)) == STAGES + 3  # and three model servers
    assert {row["attempt"] for row in world.status["stages"]} == {1}


async def test_a_run_comes_to_rest_between_two_events() -> None:
    """Looking again without news writes nothing."""
    world = await started(World(4, lag=0.0))
    for _ in range(400):
        await world.step()
        world.deliver()
        for _ in range(4):
            before = len(world.writes)
            await world.look()
            world.deliver()
        assert world.writes[before:] == []
    assert world.status["state"] == "Succeeded"


async def test_a_server_lives_only_while_a_stage_needs_it() -> None:
    world = await started(World(5))
    accepted = accept(world.run, CONFIG)
    assert isinstance(accepted, Accepted)
    await world.until("Succeeded")
    needed: dict[str, set[str]] = {}
    for stage in accepted.graph:
        if stage.service is not None:
            name = "sandbox-python" if stage.service.role == "sandbox" else stage.service.name
            needed.setdefault(name, set()).add(stage.name)
    assert set(needed) == {"teacher", "student-student", "student-r1-sft", "sandbox-python"}
    assert {row["name"] for status in world.told for row in status["services"]} == set(needed)
    for status in world.told:
        done = {row["name"] for row in status["stages"] if row["state"] in FINISHED}
        for row in status["services"]:
            assert needed[row["name"]] - done, f"{row['name']} is there for nobody"


@pytest.mark.parametrize("seed", range(6))
async def test_suspend_and_resume_at_any_time(seed: int, digests: dict[str, str]) -> None:
    world = await started(World(seed, hit=random_hits(seed, 0.05)))
    for _ in range(3):
        await world.settle(world.random.randrange(5, 40))
        if world.status.get("state") == "Succeeded":
            break
        world.change(suspend=True)
        await world.until("Suspended", "Succeeded")
        await world.settle()
        if world.status["state"] == "Suspended":
            assert world.active_jobs() == []
            assert world.of("Service") == []
            assert world.status["reason"] == "Suspended"
        world.change(suspend=False)
    await world.until("Succeeded")
    assert world.digests() == digests
    await world.settle()
    assert_over(world)


@pytest.mark.parametrize("seed", range(4))
async def test_cancel_is_the_end_until_a_new_retry_token(seed: int, digests: dict[str, str]) -> None:
    world = await started(World(seed, hit=random_hits(seed, 0.05)))
    await world.settle(15 * seed + 5)
    world.change(cancel=True)
    await world.until("Cancelled")
    await world.settle()
    made = list(world.made)
    world.change(suspend=True)
    await world.settle()
    world.change(cancel=False, suspend=False)
    await world.settle()
    assert world.made == made
    assert world.status["state"] == "Cancelled"
    assert world.status["observedGeneration"] == world.run["metadata"]["generation"]
    assert_over(world)
    world.change(retryToken="again")
    await world.until("Succeeded")
    assert world.digests() == digests
    assert world.status["retryToken"] == "again"


async def test_a_failed_run_goes_on_where_it_was_after_a_retry(digests: dict[str, str]) -> None:
    def bad_training(world: World, pod: Mapping[str, Any]) -> tuple[int, str]:
        is_bad = pod["metadata"]["labels"][STAGE_LABEL] == "r1-sft" and world.status["retryToken"] == ""
        return (65 if is_bad else 0), ""

    world = await started(World(6, ends=bad_training))
    await world.until("Failed")
    assert world.status["reason"] == "GaveUp"
    assert world.status["message"].startswith("stage r1-sft: Job tiny-r1-sft-1: ")
    await world.settle()
    assert_over(world)
    finished = {row["name"]: row["attempt"] for row in world.status["stages"] if row["state"] in FINISHED}
    world.change(retryToken="1")
    await world.until("Succeeded")
    attempts = {row["name"]: row["attempt"] for row in world.status["stages"]}
    assert {name: attempts[name] for name in finished} == finished
    assert attempts["r1-sft"] == 2
    assert world.digests() == digests
    made = list(world.made)
    world.change(retryToken="2")
    await world.settle()
    assert world.made == made  # success is final


async def test_attempts_are_bounded() -> None:
    world = await started(World(7, ends=lambda world, pod: (75, "")))
    await world.until("Failed")
    assert world.status["reason"] == "Unavailable"
    assert world.made == [f"{RUN}-preflight-{number}" for number in (1, 2, 3)]
    pods = {name for kind, name in world.objects if kind == "Pod"}
    assert len(pods) == 12  # four of each Job


@pytest.mark.parametrize("code", [64, 65, 70, 77])
async def test_an_exit_that_would_repeat_ends_the_run_at_once(code: int) -> None:
    world = await started(World(8, ends=lambda world, pod: (code, "")))
    await world.until("Failed")
    assert world.made == [f"{RUN}-preflight-1"]


async def test_evictions_are_not_counted() -> None:
    lost: list[str] = []

    def evicted(world: World, pod: Mapping[str, Any]) -> tuple[int, str]:
        if len(lost) < 30:
            lost.append(pod["metadata"]["name"])
            return 143, "DeletionByTaintManager"
        return 0, ""

    world = await started(World(9, ends=evicted))
    await world.until("Succeeded")
    assert {row["attempt"] for row in world.status["stages"]} == {1}


async def test_a_budget_holds_the_run_until_it_is_raised() -> None:
    world = await started(World(10, ends=lambda world, pod: (75, "")), budget={"hours": 0.005})
    await world.until("Suspended")
    assert world.status["reason"] == "BudgetExhausted"
    await world.settle()
    assert world.active_jobs() == []
    world.ends = None
    world.change(budget={"hours": 1000})
    await world.until("Succeeded")


async def test_gpu_seconds_are_counted_once() -> None:
    training = {**tiny_run()["spec"]["training"], "gpusPerNode": 1}
    world = await started(World(11, hit=random_hits(11, 0.1)), training=training, budget={"gpuHours": 1000})
    await world.settle(60)
    world.change(suspend=True)
    await world.until("Suspended")
    await world.settle(5)
    held = world.status["gpuSeconds"]
    await world.settle(100)
    assert world.status["gpuSeconds"] == held
    world.change(suspend=False)
    await world.until("Succeeded")
    ours = sum(row["gpuSeconds"] for row in world.status["stages"])
    assert world.status["gpuSeconds"] == ours > 0  # CPU servers have no GPU


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
async def test_a_finished_run_goes_when_its_time_has_come(policy: str) -> None:
    world = await started(World(12), ttlSecondsAfterFinished=500, deletionPolicy=policy)
    await world.until("Succeeded")
    ended = world.now
    for _ in range(2000):
        if ("DistillationRun", RUN) not in world.objects:
            break
        await world.step()
    assert world.now - ended >= 490
    assert ("DistillationRun", RUN) not in world.objects
    assert (f"{RUN}-cleanup-1" in world.made) == (policy == "Delete")


@pytest.mark.parametrize("seed", range(4))
async def test_a_deleted_run_ends_its_pods_before_its_artifacts_go(seed: int) -> None:
    world = await started(World(seed, hit=random_hits(seed, 0.1)), deletionPolicy="Delete")
    await world.settle(40)
    assert world.run["metadata"]["finalizers"] == [FINALIZER]
    world.drop_run()
    for _ in range(500):
        await world.step()
        if f"{RUN}-cleanup-1" in world.made:
            running = [job for job in world.active_jobs() if job["metadata"]["name"] != f"{RUN}-cleanup-1"]
            assert running == []
    assert ("DistillationRun", RUN) not in world.objects
    assert world.made.count(f"{RUN}-cleanup-1") == 1
    assert {kind for kind, _ in world.objects} <= {"Job", "Pod", "Event"}


@pytest.mark.parametrize("seed", range(6))
async def test_a_run_is_not_mistaken_for_its_earlier_namesake(seed: int) -> None:
    """Another spec under the same name, while what the first one made is still being removed."""
    world = await started(World(seed, hit=random_hits(seed, 0.05), lag=0.6))
    await world.settle(20 + 15 * seed)
    world.drop_run()
    await world.settle(seed % 3)
    await started(world, seed=7)
    await world.until("Succeeded")
    other = await started(World(0, lag=0.0), seed=7)
    await other.until("Succeeded")
    assert world.digests() == other.digests()
    await world.settle()
    assert_over(world)


async def test_what_is_refused_is_told_and_goes_on_when_allowed() -> None:
    no = Refused("RefusedForbidden", "denied by policy no-jobs: no Jobs today")
    world = await started(World(13))
    world.refuses = lambda item: no if item["kind"] == "Job" else None
    await world.until("Stalled")
    assert world.status["reason"] == "ObjectRefused"
    assert "no Jobs today" in world.status["message"]
    world.refuses = lambda item: None
    await world.until("Succeeded")
    assert {row["attempt"] for row in world.status["stages"]} == {1}


async def test_an_invalid_spec_is_told_at_once_and_nothing_is_made() -> None:
    world = await started(World(14), rounds=0)
    await world.settle(5)
    assert world.status["state"] == "Stalled"
    assert world.status["reason"] == "InvalidSpec"
    assert {item["type"]: item["status"] for item in world.status["conditions"]}["Accepted"] == "False"
    assert world.made == []
    world.change(rounds=1)
    await world.until("Succeeded")


async def test_without_a_store_nothing_is_made() -> None:
    world = await started(World(15), storage={"url": ".soda/store"})
    await world.settle(5)
    assert (world.status["state"], world.status["reason"]) == ("Stalled", "StorageMissing")
    assert world.made == []


async def test_a_server_that_never_answers_ends_the_run_after_its_attempts() -> None:
    world = await started(World(16, config=Config(start_seconds=20.0)))
    world.is_booting = lambda pod: SERVICE_LABEL in pod["metadata"]["labels"]
    await world.until("Failed")
    assert world.status["reason"] == "StartDeadline"
    assert [name for name in world.made if "-teacher-" in name] == [f"{RUN}-teacher-{each}" for each in (1, 2, 3)]
    await world.settle()
    assert_over(world)
    world.is_booting = lambda pod: False
    world.change(retryToken="1")
    await world.until("Succeeded")


async def test_no_progress_brings_a_new_attempt() -> None:
    def stuck(world: World, pod: Mapping[str, Any]) -> tuple[int, str] | None:
        return None if pod["metadata"]["labels"][STAGE_LABEL] == "r0-screen" else (0, "")

    world = await started(World(17, config=Config(progress_seconds=100.0), ends=stuck))
    await world.until("Failed")
    assert world.status["reason"] == "NoProgress"
    assert [name for name in world.made if "r0-screen" in name] == [
        f"{RUN}-r0-screen-{each}" for each in (1, 2, 3)
    ]


async def test_an_end_without_a_result_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_world, "last_word", lambda pod: {"state": "unknown"})
    world = await started(World(21))
    await world.until("Failed")
    assert world.status["reason"] == "ResultMissing"
    assert world.made == [f"{RUN}-preflight-{number}" for number in (1, 2, 3)]


async def test_names_of_jobs_run_out_one_day() -> None:
    """The number of an attempt has two digits; a run that was suspended so often ends."""
    world = await started(World(22))
    await world.settle(20)
    rows = [
        {**row, "attempt": 99 if row["name"] == "report" else row["attempt"]} for row in world.status["stages"]
    ]
    world._put({**world.run, "status": {**world.status, "stages": rows}})
    await world.until("Failed")
    assert world.status["reason"] == "TooManyAttempts"
    await world.settle()
    assert_over(world)


async def test_a_deletion_makes_nothing_when_the_run_never_began() -> None:
    world = await started(World(18, hit=lambda number: "before" if number == 2 else ""), deletionPolicy="Delete")
    await world.look()
    world.drop_run()
    await world.settle(5)
    assert ("DistillationRun", RUN) not in world.objects
    assert world.made == []


async def test_reconcile_is_a_function_of_what_it_is_given() -> None:
    world = await started(World(19, lag=0.0))
    await world.settle(30)
    accepted = accept(world.run, CONFIG)
    key = (NAMESPACE, RUN)
    observed = Observed(world.controller.cache.jobs(key), world.controller.cache.pods(key))
    before = json.dumps(world.run)
    first, second = (reconcile(world.run, accepted, observed, CONFIG, world.now) for _ in range(2))
    assert first == second
    assert json.dumps(world.run) == before


async def test_a_run_at_rest_is_not_looked_at() -> None:
    world = await started(World(20))
    await world.until("Succeeded")
    assert is_at_rest(world.run)
    world.change(queue="other")
    assert not is_at_rest(world.run)
    await world.settle(5)
    assert is_at_rest(world.run)
    world.change(ttlSecondsAfterFinished=10_000)
    await world.settle(5)
    assert not is_at_rest(world.run)
