"""The row loop: every item exactly once and in order, over any number of deaths."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from soda_jobs.context import Context, Share, ShareDone
from soda_jobs.errors import Retry
from soda_jobs.records import read_rows
from soda_jobs.rows import Outcome, map_rows


class MemoryShards:
    """Committed shards that outlive an attempt."""

    def __init__(self) -> None:
        self.names: dict[str, bytes] = {}

    def done(self) -> list[str]:
        return sorted(self.names)

    def read(self, name: str) -> bytes:
        return self.names[name]

    def commit(self, name: str, data: bytes) -> bool:
        fresh = name not in self.names
        self.names.setdefault(name, data)
        return fresh


def context(tmp_path: Path, shards: MemoryShards) -> Context:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    return Context(
        run="r", stage="s", round=0, inputs={}, out=out, work=tmp_path, services={}, shards=shards,
        progress=lambda unit, done, total: None,
    )  # fmt: skip


async def slow_square(item: int) -> Outcome:
    await asyncio.sleep((item * 7919 % 13) / 10_000)  # finish out of order
    if item % 10 == 3:
        return Outcome(dropped=[{"id": str(item), "reason": "three"}])
    return Outcome(rows=[{"id": str(item), "text": f"\u2028{item * item}"}])


async def test_rows_come_out_in_the_order_of_the_items(tmp_path: Path) -> None:
    counts = await map_rows(
        range(100), slow_square, context=context(tmp_path, MemoryShards()), unit="rows", shard_size=7
    )
    kept = [row["id"] for row in read_rows(tmp_path / "out/rows.jsonl")]
    assert kept == [str(item) for item in range(100) if item % 10 != 3]
    assert counts == {"items": 100, "rows": 90, "dropped": 10, "dropped_three": 10}


async def test_a_restarted_attempt_asks_only_for_what_was_not_committed(tmp_path: Path) -> None:
    shards, asked = MemoryShards(), []

    async def dies_at_40(item: int) -> Outcome:
        asked.append(item)
        if item == 40:
            raise Retry("the server went away")
        return await slow_square(item)

    with pytest.raises(Retry, match="went away"):
        await map_rows(
            range(100), dies_at_40, context=context(tmp_path, shards), unit="rows", shard_size=5, in_flight=3
        )
    lines = [line for data in shards.names.values() for line in data.split(b"\n") if b'"row"' in line]
    committed = {json.loads(line)["row"]["id"] for line in lines}
    assert committed
    again: list[int] = []

    async def works(item: int) -> Outcome:
        again.append(item)
        return await slow_square(item)

    await map_rows(range(100), works, context=context(tmp_path, shards), unit="rows", shard_size=5, in_flight=3)
    assert not {str(item) for item in again} & committed
    disturbed = (tmp_path / "out/rows.jsonl").read_bytes()
    await map_rows(range(100), slow_square, context=context(tmp_path, MemoryShards()), unit="rows", shard_size=5)
    assert disturbed == (tmp_path / "out/rows.jsonl").read_bytes()


async def test_no_items_give_empty_files(tmp_path: Path) -> None:
    counts = await map_rows([], slow_square, context=context(tmp_path, MemoryShards()), unit="rows")
    assert counts == {"items": 0, "rows": 0, "dropped": 0}
    assert (tmp_path / "out/rows.jsonl").read_bytes() == b""


async def test_no_more_items_are_in_flight_than_asked_for(tmp_path: Path) -> None:
    now, most = 0, 0

    async def count(item: int) -> Outcome:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        return Outcome(rows=[{"id": str(item)}])

    await map_rows(range(50), count, context=context(tmp_path, MemoryShards()), unit="rows", in_flight=4)
    assert most == 4


async def test_processes_that_share_the_items_ask_for_each_once(tmp_path: Path) -> None:
    shards, asked = MemoryShards(), []

    async def note(item: int) -> Outcome:
        asked.append(item)
        return await slow_square(item)

    async def part(index: int) -> dict[str, int]:
        own = replace(context(tmp_path, shards), share=Share(index, 3))
        return await map_rows(range(100), note, context=own, unit="rows", shard_size=7)

    first, *others = await asyncio.gather(*map(part, range(3)), return_exceptions=True)
    assert [type(other) for other in others] == [ShareDone, ShareDone]
    assert sorted(asked) == list(range(100))
    shared = (tmp_path / "out/rows.jsonl").read_bytes()
    alone = await map_rows(
        range(100), slow_square, context=context(tmp_path, MemoryShards()), unit="rows", shard_size=7
    )
    assert first == alone
    assert shared == (tmp_path / "out/rows.jsonl").read_bytes()
