"""What a graph will cost, before anything runs: upper bounds by walking it once with row counts.

Rows are bounds because a screen or a parser only ever takes rows away. Time and GPU memory are not guessed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from soda_jobs.graph import Graph, Kind, Stage, split_input

# Rows of a source whose size the spec does not say: the paper's seed set and its benchmarks (sections 4.1, 4.3).
PAPER_SEEDS: Final = 110_000
TASKS: Final = {"humaneval": 164, "humaneval-plus": 164, "mbpp": 378}
UNKNOWN_TASKS: Final = 500

Rows = Callable[[str], int]


def estimate(graph: Graph) -> dict[str, dict[str, int]]:
    """For each stage, at most how many `rows` it writes, model `calls` it makes and optimizer `steps` it takes."""
    costs: dict[str, dict[str, int]] = {}
    files: dict[str, Mapping[str, int]] = {}

    for stage in graph:

        def read(name: str, stage: Stage = stage) -> int:
            found = map(split_input, stage.inputs.get(name, ()))
            return sum(files[source].get(file or "rows.jsonl", 0) for source, file in found)

        files[stage.name] = _written(stage, read)
        rows = files[stage.name]["rows.jsonl"]
        calls = rows if stage.kind in (Kind.GENERATE, Kind.JUDGE) else 0
        costs[stage.name] = {"rows": rows, "calls": calls, "steps": _steps(stage, read)}
    return costs


def _written(stage: Stage, read: Rows) -> Mapping[str, int]:
    """Rows of each file a stage writes."""
    if stage.kind is Kind.SELECT:
        return SELECT[stage.settings["mode"]](stage.settings, read)
    written = WRITTEN.get(stage.kind)
    return {"rows.jsonl": written(stage.settings, read) if written else 0}


def _source(settings: Mapping[str, Any], read: Rows) -> int:
    known = {
        "questions": settings.get("count") or PAPER_SEEDS,
        "benchmark": TASKS.get(settings.get("name", ""), UNKNOWN_TASKS),
        "model": 0,
    }[settings["what"]]
    return min(known, settings.get("limit") or known)


def _split(settings: Mapping[str, Any], read: Rows) -> Mapping[str, int]:
    rows = read("questions")
    preference = math.ceil(rows * settings["fraction"])
    return {"rows.jsonl": rows, "sft.jsonl": rows - preference, "preference.jsonl": preference}


def _pairs(settings: Mapping[str, Any], read: Rows) -> Mapping[str, int]:
    sft, preference = read("sft"), read("fault")
    left = 0 if preference else read("preference")
    return {"rows.jsonl": 0, "sft.jsonl": sft + left, "preference.jsonl": preference}


SELECT: Final[Mapping[str, Callable[[Mapping[str, Any], Rows], Mapping[str, int]]]] = {
    "split": _split,
    "pairs": _pairs,
    "sample": lambda settings, read: {"rows.jsonl": min(settings["count"], read("rows"))},
    "annotations": lambda settings, read: {"rows.jsonl": read("judgements")},
    "parents": lambda settings, read: {"rows.jsonl": settings["count"]},
}

WRITTEN: Final[Mapping[Kind, Callable[[Mapping[str, Any], Rows], int]]] = {
    Kind.SOURCE: _source,
    Kind.SCREEN: lambda settings, read: read("questions"),
    Kind.GENERATE: lambda settings, read: read("questions") * settings.get("samples", 1),
    Kind.JUDGE: lambda settings, read: read("completions"),
    Kind.EXECUTE: lambda settings, read: read("completions"),
    Kind.CLASSIFY: lambda settings, read: read("questions"),
}


def _steps(stage: Stage, read: Rows) -> int:
    train = stage.settings.get("train")
    if stage.kind is not Kind.TRAIN or not train:
        return 0
    return math.ceil(math.ceil(read("rows") / int(train["batch_size"])) * float(train["epochs"]))
