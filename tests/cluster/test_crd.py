"""The CRD on a real API server: it is taken as it is, refuses with soda's sentences, and stores the same run."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from soda_jobs.load import load, problems
from soda_jobs.spec.check import check
from soda_operator.crd.cel import REQUIRED, Rule
from soda_operator.crd.definition import NAME
from soda_operator.crd.rules import RULES
from soda_operator.status import Condition, RoundStatus, RunStatus, ServiceStatus, StageStatus
from tests.cluster.client import Cluster, KubectlError
from tests.cluster.processes import wait_until
from tests.unit.test_spec_mistakes import MISTAKES, VALID, edited

pytest_plugins = ["tests.cluster.plugin"]
pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
FILE = ROOT / "crds" / f"{NAME}.yaml"
SAMPLES = sorted((ROOT / "crds" / "samples").glob("*.yaml"))
FIXED = "cannot change once the run has started; make a new run with another name"
STARTED = {"startTime": "2026-01-01T00:00:00Z"}
Edit = dict[str, Any]
Kubectl = Callable[..., str]
Answer = tuple[dict[str, Any] | None, str]  # what would be stored, or what is said


@pytest.fixture(scope="module", autouse=True)
def crd(control_plane: Cluster) -> Mapping[str, Any]:
    """The definition as the server has it, applied as a user would: by the client."""
    control_plane.kubectl("apply", "-f", FILE)
    made: Mapping[str, Any] = control_plane.wait(
        lambda found: condition(found, "Established") == "True", "crd", NAME
    )
    control_plane.kubectl("wait", "--for=condition=Established", f"crd/{NAME}", "--timeout=30s")
    return made


@pytest.fixture(scope="module")
def place(control_plane: Cluster) -> Iterator[str]:
    """One namespace for what is only tried and never stored."""
    name = control_plane.make_namespace()
    yield name
    control_plane.drop_namespaces([name])


@pytest.fixture(scope="module")
def answers(control_plane: Cluster, place: str) -> list[Answer]:
    """What the server makes of each mistake."""
    every = [*(edits for edits, _, _ in MISTAKES), *FURTHER]
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda edits: tried(control_plane, place, edited(edits)), every))


def condition(found: Mapping[str, Any], kind: str) -> str | None:
    for item in found.get("status", {}).get("conditions") or ():  # null at first
        if item["type"] == kind:
            return str(item["status"])
    return None


def tried(cluster: Cluster, place: str, text: str) -> Answer:
    """What the server would store, or what it says."""
    try:
        made = cluster.kubectl(
            *("create", "--dry-run=server", "--validate=strict", "-n", place, "-f", "-", "-o", "json"),
            stdin=json.dumps(yaml.safe_load(text)),  # kubectl would read a plain y as true
        )
    except KubectlError as error:
        return None, str(error)
    return json.loads(made), ""


def as_operator(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What the operator gives to soda's check."""
    name = {"name": stored["metadata"]["name"]}
    return {"apiVersion": stored["apiVersion"], "kind": stored["kind"], "metadata": name, "spec": stored["spec"]}


def make(cluster: Cluster, place: str, name: str, status: Edit | None = None, **spec: Any) -> str:
    """A stored run; with a status, one that the operator has seen."""
    document = copy.deepcopy(VALID)
    document["metadata"]["name"] = name
    document["spec"] |= spec
    cluster.apply(document, namespace=place)
    if status:
        patch = json.dumps({"status": status})
        cluster.kubectl("patch", "drun", name, "-n", place, "--subresource=status", "--type=merge", "-p", patch)
    return name


def change(cluster: Cluster, place: str, name: str, spec: Edit) -> str:
    """What the server says to a change of the spec; empty when it takes it."""
    patch = json.dumps({"spec": spec})
    try:
        cluster.kubectl("patch", "drun", name, "-n", place, "--type=merge", "-p", patch)
    except KubectlError as error:
        return str(error)
    return ""


