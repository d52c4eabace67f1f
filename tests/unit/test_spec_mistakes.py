"""Every mistake gives one sentence with field, value and accepted values; nothing gives a traceback."""

from __future__ import annotations

import copy
import random
import string
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from soda_jobs.errors import ExitCode, InvalidInput
from soda_jobs.load import load, problems
from soda_jobs.spec.pod_rules import quantity

QUICKSTART = (Path(__file__).parents[2] / "crds" / "samples" / "quickstart.yaml").read_bytes()
VALID: dict[str, Any] = {
    "apiVersion": "soda.dev/v1alpha1",
    "kind": "DistillationRun",
    "metadata": {"name": "toy"},
    "spec": {
        "method": "soda",
        "teacher": {"model": "owner/teacher"},
        "student": {"model": "owner/student"},
    },
}
DROP = object()
JARGON = (
    "input should",
    "pydantic",
    "validation",
    "literal",
    "type=",
    "string_",
    "traceback",
    "regex",
    "^",
    "None",
)

Edit = dict[str, Any]


def edited(edits: Edit) -> str:
    data = copy.deepcopy(VALID)
    for place, value in edits.items():
        *parents, last = place.split(".")
        block = data
        for parent in parents:
            block = block.setdefault(parent, {})
        if value is DROP:
            del block[last]
        else:
            block[last] = value
    return yaml.safe_dump(data)


