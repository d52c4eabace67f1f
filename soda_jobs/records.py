"""The rows that flow between stages, one JSON object per line.

Every row has `id` (a hash of the fields that define it), `iteration` (the round that made it, 0 = before the
first) and `parents` (the ids it came from). No row holds a clock, a host or a run name: equal work gives equal
bytes, which is what lets one run reuse another's artifacts. Times and costs live in the manifest's telemetry.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from soda_jobs.errors import InvalidInput

Level = Literal["easy", "medium", "hard"]
Role = Literal["teacher", "student", "synthesizer"]
CompletionKind = Literal["correct", "fault", "attempt", "refine"]
Status = Literal["pass", "fail", "timeout", "env_error", "unsupported", "infra_error"]
ParseStatus = Literal["ok", "partial", "failed"]


class Record(TypedDict):
    id: str
    iteration: int
    parents: list[str]


class Question(Record):
    """A programming task. `language`, `tests` and `entry_point` are present when the source knows them."""

    instruction: str
    source: str  # seed | evolved | oss | new | benchmark:<name>
    language: NotRequired[str]
    level: NotRequired[Level]  # of a parent chosen to be evolved
    parent_level: NotRequired[Level]  # of a new question: how hard its parent was
    tests: NotRequired[str]
    starter_code: NotRequired[str]
    entry_point: NotRequired[str]
    solution: NotRequired[str]
    task_id: NotRequired[str]


class Completion(Record):
    """What a model wrote. `sample` counts the samples of one question from 0; `text` is the raw reply."""

    question_id: str
    role: Role
    kind: CompletionKind
    model: str
    prompt_id: str
    text: str
    finish_reason: str  # stop | length | content_filter
    sample: int
    sampling: dict[str, Any]  # temperature, top_p, max_tokens, seed
    usage: dict[str, int]  # prompt_tokens, completion_tokens
    fault_types: NotRequired[list[str]]


class Execution(Record):
    """What a program did. `status` is the coarse outcome, `verdict` the taxonomy's word for it."""

    completion_id: str
    question_id: str
    sample: int
    language: str | None
    is_complete: bool
    status: Status
    verdict: str
    phase: Literal["extract", "compile", "run"]
    detail: str
    proof: NotRequired[Literal["observed", "controlled", "official"]]  # what a verdict with tests rests on
    official: NotRequired[str]  # the verdict of the tests' own word, where both ways were asked for


class Judgement(Record):
    """Scores by the six-point rubric; a rule the judge left blank is null, and `total` sums the others."""

    completion_id: str
    question_id: str
    judge_model: str
    analysis: str
    per_rule: dict[str, float | None]  # "1".."5"
    total: float | None
    parse_status: ParseStatus


class Classification(Record):
    question_id: str
    level: Level | None  # null: excluded from sampling
    rule: str
    execution_status: Status | None
    score: float | None


class Metric(TypedDict):
    iteration: int
    benchmark: str
    language: str
    metric: str  # pass@k | model_score
    k: int | None
    n: int  # number of tasks
    value: float
    ci: tuple[float, float]  # bootstrap 95 % interval over tasks
    per_task: dict[str, float]
    settings: dict[str, Any]


def canonical(value: Any) -> bytes:
    """The one JSON form that is hashed: sorted keys, no spaces, UTF-8, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def record_id(*fields: Any) -> str:
    """A stable 16-hex-digit id of the fields that define a row."""
    return hashlib.sha256(canonical(list(fields))).hexdigest()[:16]


def sampling_seed(run_seed: int, stage: str, record: str, attempt: int) -> int:
    """The seed of one model call, in [0, 2^31): equal for equal work, different for every row and attempt.

    `run_seed` is `spec.seed`, not the run's name, so that another run of the same spec may reuse the rows.
    """
    digest = hashlib.sha256(canonical([run_seed, stage, record, attempt])).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def dump_row(row: Any) -> str:
    """One JSON line, newline included. Keys keep their order: a row reads in the order its type lists."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def write_rows(path: Path, rows: Iterable[Any]) -> int:
    """Write rows as JSON lines; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(dump_row(row))
            count += 1
    return count


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file, blank lines skipped; a broken line is the user's to fix and is named."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InvalidInput(f"line {number} is not JSON ({error.msg})", field=str(path)) from error
            if not isinstance(row, dict):
                raise InvalidInput(f"line {number} is {type(row).__name__}, not an object", field=str(path))
            yield row
