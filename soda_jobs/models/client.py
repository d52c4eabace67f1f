"""The one client of model servers: any OpenAI-compatible URL, from the tutor to a cloud endpoint.

In: messages, sampling and a seed. Out: exactly one of a `Reply`, `RowFailed` (this row cannot be answered, go on
with the others), or an error that ends the stage: InvalidInput (the server says the request is wrong) or Retry
(the server has been away too long). Concurrency finds itself (`concurrency`), and a server that is gone is
probed, not hammered.

What a failure means is decided by what the server does for others. A refusal (429, 503) or a failure to connect is
the server's state and costs a row nothing. A 500, a cut connection or a timeout may be the row's own doing: it
counts against the row only if the server has answered something else since the row's previous failure.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp

from soda_jobs.errors import ExitCode, InvalidInput, Retry, SodaError
from soda_jobs.log import event
from soda_jobs.models.concurrency import AdaptiveLimit, Gate
from soda_jobs.models.wire import Fault, Reply, read_reply, retry_after, server_sentence

__all__ = ["ModelClient", "Reply", "RowFailed", "Sampling"]

_BUSY: Final = frozenset({408, 409, 425, 429, 502, 503, 504})
_SHRINK: Final = frozenset({429, 503})
_REFUSALS: Final = ("overload", "busy")
_FIELDS: Final = {400: "", 401: ".secretRef", 403: ".secretRef", 404: ".model", 422: ""}
_OVERFLOW: Final = re.compile(
    r"context.{0,10}length|maximum context|max_model_len|too many tokens|prompt is too long"
)
# reason -> how many failures of one row, the server otherwise well, make it a failed row
_ROW_FAULTS: Final = {"server_error": 8, "lost_connection": 8, "timeout": 3, "malformed_reply": 3}
_FIRST_DELAY, _LAST_DELAY = 0.25, 15.0  # seconds
_CONNECT_SECONDS: Final = 10.0
_DOWN: Final = 5  # connection failures in a row that open the circuit


class RowFailed(SodaError):
    """One row cannot be answered. `reason` is one word: the keys above, or `context_overflow`."""

    exit_code = ExitCode.GIVE_UP

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn; temperature 0 takes the most likely token. `top_k` null or 0 means all."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    max_tokens: int = 512
    stop: tuple[str, ...] = ()


class ModelClient:
    """`async with ModelClient(url, model) as client: await client.chat(...)`; any number of chats at once.

    `field` is the spec path named in errors, `timeout_seconds` bounds one request, `patience_seconds` the time
    without any answer from the server after which Retry is raised. `usage` counts requests, retries and tokens.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 600,
        max_in_flight: int = 256,
        field: str = "endpoint",
        patience_seconds: float = 900,
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise InvalidInput(f"{url!r} is not an http(s) URL", field=f"{field}.endpoint")
        self._base = url.rstrip("/") if re.search(r"/v\d+/?$", url) else url.rstrip("/") + "/v1"
        self._model = model
        self._field = field
        self._patience = patience_seconds
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=_CONNECT_SECONDS)
        self.gate = Gate(AdaptiveLimit(max_in_flight))
        self.usage = {"requests": 0, "retries": 0, "prompt_tokens": 0, "completion_tokens": 0}
        self._successes = 0
        self._last_success = float("-inf")
        self._asking = False
        self._down = 0
        self._not_before = self._paused_at = 0.0
        self._pause = _FIRST_DELAY
        self._probing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        # A proxy is for the world outside; a server beside us is never behind one.
        local = urlsplit(self._base).hostname in ("127.0.0.1", "::1", "localhost")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            headers=self._headers,
            timeout=self._timeout,
            trust_env=not local,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        await self._session.close()

    async def chat(self, messages: Sequence[Mapping[str, str]], sampling: Sampling, *, seed: int) -> Reply:
        """One reply. Raises RowFailed, InvalidInput or Retry; see the module's docstring."""
        body = self._body(messages, sampling, seed)
        started = time.monotonic()
        faults = dict.fromkeys(_ROW_FAULTS, 0)
        seen, delay = self._successes, _FIRST_DELAY
        while True:
            outcome = await self._attempt(body)
            if isinstance(outcome, Reply):
                return outcome
            self.usage["retries"] += 1
            reason = outcome.reason
            if reason in faults:
                if reason != "malformed_reply" and self._successes == seen:
                    await self._ask_after()
                faults[reason] += reason == "malformed_reply" or self._successes > seen
                if faults[reason] >= _ROW_FAULTS[reason]:
                    raise RowFailed(reason, outcome.sentence)
            if time.monotonic() - max(started, self._last_success) > self._patience:
                raise Retry(
                    f"{self._base} has not answered for {self._patience:.0f} s; last: {outcome.sentence}",
                    after=outcome.after or None,
                )
            seen = self._successes
            if reason in _REFUSALS:
                continue  # the whole client has paused already
            await asyncio.sleep(outcome.after + random.uniform(0, delay))
            delay = min(2 * delay, _LAST_DELAY)

    async def _ask_after(self) -> None:
        """Ask for one token, unless someone already does: is it the server that fails, or the row?"""
        if self._asking:
            return
        self._asking = True
        try:
            await self._attempt(self._body([{"role": "user", "content": "1"}], Sampling(max_tokens=1), 0))
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

    async def _attempt(self, body: Mapping[str, Any]) -> Reply | Fault:
        """One request, when the gate lets it through."""
        await self.gate.enter()
        try:
            while (wait := self._not_before - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            started = time.monotonic()
            self.usage["requests"] += 1
            outcome = await self._post(body)
            now = time.monotonic()
            if isinstance(outcome, Reply):
                self._successes += 1
                self._last_success = now
                self._pause = _FIRST_DELAY
                self.gate.limit.success(outcome.completion_tokens, now=now, saturated=self.gate.saturated)
                self.usage["prompt_tokens"] += outcome.prompt_tokens
                self.usage["completion_tokens"] += outcome.completion_tokens
            elif outcome.reason in _REFUSALS:
                self._hold_back(outcome, started=started, now=now)
            self._watch(outcome)
            return outcome
        finally:
            self.gate.leave()

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

    async def _probe(self) -> None:
        """Knock until anything answers, then open the gate; after the patience, break it."""
        since, delay = time.monotonic(), _FIRST_DELAY
        timeout = aiohttp.ClientTimeout(total=_CONNECT_SECONDS)
        while time.monotonic() - since <= self._patience:
            await asyncio.sleep(random.uniform(0, delay))
            delay = min(2 * delay, _LAST_DELAY)
            try:
                async with self._session.get(f"{self._base}/models", timeout=timeout):
                    event("server_back", url=self._base)
                    self._down = 0
                    self.gate.open()
                    return
            except (aiohttp.ClientError, TimeoutError):
                continue
        self.gate.break_with(Retry(f"{self._base} could not be reached for {self._patience:.0f} s"))

    async def _post(self, body: Mapping[str, Any]) -> Reply | Fault:
        """Send one request and name what happened; raises for what cannot get better."""
        try:
            async with self._session.post(f"{self._base}/chat/completions", json=body) as response:
                text = await response.text(errors="replace")
                if response.status == 200:
                    return read_reply(text)
                return self._refused(response.status, text, retry_after(response.headers.get("Retry-After")))
        except aiohttp.ClientSSLError as error:
            raise InvalidInput(f"TLS to {self._base} failed: {error}", field=f"{self._field}.endpoint") from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Fault("down", f"cannot connect ({error})")
        except TimeoutError:
            return Fault("timeout", f"no answer within {self._timeout.total:.0f} s")
        except aiohttp.ClientError as error:
            return Fault("lost_connection", f"the connection broke ({type(error).__name__})")

    def _refused(self, status: int, text: str, after: float) -> Fault:
        """What an answer other than 200 means."""
        sentence = f"HTTP {status}: {server_sentence(text)}"
        if status in (400, 413, 422) and _OVERFLOW.search(text.lower()):
            raise RowFailed("context_overflow", sentence)
        if status in _BUSY:
            return Fault("overload" if status in _SHRINK else "busy", sentence, after)
        if status in _FIELDS or status < 500:
            field = self._field + _FIELDS.get(status, "")
            raise InvalidInput(f"the model server at {self._base} answered {sentence}", field=field)
        return Fault("server_error", sentence, after)
