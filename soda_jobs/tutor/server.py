"""The tutor behind the OpenAI chat completions API.

`POST /v1/chat/completions` with `messages n seed temperature max_tokens`; `GET /v1/models`; `GET /health`.
A token is counted as four characters, for `usage` and for `max_tokens` alike; a reply that is cut ends with
finish_reason `length`. Replies hold no clock: equal requests get equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from soda_jobs.errors import InvalidInput
from soda_jobs.tutor.replies import reply

MODEL: Final = "tutor"
_CHARS_PER_TOKEN: Final = 4
_MAX_CHOICES: Final = 128
_MAX_BODY: Final = 4 * 1024 * 1024  # bytes


def complete(body: Mapping[str, Any]) -> dict[str, Any]:
    """The response to one chat completion request. Choice i of n is what seed + i alone would give."""
    messages = _messages(body.get("messages"))
    seed = _number(body, "seed", 0)
    temperature = body.get("temperature", 1.0)
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature <= 2:
        raise InvalidInput(f"{temperature!r} is not a number from 0 to 2", field="temperature")
    count = _number(body, "n", 1, low=1, high=_MAX_CHOICES)
    limit = _number(body, "max_tokens", _number(body, "max_completion_tokens", 4096, low=1), low=1)
    choices = [_choice(i, reply(messages, seed + i, temperature), limit) for i in range(count)]
    prompt_tokens = sum(count_tokens(message["content"]) for message in messages)
    completion_tokens = sum(count_tokens(choice["message"]["content"]) for choice in choices)
    return {
        "id": "chatcmpl-" + hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:24],
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model", MODEL),
        "choices": choices,
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def count_tokens(text: str) -> int:
    """Four characters are one token, a rest counts as one."""
    return -(-len(text) // _CHARS_PER_TOKEN)


def _choice(index: int, text: str, limit: int) -> dict[str, Any]:
    fits = count_tokens(text) <= limit
    return {
        "index": index,
        "message": {"role": "assistant", "content": text if fits else text[: limit * _CHARS_PER_TOKEN]},
        "finish_reason": "stop" if fits else "length",
    }


def _messages(value: Any) -> Sequence[Mapping[str, str]]:
    if not isinstance(value, list) or not value:
        raise InvalidInput("must be a list of at least one message", field="messages")
    for number, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise InvalidInput("must be an object with a role and a text content", field=f"messages[{number}]")
    return [{"role": str(message.get("role", "user")), "content": message["content"]} for message in value]


def _number(body: Mapping[str, Any], name: str, default: int, *, low: int = 0, high: int = 2**63) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidInput(f"{value!r} is not a whole number from {low} to {high}", field=name)
    return value


async def _chat(request: web.Request) -> web.Response:
    try:
        body = json.loads(await request.text())
        if not isinstance(body, dict):
            raise InvalidInput(f"must be a JSON object, not {type(body).__name__}", field="body")
        if body.get("stream"):
            raise InvalidInput("streaming is not offered; leave it out or send false", field="stream")
        return web.json_response(complete(body))
    except (InvalidInput, json.JSONDecodeError, UnicodeDecodeError) as error:
        return web.json_response({"error": {"message": str(error), "type": "invalid_request_error"}}, status=400)


async def _models(request: web.Request) -> web.Response:
    model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "soda"}
    return web.json_response({"object": "list", "data": [model]})


async def _health(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


def app() -> web.Application:
    """The server, ready for `aiohttp.web.run_app`."""
    server = web.Application(client_max_size=_MAX_BODY)
    server.add_routes(
        [
            web.post("/v1/chat/completions", _chat),
            web.get("/v1/models", _models),
            web.get("/health", _health),
        ]
    )
    return server
