"""The tutor over real HTTP, started as its own process."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from soda_jobs.prompts import render
from soda_jobs.tutor.builtin import seed_questions
from soda_jobs.tutor.replies import REFUSAL, reply

QUESTION = seed_questions(1)[0]["instruction"]


@pytest.fixture(scope="module")
def url():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "soda_jobs.tutor", "--port", str(port)])
    try:
        base = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while True:
            try:
                get(f"{base}/health")
                break
            except urllib.error.URLError:
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield base
    finally:
        server.terminate()
        assert server.wait(timeout=10) == 0


def get(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def post(url, body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/v1/chat/completions", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_health_and_models_answer(url):
    assert get(f"{url}/health") == {"status": "ok"}
    assert [model["id"] for model in get(f"{url}/v1/models")["data"]] == ["tutor"]


def test_a_completion_has_the_reply_and_its_usage(url):
    messages = render("compact/correct", question=QUESTION)
    status, body = post(url, {"model": "tutor", "messages": messages, "temperature": 0})
    text = reply(messages)
    assert status == 200
    assert body["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    ]
    assert body["usage"]["completion_tokens"] == -(-len(text) // 4)
    assert body["usage"]["total_tokens"] == sum(body["usage"].values()) - body["usage"]["total_tokens"]


def test_choice_i_of_n_is_what_seed_plus_i_gives_and_bytes_repeat(url):
    body = {"messages": render("paper/fault", question=QUESTION), "n": 4, "seed": 11, "temperature": 0.8}
    first, second = post(url, body)[1], post(url, body)[1]
    assert first == second
    assert [c["message"]["content"] for c in first["choices"]] == [
        reply(body["messages"], 11 + i, 0.8) for i in range(4)
    ]


def test_a_reply_over_max_tokens_is_cut_and_says_so(url):
    messages = render("compact/correct", question=QUESTION)
    choice = post(url, {"messages": messages, "max_tokens": 5})[1]["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == reply(messages)[:20]


def test_an_unknown_question_is_refused_with_status_200(url):
    status, body = post(url, {"messages": [{"role": "user", "content": "Hello?"}]})
    assert (status, body["choices"][0]["message"]["content"]) == (200, REFUSAL)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"not json", "Expecting value"),
        ([], "body"),
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "x"}], "n": 0}, "n:"),
        ({"messages": [{"role": "user", "content": "x"}], "n": 10**6}, "n:"),
        ({"messages": [{"role": "user", "content": "x"}], "seed": "a"}, "seed:"),
        ({"messages": [{"role": "user", "content": "x"}], "temperature": 9}, "temperature:"),
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}, "max_tokens:"),
        ({"messages": [{"role": "user", "content": "x"}], "stream": True}, "stream:"),
    ],
)
def test_a_bad_request_gets_400_and_one_sentence_with_the_field(url, body, field):
    status, answer = post(url, body)
    assert status == 400
    assert field in answer["error"]["message"]


def test_the_tutor_needs_no_torch_and_starts_fast():
    script = (
        "import sys, soda_jobs.tutor.server; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    started = time.process_time()
    subprocess.run([sys.executable, "-c", script], check=True)
    assert time.process_time() - started < 5