# What is changed in a valid run; the field that is named; what its sentence says.
MISTAKES: list[tuple[Edit, str, list[str]]] = [
    # the envelope
    ({"apiVersion": "soda.dev/v1"}, "apiVersion", ["soda.dev/v1 ", "soda.dev/v1alpha1"]),
    ({"apiVersion": DROP}, "apiVersion", ["missing", "soda.dev/v1alpha1"]),
    ({"kind": "Distillation"}, "kind", ["Distillation ", "DistillationRun"]),
    ({"metadata.name": DROP}, "metadata.name", ["missing", "lower-case letters"]),
    ({"metadata.name": "My_Run"}, "metadata.name", ["My_Run", "lower-case letters"]),
    ({"metadata.name": 7}, "metadata.name", ["7 is", "lower-case letters", "in quotes"]),
    ({"metadata.name": "n" * 40}, "metadata.name", ["n" * 40, "40 characters", "at most 26 characters"]),
    ({"metadata.name": "n" * 26, "spec.rounds": 12}, "metadata.name", ["n" * 26, "at most 25 characters"]),
    ({"metadata.labels": {"a b": "x"}}, "metadata.labels.a b", ["a b cannot", "label key"]),
    ({"metadata.labels": {"team": 7}}, "metadata.labels.team", ["7 is", "letters, digits", "in quotes"]),
    ({"status": {}}, "status", ["status is not", "apiVersion, kind, metadata, spec"]),
    # keys
    ({"spec.roundz": 3}, "spec.roundz", ["roundz is not", "use rounds"]),
    (
        {"spec.training.sft.learning_rate": 1e-5},
        "spec.training.sft.learning_rate",
        ["learning_rate", "learningRate"],
    ),
    ({"spec.training.beta": 0.1}, "spec.training.beta", ["beta is not", "spec.training.preference.beta"]),
    ({"spec.execution.memoryMib": 64}, "spec.execution.memoryMib", ["memoryMib is not", "use memoryMiB"]),
    ({"spec.zzz": 1}, "spec.zzz", ["zzz is not", "method, rounds", "deletionPolicy"]),
    # types and bounds
    ({"spec.method": DROP}, "spec.method", ["missing", "soda, iterkd"]),
    ({"spec.method": "sodaa"}, "spec.method", ["sodaa", "soda, iterkd"]),
    ({"spec.rounds": 0}, "spec.rounds", ["0 is", "from 1 to 20"]),
    ({"spec.rounds": 21}, "spec.rounds", ["21 is", "from 1 to 20"]),
    ({"spec.rounds": "3"}, "spec.rounds", ['"3" is', "a whole number from 1 to 20"]),
    ({"spec.rounds": 2.5}, "spec.rounds", ["2.5 is", "a whole number from 1 to 20"]),
    ({"spec.rounds": True}, "spec.rounds", ["true is", "a whole number from 1 to 20"]),
    ({"spec.rounds": None}, "spec.rounds", ["null is", "a whole number from 1 to 20"]),
    ({"spec.seed": -1}, "spec.seed", ["-1 is", "from 0 to 2147483647"]),
    ({"spec.suspend": "yes"}, "spec.suspend", ['"yes" is', "true or false"]),
    ({"spec.prompts.student": "short"}, "spec.prompts.student", ["short", "paper, compact"]),
    ({"spec.student": "owner/student"}, "spec.student", ["owner/student", "a block with the keys model, init"]),
    ({"spec.training": [1]}, "spec.training", ["[1]", "a block with the keys nodes"]),
    ({"spec.questions.ratio.easy": -1}, "spec.questions.ratio.easy", ["-1 is", "a whole number from 0 to 100"]),
    ({"spec.questions.preferenceShare": 1.5}, "spec.questions.preferenceShare", ["1.5 is", "from 0 to 0.95"]),
    ({"spec.questions.screen.jaccard": 0}, "spec.questions.screen.jaccard", ["0 is", "above 0 and up to 1"]),
    ({"spec.questions.source": "ftp://a/b"}, "spec.questions.source", ["ftp://a/b", "s3://bucket/key"]),
    ({"spec.questions.newPerRound": "many"}, "spec.questions.newPerRound", ["many", "from 0 to 10000000"]),
    (
        {"spec.training.sft.learningRate": "2e-5x"},
        "spec.training.sft.learningRate",
        ["2e-5x", "above 0 and up to 1"],
    ),
    ({"spec.training.sft.epochs": 0}, "spec.training.sft.epochs", ["0 is", "from 1 to 1000"]),
    ({"spec.training.sft.warmupRatio": 1.0}, "spec.training.sft.warmupRatio", ["1.0 is", "from 0 and below 1"]),
    ({"spec.training.strategy": "zero4"}, "spec.training.strategy", ["zero4", "zero1, zero2, zero3"]),
    ({"spec.training.precision": "int8"}, "spec.training.precision", ["int8", "auto, fp32, bf16, fp16"]),
    ({"spec.training.preference.beta": 0}, "spec.training.preference.beta", ["0 is", "above 0 and up to 10"]),
    ({"spec.teacher.model": "a b"}, "spec.teacher.model", ["a b is", "owner/name"]),
    ({"spec.teacher.model": "s3://B"}, "spec.teacher.model", ["s3://B is", "s3://bucket/prefix"]),
    ({"spec.teacher.server": {"engine": "tgi"}}, "spec.teacher.server.engine", ["tgi", "vllm, cpu, tutor"]),
    (
        {"spec.teacher.server": {"extraArgs": ["x" * 513]}},
        "spec.teacher.server.extraArgs[0]",
        ["xxx", "…", "1 to 512 characters"],
    ),
    (
        {"spec.student.sampling": {"temperature": 3}},
        "spec.student.sampling.temperature",
        ["3 is", "a number from 0 to 2"],
    ),
    ({"spec.execution.languages": ["php"]}, "spec.execution.languages[0]", ["php", "python, java, javascript"]),
    ({"spec.execution.languages": []}, "spec.execution.languages", ["[] is", "1 to 9 items: python, java"]),
    ({"spec.execution.languages": "python"}, "spec.execution.languages", ['"python" is', "a list of 1 to 9"]),
    ({"spec.execution.timeoutSeconds": 0}, "spec.execution.timeoutSeconds", ["0 is", "from 1 to 600"]),
    ({"spec.execution.memoryMiB": 8}, "spec.execution.memoryMiB", ["8 is", "from 64 to 65536"]),
    (
        {"spec.evaluation.benchmarks": ["humaneval"]},
        "spec.evaluation.benchmarks[0]",
        ['"humaneval" is', "a block with the keys name"],
    ),
    (
        {"spec.evaluation.benchmarks": [{"name": "mmlu"}]},
        "spec.evaluation.benchmarks[0].name",
        ["mmlu", "humaneval, mbpp"],
    ),
    ({"spec.evaluation.benchmarks": [{}]}, "spec.evaluation.benchmarks[0].name", ["missing", "humaneval"]),
    ({"spec.evaluation.passK": [0]}, "spec.evaluation.passK[0]", ["0 is", "from 1 to 1000"]),
    ({"spec.evaluation.every": "day"}, "spec.evaluation.every", ["day", "round, end"]),
    ({"spec.ablation.skip": ["dpo"]}, "spec.ablation.skip[0]", ["dpo", "fault, judge, execution"]),
    ({"spec.storage.url": "gs://bucket"}, "spec.storage.url", ["gs://bucket", "s3://bucket/prefix"]),
    ({"spec.storage.url": "s3://Bad_Bucket/x"}, "spec.storage.url", ["s3://Bad_Bucket/x", "s3://bucket/prefix"]),
    ({"spec.budget.gpuHours": 0}, "spec.budget.gpuHours", ["0 is", "above 0"]),
    ({"spec.queue": "Team A"}, "spec.queue", ["Team A", "lower-case letters"]),
    ({"spec.deletionPolicy": "Keep"}, "spec.deletionPolicy", ["Keep", "Retain, Delete"]),
    # fields that do not fit together
    ({"spec.teacher": {}}, "spec.teacher.model", ["null is", "server.engine tutor"]),
    (
        {"spec.teacher.endpoint": "https://api.example.com/v1"},
        "spec.teacher.endpoint",
        ["https://api.example.com/v1", "spec.teacher.secretRef"],
    ),
    (
        {"spec.teacher.endpoint": "http://localhost:1/v1", "spec.teacher.server": {"gpus": 2}},
        "spec.teacher.server",
        ['{"gpus": 2}', "spec.teacher.endpoint and spec.teacher.server"],
    ),
    ({"spec.teacher.secretRef": {"name": "x"}}, "spec.teacher.secretRef", ['"x"', "spec.teacher.endpoint"]),
    (
        {"spec.teacher.rateLimits": {"requestsPerMinute": 60}},
        "spec.teacher.rateLimits",
        ['{"requestsPerMinute": 60', "spec.teacher.endpoint"],
    ),
    (
        {"spec.judge": {"price": {"input": 1, "output": 2}}},
        "spec.judge.price",
        ['{"input": 1', "spec.judge.endpoint"],
    ),
    ({"spec.teacher.price": {"input": 1}}, "spec.teacher.price.output", ["missing"]),
    ({"spec.teacher.yieldFloor": 50}, "spec.teacher.yieldFloor", ["50 is", "from 0 to 1"]),
    (
        {"spec.teacher.rateLimits": {"concurrentRequests": 0}},
        "spec.teacher.rateLimits.concurrentRequests",
        ["0 is"],
    ),
    ({"spec.teacher.secretRef": {}}, "spec.teacher.secretRef.name", ["missing", "lower-case"]),
    ({"spec.student": {}}, "spec.student.model", ["null", "spec.student.model and spec.student.init"]),
    (
        {"spec.student.init": {}},
        "spec.student.model",
        ["owner/student", "exactly one of spec.student.model and spec.student.init"],
    ),
    (
        {"spec.student": {"init": {"width": 100, "heads": 3}}},
        "spec.student.init.width",
        ["100", "3 heads", "a multiple of 6"],
    ),
    ({"spec.student.server": {"engine": "tutor"}}, "spec.student.server.engine", ["tutor", "vllm or cpu"]),
    ({"spec.student.server": {"engine": "cpu", "gpus": 1}}, "spec.student.server.gpus", ["1 is", "use 0"]),
    ({"spec.judge.ready": True}, "spec.judge.ready", ["true does not", "spec.judge.model"]),
    (
        {"spec.judge": {"endpoint": "http://localhost/v1", "model": "m"}},
        "spec.judge.endpoint",
        ["http://localhost/v1", "ready: true"],
    ),
    (
        {"spec.questions.ratio": {"easy": 0, "medium": 0, "hard": 0}},
        "spec.questions.ratio",
        ['{"easy": 0, "medium": 0, "hard": 0}', "at least one number above 0"],
    ),
    ({"spec.teacher.revision": "a/b"}, "spec.teacher.revision", ["a/b", "letters, digits"]),
    (
        {"spec.teacher.model": "s3://bucket/teacher", "spec.teacher.revision": "v1"},
        "spec.teacher.revision",
        ["v1 is only", "a model of a hub", "owner/name"],
    ),
    (
        {"spec.student": {"init": {}, "revision": "v1"}},
        "spec.student.revision",
        ["v1 is only", "a model of a hub"],
    ),
    (
        {
            "spec.judge": {
                "endpoint": "http://localhost/v1",
                "model": "owner/judge",
                "ready": True,
                "revision": "v1",
            }
        },
        "spec.judge.revision",
        ["v1 is only", "a model of a hub"],
    ),
    (
        {"spec.questions.source": "rows.jsonl", "spec.questions.revision": "v1"},
        "spec.questions.revision",
        ["v1 is only", "datasets of a hub"],
    ),
    ({"spec.questions.count": 5}, "spec.questions.count", ["5 is", "spec.questions.limit"]),
    ({"spec.questions.preferenceShare": 0}, "spec.questions.preferenceShare", ["0", "skip: [fault]"]),
    ({"spec.questions.format": "jsonl"}, "spec.questions.format", ["jsonl", "auto or datasets"]),
    ({"spec.questions.screen.minChars": 9000}, "spec.questions.screen.minChars", ["9000", "at most 7999"]),
    (
        {"spec.training.nodes": 2, "spec.training.gpusPerNode": 0},
        "spec.training.nodes",
        ["2 needs", "from 1 to 16"],
    ),
    ({"spec.training.gpusPerNode": 8}, "spec.training.strategy", ["single", "8", "ddp, zero1"]),
    (
        {"spec.training.gpusPerNode": 0, "spec.training.precision": "bf16"},
        "spec.training.precision",
        ["bf16", "fp32"],
    ),
    ({"spec.training.sft.microBatchSize": 7}, "spec.training.sft.microBatchSize", ["7", "a divisor of 512"]),
    (
        {"spec.student": {"init": {"contextLength": 2000}}, "spec.training.preference.maxLength": 100},
        "spec.training.sft.maxLength",
        ["2048", "at most 2000"],
    ),
    ({"spec.evaluation.passK": [1, 10]}, "spec.evaluation.passK", ["[1, 10]", "up to 1"]),
    ({"spec.evaluation.samples": 5}, "spec.evaluation.samples", ["5", "temperature above 0"]),
    ({"spec.execution.languages": ["c", "c"]}, "spec.execution.languages", ['["c", "c"]', "each once: c"]),
    (
        {
            "spec.execution.languages": ["c"],
            "spec.evaluation.benchmarks": [{"name": "mbpp", "languages": ["go"]}],
        },
        "spec.evaluation.benchmarks[0].languages",
        ["go", "some of c"],
    ),
    (
        {"spec.ablation.skip": ["judge", "execution"], "spec.evaluation.modelScore": False},
        "spec.ablation.skip",
        ['["judge", "execution"]', "add classification"],
    ),
    (
        {"spec.ablation.skip": ["fault"], "spec.method": "ssd"},
        "spec.ablation.skip",
        ["fault", "use [] or the method"],
    ),
    ({"spec.storage.endpoint": "s3.local"}, "spec.storage.endpoint", ["s3.local is", "https://host/v1"]),
    (
        {"spec.evaluation.bootstrapSamples": 10},
        "spec.evaluation.bootstrapSamples",
        ["10 is", "from 100 to 100000"],
    ),
    (
        {"spec.training": {"gpusPerNode": 2, "strategy": "ddp", "sft": {"batchSize": 511}}},
        "spec.training.sft.batchSize",
        ["511", "a multiple of 2"],
    ),
    ({"spec.storage.region": "eu-1"}, "spec.storage.region", ["eu-1", "s3://bucket/prefix"]),
    # pods
    ({"spec.pods.train.image": "Soda Train"}, "spec.pods.train.image", ["Soda Train", "container image"]),
    ({"spec.pods.train.requests.memory": "4GB"}, "spec.pods.train.requests.memory", ["4GB", "4Gi"]),
    ({"spec.pods.trainer": {}}, "spec.pods.trainer", ["trainer is not", "use train"]),
    ({"spec.pods.train.env": [{"name": "A-B", "value": ""}]}, "spec.pods.train.env[0].name", ["A-B", "digits"]),
    ({"spec.pods.train.env": [{"name": "A"}]}, "spec.pods.train.env[0].value", ["null leaves A", "exactly one"]),
    (
        {"spec.pods.jobs.env": [{"name": "A", "value": "x", "secretRef": {"name": "s"}}]},
        "spec.pods.jobs.env[0].value",
        ["x is given beside spec.pods.jobs.env[0].secretRef", "exactly one of value and secretRef"],
    ),
    (
        {"spec.pods.jobs.env": [{"name": "AWS_REGION", "value": "x"}]},
        "spec.pods.jobs.env[0].name",
        ["AWS_REGION starts", "another name"],
    ),
    (
        {"spec.pods.judge.env": [{"name": "A", "value": "x"}, {"name": "A", "value": "z"}]},
        "spec.pods.judge.env",
        ['["A", "A"] names A twice', "each once: A"],
    ),
    (
        {"spec.pods.train.nodeSelector": {"a b": "x"}},
        "spec.pods.train.nodeSelector.a b",
        ["a b cannot", "label key"],
    ),
    (
        {"spec.pods.train.annotations": {"/x": "x"}},
        "spec.pods.train.annotations./x",
        ["/x cannot", "label key"],
    ),
    (
        {"spec.pods.teacher.nodeAffinity": [{"key": "gpu"}]},
        "spec.pods.teacher.nodeAffinity[0].values",
        ["[] gives the operator In", "at least one value"],
    ),
    (
        {"spec.pods.teacher.nodeAffinity": [{"key": "gpu", "operator": "Exists", "values": ["a"]}]},
        "spec.pods.teacher.nodeAffinity[0].values",
        ['["a"] is not read', "use []"],
    ),
    (
        {"spec.pods.teacher.nodeAffinity": [{"key": "gpu", "operator": "Gt", "values": ["many"]}]},
        "spec.pods.teacher.nodeAffinity[0].values",
        ['["many"]', "one whole number"],
    ),
    (
        {"spec.pods.teacher.nodeAffinity": [{"key": "gpu", "operator": "Lt", "values": ["1", "2"]}]},
        "spec.pods.teacher.nodeAffinity[0].values",
        ['["1", "2"]', "one whole number"],
    ),
    (
        {"spec.pods.student.tolerations": [{"key": "gpu", "operator": "Exists", "value": "a"}]},
        "spec.pods.student.tolerations[0].value",
        ["a is not read", "the operator Equal"],
    ),
    (
        {"spec.pods.student.tolerations": [{"value": "a"}]},
        "spec.pods.student.tolerations[0].key",
        ["null does not say", "the operator Exists"],
    ),
    (
        {"spec.pods.student.tolerations": [{"key": "gpu", "effect": "NoSchedule", "tolerationSeconds": 5}]},
        "spec.pods.student.tolerations[0].tolerationSeconds",
        ["5 is only", "NoExecute"],
    ),
    (
        {"spec.pods.sandbox": {"requests": {"cpu": "1500m"}, "limits": {"cpu": "1"}}},
        "spec.pods.sandbox.requests.cpu",
        ["1500m is more", "at most 1,"],
    ),
    (
        {"spec.pods.sandbox": {"requests": {"ephemeralStorage": "1Gi"}, "limits": {"ephemeralStorage": "1G"}}},
        "spec.pods.sandbox.requests.ephemeralStorage",
        ["1Gi is more", "at most 1G,"],
    ),
]


