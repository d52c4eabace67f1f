"""The stages that ask a model, against a real server that fails them: nothing is lost, doubled or paid unseen."""

from __future__ import annotations

import asyncio
import json
import os
import random
import selectors
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from soda_jobs import prompts
from soda_jobs.artifacts import Artifacts
from soda_jobs.context import Context, Share, ShareDone
from soda_jobs.errors import ExitCode, GiveUp, Retry
from soda_jobs.models.yield_watch import LowYield
from soda_jobs.records import read_rows
from soda_jobs.settings import StoreSettings
from soda_jobs.stages import generate, judge
from soda_jobs.store import open_store

Chat = Callable[[dict[str, Any]], Awaitable[web.Response]]
CODE = "```python\nprint(1)\n```"
SCORES = "Code Analysis: fine.\nScore:\n" + "\n".join(f"Rule {rule}. Name: 1" for rule in range(1, 6))
FLOOR = {"yield_floor": 0.5}
PRICE = {"price": {"input": 1.0, "output": 10.0, "cached_input": 0.5}}


def reply(text: str | None, finish: str = "stop", **message: Any) -> web.Response:
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 60}}
    choice = {"message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return web.json_response({"choices": [choice], "usage": usage})


def refused(status: int, after: str | None = None) -> web.Response:
    headers = {} if after is None else {"Retry-After": after}
    return web.json_response({"error": {"message": f"sorry, {status}"}}, status=status, headers=headers)


@asynccontextmanager
async def serving(chat: Chat) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.Response:
        return await chat(await request.json())

    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", handle)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


class MemoryShards:
    """Committed shards that outlive an attempt; `before` may let one die."""

    def __init__(self) -> None:
        self.names: dict[str, bytes] = {}
        self.dies_at = 10**9

    def done(self) -> list[str]:
        return sorted(self.names)

    def read(self, name: str) -> bytes:
        return self.names[name]

    def commit(self, name: str, data: bytes) -> bool:
        if len(self.names) >= self.dies_at:
            raise Retry("the store went away")
        fresh = name not in self.names
        self.names.setdefault(name, data)
        return fresh


@pytest.fixture
def context(tmp_path: Path) -> Context:
    out = tmp_path / "out"
    out.mkdir()
    return Context(
        run="r",
        stage="r1-correct",
        round=1,
        inputs={},
        out=out,
        work=tmp_path,
        services={},
        shards=MemoryShards(),
        progress=lambda unit, done, total: None,
    )


def settings(**changes: Any) -> generate.Settings:
    given: dict[str, Any] = {
        "role": "teacher",
        "kind": "correct",
        "model": "m",
        "prompt_set": "paper",
        "prompt_digests": {"correct": prompts.digest("paper/correct")},
        "sampling": {"temperature": 0.2, "top_p": 0.95, "top_k": 0, "max_tokens": 64},
    }
    return generate.Settings.model_validate({**given, **changes})


def questions(count: int) -> list[tuple[dict[str, Any], int]]:
    return [
        ({"id": f"q{number:05d}", "instruction": f"<{number}>", "level": "easy"}, 0) for number in range(count)
    ]


def number(body: dict[str, Any]) -> int:
    """Which question a request is about."""
    return int(body["messages"][-1]["content"].rpartition("<")[2].partition(">")[0])


async def ask(context: Context, chat: Chat, count: int, **changes: Any) -> tuple[dict[str, int], dict[str, float]]:
    async with serving(chat) as url:
        context = replace(context, services={"teacher": url, "judge": url})
        return await generate._generate(settings(**changes), context, questions(count))


def written(context: Context, name: str = "rows.jsonl") -> list[dict[str, Any]]:
    return list(read_rows(context.out / name))


# -- what a reply is worth ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "make"),
    [
        ("truncated", lambda: reply(CODE, "length")),
        ("truncated", lambda: reply(None, "length")),
        ("content_filter", lambda: reply(None, "content_filter")),
        ("refused", lambda: reply(None, "stop", refusal="I will not.")),
        ("refused", lambda: reply("I'm sorry, but I can't write faulty code.")),
        ("refused", lambda: reply("As an AI, I have no interpreter.")),
        ("empty", lambda: reply(" \n")),
        ("unfinished", lambda: reply("", "tool_calls")),
        ("malformed_reply", lambda: web.json_response({"choices": []})),
        (
            "context_overflow",
            lambda: web.json_response({"message": "This model's maximum context length is 64 tokens"}, status=400),
        ),
        (
            "content_filter",
            lambda: web.json_response({"error": {"code": "content_filter", "message": "no"}}, status=400),
        ),
    ],
)
async def test_every_useless_reply_is_one_counted_reason(
    context: Context, reason: str, make: Callable[[], web.Response]
) -> None:
    asked: Counter[int] = Counter()

    async def chat(body: dict[str, Any]) -> web.Response:
        asked[body["max_tokens"]] += number(body) == 1
        return make() if number(body) == 1 else reply(CODE)

    counts, _ = await ask(context, chat, 3)
    assert counts == {"items": 3, "rows": 2, "dropped": 1, f"dropped_{reason}": 1}
    assert written(context, "dropped.jsonl") == [{"id": "q00001", "sample": 0, "reason": reason}]
    assert set(+asked) == {64, 128}  # once more with twice the room


