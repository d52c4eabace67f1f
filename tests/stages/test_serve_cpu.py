"""The CPU model server: right numbers, the same numbers in any company, and the API around them."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from soda_jobs.errors import InvalidInput
from soda_jobs.models.client import ModelClient, Sampling
from soda_jobs.models.cpu_engine import Engine, sample
from soda_jobs.models.cpu_model import CpuModel, Slots
from soda_jobs.models.cpu_protocol import Ask
from soda_jobs.models.engines import server_argv
from soda_jobs.plan import ServiceCommand

CONTEXT = 128
# Largest difference of two logits near 1 that the company may make: in the same slot, in another slot.
LAST_BITS = {"float64": (1e-7, 1e-7), "float32": (0.0, 1e-5)}
SPECIAL = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SIZE = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
CONFIGS = {
    "llama": LlamaConfig(**SIZE, intermediate_size=96, max_position_embeddings=CONTEXT),
    "qwen2": Qwen2Config(**SIZE, intermediate_size=96, max_position_embeddings=CONTEXT),
    "mistral": MistralConfig(**SIZE, intermediate_size=96, max_position_embeddings=512, sliding_window=CONTEXT),
    "gpt2": GPT2Config(n_layer=2, n_embd=64, n_head=4, n_positions=CONTEXT),
}


def checkpoint(folder: Path, config: PretrainedConfig) -> str:
    """A random model whose tokens are bytes, with a tokenizer and a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(SPECIAL + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    wrapped.add_special_tokens({"additional_special_tokens": SPECIAL[3:]})
    wrapped.chat_template = TEMPLATE
    wrapped.save_pretrained(folder)
    torch.manual_seed(11)
    config.update({"vocab_size": len(vocabulary), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkpoint(tmp_path_factory.mktemp("llama"), CONFIGS["llama"])


def prompt(number: int) -> list[int]:
    """A prompt of its own length and content."""
    return [5 + (7 * number + 13 * at) % 256 for at in range(3 + 11 * number % 40)]


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_greedy_tokens_are_those_of_transformers_itself(kind: str, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, CONFIGS[kind])
    reference = AutoModelForCausalLM.from_pretrained(path).double().eval()
    model = CpuModel(path, threads=1)
    assert model.context == CONTEXT
    slots = Slots(model, 3)
    logits = slots.prefill(1, prompt(2))
    slots.prefill(0, prompt(4))
    ids = prompt(2)
    for _ in range(20):
        with torch.inference_mode():
            expected = reference(torch.tensor([ids])).logits[0, -1]
        assert torch.allclose(logits, expected, rtol=0, atol=1e-6)
        ids.append(int(logits.argmax()))
        logits = slots.decode([9, ids[-1], 9], [len(prompt(4)), len(ids) - 1, 0])[1]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_logits_do_not_depend_on_company_or_slot(folder: str, dtype: str) -> None:
    model = CpuModel(folder, threads=1, dtype=dtype)

    def run(slot: int, neighbours: list[int]) -> torch.Tensor:
        slots = Slots(model, model.slots)
        places = [place for place in range(model.slots) if place != slot][: len(neighbours)]
        lengths = [0] * model.slots
        for place, number in zip(places, neighbours, strict=True):
            slots.prefill(place, prompt(number))
            lengths[place] = len(prompt(number))
        seen = [slots.prefill(slot, prompt(3))]
        lengths[slot] = len(prompt(3))
        for step in range(30):
            tokens = [(40 + place + step) % 200 for place in range(model.slots)]
            tokens[slot] = 60 + step
            seen.append(slots.decode(tokens, lengths)[slot])
            lengths = [length + 1 if length else 0 for length in lengths]
        return torch.stack(seen)

    alone = run(0, [])
    for slot, neighbours in [(0, [1]), (5, [2, 8, 1]), (model.slots - 1, list(range(model.slots - 1)))]:
        difference = (run(slot, neighbours) - alone).abs().max().item()
        # In one slot only the attention width may differ, and only float64 lets it.
        assert difference <= LAST_BITS[dtype][slot > 0], (slot, difference)


def engine(folder: str, threads: int) -> Engine:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    started = Engine(CpuModel(folder, threads=threads), tokenizer, frozenset({2}))
    started.start()
    return started


def asks() -> list[Ask]:
    """A mixed load: greedy and sampled, short and long, with and without stop strings."""
    return [
        Ask(
            ids=prompt(number),
            max_tokens=4 + 5 * number % 40,
            temperature=(0.0, 0.7, 1.5)[number % 3],
            top_p=(1.0, 0.9)[number % 2],
            top_k=(None, 20)[number % 2],
            stop=((), ("a", "xyz"))[number // 2 % 2],
            seed=number,
        )
        for number in range(60)
    ]


def test_answers_do_not_depend_on_load_or_threads(folder: str) -> None:
    one, two = engine(folder, 1), engine(folder, 2)
    alone = [one.submit(ask).result() for ask in asks()[:20]]
    together = [future.result() for future in [two.submit(ask) for ask in asks()]]
    backwards = [future.result() for future in [one.submit(ask) for ask in reversed(asks())]]
    assert together[:20] == alone
    assert backwards[::-1] == together
    assert len({answer.text for answer in together}) > 50


def test_a_withdrawn_request_frees_its_slot(folder: str) -> None:
    serving = engine(folder, 1)
    forever = [serving.submit(Ask(ids=[7], max_tokens=CONTEXT - 1, temperature=0)) for _ in range(64)]
    for future in forever:
        future.cancel()
    assert serving.submit(Ask(ids=[8], max_tokens=2, temperature=0)).result(timeout=20).completion_tokens == 2


def test_sampling_draws_from_the_distribution_it_was_asked_for() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64))
    grid = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000

    def shares(**how: Any) -> list[float]:
        ask = Ask(ids=[0], max_tokens=1, **how)
        drawn = Counter(sample(logits.expand(2000, -1), [ask] * 2000, grid))
        return [drawn[token] / 2000 for token in range(4)]

    assert shares(temperature=1.0) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=1e-3)
    assert shares(temperature=1.0, top_k=2) == pytest.approx([0.625, 0.375, 0, 0], abs=1e-3)
    assert shares(temperature=1.0, top_p=0.81) == pytest.approx([0.5263, 0.3158, 0.1579, 0], abs=1e-3)
    assert shares(temperature=1.0, top_p=0.79) == pytest.approx([0.625, 0.375, 0, 0], abs=1e-3)
    assert shares(temperature=1.0, top_p=0.0) == [1, 0, 0, 0]
    squared = [value**2 / 0.365 for value in (0.5, 0.3, 0.15, 0.05)]
    assert shares(temperature=0.5) == pytest.approx(squared, abs=1e-3)


def test_a_model_that_cannot_be_loaded_is_the_users_to_fix(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not a causal language model"):
        CpuModel(str(tmp_path), threads=1)


def test_a_context_longer_than_the_models_is_refused(folder: str) -> None:
    with pytest.raises(InvalidInput, match=r"--max-model-len: 999 is outside 1\.\.128"):
        CpuModel(folder, threads=1, max_model_len=999)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(url: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def health(port: int) -> int:
    """The status of the health path; 0 when nothing listens."""
    with contextlib.suppress(urllib.error.URLError, ConnectionError):
        return fetch(f"http://127.0.0.1:{port}{ServiceCommand.health}")[0]
    return 0


def until(condition: Any, seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if condition():
            return True
        time.sleep(0.05)
    return False


def command(folder: str, port: int) -> list[str]:
    argv = server_argv("cpu", model_path_or_id=folder, port=port, name="toy", options={"threads": 2})
    return [sys.executable, *argv[1:]]


@pytest.fixture(scope="module")
def url(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    log = tmp_path_factory.mktemp("log") / "stderr"
    with log.open("w") as stderr:
        process = subprocess.Popen(command(folder, port), stderr=stderr, env={**os.environ, "SODA_LOG": "json"})
    try:
        seen: list[int] = []
        assert until(lambda: seen.append(health(port)) or seen[-1] == 200, 120), log.read_text()
        assert set(seen) <= {0, 503, 200}
        assert log.read_text().count('"event": "server_ready"') == 1
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def chat(url: str, text: str = "hello", **extra: Any) -> tuple[int, Any]:
    messages = [{"role": "user", "content": text}]
    return fetch(f"{url}/chat/completions", {"model": "toy", "messages": messages, "temperature": 0, **extra})


def test_usage_and_finish_reason_of_an_answer_cut_short(url: str) -> None:
    status, body = chat(url, max_tokens=5)
    assert status == 200
    assert body["choices"][0]["finish_reason"] == "length"
    # <s> <|user|> h e l l o </s> <|assistant|>
    assert body["usage"] == {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}


def test_an_end_of_sequence_token_stops_and_is_counted(url: str) -> None:
    bodies = [chat(url, seed=seed, temperature=2.0, max_tokens=60)[1] for seed in range(30)]
    ended = [body for body in bodies if body["choices"][0]["finish_reason"] == "stop"]
    assert ended
    for body in ended:
        assert 1 <= body["usage"]["completion_tokens"] < 60
        assert not any(token in body["choices"][0]["message"]["content"] for token in SPECIAL)


def test_a_stop_string_ends_the_answer_before_it(url: str) -> None:
    whole = chat(url, max_tokens=30)[1]["choices"][0]["message"]["content"]
    stop = whole[6:9]
    status, body = chat(url, max_tokens=30, stop=["never there", stop])
    choice = body["choices"][0]
    assert (status, choice["finish_reason"]) == (200, "stop")
    assert choice["message"]["content"] == whole[: whole.index(stop)]
    assert body["usage"]["completion_tokens"] < 30


def test_a_seed_fixes_the_answer_and_choices_differ(url: str) -> None:
    how = {"temperature": 1.0, "max_tokens": 12, "n": 3}
    first, again, other = (chat(url, seed=seed, **how)[1] for seed in (1, 1, 2))
    assert first == again
    assert first["choices"] != other["choices"]
    texts = [choice["message"]["content"] for choice in first["choices"]]
    assert len(set(texts)) == 3
    assert chat(url, seed=1, temperature=1.0, max_tokens=12)[1]["choices"][0]["message"]["content"] == texts[0]
    assert first["usage"] == {"prompt_tokens": 9, "completion_tokens": 36, "total_tokens": 45}


def test_replies_over_http_are_the_same_alone_and_in_a_crowd(url: str) -> None:
    def one(number: int) -> Any:
        return chat(url, f"question {number}", seed=number, temperature=number % 2, max_tokens=20)[1]["choices"]

    alone = [one(number) for number in range(8)]
    with ThreadPoolExecutor(40) as pool:
        crowd = list(pool.map(one, range(80)))
    assert crowd[:8] == alone


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(url: str) -> None:
    status, body = chat(url, max_tokens=120)
    assert status == 400
    assert body["error"]["code"] == "context_length_exceeded"
    assert all(number in body["error"]["message"] for number in ("128", "9 in the prompt", "129"))
    assert chat(url, "x" * 500)[0] == 400
    assert chat(url, max_tokens=119)[0] == 200


@pytest.mark.parametrize(
    ("extra", "status", "field"),
    [
        ({"stream": True}, 400, "stream"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"top_p": 2}, 400, "top_p"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"n": 0}, 400, "n"),
        ({"stop": [""]}, 400, "stop"),
        ({"seed": 1.5}, 400, "seed"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user"}]}, 400, "messages[0]"),
        ({"presence_penalty": 1}, 400, "presence_penalty"),
        ({"model": "other"}, 404, "model"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(
    url: str, extra: dict[str, Any], status: int, field: str
) -> None:
    answered, body = chat(url, **extra)
    assert (answered, body["error"]["param"]) == (status, field)


def test_completions_take_a_list_of_prompts_as_text_or_ids(url: str) -> None:
    how = {"model": "toy", "max_tokens": 6, "temperature": 0}
    both = fetch(f"{url}/completions", {**how, "prompt": ["one", "two"]})[1]
    single = [fetch(f"{url}/completions", {**how, "prompt": text})[1]["choices"][0] for text in ("one", "two")]
    assert [choice["text"] for choice in both["choices"]] == [choice["text"] for choice in single]
    assert [choice["index"] for choice in both["choices"]] == [0, 1]
    assert both["usage"]["prompt_tokens"] == 6
    assert fetch(f"{url}/completions", {**how, "prompt": [[99999]]})[0] == 400


def test_the_model_list_names_the_model_and_its_context(url: str) -> None:
    models_ = fetch(f"{url}/models")[1]["data"]
    assert [(model["id"], model["max_model_len"]) for model in models_] == [("toy", CONTEXT)]


async def test_the_client_and_the_server_understand_each_other(url: str) -> None:
    async with ModelClient(url, "toy") as client:
        chats = [
            client.chat([{"role": "user", "content": f"{seed}"}], Sampling(temperature=1, max_tokens=9), seed=seed)
            for seed in range(20)
        ]
        replies = await asyncio.gather(*chats)
        assert client.usage["completion_tokens"] == sum(reply.completion_tokens for reply in replies)
    assert all(reply.finish_reason in ("stop", "length") for reply in replies)


def test_a_server_whose_parent_is_killed_is_gone(folder: str) -> None:
    port = free_port()
    code = (
        "import os, subprocess, sys, time\n"
        "env = {**os.environ, 'SODA_PARENT_PID': str(os.getpid())}\n"
        f"subprocess.Popen({command(folder, port)!r}, env=env, stderr=subprocess.DEVNULL)\n"
        "time.sleep(120)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    assert until(lambda: health(port) in (200, 503), 60)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert until(lambda: health(port) == 0, 10)


def test_engines_become_argv() -> None:
    options = {
        "gpus": 2,
        "dtype": "bfloat16",
        "max_model_len": 4096,
        "extra_args": ["--enforce-eager"],
        "host": "::",
    }
    vllm = server_argv("vllm", model_path_or_id="org/m", port=8000, name="teacher", options=options)
    assert " ".join(vllm) == (
        "vllm serve org/m --port 8000 --served-model-name teacher --host :: --dtype bfloat16 "
        "--max-model-len 4096 --tensor-parallel-size 2 --enforce-eager"
    )
    pinned = server_argv("cpu", model_path_or_id="org/m", port=1, name="t", options={"revision": "v1"})
    assert pinned[-2:] == ["--revision", "v1"]
    tutor = server_argv("tutor", model_path_or_id="", port=1, name="t", options=options)
    assert tutor == ["python", "-m", "soda_jobs.tutor", "--port", "1", "--host", "::"]
    with pytest.raises(InvalidInput, match="'tgi' is not one of cpu, tutor, vllm"):
        server_argv("tgi", model_path_or_id="m", port=1, name="m", options={})