@pytest.mark.parametrize(("edits", "field", "said"), MISTAKES, ids=[field for _, field, _ in MISTAKES])
def test_a_mistake_gives_one_sentence_with_field_value_and_accepted_values(
    edits: Edit, field: str, said: list[str]
) -> None:
    found = problems(edited(edits))
    first = next(problem for problem in found if problem.field == field)
    for words in said:
        assert words in str(first)
    assert not [word for word in JARGON if word in str(first).lower() or (word == "None" and word in str(first))]
    assert "\n" not in str(first)
    if field != "spec.training.sft.maxLength":  # there, other lengths exceed the small context too
        assert [str(problem) for problem in found] == [str(first)]


@pytest.mark.parametrize(
    ("text", "amount"),
    [("2", 2), ("500m", Fraction(1, 2)), ("1.5k", 1500), ("4Gi", 4 * 2**30), ("0.5Mi", 2**19), ("3T", 3 * 10**12)],
)
def test_a_quantity_is_read_as_kubernetes_reads_it(text: str, amount: Fraction) -> None:
    assert quantity(text) == amount


@pytest.mark.parametrize("text", ["", "4GB", "-1", "1e3", "m", " 1"])
def test_what_is_no_quantity_is_not_read(text: str) -> None:
    with pytest.raises(ValueError, match="an amount as Kubernetes writes it"):
        quantity(text)