async def test_code_that_apologises_and_students_words_are_no_refusals(context: Context) -> None:
    async def chat(body: dict[str, Any]) -> web.Response:
        return reply(f"I'm sorry for the earlier answer.\n{CODE}" if number(body) else "I cannot do it.")

    assert (await ask(context, chat, 2))[0]["dropped_refused"] == 1
    student = replace(context, shards=MemoryShards(), services={})
    async with serving(chat) as url:
        student = replace(student, services={"student": url})
        made = settings(role="student", kind="attempt")
        assert (await generate._generate(made, student, questions(2)))[0]["rows"] == 2


# -- the yield ---------------------------------------------------------------------------------------------


async def test_a_stage_that_only_loses_rows_ends_before_it_asked_for_many(context: Context) -> None:
    asked: set[int] = set()

    async def chat(body: dict[str, Any]) -> web.Response:
        asked.add(number(body))
        await asyncio.sleep(0.01)
        return reply(CODE, "length") if number(body) % 10 else reply("I'm sorry, I cannot help.")

    with pytest.raises(LowYield) as caught:
        await ask(replace(context, options=FLOOR), chat, 5000)
    assert len(asked) <= 200
    assert isinstance(caught.value, GiveUp)
    sentence = str(caught.value)
    assert "stage r1-correct was stopped: of 200 rows in a row 101 gave nothing usable" in sentence
    assert "and 50% should (spec.teacher.yieldFloor)" in sentence
    assert "most often the reason was truncated" in sentence
    assert "raise maxTokens in spec.teacher.sampling" in sentence


async def test_a_yield_that_breaks_late_ends_the_stage_and_keeps_what_was_good(context: Context) -> None:
    bad: set[int] = set()

    async def chat(body: dict[str, Any]) -> web.Response:
        if number(body) < 640:
            return reply(CODE)
        bad.add(number(body))
        return reply("")

    options = FLOOR | {"rate_limits": {"concurrent_requests": 64}}
    with pytest.raises(LowYield, match=r"most often the reason was empty"):
        await ask(replace(context, options=options), chat, 5000)
    assert len(bad) <= 101 + 2 * 64  # what ended, and what was on its way
    assert len(context.shards.done()) >= 9
    again: Counter[int] = Counter()

    async def mended(body: dict[str, Any]) -> web.Response:
        again[number(body)] += 1
        return reply(CODE)

    counts, _ = await ask(context, mended, 5000)
    assert (counts["items"], counts["rows"] + counts["dropped"]) == (5000, 5000)
    assert counts["dropped"] <= 101  # of shards that were committed before the end
    assert set(again.values()) == {1}
    assert min(again) >= 9 * 64


