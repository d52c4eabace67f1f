"""The one loop of every row stage: items in, rows out, each item exactly once over any number of deaths.

Items are cut into shards of a fixed size by position. A shard is committed when all its items are done, under
a name made from its position, so a restarted attempt reads what is committed and works on the rest only. The
output is the shards joined in order: the same bytes however often the stage died, and by however many processes
it was shared: each takes every so-manieth shard, and the first one waits for all and joins them.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from soda_jobs.context import DROPPED, ROWS, Context, ShareDone
from soda_jobs.records import dump_row

Item = TypeVar("Item")
WAIT_SECONDS = 2.0


@dataclass(frozen=True)
class Outcome:
    """What became of one item: rows that it gave, and reasons for what it did not give."""

    rows: list[Any] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)  # {"id", "reason", ...}
    usage: Mapping[str, int] = field(default_factory=dict)  # what it took; kept with the shard, not in the output


async def map_rows(
    items: Sequence[Item],
    work: Callable[[Item], Awaitable[Outcome]],
    *,
    context: Context,
    unit: str,
    shard_size: int = 64,
    in_flight: int = 256,
    usage: dict[str, int] | None = None,
) -> dict[str, int]:
    """Run `work` over `items` and write `rows.jsonl` and `dropped.jsonl` into the stage's output folder.

    Returns counts: `items`, `rows`, `dropped`, and one `dropped_<reason>` for each reason seen. `work` raises
    for faults outside (the stage then ends, committed shards stay) and returns dropped items for bad replies.
    ShareDone when other processes have the rest, and joining is another's. Progress is that of the own part.
    `usage` is filled with the sum over all items, whichever attempt or process did them.
    """
    starts = range(0, len(items), shard_size)
    own = starts[context.share.index :: context.share.count]
    committed = set(context.shards.done())
    total = sum(len(items[start : start + shard_size]) for start in own)
    done = sum(len(items[start : start + shard_size]) for start in own if _name(start) in committed)
    context.progress(unit, done, total)
    slots = asyncio.Semaphore(in_flight)

    async def one(item: Item) -> Outcome:
        nonlocal done
        async with slots:
            outcome = await work(item)
        done += 1
        context.progress(unit, done, total)
        return outcome

    async def shard(start: int) -> None:
        outcomes = await _all(one(item) for item in items[start : start + shard_size])
        data = "".join(_lines(outcomes)).encode()
        await asyncio.to_thread(context.shards.commit, _name(start), data)

    await _all(shard(start) for start in own if _name(start) not in committed)
    if not context.share.is_first:
        raise ShareDone
    while context.share.count > 1 and not {_name(start) for start in starts} <= set(context.shards.done()):
        await asyncio.sleep(WAIT_SECONDS)
    used: Counter[str] = Counter()
    counts = _join([context.shards.read(_name(start)) for start in starts], context, len(items), used)
    if usage is not None:
        usage.update(used)
    return counts


def _name(start: int) -> str:
    return f"{start:09d}.jsonl"


async def _all(work: Any) -> list[Any]:
    """Gather that cancels the rest at the first error, and raises that error alone."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(item) for item in work]
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    return [task.result() for task in tasks]


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _lines(outcomes: Sequence[Outcome]) -> list[str]:
    used: Counter[str] = Counter()
    for outcome in outcomes:
        used.update(outcome.usage)
    lines = [dump_row({"usage": dict(used)})] if used else []
    for outcome in outcomes:
        lines += [dump_row({"row": row}) for row in outcome.rows]
        lines += [dump_row({"dropped": reason}) for reason in outcome.dropped]
    return lines


def _join(shards: Sequence[bytes], context: Context, total: int, used: Counter[str]) -> dict[str, int]:
    counts = {"items": total, "rows": 0, "dropped": 0}
    entries = (json.loads(line) for shard in shards for line in shard.split(b"\n") if line)
    with (
        (context.out / ROWS).open("w", encoding="utf-8", newline="\n") as kept,
        (context.out / DROPPED).open("w", encoding="utf-8", newline="\n") as dropped,
    ):
        for entry in entries:
            if "row" in entry:
                counts["rows"] += 1
                kept.write(dump_row(entry["row"]))
                continue
            if "usage" in entry:
                used.update(entry["usage"])
                continue
            counts["dropped"] += 1
            reason = f"dropped_{entry['dropped']['reason']}"
            counts[reason] = counts.get(reason, 0) + 1
            dropped.write(dump_row(entry["dropped"]))
    return counts