def test_the_table_has_fifty_mistakes_and_its_base_has_none() -> None:
    assert len(MISTAKES) >= 50
    assert problems(edited({})) == []


TEXTS: list[tuple[str | bytes, str]] = [
    (b"", "the text is empty"),
    ("# only a comment\n", "the text is empty"),
    ("---\n", "the text is empty"),
    (b"kind: \xff", "byte 0xff in line 1 is not UTF-8"),
    ("a\x00b", "U+0000"),
    ("a: [1", "line 1 is not YAML"),
    ("a:\n\t- 1", "line 2 is not YAML"),
    ("a: b: c", "line 1 is not YAML"),
    ("a: 1\n---\nb: 2\n", "a second document starts in line 2"),
    ("[" * 5000, "deeper than 32"),
    ("{a: " * 5000, "deeper than 32"),
    ("- " * 5000, "deeper than 32"),
    ("x: !!python/object/apply:os.system [ls]", "has the tag"),
    ("x: !!python/name:os.system y", "has the tag"),
    ("x: *nowhere", "names *nowhere"),
    ("x: &a [*a]", "names *a"),
    ("? [a, b]\n: c", "a key that is not a word"),
    ('x: "\\UFFFFFFFF"', "names no character"),
    ('x: "\\ud800"', "surrogate"),
    ("just words", '"just words" is not allowed; use a block with the keys apiVersion'),
    ("[1, 2]", "[1, 2] is not allowed; use a block with the keys apiVersion"),
    ("x: " + "y" * 300_000, "too many for a run; use at most 262144"),
    ("".join(f"k{index}: 1\n" for index in range(12_000)), "more than 10000 values"),
    (
        "a: &a [1,2,3,4,5,6,7,8,9]\n"
        + "".join(
            f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
        ),
        "more than 10000 values",
    ),
]