async def respond(text: str) -> web.Response:
    return reply(text)


async def test_a_yield_above_the_floor_goes_on(context: Context) -> None:
    async def chat(body: dict[str, Any]) -> web.Response:
        return reply(CODE if number(body) % 10 < 6 else "")

    counts, _ = await ask(replace(context, options=FLOOR), chat, 1000)
    assert counts["dropped_empty"] == 400


async def test_a_judge_whose_replies_cannot_be_read_is_stopped(context: Context) -> None:
    made = judge.Settings.model_validate(
        {
            "role": "judge",
            "model": "m",
            "prompt_set": "paper",
            "prompt_digests": {"score": prompts.digest("paper/score")},
            "sampling": {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "max_tokens": 64},
        }
    )
    rows = [{"id": f"c{row}", "question_id": "q", "text": CODE} for row in range(400)]
    asked = {"q": {"id": "q", "instruction": "add"}}
    async with serving(lambda body: respond(SCORES)) as url:
        fine = replace(context, services={"judge": url}, options={"yield_floor": 0.1}, shards=MemoryShards())
        counts, usage, mean = await judge._judge(made, fine, rows, asked)
    assert (counts["rows"], usage["requests"], mean) == (400, 400, 5.0)
    async with serving(lambda body: respond("nice")) as url:
        poor = replace(context, services={"judge": url}, options={"yield_floor": 0.1}, shards=MemoryShards())
        with pytest.raises(LowYield, match=r"spec\.judge\.yieldFloor.*unreadable.*train the scoring model"):
            await judge._judge(made, poor, rows, asked)


# -- what it took ------------------------------------------------------------------------------------------


async def test_usage_and_cost_are_of_all_attempts_and_in_no_byte_of_the_rows(context: Context) -> None:
    async def chat(body: dict[str, Any]) -> web.Response:
        return reply("") if number(body) % 50 == 7 else reply(CODE)  # 6 of 300 are asked for twice

    context = replace(context, options=PRICE)
    shards = context.shards
    assert isinstance(shards, MemoryShards)
    shards.dies_at = 2
    with pytest.raises(Retry, match="the store went away"):
        await ask(context, chat, 300)
    assert len(shards.names) == 2
    shards.dies_at = 10**9
    counts, telemetry = await ask(context, chat, 300)
    assert counts["rows"] == 294
    tokens = {"prompt_tokens": 30_600, "cached_tokens": 18_360, "completion_tokens": 6120}
    assert telemetry == tokens | {"requests": 306, "retries": 0, "cost": pytest.approx(0.08262)}
    data = (context.out / "rows.jsonl").read_bytes()
    assert b'"usage": {"prompt_tokens": 100, "completion_tokens": 20}' in data
    old = MemoryShards()  # shards of a version that kept no usage give the same rows
    for name, shard in shards.names.items():
        lines = shard.splitlines(keepends=True)
        old.names[name] = b"".join(line for line in lines if not line.startswith(b'{"usage"'))
    assert old.names != shards.names
    _, nothing = await ask(replace(context, shards=old), chat, 300)
    assert (context.out / "rows.jsonl").read_bytes() == data
    assert nothing["prompt_tokens"] == 0


async def test_usage_is_summed_over_the_pods_that_share_a_stage(context: Context) -> None:
    async with serving(lambda body: respond(CODE)) as url:
        whole = replace(context, services={"teacher": url})

        async def part(index: int) -> Any:
            return await generate._generate(settings(), replace(whole, share=Share(index, 3)), questions(300))

        first, *others = await asyncio.gather(*map(part, range(3)), return_exceptions=True)
    assert isinstance(first, tuple)
    assert [type(other) for other in others] == [ShareDone, ShareDone]
    assert first[1]["requests"] == 300
    assert first[1]["prompt_tokens"] == 30_000


# -- processes -------------------------------------------------------------------------------------------

KEY = "e" * 64


