"""One request to a model server, and what its answer means. `client` decides what follows from that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from soda_jobs.errors import ExitCode, InvalidInput, SodaError
from soda_jobs.models.signals import Signals, look
from soda_jobs.models.wire import Fault, Reply, is_filtered, read_reply, retry_after, server_sentence

_BUSY: Final = frozenset({408, 409, 425, 429, 502, 503, 504})
_SHRINK: Final = frozenset({429, 503})
_FIELDS: Final = {400: "", 401: ".secretRef", 403: ".secretRef", 404: ".model", 422: ""}
_OVERFLOW: Final = re.compile(
    r"context.{0,10}length|maximum context|max_model_len|too many tokens|prompt is too long"
)
_CONNECT_SECONDS: Final = 10.0


class RowFailed(SodaError):
    """One row cannot be answered. `reason` is one word: a key of `client._ROW_FAULTS`, `context_overflow` or
    `content_filter`."""

    exit_code = ExitCode.GIVE_UP

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


class Endpoint:
    """A model server by its URL; `base` ends in /v1. `field` is the spec path named in errors."""

    def __init__(self, url: str, *, field: str, api_key: str | None, timeout_seconds: float) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise InvalidInput(f"{url!r} is not an http(s) URL", field=f"{field}.endpoint")
        self.base = url.rstrip("/") if re.search(r"/v\d+/?$", url) else url.rstrip("/") + "/v1"
        self._field = field
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=_CONNECT_SECONDS)

    def open(self) -> None:
        # A proxy is for the world outside; a server beside us is never behind one.
        local = urlsplit(self.base).hostname in ("127.0.0.1", "::1", "localhost")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            headers=self._headers,
            timeout=self._timeout,
            trust_env=not local,
        )

    async def close(self) -> None:
        await self._session.close()

    async def post(self, body: Mapping[str, Any]) -> Reply | Fault:
        """Send one request and name what happened; raises for what cannot get better."""
        try:
            async with self._session.post(f"{self.base}/chat/completions", json=body) as response:
                text = await response.text(errors="replace")
                if response.status == 200:
                    return read_reply(text)
                return self._refused(response.status, text, retry_after(response.headers.get("Retry-After")))
        except aiohttp.ClientSSLError as error:
            raise InvalidInput(f"TLS to {self.base} failed: {error}", field=f"{self._field}.endpoint") from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Fault("down", f"cannot connect ({error})")
        except TimeoutError:
            return Fault("timeout", f"no answer within {self._timeout.total:.0f} s")
        except aiohttp.ClientError as error:
            return Fault("lost_connection", f"the connection broke ({type(error).__name__})")

    async def answers(self) -> bool:
        """True when anything answers at all."""
        timeout = aiohttp.ClientTimeout(total=_CONNECT_SECONDS)
        try:
            async with self._session.get(f"{self.base}/models", timeout=timeout):
                return True
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def load(self) -> Signals | None:
        """What the engine says of its load; None when it says nothing."""
        return await look(self._session, self.base)

    def _refused(self, status: int, text: str, after: float) -> Fault:
        """What an answer other than 200 means."""
        sentence = f"HTTP {status}: {server_sentence(text)}"
        if status in (400, 413, 422) and _OVERFLOW.search(text.lower()):
            raise RowFailed("context_overflow", sentence)
        if status == 400 and is_filtered(text):
            raise RowFailed("content_filter", sentence)
        if status in _BUSY:
            return Fault("overload" if status in _SHRINK else "busy", sentence, after)
        if status in _FIELDS or status < 500:
            field = self._field + _FIELDS.get(status, "")
            raise InvalidInput(f"the model server at {self.base} answered {sentence}", field=field)
        return Fault("server_error", sentence, after)