@pytest.mark.parametrize(("text", "said"), TEXTS, ids=[said for _, said in TEXTS])
def test_a_text_that_is_no_run_gives_a_sentence(text: str | bytes, said: str) -> None:
    found = problems(text)
    assert [said in str(problem) for problem in found] == [True]
    with pytest.raises(InvalidInput) as caught:
        load(text)
    assert caught.value.exit_code == ExitCode.INVALID_INPUT


def test_all_mistakes_come_at_once_in_the_order_of_the_text() -> None:
    text = """\
apiVersion: soda.dev/v1alpha1
kind: DistillationRun
metadata: {name: toy}
spec:
  method: sodaa
  student: {model: owner/student}
  evaluation: {samples: 1, passK: [5]}
  teacher: {model: owner/teacher, endpoint: "https://x/v1"}
  questions: {ratio: {hard: -2, easy: -1}}
  rounds: 2
  rounds: 3
"""
    assert [(problem.line, problem.field) for problem in problems(text)] == [
        (5, "spec.method"),
        (7, "spec.evaluation.passK"),
        (8, "spec.teacher.endpoint"),
        (9, "spec.questions.ratio.hard"),
        (9, "spec.questions.ratio.easy"),
        (11, "spec.rounds"),
    ]


def test_a_rule_is_silent_when_it_read_a_field_that_is_wrong_itself() -> None:
    misspelt = {"spec.evaluation": {"samplse": 10, "passK": [10]}}
    assert [problem.field for problem in problems(edited(misspelt))] == ["spec.evaluation.samplse"]
    bad_value = {"spec.evaluation": {"samples": "ten", "passK": [10]}}
    assert [problem.field for problem in problems(edited(bad_value))] == ["spec.evaluation.samples"]


