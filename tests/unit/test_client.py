"""The client of model servers, against real servers on real sockets that misbehave on purpose."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from soda_jobs.errors import InvalidInput, Retry
from soda_jobs.models.client import ModelClient, Reply, RowFailed, Sampling
from soda_jobs.models.concurrency import AdaptiveLimit, Gate
from soda_jobs.models.usage import no_usage
from soda_jobs.models.wire import Fault, read_reply, retry_after, server_sentence

Handler = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]
SAMPLING = Sampling(max_tokens=8)


def answer(body: dict[str, Any], **choice: Any) -> web.Response:
    """A well-formed reply whose text is the request's seed, so that replies cannot be mixed up unseen."""
    message = {"message": {"role": "assistant", "content": f"seed {body['seed']}"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return web.json_response({"choices": [{**message, **choice}], "usage": usage})


def refuse(status: int, **headers: str) -> web.Response:
    body = {"error": {"message": f"sorry, {status}"}}
    return web.json_response(body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})


@asynccontextmanager
async def serving(handle: Handler, *, port: int = 0) -> AsyncIterator[str]:
    """A server of `handle`; yields its base URL."""

    async def chat(request: web.Request) -> web.StreamResponse:
        return await handle(request, await request.json())

    async def models(request: web.Request) -> web.StreamResponse:
        return web.json_response({"data": []})

    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", chat), web.get("/v1/models", models)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def outcomes(client: ModelClient, rows: int) -> list[Reply | BaseException]:
    """What became of each row, in order."""
    chats = [client.chat([{"role": "user", "content": "go"}], SAMPLING, seed=seed) for seed in range(rows)]
    return await asyncio.gather(*chats, return_exceptions=True)


def all_answered(replies: list[Reply | BaseException]) -> bool:
    return replies == [Reply(f"seed {seed}", "stop", 3, 2) for seed in range(len(replies))]


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_the_base_url_may_or_may_not_end_in_v1(suffix: str) -> None:
    async with serving(lambda _, body: respond(body)) as url, ModelClient(url + suffix, "m") as client:
        assert all_answered(await outcomes(client, 1))


async def respond(body: dict[str, Any]) -> web.StreamResponse:
    return answer(body)


async def test_the_request_says_what_was_asked_and_nothing_more() -> None:
    seen: list[dict[str, Any]] = []

    async def handle(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        seen.append({**body, "key": request.headers.get("Authorization")})
        return answer(body)

    messages = [{"role": "user", "content": "go"}]
    async with serving(handle) as url, ModelClient(url, "m", api_key="k") as client:
        await client.chat(messages, Sampling(), seed=7)
        await client.chat(messages, Sampling(temperature=0.8, top_p=0.9, top_k=5, stop=("x",)), seed=8)
        assert client.usage == no_usage() | {"requests": 2, "prompt_tokens": 6, "completion_tokens": 4}
    plain = {"model": "m", "messages": messages, "max_tokens": 512, "key": "Bearer k"}
    assert seen[0] == {**plain, "temperature": 0.0, "top_p": 1.0, "seed": 7}
    assert seen[1] == {**plain, "temperature": 0.8, "top_p": 0.9, "top_k": 5, "stop": ["x"], "seed": 8}


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_waited_for(status: int) -> None:
    times: list[float] = []

    async def handle(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        times.append(time.monotonic())
        return refuse(status, Retry_After="1") if len(times) == 1 else answer(body)

    async with serving(handle) as url, ModelClient(url, "m") as client:
        assert all_answered(await outcomes(client, 1))
    assert times[1] - times[0] >= 1.0


def test_retry_after_reads_seconds_and_dates() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 27 < retry_after(soon) <= 30
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=30), usegmt=True)
    assert [retry_after(value) for value in (None, "3", "0.5", "-1", past, "soon")] == [0, 3, 0.5, 0, 0, 0]


async def test_a_storm_of_refusals_loses_nothing_and_shrinks_concurrency() -> None:
    start = time.monotonic()
    served: Counter[int] = Counter()
    refused = 0

    async def handle(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        nonlocal refused
        if time.monotonic() - start < 2.5:
            refused += 1
            return refuse(429 if refused % 2 else 503)
        served[body["seed"]] += 1
        return answer(body)

    async with serving(handle) as url, ModelClient(url, "m") as client:
        chats = asyncio.create_task(outcomes(client, 60))
        await asyncio.sleep(1.5)
        assert client.gate.limit.limit == 1
        assert all_answered(await chats)
        assert client.usage["requests"] == 60 + client.usage["retries"] == 60 + refused
    assert set(served.values()) == {1}


async def test_every_row_has_exactly_one_outcome_in_chaos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soda_jobs.models.client._LAST_DELAY", 0.5)
    fate = random.Random(5)

    async def handle(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        draw = fate.random()
        await asyncio.sleep(0.02 * fate.random())
        if draw < 0.1:
            assert request.transport is not None
            request.transport.abort()
        if draw < 0.2:
            return web.Response(text='{"choices": [{"mess', content_type="application/json")
        if draw < 0.5:
            return refuse(fate.choice([429, 500, 503, 408, 502]))
        return answer(body)

    async with serving(handle) as url, ModelClient(url, "m") as client:
        assert all_answered(await outcomes(client, 80))
        assert client.gate.in_flight == 0


async def test_a_server_that_dies_and_comes_back_loses_nothing_and_is_not_hammered() -> None:
    async def handle(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        return answer(body)

    async with serving(handle) as url:
        port = int(url.rsplit(":", 1)[1])
        client = await ModelClient(url, "m").__aenter__()
        chats = asyncio.create_task(outcomes(client, 100))
        await asyncio.sleep(0.3)
    before = client.usage["requests"]
    await asyncio.sleep(2.0)
    assert client.usage["requests"] - before < 30  # 100 rows retrying every second would be far more
    async with serving(handle, port=port):
        assert all_answered(await chats)
        await client.__aexit__(None, None, None)


async def test_a_server_that_never_comes_ends_in_retry() -> None:
    async with serving(lambda _, body: respond(body)) as url:
        pass
    async with asyncio.timeout(60), ModelClient(url, "m", patience_seconds=1.5) as client:
        ended = await outcomes(client, 20)
    assert {type(error) for error in ended} == {Retry}


async def test_a_server_that_only_refuses_ends_in_retry() -> None:
    async def handle(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return refuse(503)

    async with serving(handle) as url, ModelClient(url, "m", patience_seconds=1.0) as client:
        with pytest.raises(Retry, match=r"has not answered for 1 s; last: HTTP 503: sorry, 503"):
            await client.chat([], SAMPLING, seed=0)


@pytest.mark.parametrize(
    ("status", "field"),
    [
        (400, "spec.teacher"),
        (401, "spec.teacher.secretRef"),
        (403, "spec.teacher.secretRef"),
        (404, "spec.teacher.model"),
        (422, "spec.teacher"),
    ],
)
async def test_a_wrong_request_is_not_retried_and_names_the_field(status: int, field: str) -> None:
    async def handle(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return refuse(status)

    async with serving(handle) as url, ModelClient(url, "m", field="spec.teacher") as client:
        with pytest.raises(InvalidInput, match=f"sorry, {status}") as caught:
            await client.chat([], SAMPLING, seed=0)
        assert caught.value.field == field
        assert client.usage["requests"] == 1


def test_a_url_without_a_scheme_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(InvalidInput, match=r"spec\.judge\.endpoint: 'localhost:8000' is not an http"):
        ModelClient("localhost:8000", "m", field="spec.judge")


async def test_a_row_that_breaks_the_server_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soda_jobs.models.client._LAST_DELAY", 0.5)

    async def handle(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return refuse(500) if body["seed"] == 3 and body["max_tokens"] > 1 else answer(body)

    async with serving(handle) as url, ModelClient(url, "m") as client:
        ended = await outcomes(client, 10)
    assert isinstance(ended[3], RowFailed)
    assert ended[3].reason == "server_error"
    assert all(isinstance(reply, Reply) for seed, reply in enumerate(ended) if seed != 3)


async def test_a_server_that_fails_for_all_fails_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soda_jobs.models.client._LAST_DELAY", 0.5)
    start = time.monotonic()

    async def handle(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return refuse(500) if time.monotonic() - start < 4 else answer(body)

    async with serving(handle) as url, ModelClient(url, "m") as client:
        assert all_answered(await outcomes(client, 40))


async def test_a_row_that_takes_for_ever_fails_alone() -> None:
    async def handle(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if body["seed"] == 3 and body["max_tokens"] > 1:
            await asyncio.sleep(30)
        return answer(body)

    async with serving(handle) as url, ModelClient(url, "m", timeout_seconds=0.6) as client:
        ended = await outcomes(client, 10)
    assert isinstance(ended[3], RowFailed)
    assert ended[3].reason == "timeout"
    assert all(isinstance(reply, Reply) for seed, reply in enumerate(ended) if seed != 3)


async def test_malformed_replies_are_asked_again_then_fail_the_row() -> None:
    asked: Counter[int] = Counter()

    async def handle(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        asked[body["seed"]] += 1
        if body["seed"] == 0:
            return web.json_response({"choices": []})
        if body["seed"] == 1 and asked[1] == 1:
            return answer(body, message={"role": "assistant", "content": None})
        return answer(body)

    async with serving(handle) as url, ModelClient(url, "m") as client:
        ended = await outcomes(client, 3)
    assert isinstance(ended[0], RowFailed)
    assert ended[0].reason == "malformed_reply"
    assert ended[1:] == [Reply("seed 1", "stop", 3, 2), Reply("seed 2", "stop", 3, 2)]
    assert asked == {0: 3, 1: 2, 2: 1}


async def test_a_prompt_longer_than_the_context_fails_its_row_only() -> None:
    async def handle(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        sentence = "This model's maximum context length is 64 tokens. However, you requested 99 tokens."
        wrong = web.json_response({"object": "error", "message": sentence, "code": 400}, status=400)
        return wrong if body["seed"] == 1 else answer(body)

    async with serving(handle) as url, ModelClient(url, "m") as client:
        ended = await outcomes(client, 3)
    assert isinstance(ended[1], RowFailed)
    assert ended[1].reason == "context_overflow"
    assert isinstance(ended[0], Reply)
    assert isinstance(ended[2], Reply)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}, Reply("a", "stop", 0, 0)),
        ({"choices": [{"message": {"content": None}, "finish_reason": "length"}]}, Reply("", "length", 0, 0)),
        ({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}, "malformed_reply"),
        ({"choices": [{"message": {"content": "a"}, "finish_reason": None}]}, "malformed_reply"),
        ({"choices": [{}]}, "malformed_reply"),
        ({"choices": {}}, "malformed_reply"),
        ([], "malformed_reply"),
        (None, "malformed_reply"),
    ],
)
def test_every_shape_of_reply_is_read_or_named(body: Any, expected: Reply | str) -> None:
    read = read_reply(json.dumps(body))
    assert read == expected if isinstance(expected, Reply) else isinstance(read, Fault) and read.reason == expected


def test_the_servers_sentence_is_found_in_every_shape() -> None:
    shapes = ['{"error": {"message": "no"}}', '{"error": "no"}', '{"detail": "no"}', '{"message": "no"}', " no\n"]
    assert [server_sentence(shape) for shape in shapes] == ["no"] * 5
    assert server_sentence("") == "no explanation"


async def test_a_cancelled_chat_gives_its_place_back() -> None:
    gate = Gate(AdaptiveLimit(1))
    await gate.enter()
    waiting = [asyncio.create_task(gate.enter()) for _ in range(3)]
    await asyncio.sleep(0)
    gate.leave()  # the first waiter's place, given in the same breath as it is cancelled
    waiting[0].cancel()
    waiting[1].cancel()
    await asyncio.wait_for(waiting[2], 1)
    gate.leave()
    assert gate.in_flight == 0


def simulate(limit: AdaptiveLimit, capacity: int, *, seconds: float, start: float = 0.0) -> list[int]:
    """Limits over time against a server that works on `capacity` requests at once, 1 s each, rest queued."""
    now, sizes = start, []
    while now < start + seconds:
        throughput = min(limit.limit, capacity)  # requests per second in the steady state
        for _ in range(limit.limit):
            now += 1 / throughput
            limit.success(50, now=now, saturated=True)
        sizes.append(limit.limit)
    return sizes


@pytest.mark.parametrize("capacity", [1, 6, 40, 200])
def test_concurrency_finds_the_servers_capacity_by_itself(capacity: int) -> None:
    sizes = simulate(AdaptiveLimit(256), capacity, seconds=60)
    late = sizes[len(sizes) // 2 :]
    assert sum(min(size, capacity) for size in late) / len(late) >= 0.9 * capacity
    assert sorted(late)[len(late) // 2] <= 3 * capacity + 4  # queued at the server, harmless


def test_concurrency_shrinks_when_refused_and_grows_again() -> None:
    limit = AdaptiveLimit(256)
    simulate(limit, 100, seconds=30)
    grown = limit.limit
    for moment in (31.0, 31.1, 31.2):  # three refusals of requests sent before the first refusal: one halving
        limit.overload(started=30.5, now=moment)
    assert limit.limit == grown // 2
    limit.overload(started=32, now=33)
    assert limit.limit == grown // 4
    simulate(limit, 100, seconds=60, start=34)
    assert limit.limit >= 80


def test_idle_windows_do_not_raise_the_limit() -> None:
    limit = AdaptiveLimit(256)
    for step in range(1000):
        limit.success(50, now=step / 10, saturated=False)
    assert limit.limit == 4


async def test_concurrency_grows_on_a_real_server_that_can_take_it() -> None:
    busy = most = 0

    async def handle(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.1)
        busy -= 1
        return answer(body)

    async with serving(handle) as url, ModelClient(url, "m", max_in_flight=32) as client:
        assert all_answered(await outcomes(client, 300))
    assert 16 <= most <= 32
