"""What a model server sent back, read: replies, error sentences, `Retry-After`. Pure; `client` does the asking."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True)
class Reply:
    """What the model wrote. Token counts are the server's, 0 when it does not say; `cached_tokens` are those of
    the prompt that it had computed before. `finish_reason` is `refusal` where the API says so."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True)
class Fault:
    """An attempt that gave no reply. `reason` is `overload`, `busy`, `down` or a key of `client._ROW_FAULTS`."""

    reason: str
    sentence: str
    after: float = 0.0


def read_reply(text: str) -> Reply | Fault:
    """The first choice of a chat completion. A null content is an empty text when there is a reason for it: no
    room, a filter, a refusal."""
    try:
        body = json.loads(text)
    except json.JSONDecodeError:
        return Fault("lost_connection", "the reply is not whole JSON")
    try:
        choice = body["choices"][0]
        content, finish = choice["message"]["content"], choice["finish_reason"]
        usage = body.get("usage") or {}
        prompt, written = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
        refusal = choice["message"].get("refusal")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return Fault("malformed_reply", "the reply has no choice with a message")
    if refusal and not content:
        content, finish = str(refusal), "refusal"
    if content is None and finish in ("length", "content_filter", "refusal"):
        content = ""
    if not isinstance(content, str) or not isinstance(finish, str):
        return Fault("malformed_reply", "the reply has no content or finish reason")
    return Reply(content, finish, prompt, written, cached)


def server_sentence(text: str) -> str:
    """The sentence inside an error body, whatever its shape, in at most 300 characters."""
    try:
        body = json.loads(text)
    except json.JSONDecodeError:
        return " ".join(text.split())[:300] or "no explanation"
    while isinstance(body, dict):
        body = next((body[key] for key in ("error", "message", "detail") if body.get(key)), "no explanation")
    return str(body)[:300]


_FILTERS = re.compile(r"content_?filter|content_policy_violation|ResponsibleAIPolicyViolation", re.IGNORECASE)


def is_filtered(text: str) -> bool:
    """True when an error body says that a filter, rather than the request's form, is why it was refused."""
    return _FILTERS.search(text) is not None


def retry_after(value: str | None) -> float:
    """Seconds to wait by a `Retry-After` header: a number of seconds or an HTTP date (RFC 9110, 10.2.3)."""
    if value is None:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
