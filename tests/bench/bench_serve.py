"""How fast a model server starts and answers on CPU, and whether its replies depend on the load.

    python tests/bench/bench_serve.py cpu
    python tests/bench/bench_serve.py transformers --python VENV/bin/python     # pip install transformers[serving]
    python tests/bench/bench_serve.py transformers-batching --python VENV/bin/python

The model is a random Llama of 1.9 M parameters (4 layers, width 192, 800 tokens); every request has about 60
prompt tokens and gets 70 new ones. Prints one JSON line. CPU seconds are the server's own, which stay comparable
on a busy machine where wall seconds do not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import string
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

NEW_TOKENS = 70
SERVERS = {
    "cpu": ["-m", "soda_jobs.models.serve_cpu", "--model", "{model}", "--name", "{model}", "--port", "{port}"],
    "transformers": ["-m", "transformers.cli.transformers", "serve", "{model}", "--port", "{port}"],
    "transformers-batching": [
        *("-m", "transformers.cli.transformers", "serve", "{model}", "--port", "{port}", "--continuous-batching"),
        *("--cb-block-size", "32", "--cb-num-blocks", "512", "--cb-max-batch-tokens", "512"),
    ],
}


def make_model(folder: Path) -> None:
    """A random model with a tokenizer trained on letters, and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    draw = random.Random(0)
    words = ["".join(draw.choices(string.ascii_lowercase, k=draw.randrange(2, 7))) for _ in range(2000)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=800, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([" ".join(words)], trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    wrapped.chat_template = "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}<|assistant|>"
    wrapped.save_pretrained(folder)
    size = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6}
    config = LlamaConfig(vocab_size=len(wrapped), max_position_embeddings=1024, tie_word_embeddings=True, **size)
    config.eos_token_id = None  # so that every answer has the same length
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.generation_config.do_sample = True  # without it `transformers serve` ignores a request's temperature
    model.save_pretrained(folder)


def question(number: int) -> str:
    """About 60 tokens."""
    draw = random.Random(number)
    return "".join(draw.choices(string.ascii_lowercase + " ", k=70))


async def ask(
    session: aiohttp.ClientSession, url: str, model: str, number: int, *, seed: int | None = None
) -> tuple[str, int]:
    """One answer and its tokens; even numbers are greedy, odd ones sampled with a seed."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question(number)}],
        "max_tokens": NEW_TOKENS,
        "temperature": 0.8 * (number % 2),
        "seed": number if seed is None else seed,
    }
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        reply: Any = json.loads(await response.text())
        if response.status != 200:
            raise SystemExit(f"HTTP {response.status}: {reply}")
        return reply["choices"][0]["message"]["content"], reply["usage"]["completion_tokens"]


async def ready(session: aiohttp.ClientSession, url: str, process: subprocess.Popen[bytes]) -> float:
    """Seconds until /health answers 200."""
    started = time.monotonic()
    while time.monotonic() - started < 180:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}")
        try:
            async with session.get(f"{url}/health") as response:
                if response.status == 200:
                    return time.monotonic() - started
        except aiohttp.ClientConnectionError:
            pass
        await asyncio.sleep(0.1)
    raise SystemExit("the server was not ready after 180 s")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(
    process: subprocess.Popen[bytes], url: str, model: str, options: argparse.Namespace
) -> dict[str, Any]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
        start_up = await ready(session, url, process)
        start_up_cpu = cpu_seconds(process.pid)
        alone = [(await ask(session, url, model, number))[0] for number in range(6)]
        other_seed = (await ask(session, url, model, 1, seed=99))[0]
        slots = asyncio.Semaphore(options.concurrency)

        async def one(number: int) -> tuple[str, int]:
            async with slots:
                return await ask(session, url, model, number)

        wall, cpu = time.monotonic(), cpu_seconds(process.pid)
        crowd = await asyncio.gather(*map(one, range(options.requests)))
        wall, cpu = time.monotonic() - wall, cpu_seconds(process.pid) - cpu
    tokens = sum(count for _, count in crowd)
    same = [crowd[number][0] == alone[number] for number in range(6)]
    return {
        "server": options.server,
        "start_up_seconds": round(start_up, 1),
        "start_up_cpu_seconds": round(start_up_cpu, 1),
        "tokens_per_second": round(tokens / wall),
        "tokens_per_cpu_second": round(tokens / cpu),
        "greedy_replies_same_alone": f"{sum(same[0::2])} of 3",
        "sampled_replies_same_alone": f"{sum(same[1::2])} of 3",
        "another_seed_another_reply": other_seed != alone[1],
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", choices=sorted(SERVERS))
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the server")
    parser.add_argument("--requests", type=int, default=320)
    parser.add_argument("--concurrency", type=int, default=32)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is not left behind
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        argv = [word.format(model=folder, port=port) for word in SERVERS[options.server]]
        process = subprocess.Popen([options.python, *argv], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            print(json.dumps(asyncio.run(measure(process, f"http://127.0.0.1:{port}", folder, options))))
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