def test_numbers_and_words_are_read_as_kubernetes_users_write_them() -> None:
    text = edited({}) + "  training: {sft: {learningRate: 2e-5}}\n  queue: on\n  seed: 1\n"
    assert problems(text) == []
    run = load(text)
    assert run.spec.training.sft.learning_rate == 2e-5
    assert run.spec.queue == "on"


def test_an_anchor_may_be_used_again() -> None:
    text = edited({}) + "  training: {sft: &same {epochs: 5}, preference: *same}\n"
    assert load(text).spec.training.preference.epochs == 5


def test_two_mistakes_reach_the_user_of_load_as_two_lines() -> None:
    with pytest.raises(InvalidInput) as caught:
        load(edited({"spec.rounds": 0, "spec.seed": -1}))
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["spec.rounds", "spec.seed"]


def test_a_single_mistake_names_its_field_to_programs_too() -> None:
    with pytest.raises(InvalidInput) as caught:
        load(edited({"spec.rounds": 0}))
    assert caught.value.field == "spec.rounds"


def broken_bytes(draw: random.Random) -> bytes:
    """A sample with bytes changed, cut out, doubled or made noise."""
    text = bytearray(QUICKSTART)
    for _ in range(draw.randint(1, 6)):
        start = draw.randrange(len(text))
        end = min(len(text), start + draw.randint(1, 40))
        kind = draw.randrange(4)
        if kind == 0:
            text[start:end] = draw.randbytes(draw.randint(0, 5))
        elif kind == 1:
            del text[start:end]
        elif kind == 2:
            text[start:start] = text[start:end]
        else:
            text[start:start] = draw.choice([b"[", b"{", b": ", b"- ", b"&a ", b"*a", b"|", b"'", b"\n", b"<<: "])
    return bytes(text)