def test_the_server_takes_the_definition_without_a_complaint(crd: Mapping[str, Any]) -> None:
    assert condition(crd, "Established") == "True"
    assert condition(crd, "NamesAccepted") == "True"
    assert condition(crd, "NonStructuralSchema") in (None, "False")
    assert crd["status"]["acceptedNames"]["shortNames"] == ["drun"]
    (version,) = crd["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    assert (
        len(crd["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]) < 200_000
    )  # of 256 KiB


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_stored_as_the_same_run_and_applied_again_changes_nothing(
    sample: Path, control_plane: Cluster, namespace: str
) -> None:
    given = load(sample.read_text())
    control_plane.kubectl("apply", "-n", namespace, "-f", sample)
    stored = control_plane.get("drun", given.metadata.name, namespace=namespace)
    run, found = check(as_operator(stored))
    assert [str(problem) for problem in found] == []
    assert run == given
    assert run is not None
    assert run.model_dump_json() == given.model_dump_json()
    assert stored["status"] == {"observedGeneration": -1}
    assert "unchanged" in control_plane.kubectl("apply", "-n", namespace, "-f", sample)
    for _ in range(2):  # the first one adds its field manager and nothing else
        control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-n", namespace, "-f", sample)
        last, stored = stored, control_plane.get("drun", given.metadata.name, namespace=namespace)
    assert stored["metadata"]["resourceVersion"] == last["metadata"]["resourceVersion"]
    assert stored["metadata"]["generation"] == 1
    control_plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(as_operator(stored)))
    assert control_plane.get("drun", given.metadata.name, namespace=namespace)["metadata"]["generation"] == 1


# Mistakes that the server does not see, and why that is fine.
NOT_SEEN = {
    "status": "the server drops a status that a user sends",
    "spec.rounds": "null is how Kubernetes says that the default is to be taken",
}
# Where the server's sentence is not soda's word for word: it cannot show a block, or which of a list's items.
OTHER_WORDS = {
    "spec.evaluation.benchmarks[0].languages",
    "spec.execution.languages",
    "spec.pods.judge.env",
    "spec.questions.preferenceShare",
    "spec.questions.ratio",
    "spec.judge.price",
    "spec.judge.rateLimits",
    "spec.teacher.price",
    "spec.teacher.rateLimits",
    "spec.teacher.secretRef",
    "spec.teacher.server",
}


def test_no_mistake_is_taken_by_the_server_and_by_soda(answers: list[Answer]) -> None:
    taken = [
        field
        for (_, field, _), (stored, _) in zip(MISTAKES, answers, strict=False)
        if stored is not None and check(as_operator(stored))[0] is not None
    ]
    assert set(taken) == NOT_SEEN.keys()
    assert len(taken) == len(NOT_SEEN)


def test_the_server_refuses_every_conflict_between_fields_in_soda_s_words(answers: list[Answer]) -> None:
    missed = []
    for (edits, _, _), (_, said) in zip(MISTAKES, answers, strict=False):
        for problem in problems(edited(edits)):
            if re.search("is not allowed|missing| key", problem.message):  # one field by itself
                continue
            name = re.escape(problem.field.partition("[")[0])
            is_same = problem.field in OTHER_WORDS or sentence_of(problem.message) in said
            if not re.search(rf"{name}[^:]*: (Forbidden|Required value): ", said) or not is_same:
                missed.append(f"{problem} / {said}")
    assert missed == []


def sentence_of(message: str) -> str:
    """Soda names the role where the server's rule stands in for all of them."""
    return re.sub(r"spec\.pods\.[a-z]+\.(env\[\d+\]\.)?", "", message)


# What the table of mistakes does not hold, for the rules that it does not reach.
FURTHER: list[Edit] = [
    {"spec.student.server": {"engine": "vllm", "gpus": 0}},
    {"spec.student.server": {"engine": "cpu", "quantization": "awq"}},
    {"spec.teacher.server": {"engine": "vllm", "gpus": 0}},
    {"spec.teacher.server": {"engine": "cpu", "gpus": 2, "quantization": "awq"}},
    {"spec.judge.server": {"engine": "tutor", "gpus": 2, "quantization": "awq"}},
    {"spec.judge.server": {"engine": "vllm", "gpus": 0}},
    {"spec.teacher": {"endpoint": "http://localhost/v1"}},
    {"spec.judge": {"endpoint": "https://api.example.com/v1", "server": {}, "ready": True}},
    {"spec.judge": {"secretRef": {"name": "x"}}},
    {"spec.judge": {"rateLimits": {"requestsPerMinute": 60}, "price": {"input": 1, "output": 2}}},
    {"spec.teacher.price": {"input": 1, "output": 2}},
    {
        "spec.student": {"init": {"contextLength": 64}, "sampling": {"maxTokens": 64}},
        "spec.evaluation.sampling": {"maxTokens": 64},
    },
    {"spec.questions": {"config": "python", "source": "/data/questions.jsonl"}},
    {"spec.questions.source": "builtin:tutor", "spec.questions.format": "datasets"},
    {"spec.training": {"gpusPerNode": 0, "strategy": "ddp"}},
    {"spec.training": {"gpusPerNode": 3, "strategy": "ddp"}},
    {"spec.training.preference.microBatchSize": 3, "spec.judge.train.microBatchSize": 3},
    {"spec.evaluation": {"samples": 2, "passK": [1, 1], "sampling": {"temperature": 0.5}}},
    {"spec.evaluation.benchmarks": [{"name": "mbpp", "languages": ["c", "c"]}, {"name": "mbpp"}]},
    {"spec.ablation.skip": ["fault", "fault"]},
    {
        "spec.storage": {
            "url": "folder",
            "endpoint": "https://s3.example.com",
            "region": "eu",
            "secretRef": {"name": "s"},
            "caSecretRef": {"name": "s"},
            "pathStyle": True,
        }
    },
    {"metadata.name": "a.b"},
    {
        "spec.pods.train": {
            "requests": {"cpu": "2", "memory": "2Gi", "ephemeralStorage": "2Gi"},
            "limits": {"cpu": "1", "memory": "1Gi", "ephemeralStorage": "1Gi"},
        }
    },
]


def expected(rule: Rule) -> re.Pattern[str]:
    """The line with which the server refuses by this rule."""
    path = ".".join(part for part in (rule.at, rule.field) if part)
    where = re.escape(path).replace(r"\*", "[a-z]+").replace(r"\[\]", r"\[\d+\]")
    words = ".+?".join(re.escape(piece) for piece in re.split(r"\$\{[^{}]+\}", rule.say))
    kind = "Required value" if rule.reason == REQUIRED else "Forbidden"
    return re.compile(rf"{where}: {kind}: {words}(\n|$)")


def test_every_rule_refuses_with_its_sentence(answers: list[Answer]) -> None:
    """Rules about a change are tried one by one below."""
    said = [words for _, words in answers if words]
    assert all(words for _, words in answers[len(MISTAKES) :])
    rules = [rule for rule in RULES if "oldSelf" not in rule.must]
    assert len(rules) > 60
    silent = [rule for rule in rules if not any(expected(rule).search(words) for words in said)]
    assert silent == []
    assert [words for words in said if "failed rule" in words or "no such key" in words] == []


# Runs next to the mistakes, on the right side of a rule.
GOOD: list[Edit] = [
    {},
    {"metadata.name": "n" * 26},
    {"metadata.name": "n" * 25, "spec.rounds": 12},
    {"spec.method": "ssd", "spec.teacher": {}},
    {"spec.teacher": {"server": {"engine": "tutor"}}},
    {"spec.teacher": {"model": "m", "endpoint": "http://LOCALHOST:8000/v1"}},
    {"spec.teacher": {"model": "m", "endpoint": "http://[::1]:8000/v1"}},
    {"spec.teacher": {"model": "m", "endpoint": "https://api.example.com/v1", "secretRef": {"name": "x"}}},
    {"spec.judge": {"endpoint": "http://127.0.0.1/v1", "model": "m", "ready": True}},
    {"spec.student": {"init": {"contextLength": 2048}, "model": None}},
    {"spec.student": {"init": {"contextLength": 2000}}, "spec.judge.model": "owner/judge"}
    | {f"spec.training.{part}.maxLength": 2000 for part in ("sft", "preference")},
    {"spec.student.server": {"engine": "cpu", "gpus": 0}},
    {"spec.questions": {"source": "builtin:tutor", "count": 5}},
    {"spec.questions": {"source": "hf:a/b", "config": "python", "format": "datasets"}},
    {"spec.questions": {"source": "a.jsonl", "format": "jsonl", "limit": None}},
    {"spec.questions.ratio": {"easy": 0, "medium": 0, "hard": 1}},
    {"spec.questions.screen": {"minChars": 7999}},
    {"spec.questions.preferenceShare": 0, "spec.ablation.skip": ["fault"]},
    {"spec.questions.preferenceShare": 0, "spec.method": "ssd"},
    {"spec.training": {"nodes": 2, "gpusPerNode": 8, "strategy": "zero3", "precision": "bf16"}},
    {"spec.training": {"gpusPerNode": 0, "precision": "fp32"}, "spec.training.sft.microBatchSize": 8},
    {"spec.evaluation": {"samples": 10, "passK": [1, 10], "sampling": {"temperature": 0.2}}},
    {
        "spec.execution.languages": ["c"],
        "spec.evaluation.benchmarks": [{"name": "mbpp", "languages": ["c"]}, {"name": "humaneval"}],
    },
    {"spec.ablation.skip": ["judge", "execution", "classification"]},
    {"spec.storage": {"url": "s3://bucket/x", "endpoint": "http://s3:9000", "pathStyle": True, "region": "eu"}},
    {"spec.training.sft.learningRate": 1, "spec.training.sft.warmupRatio": 0},
    {
        "spec.pods.train": {
            "image": "registry.example.com/soda/train@sha256:" + "0" * 64,
            "requests": {"cpu": "1500m", "memory": "1Gi"},
            "limits": {"cpu": "1.5", "memory": "1024Mi"},
            "nodeSelector": {"example.com/gpu": "h100"},
            "nodeAffinity": [
                {"key": "gpu", "operator": "Gt", "values": ["8"]},
                {"key": "zone", "values": ["a", "b"]},
                {"key": "old", "operator": "DoesNotExist"},
            ],
            "tolerations": [
                {"operator": "Exists"},
                {"key": "gpu", "value": "a", "effect": "NoExecute", "tolerationSeconds": 5},
            ],
            "env": [{"name": "A", "value": ""}, {"name": "B", "secretRef": {"name": "s", "key": "k"}}],
            "annotations": {"example.com/topology": "x" * 4096},
        }
    },
]


@pytest.mark.parametrize("edits", GOOD, ids=lambda edits: "+".join(edits) or "nothing")
def test_a_good_neighbour_passes_and_is_the_same_run(edits: Edit, control_plane: Cluster, place: str) -> None:
    if "spec.student" in edits and "init" in edits["spec.student"]:
        edits = {**edits, "spec.student": {"model": None, **edits["spec.student"]}}
    text = edited(edits)
    stored, said = tried(control_plane, place, text)
    assert said == ""
    assert stored is not None
    assert check(as_operator(stored)) == (load(text), [])


def test_a_wrong_value_is_shown_with_what_is_accepted(control_plane: Cluster, place: str) -> None:
    _, said = tried(control_plane, place, edited({"spec.teacher.model": "a b", "spec.queue": "Team A"}))
    assert 'spec.teacher.model: Invalid value: "a b": is not allowed; use a hub id as in owner/name' in said
    assert 'spec.queue: Invalid value: "Team A": is not allowed; use lower-case letters' in said
    assert "^" not in said
    _, said = tried(control_plane, place, edited({"spec.method": "sodaa"}))
    assert 'spec.method: Unsupported value: "sodaa": supported values: "soda", "iterkd"' in said
    _, said = tried(control_plane, place, edited({"spec.roundz": 3}))
    assert 'unknown field "spec.roundz"' in said


# A change of a started run; the part of the spec that it is bound to.
BOUND: list[tuple[Edit, str]] = [
    ({"method": "iterkd"}, "method"),
    ({"rounds": 4}, "rounds"),
    ({"seed": 1}, "seed"),
    ({"prompts": {"judge": "compact"}}, "prompts"),
    ({"teacher": {"sampling": {"correct": {"topP": 0.9}}}}, "teacher"),
    ({"teacher": {"server": {"gpus": 2}}}, "teacher"),
    ({"student": {"model": "owner/other"}}, "student"),
    ({"judge": {"retries": 2}}, "judge"),
    ({"questions": {"limit": 5}}, "questions"),
    ({"questions": {"config": None}}, "questions"),  # an optional field is dropped
    ({"training": {"preference": {"beta": 0.2}}}, "training"),
    ({"training": {"lora": {}}}, "training"),
    ({"execution": {"languages": ["c", "python"]}}, "execution"),  # the order counts, as for soda
    ({"classification": {"rules": "strict"}}, "classification"),
    ({"evaluation": {"passK": [2], "samples": 2, "sampling": {"temperature": 0.5}}}, "evaluation"),
    ({"ablation": {"skip": ["fault"]}}, "ablation"),
    ({"storage": {"url": "s3://bucket/other"}}, "storage"),
    ({"hub": {"tokenRef": {"name": "hub"}}}, "hub"),
    ({"parallelism": 2}, "parallelism"),
    ({"pods": {"train": {"image": "soda/train:2"}}}, "pods"),
    ({"pods": None}, "pods"),
]
# A change that a started run may see; the last ones write out what already holds.
FREE: list[Edit] = [
    {"suspend": True},
    {"suspend": None},
    {"queue": "team-b", "priority": "high"},
    {"queue": None},
    {"budget": {"gpuHours": 5}},
    {"ttlSecondsAfterFinished": 60},
    {"ttlSecondsAfterFinished": None},
    {"deletionPolicy": "Delete"},
    {"retryToken": "again"},
    {"rounds": 3},
    {"rounds": None},
    {"seed": None, "prompts": None, "ablation": {}},
    {"training": {"lora": None, "sft": {"learningRate": 2e-5, "maxGradNorm": 1.0}}},
    {"evaluation": None},
    {"cancel": True},
]
BASE: Edit = {
    "questions": {"source": "hf:a/b", "config": "python"},
    "execution": {"languages": ["python", "c"]},
    "pods": {"train": {"image": "soda/train:1"}},
}


def test_a_started_run_is_bound_to_its_spec(control_plane: Cluster, namespace: str) -> None:
    make(control_plane, namespace, "started", STARTED, **BASE)
    for edits, part in BOUND:
        said = change(control_plane, namespace, "started", edits)
        assert f"spec.{part}: Forbidden: {FIXED}" in said, edits
    bound = {rule.field for rule in RULES if rule.of == "resource.forbidden_changes"}
    assert {f"spec.{part}" for _, part in BOUND} == bound
    stored = control_plane.get("drun", "started", namespace=namespace)
    assert stored["metadata"]["generation"] == 1
    for edits in FREE:
        assert change(control_plane, namespace, "started", edits) == "", edits
    assert control_plane.get("drun", "started", namespace=namespace)["spec"]["rounds"] == 3


def test_a_run_that_has_not_started_may_change(control_plane: Cluster, namespace: str) -> None:
    make(control_plane, namespace, "waiting", {"state": "Pending", "observedGeneration": 1}, **BASE)
    for edits, _ in BOUND:
        assert change(control_plane, namespace, "waiting", edits) == "", edits


def test_a_cancelled_run_comes_back_only_with_a_new_retry_token(control_plane: Cluster, namespace: str) -> None:
    make(control_plane, namespace, "over", STARTED, cancel=True, retryToken="one")
    refused = "spec.cancel: Forbidden: false alone does not bring a cancelled run back; use a new spec.retryToken"
    for edits in ({"cancel": False}, {"cancel": None}, {"cancel": False, "retryToken": None}):
        assert refused in change(control_plane, namespace, "over", edits), edits
    assert change(control_plane, namespace, "over", {"suspend": True}) == ""
    assert change(control_plane, namespace, "over", {"cancel": False, "retryToken": "two"}) == ""


def test_the_status_keeps_all_that_the_operator_writes(control_plane: Cluster, namespace: str) -> None:
    time = "2026-01-01T00:00:00Z"
    status = RunStatus(
        observed_generation=1,
        state="Running",
        reason="Training",
        message="trains r1-train-sft",
        round="1/3",
        stage="r1-train-sft",
        progress="4/57",
        score="0.48",
        conditions=[Condition(type="Accepted", status="True", reason="Fine", last_transition_time=time)],
        start_time=time,
        finish_time=time,
        best_round=0,
        rounds=[RoundStatus(round=0, scores={"pass@1": 0.125, "loss": -2.5e-7})],
        gpu_seconds=2**40,
        artifacts="s3://bucket/prefix",
        retry_token="one",
        pinned={"source": "a" * 64},
        stages=[
            StageStatus(name="r1-train-sft", state="running", attempt=1, done=5, total=10, start_time=time),
            StageStatus(name="source", state="done", digest="a" * 64, headline={"rows": 400}),
        ],
        services=[ServiceStatus(name="teacher", ready=True, start_time=time)],
    )
    sent = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    make(control_plane, namespace, "shown", sent, queue="team-a")
    stored = control_plane.get("drun", "shown", namespace=namespace)
    assert stored["status"] == sent
    assert RunStatus.model_validate(stored["status"]) == status
    twice = json.dumps({"status": {"stages": sent["stages"] + sent["stages"][:1]}})
    with pytest.raises(KubectlError, match="Duplicate value"):
        control_plane.kubectl(
            "patch", "drun", "shown", "-n", namespace, "--subresource=status", "--type=merge", "-p", twice
        )


def test_kubectl_shows_a_run_in_one_line(control_plane: Cluster, kubectl: Kubectl, namespace: str) -> None:
    shown = {"round": "2/3", "stage": "r2-train-sft", "progress": "31/57", "score": "0.48", "state": "Running"}
    make(control_plane, namespace, "one", shown | {"reason": "Training", "artifacts": "s3://b"}, queue="team-a")
    make(control_plane, namespace, "two", method="ssd")
    head, one, two = kubectl("get", "drun", "-n", namespace).splitlines()
    assert head.split() == ["NAME", "METHOD", "ROUND", "STAGE", "PROGRESS", "SCORE", "STATUS", "AGE"]
    assert one.split()[:-1] == ["one", "soda", "2/3", "r2-train-sft", "31/57", "0.48", "Running"]
    assert two.split()[:-1] == ["two", "ssd"]
    head, one, _ = kubectl("get", "soda", "-n", namespace, "-o", "wide").splitlines()
    assert head.split()[8:] == ["QUEUE", "REASON", "ARTIFACTS", "MESSAGE"]
    assert one.split()[8:] == ["team-a", "Training", "s3://b"]
    chosen = kubectl("get", "drun", "-n", namespace, "--field-selector=spec.method=ssd", "-o", "name")
    assert chosen.split() == ["distillationrun.soda.dev/two"]
    running = kubectl("get", "drun", "-n", namespace, "--field-selector=status.state=Running", "-o", "name")
    assert running.split() == ["distillationrun.soda.dev/one"]


def test_kubectl_explains_a_field_in_prose(kubectl: Kubectl) -> None:
    block = " ".join(kubectl("explain", "drun.spec.training.sft").split())
    assert "supervised fine-tuning on the teacher's correct solutions (SODA 3.2, Eq. 1)" in block
    assert "Passes over the data. Default: SODA 4.6." in block
    field = " ".join(kubectl("explain", "drun.spec.pods.train.env.secretRef").split())
    assert "The Secret's key to take the value from instead." in field
    assert "Where a run stands." in kubectl("explain", "drun.status")


def test_the_largest_pod_settings_are_within_the_servers_budget(control_plane: Cluster, place: str) -> None:
    role = {
        "image": "r/" + "i" * 500,
        "requests": {"cpu": "1", "memory": "1Gi"},
        "limits": {"cpu": "2", "memory": "2Gi"},
        "nodeSelector": {f"example.com/{index}-{'k' * 50}": "v" * 63 for index in range(16)},
        "nodeAffinity": [{"key": "k" * 63, "values": [f"v{index}" * 15 for index in range(64)]}] * 16,
        "tolerations": [{"key": "k" * 63, "value": "v" * 63, "effect": "NoSchedule"}] * 16,
        "imagePullSecrets": ["s" * 253] * 8,
        "env": [{"name": f"N{index:0127}", "value": "v" * 512} for index in range(64)],
        "annotations": {f"example.com/{index}": "a" * 1024 for index in range(16)},
    }
    every = dict.fromkeys(("jobs", "train", "teacher", "student", "judge", "sandbox"), role)
    stored, said = tried(control_plane, place, edited({"spec.pods": every}))
    assert said == ""
    assert stored is not None
    assert stored["spec"]["pods"] == every
    names = [{"name": f"N{index:0127}", "value": "v"} for index in range(63)]
    _, said = tried(control_plane, place, edited({"spec.pods.train.env": [*names, names[0]]}))
    assert "spec.pods.train.env: Forbidden: " in said
    assert "… names one of them twice; use each once" in said  # the names are too long to be shown


def without_rules(node: Any) -> Any:
    """The definition as it could have been before a rule was thought of."""
    if isinstance(node, list):
        return [without_rules(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: without_rules(value) for key, value in node.items() if key != "x-kubernetes-validations"}


def test_a_new_rule_does_not_lock_a_run_that_breaks_it(control_plane: Cluster, namespace: str) -> None:
    """The operator must still be able to say in the status what is wrong, and the user to repair it."""
    repeated = {"spec.execution.languages": ["c", "c"]}
    wrong = edited({"spec.questions.count": 5, "spec.training.gpusPerNode": 8} | repeated)

    def is_refused() -> bool:
        return bool(tried(control_plane, namespace, wrong)[1])

    definition = yaml.safe_load(FILE.read_text())
    try:
        control_plane.kubectl("replace", "-f", "-", stdin=json.dumps(without_rules(definition)))
        wait_until(lambda: not is_refused(), "the definition without rules", 30)
        control_plane.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(yaml.safe_load(wrong)))
    finally:
        control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", FILE)
        wait_until(is_refused, "the definition with its rules", 30)
    patch = json.dumps({"status": {"state": "Stalled"}})
    words = ("patch", "drun", "toy", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    control_plane.kubectl(*words)
    assert control_plane.get("drun", "toy", namespace=namespace)["status"]["state"] == "Stalled"
    assert change(control_plane, namespace, "toy", {"suspend": True}) == ""
    more = change(control_plane, namespace, "toy", {"questions": {"count": 6}})
    assert "spec.questions.count: Forbidden: 6 is only for questions that are made to order" in more
    repaired = {"questions": {"count": None}, "training": {"strategy": "ddp"}, "execution": {"languages": ["c"]}}
    assert change(control_plane, namespace, "toy", repaired) == ""
