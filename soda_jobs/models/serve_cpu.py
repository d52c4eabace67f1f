"""Serve a local causal language model on CPU behind the OpenAI API.

    python -m soda_jobs.models.serve_cpu --model DIR --port 8000 --name student

`POST /v1/chat/completions`, `POST /v1/completions`, `GET /v1/models`, `GET /health` (503 until the model is loaded
and warm). One `server_ready` event is written when it is. The reply to a request depends on its prompt, sampling
and seed alone, never on what else is being served; see `cpu_model`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle compute threads sleep: the cores are shared

import argparse
import asyncio
import copy
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from aiohttp import web
from jinja2 import TemplateError

from soda_jobs.errors import ExitCode, InvalidInput, Retry, SodaError
from soda_jobs.log import event
from soda_jobs.models.cpu_protocol import (
    ContextOverflow,
    asks_of,
    failure,
    messages_of,
    prompts_of,
    reply,
)
from soda_jobs.parent import die_with_parent

_MAX_BODY: Final = 64 << 20  # bytes
_DTYPES: Final = ("auto", "float64", "float32", "bfloat16", "float16")
Body = dict[str, Any]
Handler = Callable[[Body], Awaitable[Body]]


class Server:
    """The HTTP face of an engine; `engine` is None until the model is loaded."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.engine: Any = None
        self.tokenizer: Any = None
        self.context = 0

    def app(self) -> web.Application:
        """The routes, for aiohttp."""
        app = web.Application(client_max_size=_MAX_BODY)
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._post(self.chat)),
                web.post("/v1/completions", self._post(self.completions)),
                web.get("/v1/models", self.models),
                web.get("/health", self.health),
            ]
        )
        return app

    async def health(self, request: web.Request) -> web.Response:
        """200 when requests can be answered."""
        ready = self.engine is not None
        return web.json_response({"status": "ok" if ready else "loading"}, status=200 if ready else 503)

    async def models(self, request: web.Request) -> web.Response:
        """The one model, and its context in tokens under vLLM's name for it."""
        model = {
            "id": self.name,
            "object": "model",
            "created": 0,
            "owned_by": "soda",
            "max_model_len": self.context,
        }
        return web.json_response({"object": "list", "data": [model]})

    async def chat(self, body: Body) -> Body:
        """Answer a conversation, laid out by the tokenizer's own chat template."""
        messages = messages_of(body)
        if not self.tokenizer.chat_template:
            raise InvalidInput(f"the tokenizer of {self.name!r} has no chat template; use /v1/completions")
        try:
            ids = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        except TemplateError as error:
            raise InvalidInput(f"the chat template refuses the messages: {error}", field="messages") from error
        return await self._answer(body, [list(ids)], chat=True)

    async def completions(self, body: Body) -> Body:
        """Continue one or more prompts."""
        prompts = [
            self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts_of(body)
        ]
        return await self._answer(body, prompts, chat=False)

    async def _answer(
        self, body: dict[str, Any], prompts: Sequence[Sequence[int]], *, chat: bool
    ) -> dict[str, Any]:
        if any(not 0 <= token < self.engine.vocabulary for ids in prompts for token in ids):
            raise InvalidInput(f"token ids are from 0 to {self.engine.vocabulary - 1}", field="prompt")
        if not all(prompts):
            raise InvalidInput("is empty", field="prompt")
        asks = asks_of(body, prompts, context=self.context, chat=chat)
        futures = [asyncio.wrap_future(self.engine.submit(ask)) for ask in asks]
        answers = await asyncio.gather(*futures)  # cancelled when the client leaves, which frees the slots
        response: Body = reply(body, self.name, asks, answers, chat=chat)
        return response

    def _post(self, handle: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(request: web.Request) -> web.Response:
            if self.engine is None:
                loading = failure("the model is loading", kind="service_unavailable")
                return web.json_response(loading, status=503, headers={"Retry-After": "1"})
            try:
                body = json.loads(await request.text())
                if not isinstance(body, dict):
                    raise InvalidInput(f"the body is {type(body).__name__}, not a JSON object")
                if body.get("model", self.name) != self.name:
                    unknown = failure(
                        f"{body['model']!r} is not {self.name!r}", kind="not_found_error", field="model"
                    )
                    return web.json_response(unknown, status=404)
                return web.json_response(await handle(body))
            except (InvalidInput, UnicodeDecodeError, json.JSONDecodeError) as error:
                code = "context_length_exceeded" if isinstance(error, ContextOverflow) else None
                field = getattr(error, "field", None)
                wrong = failure(str(error), kind="invalid_request_error", field=field, code=code)
                return web.json_response(wrong, status=400)

        return handler


def load(server: Server, options: argparse.Namespace) -> list[Any]:
    """Load and warm the model, then open the server; returns the futures of its workers."""
    from transformers import AutoTokenizer  # seconds of import, while /health already answers

    from soda_jobs.models.cpu_engine import Engine
    from soda_jobs.models.cpu_model import CpuModel

    threads = options.threads or len(os.sched_getaffinity(0))
    model = CpuModel(
        options.model,
        threads=threads,
        dtype=options.dtype,
        max_model_len=options.max_model_len,
        revision=options.revision,
    )
    try:
        tokenizer = AutoTokenizer.from_pretrained(options.model, revision=options.revision)
    except (OSError, ValueError) as error:
        sentence = str(error).strip().splitlines()[0]
        raise InvalidInput(f"{options.model!r} has no tokenizer: {sentence}", field="--model") from error
    # Two tokenizers: the engine's threads turn ids into text while this one reads prompts.
    engine = Engine(model, copy.deepcopy(tokenizer), end_tokens(model.module, tokenizer))
    ended = engine.start()
    server.tokenizer, server.context, server.engine = tokenizer, model.context, engine
    dtype = str(model.dtype).removeprefix("torch.")
    event("server_ready", model=options.name, port=options.port, dtype=dtype, context=model.context)
    return ended


def end_tokens(module: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends an answer: of the generation settings, the model's and the tokenizer's."""
    given = [module.generation_config.eos_token_id, module.config.eos_token_id, tokenizer.eos_token_id]
    lists = [value if isinstance(value, list) else [value] for value in given]
    return frozenset(token for tokens in lists for token in tokens if token is not None)


async def serve(options: argparse.Namespace) -> None:
    """Listen, load, and answer; returns only when a worker has died."""
    server = Server(options.name)
    runner = web.AppRunner(server.app(), access_log=None, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, options.host, options.port).start()
    except OSError as error:
        raise Retry(f"cannot listen on {options.host}:{options.port}: {error.strerror}") from error
    workers = await asyncio.to_thread(load, server, options)
    await asyncio.wait(map(asyncio.wrap_future, workers), return_when=asyncio.FIRST_COMPLETED)


def main() -> int:
    """Parse, serve; returns the exit code of the error that ended it."""
    die_with_parent()
    parser = argparse.ArgumentParser(prog="python -m soda_jobs.models.serve_cpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", required=True, help="folder or hub id of a causal language model")
    parser.add_argument(
        "--revision", default="main", help="commit, tag or branch of a hub id (default: %(default)s)"
    )
    parser.add_argument("--name", required=True, help="the name that requests ask for")
    parser.add_argument("--port", type=int, required=True, help="TCP port to listen on")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: every core this process may use)")
    parser.add_argument("--max-model-len", type=int, help="context in tokens (default: the model's, at most 4096)")
    parser.add_argument(
        "--dtype", choices=_DTYPES, default="auto", help="auto: float64 under 50 M parameters, else float32"
    )
    options = parser.parse_args()
    try:
        asyncio.run(serve(options))
    except SodaError as error:
        event("server_failed", model=options.name, error=str(error))
        return int(error.exit_code)
    except KeyboardInterrupt:
        return int(ExitCode.DONE)
    event("server_failed", model=options.name, error="a worker died")
    return int(ExitCode.BUG)


if __name__ == "__main__":
    sys.exit(main())