def store(tmp_path: Path, count: int) -> Artifacts:
    """A store with `count` questions in it."""
    artifacts = Artifacts(open_store(str(tmp_path / "store"), create=True), tmp_path / "cache")
    folder = tmp_path / "questions"
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row, _ in questions(count)))
    facts: Any = {"counts": {}, "headline": {}, "inputs": {}, "settings": {}, "telemetry": {}}
    artifacts.commit("c" * 64, folder, kind="source", code_version=1, **facts)
    return artifacts


async def start(tmp_path: Path, url: str, options: dict[str, Any]) -> asyncio.subprocess.Process:
    """The stage as a process of its own, as a pod or the local executor starts it."""
    task = {
        "run": "r",
        "stage": "r1-correct",
        "kind": "generate",
        "round": 1,
        "key": KEY,
        "settings": settings().model_dump(),
        "inputs": {"questions": [{"key": "c" * 64, "file": None}]},
        "digests": {},
        "code_version": 1,
        "options": options,
    }
    env = {
        "SODA_STAGE": json.dumps(task),
        "SODA_SERVICES": json.dumps({"teacher": url}),
        "SODA_STORE": StoreSettings(str(tmp_path / "store")).to_env(),
        "SODA_STATE": str(tmp_path / "state"),
        "SODA_RESULT": str(tmp_path / "result"),
        "SODA_LOG": "json",
    }
    words = [sys.executable, "-m", "soda_jobs", "stage"]
    quiet = asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(*words, env={**os.environ, **env}, stderr=quiet)


async def test_a_stage_that_is_killed_again_and_again_asks_for_the_rest_and_counts_once(tmp_path: Path) -> None:
    asked: Counter[int] = Counter()
    committed: set[int] = set()  # rows of shards that were there at a death
    again: list[int] = []
    running: asyncio.subprocess.Process | None = None
    deaths = 0

    def kill_after_another_shard() -> None:
        nonlocal deaths
        done = artifacts.shards(KEY).done()
        if len(done) > deaths and deaths < 3:
            assert running is not None
            running.kill()
            deaths += 1
            committed.update(row for name in done for row in range(int(name[:9]), int(name[:9]) + 64))

    async def chat(body: dict[str, Any]) -> web.Response:
        row = number(body)
        asked[row] += 1
        if row in committed:
            again.append(row)
        kill_after_another_shard()
        while row >= 256 and deaths < 3:  # the last shard waits for the last death
            await asyncio.sleep(0.01)
            kill_after_another_shard()
        return reply(CODE)

    artifacts = store(tmp_path, 300)
    ends: list[int] = []
    async with serving(chat) as url:
        while not ends or ends[-1]:
            running = await start(tmp_path, url, PRICE)
            ends.append(await running.wait())
    assert ends == [-9, -9, -9, 0]
    manifest = artifacts.find(KEY)
    assert manifest is not None
    rows = list(read_rows(artifacts.fetch(manifest) / "rows.jsonl"))
    assert [row["question_id"] for row in rows] == [f"q{row:05d}" for row in range(300)]
    assert set(asked) == set(range(300))
    assert again == []
    usage = {"requests": 300, "retries": 0, "prompt_tokens": 30_000, "cached_tokens": 18_000}
    assert usage.items() <= manifest.telemetry.items()
    assert manifest.telemetry["cost"] == pytest.approx(0.081)


async def test_a_stopped_stage_gives_up_with_the_sentence_as_its_result(tmp_path: Path) -> None:
    artifacts = store(tmp_path, 1000)
    async with serving(lambda body: respond("I'm sorry, but I can't help with that.")) as url:
        process = await start(tmp_path, url, FLOOR)
        assert await process.wait() == ExitCode.GIVE_UP
    result = json.loads((tmp_path / "result").read_text())
    assert (result["state"], result["reason"]) == ("failed", "GIVE_UP")
    assert "101 gave nothing usable" in result["message"]
    assert "most often the reason was refused (101): use another model" in result["message"]
    assert artifacts.find(KEY) is None


# -- storms ------------------------------------------------------------------------------------------------


