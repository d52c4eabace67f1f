"""The OpenAI API of the CPU server, without sockets or tensors: JSON bodies to `Ask`s, `Answer`s to JSON bodies.

What would change the result and is not implemented is refused by name; other unknown keys are ignored, as
OpenAI-compatible servers do. Bodies hold no clock: equal requests get equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from soda_jobs.errors import InvalidInput

_UNSUPPORTED: Final = (
    "echo",
    "functions",
    "logit_bias",
    "logprobs",
    "response_format",
    "stream",
    "suffix",
    "tools",
)
_PENALTIES: Final = ("presence_penalty", "frequency_penalty", "min_p")
_MAX_CHOICES: Final = 256
_DEFAULT_COMPLETION_TOKENS: Final = 16  # of /v1/completions, as in OpenAI's API; chat defaults to all that fits


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One completion to make. `stream` numbers the choices of one request, so that they differ under one seed."""

    ids: Sequence[int]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int = 0
    stream: int = 0


@dataclass(frozen=True)
class Answer:
    """`completion_tokens` counts the end-of-sequence token, as vLLM does; `text` ends before a stop string."""

    text: str
    finish_reason: str  # stop | length
    completion_tokens: int


def messages_of(body: Mapping[str, Any]) -> list[dict[str, str]]:
    """The conversation of a chat request, checked."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidInput("must be a list of at least one message", field="messages")
    for number, message in enumerate(messages):
        fields = [message.get(key) for key in ("role", "content")] if isinstance(message, dict) else [None]
        if not all(isinstance(value, str) for value in fields):
            raise InvalidInput("must be an object with a role and a text content", field=f"messages[{number}]")
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def prompts_of(body: Mapping[str, Any]) -> list[str] | list[list[int]]:
    """The prompts of a completions request: a text, a list of texts, a list of ids, or a list of such lists."""
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt:
        if all(isinstance(part, str) for part in prompt):
            return prompt
        nested = [prompt] if all(_is_id(part) for part in prompt) else prompt
        if all(isinstance(ids, list) and ids and all(_is_id(part) for part in ids) for ids in nested):
            return nested
    raise InvalidInput("must be a text, a list of texts, or one or more lists of token ids", field="prompt")


def asks_of(body: Mapping[str, Any], prompts: Sequence[Sequence[int]], *, context: int, chat: bool) -> list[Ask]:
    """`n` asks for each prompt. Raises InvalidInput, naming the key, for what cannot be served."""
    for name in _UNSUPPORTED:
        if body.get(name):
            raise InvalidInput("is not offered by the CPU server; leave it out", field=name)
    for name in _PENALTIES:
        if body.get(name) not in (None, 0):
            raise InvalidInput("is not offered by the CPU server; leave it out or send 0", field=name)
    limit = _number(body, "max_tokens", _number(body, "max_completion_tokens", None, low=1), low=1)
    if limit is None and not chat:
        limit = _DEFAULT_COMPLETION_TOKENS
    top_k = _number(body, "top_k", 0, low=-1)
    return [
        Ask(
            ids=ids,
            max_tokens=_room(len(ids), limit, context),
            temperature=_real(body, "temperature", 1.0, high=2.0),
            top_p=_real(body, "top_p", 1.0, high=1.0),
            top_k=top_k if top_k and top_k > 0 else None,
            stop=_stop(body.get("stop")),
            seed=_number(body, "seed", 0, low=-(2**63)) or 0,
            stream=stream,
        )
        for ids in prompts
        for stream in range(_number(body, "n", 1, low=1, high=_MAX_CHOICES) or 1)
    ]


def reply(
    body: Mapping[str, Any], name: str, asks: Sequence[Ask], answers: Sequence[Answer], *, chat: bool
) -> Any:
    """The response body of a request whose asks are answered. Choices of one prompt count its tokens once."""
    prompt_tokens = sum(len(ask.ids) for ask in asks if ask.stream == 0)
    completion_tokens = sum(answer.completion_tokens for answer in answers)
    kind = "chat.completion" if chat else "text_completion"
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:24]
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{digest}",
        "object": kind,
        "created": 0,
        "model": name,
        "choices": [
            {
                "index": index,
                **({"message": {"role": "assistant", "content": answer.text}} if chat else {"text": answer.text}),
                "logprobs": None,
                "finish_reason": answer.finish_reason,
            }
            for index, answer in enumerate(answers)
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def failure(message: str, *, kind: str, field: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error body as OpenAI's API has it."""
    return {"error": {"message": message, "type": kind, "param": field, "code": code}}


class ContextOverflow(InvalidInput):
    """The prompt and its answer do not fit the model's context."""


def _room(prompt: int, limit: int | None, context: int) -> int:
    """How many tokens the answer may have; refuses what does not fit."""
    wanted = 1 if limit is None else limit
    if prompt + wanted > context:
        raise ContextOverflow(
            f"the model's maximum context length is {context} tokens; {prompt} in the prompt and {wanted} of the "
            f"answer make {prompt + wanted}",
            field="max_tokens" if prompt < context else "messages",
        )
    return context - prompt if limit is None else limit


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(isinstance(text, str) and text for text in strings):
        raise InvalidInput(f"{value!r} is not a text or a list of texts, none empty", field="stop")
    return tuple(strings)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(
    body: Mapping[str, Any], name: str, default: int | None, *, low: int = 0, high: int = 2**63
) -> int | None:
    value = body.get(name)
    if value is None:
        return default
    if not _is_id(value) or not low <= value <= high:
        raise InvalidInput(f"{value!r} is not a whole number from {low} to {high}", field=name)
    return int(value)


def _real(body: Mapping[str, Any], name: str, default: float, *, high: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= high:
        raise InvalidInput(f"{value!r} is not a number from 0 to {high}", field=name)
    return float(value)
