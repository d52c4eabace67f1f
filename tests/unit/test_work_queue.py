"""A key is in the queue once and with one worker; what fails comes again later, what is news at once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest

from soda_operator.work_queue import FIRST_PAUSE, LONGEST_PAUSE, Key, WorkQueue

A, B, C = ("n", "a"), ("n", "b"), ("n", "c")


async def nothing(queue: WorkQueue, seconds: float = 0.02) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), seconds)


async def taken(queue: WorkQueue) -> Key:
    key, _ = await asyncio.wait_for(queue.get(), 5)
    return key


async def test_keys_come_in_order_and_once() -> None:
    queue = WorkQueue()
    for key in (A, B, A, C, A):
        queue.add(key)
    assert len(queue) == 3
    assert [await taken(queue) for _ in range(3)] == [A, B, C]
    await nothing(queue)


async def test_a_key_is_never_with_two_workers() -> None:
    queue = WorkQueue()
    queue.add(A)
    assert await taken(queue) == A
    queue.add(A)
    queue.add(A)
    await nothing(queue)
    queue.done(A)
    assert await taken(queue) == A
    queue.done(A)
    await nothing(queue)


async def test_the_time_is_when_it_became_dirty() -> None:
    queue = WorkQueue()
    now = asyncio.get_running_loop().time()
    queue.add(A)
    await asyncio.sleep(0.02)
    queue.add(A)
    _, since = await queue.get()
    assert since - now < 0.02


async def test_a_waiting_worker_is_woken() -> None:
    queue = WorkQueue()
    workers = [asyncio.create_task(taken(queue)) for _ in range(3)]
    await asyncio.sleep(0.01)
    for key in (A, B, C):
        queue.add(key)
    assert sorted(await asyncio.gather(*workers)) == [A, B, C]


async def test_later_means_the_earliest_time_asked_for() -> None:
    queue = WorkQueue()
    queue.add_later(A, 60)
    queue.add_later(A, 0.03)
    queue.add_later(A, 60)
    await nothing(queue, 0.01)
    assert await taken(queue) == A
    queue.done(A)
    await nothing(queue, 0.05)


async def test_a_worker_that_waits_for_a_later_key_takes_an_earlier_one() -> None:
    queue = WorkQueue()
    queue.add_later(A, 60)
    worker = asyncio.create_task(taken(queue))
    await asyncio.sleep(0.01)
    queue.add_later(B, 0.01)
    assert await worker == B


async def test_failures_come_again_after_a_growing_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("soda_operator.work_queue.random.uniform", lambda low, high: 1.0)
    monkeypatch.setattr(WorkQueue, "add_later", lambda self, key, seconds: pauses.append(seconds))
    queue = WorkQueue()
    for _ in range(12):
        queue.add(A)
        assert await taken(queue) == A
        queue.failed(A)
    assert pauses[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert max(pauses) == LONGEST_PAUSE
    assert all(early <= late for early, late in itertools.pairwise(pauses))
    queue.add(A)
    await taken(queue)
    queue.done(A)  # a success forgets them
    queue.add(A)
    await taken(queue)
    queue.failed(A)
    assert pauses[-1] == FIRST_PAUSE


async def test_the_servers_own_pause_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(WorkQueue, "add_later", lambda self, key, seconds: pauses.append(seconds))
    queue = WorkQueue()
    queue.add(A)
    await taken(queue)
    queue.failed(A, after=30.0)
    assert pauses == [30.0]


async def test_a_failure_does_not_come_again_at_once() -> None:
    queue = WorkQueue()
    queue.add(A)
    await taken(queue)
    queue.add(A)  # news while busy
    queue.failed(A)
    await nothing(queue)
    assert await taken(queue) == A


@pytest.mark.parametrize("end", [WorkQueue.done, WorkQueue.failed])
async def test_nothing_is_kept_of_a_key_that_is_over(end: Callable[[WorkQueue, Key], None]) -> None:
    queue = WorkQueue()
    queue.add(A)
    await taken(queue)
    end(queue, A)
    if end is WorkQueue.failed:
        await taken(queue)
        queue.done(A)
    tables = (queue._ready, queue._due, queue._busy, queue._again, queue._failures)
    assert not any(tables)


async def test_many_workers_do_everything_once() -> None:
    queue, done = WorkQueue(), []
    keys = [("n", str(number)) for number in range(500)]

    async def work() -> None:
        while True:
            key, _ = await queue.get()
            await asyncio.sleep(0)
            done.append(key)
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(8)]
    for key in keys:
        queue.add(key)
    while len(done) < len(keys):
        await asyncio.sleep(0.001)
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert sorted(done) == sorted(keys)
