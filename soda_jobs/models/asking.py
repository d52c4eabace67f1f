"""What every stage that asks a model does alike: its client, the watch over its yield, the account of its tokens.

A stage's options (made by plan.py, in no key) say how to go about it:

    yield_floor   least share of usable rows, 0 to 1
    rate_limits   what the endpoint allows: requests_per_minute, tokens_per_minute, concurrent_requests
    price         of a million tokens: input, output, cached_input
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from soda_jobs.context import Context
from soda_jobs.models.client import CEILING, ModelClient
from soda_jobs.models.pace import RateLimits
from soda_jobs.models.usage import Price, cost, no_usage
from soda_jobs.models.yield_watch import YieldWatch
from soda_jobs.rows import Outcome, map_rows

Item = TypeVar("Item")
# What became of an item: its outcome but for `usage`, and why it is of no use, if it is not.
Work = Callable[[Item, Counter[str]], Awaitable[tuple[Outcome, str | None]]]


@asynccontextmanager
async def asking(context: Context, role: str, model: str) -> AsyncIterator[ModelClient]:
    """The client of the server for `role`; pods that share the stage share what the endpoint allows."""
    limits = RateLimits(**context.options.get("rate_limits", {})).part(context.share.count)
    key = os.environ.get(f"SODA_{role.upper()}_API_KEY")
    url = context.service(role)
    async with ModelClient(url, model, api_key=key, field=f"spec.{role}", limits=limits) as client:
        yield client


async def ask_rows(
    items: Sequence[Item], work: Work[Item], *, context: Context, role: str
) -> tuple[dict[str, int], dict[str, float]]:
    """`map_rows` for rows that are asked of a model; returns counts and telemetry.

    Telemetry sums what the committed rows took, whichever attempt or pod asked for them. What a process that died
    had asked for in vain is not in it.
    """
    watch = YieldWatch(context.options.get("yield_floor", 0.0), stage=context.stage, role=role)

    async def one(item: Item) -> Outcome:
        used: Counter[str] = Counter()
        async with watch.place() as block:
            outcome, reason = await work(item, used)
            watch.count(block, reason)
        return Outcome(rows=outcome.rows, dropped=outcome.dropped, usage=dict(used))

    usage = no_usage()
    counts = await map_rows(items, one, context=context, unit="rows", in_flight=CEILING, usage=usage)
    telemetry = {name: float(amount) for name, amount in usage.items()}
    price = context.options.get("price")
    return counts, telemetry | ({"cost": cost(usage, Price(**price))} if price else {})
