"""What an engine says of its own load, read from the `/metrics` page that vLLM keeps.

In: a base URL. Out: `Signals`, or None where there is no such page. Behind the name of a headless Service are
several engines with a page each; all are asked, and their numbers added up.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import aiohttp

_MOST_ENGINES: Final = 64
_TIMEOUT: Final = aiohttp.ClientTimeout(total=5)
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
# `vllm:num_requests_running{engine="0",model_name="m"} 3.0`; counters end in `_total` or not, by the version.
_SAMPLE: Final = re.compile(r"^vllm:([a-z_]+)(?:\{[^}\n]*\})? ([0-9.eE+-]+)", re.MULTILINE)
_CACHE: Final = ("kv_cache_usage_perc", "gpu_cache_usage_perc")  # the name since 0.10, and before


@dataclass(frozen=True)
class Signals:
    """The load of an engine. `cache` is the used share of the memory for keys and values, the fullest engine's;
    `preemptions` and `generated` (tokens) only ever grow."""

    running: int
    waiting: int
    cache: float
    preemptions: float
    generated: float


def read_signals(pages: Iterable[str]) -> Signals | None:
    """The load that the pages tell together; None when one is not vLLM's."""
    found = [_sums(page) for page in pages]
    if not found or not all({"num_requests_running", "num_requests_waiting"} <= set(sums) for sums in found):
        return None
    total = {name: sum(sums.get(name, 0.0) for sums in found) for name in set().union(*found)}
    return Signals(
        running=int(total["num_requests_running"]),
        waiting=int(total["num_requests_waiting"]),
        cache=max(sums.get("cache", 0.0) for sums in found),
        preemptions=total.get("num_preemptions", 0.0),
        generated=total.get("generation_tokens", 0.0),
    )


def _sums(page: str) -> Mapping[str, float]:
    """Each metric's sum over the engines of a page, named without `vllm:` and `_total`; the largest cache."""
    sums: dict[str, float] = {}
    for name, text in _SAMPLE.findall(page):
        try:
            value = float(text)
        except ValueError:
            continue
        if name in _CACHE:
            sums["cache"] = max(sums.get("cache", 0.0), value)
        else:
            plain = name.removesuffix("_total")
            sums[plain] = sums.get(plain, 0.0) + value
    return sums


async def look(session: aiohttp.ClientSession, base: str) -> Signals | None:
    """Ask the engines behind `base` (a URL that ends in /v1) for their load."""
    parts = urlsplit(base)
    path = re.sub(r"/v\d+$", "", parts.path) + "/metrics"
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    hosts, own = [parts.netloc], {"Host": parts.netloc}
    if parts.scheme == "http" and parts.hostname not in _LOCAL:
        hosts = [f"{host}:{port}" for host in await _addresses(parts.hostname or "", port)]
    pages = await asyncio.gather(*(_page(session, f"{parts.scheme}://{host}{path}", own) for host in hosts))
    return read_signals(page for page in pages if page is not None)  # one that is starting may not answer yet


async def _addresses(host: str, port: int) -> list[str]:
    """The addresses behind a name, of one family: those of the other family are the same servers again."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    same = [address[0] for family, _, _, _, address in found if family == found[0][0]]
    unique = list(dict.fromkeys(str(address) for address in same))[:_MOST_ENGINES]
    return [f"[{address}]" if ":" in address else address for address in unique]


async def _page(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> str | None:
    try:
        async with session.get(url, headers=headers, timeout=_TIMEOUT, allow_redirects=False) as response:
            return await response.text(errors="replace") if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError):
        return None