def random_value(draw: random.Random, depth: int = 0) -> Any:
    kinds = ["word", "int", "float", "bool", "null", "huge"] + (["list", "block"] * 2 if depth < 4 else [])
    match draw.choice(kinds):
        case "word":
            return "".join(draw.choices(string.printable + "äß中🎈\u2028", k=draw.randint(0, 12)))
        case "int":
            return draw.randint(-(10**6), 10**6)
        case "float":
            return draw.choice([0.5, -1e300, float("inf"), float("nan"), 1e-320])
        case "bool":
            return draw.random() < 0.5
        case "huge":
            return draw.choice([10**40, -(10**19), "x" * 500])
        case "list":
            return [random_value(draw, depth + 1) for _ in range(draw.randint(0, 4))]
        case "block":
            keys = [
                "spec",
                "method",
                "student",
                "teacher",
                "questions",
                "ratio",
                "sft",
                "name",
                "a.b",
                "[key]",
                "",
            ]
            return {draw.choice(keys): random_value(draw, depth + 1) for _ in range(draw.randint(0, 4))}
        case _:
            return None


def is_plain(found: list[Any]) -> bool:
    return all("\n" not in str(problem) and len(str(problem)) < 2000 and problem.line for problem in found)


def test_no_bytes_make_a_traceback() -> None:
    draw = random.Random(7)
    for _ in range(150):
        text = broken_bytes(draw)
        assert is_plain(problems(text)), text


def test_no_values_in_the_place_of_others_make_a_traceback() -> None:
    draw = random.Random(11)
    places = [
        "spec",
        "metadata",
        "kind",
        "spec.method",
        "spec.student",
        "spec.questions.ratio",
        "spec.training.sft",
    ]
    places += ["spec.evaluation.benchmarks", "spec.execution.languages", "spec.teacher.server", "metadata.labels"]
    for _ in range(150):
        edits = {draw.choice(places): random_value(draw)}
        text = edited(edits)
        assert is_plain(problems(text)), text
        for problem in problems(text):
            str(problem).encode("utf-8")