class FastSelector(selectors.DefaultSelector):
    """Sockets are real; time in which nothing happens on them is skipped."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(min(timeout, 0.002))
        if not ready:
            self.skipped += timeout
        return ready


class FastLoop(asyncio.SelectorEventLoop):
    """An event loop in which minutes of waiting pass in moments."""

    def __init__(self) -> None:
        self.selector, self.real = FastSelector(), time.monotonic
        super().__init__(self.selector)

    def time(self) -> float:
        return self.real() + self.selector.skipped


def in_fast_time(work: Coroutine[Any, Any, None], monkeypatch: pytest.MonkeyPatch) -> None:
    loop = FastLoop()
    monkeypatch.setattr(time, "monotonic", loop.time)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(work)


@pytest.mark.parametrize("quiet", [0.0, 5.0])
def test_five_minutes_of_refusals_lose_nothing(
    context: Context, monkeypatch: pytest.MonkeyPatch, quiet: float
) -> None:
    """The storm begins with the stage or in the middle of it; refusals ask to wait in both forms, or in none."""
    served: Counter[int] = Counter()
    refusals: list[float] = []
    fate = random.Random(3)
    began = 0.0

    def refuse() -> web.Response:
        moment = format_datetime(datetime.now(UTC) + timedelta(seconds=9), usegmt=True)
        return refused(fate.choice([429, 429, 503]), fate.choice([None, "7", moment]))

    async def chat(body: dict[str, Any]) -> web.Response:
        now = asyncio.get_running_loop().time()
        if quiet <= now - began < quiet + 300:
            refusals.append(now - began)
            return refuse()
        await asyncio.sleep(2.0)
        served[number(body)] += 1
        return reply(CODE)

    async def storm() -> None:
        nonlocal began
        began = asyncio.get_running_loop().time()
        counts, telemetry = await ask(replace(context, options=FLOOR), chat, 400)
        assert counts == {"items": 400, "rows": 400, "dropped": 0}
        assert telemetry["requests"] == 400 + len(refusals)
        assert asyncio.get_running_loop().time() - began < quiet + 600

    in_fast_time(storm(), monkeypatch)
    assert set(served.values()) == {1}
    assert len(served) == 400
    assert refusals[-1] - refusals[0] > 250
    assert 10 < len(refusals) < 300  # about one in each pause, after those that were on their way
    assert [row["question_id"] for row in written(context)] == [f"q{number:05d}" for number in range(400)]


def test_a_server_that_drops_hangs_and_refuses_loses_no_row(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    fate = random.Random(11)

    async def chat(body: dict[str, Any]) -> web.Response:
        draw = fate.random()
        if draw < 0.1:
            raise web.HTTPInternalServerError
        if draw < 0.13:
            await asyncio.sleep(1200)  # longer than the client waits for a reply
        if draw < 0.3:
            return refused(fate.choice([429, 503, 502, 408]))
        if draw < 0.4:
            return web.Response(text='{"choices": [{"mess', content_type="application/json")
        await asyncio.sleep(1.0)
        return reply(CODE)

    async def chaos() -> None:
        for _ in range(5):  # as whoever runs the stage starts it again, should the server hang for too long
            try:
                counts, _ = await ask(context, chat, 300)
                break
            except Retry:
                continue
        assert counts == {"items": 300, "rows": 300, "dropped": 0}

    in_fast_time(chaos(), monkeypatch)
    lines = [line for line in (context.out / "rows.jsonl").read_text().splitlines() if json.loads(line)]
    assert len(lines) == 300


def test_a_server_that_asks_for_an_hour_is_left_alone(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def chat(body: dict[str, Any]) -> web.Response:
        nonlocal asked
        asked += 1
        return refused(429, "3600")

    async def wait() -> None:
        with pytest.raises(Retry, match=r"asks to wait 3600 s; last: HTTP 429: sorry, 429") as caught:
            await ask(context, chat, 50)
        assert caught.value.after == 3600

    in_fast_time(wait(), monkeypatch)
    assert asked <= 4
