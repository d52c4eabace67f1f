"""The one client of model servers: any OpenAI-compatible URL, from the tutor to a cloud endpoint.

In: messages, sampling and a seed. Out: exactly one of a `Reply`, `RowFailed` (this row cannot be answered, go on
with the others), or an error that ends the stage: InvalidInput (the server says the request is wrong) or Retry
(the server has been away too long). Concurrency finds itself (`concurrency`), by the engine's own signals where it
has a page of them; what an endpoint allows is never exceeded (`pace`), and a server that is gone is probed, not
hammered.

What a failure means is decided by what the server does for others. A refusal (429, 503) or a failure to connect is
the server's state and costs a row nothing. A 500, a cut connection or a timeout may be the row's own doing: it
counts against the row only if the server has answered something else since the row's previous failure.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final, Self

from soda_jobs.errors import Retry
from soda_jobs.log import event
from soda_jobs.models.concurrency import AdaptiveLimit, Gate
from soda_jobs.models.endpoint import Endpoint, RowFailed
from soda_jobs.models.pace import NO_LIMITS, Pace, RateLimits
from soda_jobs.models.usage import no_usage
from soda_jobs.models.wire import Fault, Reply

__all__ = ["CEILING", "ModelClient", "Reply", "RowFailed", "Sampling"]

_REFUSALS: Final = ("overload", "busy")
# reason -> how many failures of one row, the server otherwise well, make it a failed row
_ROW_FAULTS: Final = {"server_error": 8, "lost_connection": 8, "timeout": 3, "malformed_reply": 3}
_FIRST_DELAY, _LAST_DELAY = 0.25, 15.0  # seconds
CEILING: Final = 2048  # requests in flight that no engine found so far wants exceeded
_LOOK_SECONDS: Final = 1.0  # between two looks at the engine's signals
_LOOKS: Final = 3  # that find none, and there are none;
_LOST_LOOKS: Final = 600  # so many more where there were some: the server is being started again
_CHARS_PER_TOKEN: Final = 3  # of a prompt that is booked before the server has counted it
_DOWN: Final = 5  # connection failures in a row that open the circuit


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn; temperature 0 takes the most likely token. `top_k` null or 0 means all."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    max_tokens: int = 512
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Ask:
    """One request: what is sent, who is told what it took, whose prompts begin alike, is it about a row that has
    been asked for before, the most tokens it takes."""

    body: Mapping[str, Any]
    usage: Counter[str] = field(default_factory=Counter)
    group: str = ""
    again: bool = False

    @property
    def most_tokens(self) -> int:
        prompt = sum(len(message["content"]) for message in self.body["messages"])
        return prompt // _CHARS_PER_TOKEN + int(self.body["max_tokens"])


class ModelClient:
    """`async with ModelClient(url, model) as client: await client.chat(...)`; any number of chats at once.

    `field` is the spec path named in errors, `timeout_seconds` bounds one request, `patience_seconds` the time
    without any answer from the server after which Retry is raised. `usage` counts requests, retries and tokens.
    `limits` are what an endpoint allows this process.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 600,
        max_in_flight: int = CEILING,
        field: str = "endpoint",
        patience_seconds: float = 900,
        limits: RateLimits = NO_LIMITS,
    ) -> None:
        self._server = Endpoint(url, field=field, api_key=api_key, timeout_seconds=timeout_seconds)
        self._base = self._server.base
        self._model = model
        self._patience = patience_seconds
        self.gate = Gate(AdaptiveLimit(min(max_in_flight, limits.concurrent_requests or max_in_flight)))
        self.usage = no_usage()
        self._pace = Pace(limits)
        self._successes = 0
        self._last_success = float("-inf")
        self._asking = False
        self._down = 0
        self._not_before = self._paused_at = 0.0
        self._pause = _FIRST_DELAY
        self._probing: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._server.open()
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [task for task in (self._probing, self._following) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.close()

    async def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        sampling: Sampling,
        *,
        seed: int,
        usage: Counter[str] | None = None,
        group: str = "",
        again: bool = False,
    ) -> Reply:
        """One reply. Raises RowFailed, InvalidInput or Retry; see the module's docstring.

        What it takes is added to `usage`. Requests of one `group` have prompts that begin alike. One that asks
        `again` for a row goes before those that were never asked for.
        """
        ask = _Ask(self._body(messages, sampling, seed), Counter() if usage is None else usage, group, again)
        started = time.monotonic()
        faults = dict.fromkeys(_ROW_FAULTS, 0)
        seen, delay = self._successes, _FIRST_DELAY
        while True:
            outcome = await self._attempt(ask)
            if isinstance(outcome, Reply):
                return outcome
            self._count(ask, retries=1)
            ask = replace(ask, again=True)
            reason = outcome.reason
            if reason in faults:
                if reason != "malformed_reply" and self._successes == seen:
                    await self._ask_after()
                faults[reason] += reason == "malformed_reply" or self._successes > seen
                if faults[reason] >= _ROW_FAULTS[reason]:
                    raise RowFailed(reason, outcome.sentence)
            self._check_patience(outcome, started)
            seen = self._successes
            if reason in _REFUSALS:
                continue  # the whole client has paused already
            await asyncio.sleep(outcome.after + random.uniform(0, delay))
            delay = min(2 * delay, _LAST_DELAY)

    def _check_patience(self, fault: Fault, started: float) -> None:
        """Raise Retry when the server has been away, or asks to be left alone, for longer than a stage waits."""
        if fault.after > self._patience:
            why = f"asks to wait {fault.after:.0f} s"
        elif time.monotonic() - max(started, self._last_success) > self._patience:
            why = f"has not answered for {self._patience:.0f} s"
        else:
            return
        raise Retry(f"{self._base} {why}; last: {fault.sentence}", after=fault.after or None)

    async def _ask_after(self) -> None:
        """Ask for one token, unless someone already does: is it the server that fails, or the row?"""
        if self._asking:
            return
        self._asking = True
        try:
            await self._attempt(_Ask(self._body([{"role": "user", "content": "1"}], Sampling(max_tokens=1), 0)))
        finally:
            self._asking = False

    def _body(self, messages: Sequence[Mapping[str, str]], sampling: Sampling, seed: int) -> dict[str, Any]:
        optional = {"top_k": sampling.top_k, "stop": list(sampling.stop)}
        return {
            "model": self._model,
            "messages": [dict(message) for message in messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": seed,
            **{name: value for name, value in optional.items() if value},
        }

    def _count(self, ask: _Ask, **amounts: int) -> None:
        ask.usage.update(amounts)
        for name, amount in amounts.items():
            self.usage[name] += amount

    async def _attempt(self, ask: _Ask) -> Reply | Fault:
        """One request, when the gate lets it through."""
        await self.gate.enter(ask.group, again=ask.again)
        try:
            await self._pace.enter(ask.most_tokens)
            while (wait := self._not_before - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            started = time.monotonic()
            self._count(ask, requests=1)
            outcome = await self._post(ask)
            now = time.monotonic()
            if isinstance(outcome, Reply):
                self._successes += 1
                self._last_success = now
                self._pause = _FIRST_DELAY
                self.gate.limit.success(outcome.completion_tokens, now=now, saturated=self.gate.saturated)
                names = ("prompt_tokens", "cached_tokens", "completion_tokens")
                self._count(ask, **{name: getattr(outcome, name) for name in names})
            elif outcome.reason in _REFUSALS:
                self._hold_back(outcome, started=started, now=now)
            elif outcome.reason == "timeout":
                self.gate.limit.overload(started=started, now=now)
            self._watch(outcome)
            return outcome
        finally:
            self.gate.leave()

    async def _post(self, ask: _Ask) -> Reply | Fault:
        """Send it; what was booked and not used is booked no more. A server that counts no tokens used all."""
        used = 0
        try:
            outcome = await self._server.post(ask.body)
            if isinstance(outcome, Reply):
                used = outcome.prompt_tokens + outcome.completion_tokens or ask.most_tokens
            return outcome
        finally:
            self._pace.give_back(ask.most_tokens - used)

    def _hold_back(self, refusal: Fault, *, started: float, now: float) -> None:
        """Pause everyone, for what the server asks and a random while that doubles with every further refusal.

        One pause for all rather than one per row: a storm then costs the server one request per pause, and when
        it ends nobody sleeps on.
        """
        if refusal.reason == "overload":
            self.gate.limit.overload(started=started, now=now)
        self._not_before = max(self._not_before, now + refusal.after)
        if started > self._paused_at:
            self._paused_at = now
            self._not_before = max(self._not_before, now + refusal.after + random.uniform(0, self._pause))
            self._pause = min(2 * self._pause, _LAST_DELAY)

    def _watch(self, outcome: Reply | Fault) -> None:
        """The circuit breaker: after `_DOWN` failures to connect, shut the gate and probe until one succeeds."""
        lost = isinstance(outcome, Fault) and outcome.reason == "down"
        self._down = self._down + 1 if lost else 0
        if self._down >= _DOWN and (self._probing is None or self._probing.done()):
            event("server_away", url=self._base)
            self.gate.shut()
            self._probing = asyncio.create_task(self._probe())

    async def _follow(self) -> None:
        """Look at the engine's signals for as long as the client lives, if it has any."""
        misses = 0
        while misses < _LOOKS:
            seen = await self._server.load()
            if seen is not None:
                misses = -_LOST_LOOKS
                self.gate.limit.observe(seen, now=time.monotonic(), saturated=self.gate.saturated)
                self.gate.wake()
            else:
                misses += 1
            await asyncio.sleep(_LOOK_SECONDS)

    async def _probe(self) -> None:
        """Knock until anything answers, then open the gate; after the patience, break it."""
        since, delay = time.monotonic(), _FIRST_DELAY
        while time.monotonic() - since <= self._patience:
            await asyncio.sleep(random.uniform(0, delay))
            delay = min(2 * delay, _LAST_DELAY)
            if await self._server.answers():
                event("server_back", url=self._base)
                self._down = 0
                self.gate.open()
                return
        self.gate.break_with(Retry(f"{self._base} could not be reached for {self._patience:.0f} s"))
