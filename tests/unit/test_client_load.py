"""How many requests are in flight: an engine's own signals, an endpoint's limits, one prompt together."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from soda_jobs.models.client import ModelClient, Sampling
from soda_jobs.models.concurrency import AdaptiveLimit, Gate
from soda_jobs.models.pace import Pace, RateLimits, Schedule
from soda_jobs.models.signals import Signals, read_signals

PAGE = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
vllm:num_preemptions_total{engine="0",model_name="m"} 4.0
vllm:num_preemptions_created{engine="0",model_name="m"} 1.7636e+09
vllm:generation_tokens_total{engine="0",model_name="m"} 1.2e+03
vllm:e2e_request_latency_seconds_bucket{engine="0",le="+Inf",model_name="m"} 7.0
"""


def test_the_page_is_read_over_all_engines() -> None:
    assert read_signals([PAGE]) == Signals(running=5, waiting=1, cache=0.75, preemptions=4, generated=1200)
    twice = Signals(running=10, waiting=2, cache=0.75, preemptions=8, generated=2400)
    assert read_signals([PAGE, PAGE]) == twice


def test_the_page_is_read_by_the_names_of_other_versions() -> None:
    old = PAGE.replace("kv_cache_usage_perc", "gpu_cache_usage_perc").replace("preemptions_total", "preemptions")
    assert read_signals([old.replace('engine="0",', "").replace('engine="1",', "")]) == read_signals([PAGE])


@pytest.mark.parametrize(
    "page", ["", "<html>", "process_cpu_seconds_total 3.0\n", "vllm:num_requests_running x\n"]
)
def test_another_servers_page_gives_no_signals(page: str) -> None:
    assert read_signals([page]) is None
    assert read_signals([]) is None


class Engine:
    """vLLM as far as its load goes: `slots` run at once in memory for `room`, the rest waits; tokens per second
    rise with what runs until `knee`. `others` requests are somebody else's."""

    def __init__(self, slots: int, *, knee: float, room: int = 100_000, others: int = 0) -> None:
        self.slots, self.knee, self.room, self.others = slots, knee, room, others
        self.generated = self.preemptions = 0.0

    def rate(self, running: int) -> float:
        return 100 * running / (1 + running / self.knee)

    def step(self, ours: int, seconds: float) -> Signals:
        asked = ours + self.others
        running = min(asked, self.slots, self.room)
        if min(asked, self.slots) > self.room:
            self.preemptions += 1
        self.generated += self.rate(running) * seconds
        cache = min(1.0, running / self.room)
        return Signals(running, asked - running, cache, self.preemptions, self.generated)


def follow(engine: Engine, *, looks: int, limit: AdaptiveLimit | None = None) -> list[int]:
    """The limits of a client that always has more to ask, one for each second."""
    limit = limit or AdaptiveLimit(2048)
    sizes = []
    for now in range(looks):
        limit.observe(engine.step(limit.limit, 1.0), now=float(now), saturated=True)
        sizes.append(limit.limit)
    return sizes


@pytest.mark.parametrize("slots", [1, 8, 64, 256, 1000])
def test_an_engines_slots_are_filled_and_its_queue_is_kept_short(slots: int) -> None:
    sizes = follow(Engine(slots, knee=10_000), looks=300)
    late = sizes[150:]
    assert sum(min(size, slots) for size in late) / len(late) >= 0.95 * slots
    assert max(late) <= 1.5 * slots + 4
    assert sorted(late)[len(late) // 2] <= slots + max(2, slots // 8)


def test_a_large_engine_is_filled_within_a_minute() -> None:
    assert max(follow(Engine(256, knee=10_000), looks=60)) >= 256


def test_more_is_not_asked_for_than_makes_the_engine_faster() -> None:
    engine = Engine(100_000, knee=10)  # of a processor: at 40 it does four fifths of what it ever does
    sizes = follow(engine, looks=600)
    late = sizes[300:]
    assert sorted(late)[len(late) // 2] <= 256
    assert engine.rate(sorted(late)[len(late) // 2]) >= 0.8 * 100 * engine.knee


def test_preemptions_cut_the_limit_until_there_are_none() -> None:
    sizes = follow(Engine(512, knee=10_000, room=40), looks=300)
    assert sum(size > 40 for size in sizes[150:]) <= 15
    assert sum(min(size, 40) for size in sizes[150:]) / 150 >= 0.8 * 40


def test_what_others_ask_is_left_to_them() -> None:
    engine = Engine(64, knee=10_000, others=40)
    late = follow(engine, looks=200)[100:]
    assert 20 <= sorted(late)[50] <= 40  # 24 slots are free, and 8 may wait


def test_two_who_ask_one_engine_leave_each_other_room() -> None:
    engine, limits = Engine(64, knee=10_000), [AdaptiveLimit(2048), AdaptiveLimit(2048)]
    for now in range(300):
        seen = engine.step(sum(limit.limit for limit in limits), 1.0)
        for limit in limits:
            limit.observe(seen, now=float(now), saturated=True)
    assert 60 <= sum(limit.limit for limit in limits) <= 80
    assert min(limit.limit for limit in limits) >= 16


def test_without_work_left_the_limit_stays() -> None:
    limit, engine = AdaptiveLimit(2048), Engine(64, knee=10_000)
    for now in range(60):
        limit.observe(engine.step(2, 1.0), now=float(now), saturated=False)
    assert limit.limit == 4


def test_when_the_signals_end_completions_decide_again() -> None:
    limit, engine = AdaptiveLimit(2048), Engine(8, knee=10_000)
    follow(engine, looks=100, limit=limit)
    held = limit.limit
    for step in range(1000):
        limit.success(50, now=100 + step / 1000, saturated=True)
    assert limit.limit == held
    for step in range(1000):
        limit.success(50 + step, now=200 + step / 1000, saturated=True)
    assert limit.limit > held


async def test_requests_of_one_prompt_go_together_and_nobody_waits_for_ever() -> None:
    gate, order = Gate(AdaptiveLimit(1)), []

    async def ask(name: str) -> None:
        await gate.enter(name)
        order.append(name)
        await asyncio.sleep(0)
        gate.leave()

    await asyncio.gather(*(ask("ab"[number % 2]) for number in range(400)))
    assert sum(one != other for one, other in itertools.pairwise(order)) < 20
    assert sorted(order) == ["a"] * 200 + ["b"] * 200
    assert order.index("b") <= 65


class PlayedVllm:
    """A real server that answers as vLLM does: some requests run, some wait, /metrics tells."""

    def __init__(self, slots: int, seconds: float) -> None:
        self.free, self.slots, self.seconds = asyncio.Semaphore(slots), slots, seconds
        self.inside = self.most = self.looks = 0
        self.generated = 0

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            async with self.free:
                for _ in range(4):
                    await asyncio.sleep(self.seconds / 4)
                    self.generated += 20
        finally:
            self.inside -= 1
        details = {"cached_tokens": 5}
        usage = {"prompt_tokens": 7, "completion_tokens": 80, "prompt_tokens_details": details}
        message = {"role": "assistant", "content": f"seed {body['seed']}"}
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

    async def metrics(self, request: web.Request) -> web.Response:
        self.looks += 1
        running = min(self.inside, self.slots)
        return web.Response(
            text=f'vllm:num_requests_running{{engine="0"}} {running}\n'
            f'vllm:num_requests_waiting{{engine="0"}} {self.inside - running}\n'
            f'vllm:kv_cache_usage_perc{{engine="0"}} {running / self.slots / 2}\n'
            f'vllm:num_preemptions_total{{engine="0"}} 0\n'
            f'vllm:generation_tokens_total{{engine="0"}} {self.generated}\n'
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", self.chat), web.get("/metrics", self.metrics)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        finally:
            await runner.cleanup()


async def chat(client: ModelClient, seed: int, **more: Any) -> str:
    reply = await client.chat([{"role": "user", "content": "go"}], Sampling(max_tokens=80), seed=seed, **more)
    return reply.text


async def test_the_client_follows_a_real_servers_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soda_jobs.models.client._LOOK_SECONDS", 0.02)
    monkeypatch.setattr("soda_jobs.models.concurrency._WINDOW_SECONDS", 0.05)
    engine = PlayedVllm(slots=24, seconds=0.1)
    async with engine.serving() as url, ModelClient(url, "m") as client:
        replies = await asyncio.gather(*(chat(client, seed) for seed in range(1200)))
        assert client.usage["cached_tokens"] == 5 * 1200
    assert replies == [f"seed {seed}" for seed in range(1200)]
    assert engine.looks > 5
    assert 20 <= engine.most <= 64  # 24 run; without the page it may come to three times as many


async def test_no_more_requests_at_once_than_the_endpoint_allows() -> None:
    engine = PlayedVllm(slots=1000, seconds=0.01)
    limits = RateLimits(concurrent_requests=3)
    async with engine.serving() as url, ModelClient(url, "m", limits=limits) as client:
        await asyncio.gather(*(chat(client, seed) for seed in range(60)))
    assert engine.most == 3


def test_a_schedule_never_exceeds_a_minutes_worth() -> None:
    schedule, now, sent = Schedule(600), 0.0, []
    while now < 180:
        now += schedule.wait(now)
        schedule.book(1, now)
        sent.append(now)
    counts = [sum(start <= moment < start + 60 for moment in sent) for start in sent if start < 120]
    assert set(counts) <= {600, 601}  # 601 by rounding: the last is a hair before the minute is over
    assert len(sent) >= 1790


def test_what_is_given_back_brings_the_next_turn_forward() -> None:
    schedule = Schedule(6000)
    schedule.book(3000, 0.0)
    assert schedule.wait(0.0) == 30
    schedule.give_back(2900)
    assert schedule.wait(0.0) == pytest.approx(1)


def test_pods_that_share_a_stage_share_its_limits() -> None:
    whole = RateLimits(requests_per_minute=600, tokens_per_minute=90_000, concurrent_requests=10)
    assert whole.part(3) == RateLimits(200, 30_000, 3)
    assert RateLimits(concurrent_requests=2).part(8) == RateLimits(None, None, 1)


async def test_the_tokens_of_a_minute_are_kept_to(clock: list[float]) -> None:
    pace, gone = Pace(RateLimits(tokens_per_minute=6000)), []

    async def ask() -> None:
        await pace.enter(1000)
        gone.append(clock[0])
        pace.give_back(500)  # the answer came at once and took half

    await asyncio.gather(*(ask() for _ in range(13)))
    assert gone == pytest.approx([5.0 * turn for turn in range(13)])  # 500 tokens each five seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that sleeping moves, in place of the real one."""
    moment = [0.0]
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        moment[0] += seconds
        await real(0)

    monkeypatch.setattr("soda_jobs.models.pace.asyncio.sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: moment[0])
    return moment
