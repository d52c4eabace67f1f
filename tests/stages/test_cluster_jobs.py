"""Preflight, publish and cleanup, as the operator's Jobs run them: one process, an environment, a small result."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml

from soda_jobs.artifacts import Artifacts
from soda_jobs.cluster.given import to_yaml
from soda_jobs.errors import ExitCode
from soda_jobs.finished import decode
from soda_jobs.graph import with_pinned
from soda_jobs.load import load
from soda_jobs.methods import draw
from soda_jobs.names import CLEANUP, PREFLIGHT, PUBLISH
from soda_jobs.plan import Finished, plan
from soda_jobs.settings import StoreSettings, open_artifacts
from soda_jobs.spec.check import check
from soda_jobs.store import open_store

if TYPE_CHECKING:
    from tests.s3server.plugin import S3Server

pytest_plugins = ["tests.s3server.plugin"]

QUICKSTART = Path(__file__).parents[2] / "crds/samples/quickstart.yaml"


class Job:
    """Runs one command as a Job would, on one store."""

    def __init__(self, store: StoreSettings, folder: Path) -> None:
        self.store, self.folder = store, folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def artifacts(self) -> Artifacts:
        return open_artifacts(self.store, self.folder / "state")

    def start(self, verb: str, run: Mapping[str, Any], **env: str) -> subprocess.Popen[str]:
        given = {
            **os.environ,
            "SODA_LOG": "json",
            "SODA_RUN": json.dumps(run),
            "SODA_STORE": self.store.to_env(),
            "SODA_STATE": str(self.folder / "state"),
            "SODA_RESULT": str(self.folder / "result.json"),
            **env,
        }
        (self.folder / "result.json").unlink(missing_ok=True)
        return subprocess.Popen(
            [sys.executable, "-m", "soda_jobs", verb],
            env=given,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )

    def result(self, verb: str, run: Mapping[str, Any], *, code: int = 0, **env: str) -> dict[str, Any]:
        process = self.start(verb, run, **env)
        _, log = process.communicate(timeout=300)
        assert process.returncode == code, log
        text = (self.folder / "result.json").read_bytes()
        assert len(text) < 4096
        found: dict[str, Any] = json.loads(text)
        return found

    def advance(self, run: Mapping[str, Any], pinned: Mapping[str, str]) -> list[str]:
        """Run every stage that needs no server, by the real command; the names of the committed stages."""
        model, _ = check(dict(run))
        assert model is not None
        graph, finished = with_pinned(draw(model), pinned), dict[str, Finished]()
        while ready := [item for item in plan(model, graph, finished) if item.service is None]:
            for item in ready:
                self.result("stage", run, **item.env)
                found = self.artifacts.find(item.key)
                assert found is not None
                finished[item.stage] = Finished(found.key, found.digest)
        return [stage.name for stage in graph if stage.name in finished]


def resource(name: str = "small", namespace: str | None = "team", **spec: Any) -> dict[str, Any]:
    """The quickstart with a tenth of the work, as the operator hands it over."""
    document: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text())
    document["metadata"] = {"name": name} | ({"namespace": namespace} if namespace else {})
    body = document["spec"]
    body["rounds"] = 1
    body["student"]["init"] |= {"layers": 1, "width": 64, "vocabSize": 400}
    body["student"]["sampling"]["maxTokens"] = body["evaluation"]["sampling"]["maxTokens"] = 48
    body["judge"]["sampling"]["maxTokens"] = 64
    body["judge"]["train"] |= {"samples": 30, "epochs": 1}
    body["questions"] |= {"count": 60, "newPerRound": 30}
    body["training"]["sft"] |= {"epochs": 1}
    body["evaluation"]["benchmarks"][0]["limit"] = 12
    body["execution"]["languages"] = ["python"]
    body |= spec
    return document


def names(run: Mapping[str, Any]) -> list[str]:
    model, _ = check(dict(run))
    assert model is not None
    return [stage.name for stage in draw(model)]


def objects(store: Path) -> set[str]:
    return {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()} - {"soda-store.json"}


@pytest.fixture(params=["file", "s3"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    if request.param == "file":
        return Job(StoreSettings(str(tmp_path / "store")), tmp_path / "job")
    request.getfixturevalue("s3_credentials")
    server: S3Server = request.getfixturevalue("s3_server")
    bucket = f"bucket-{os.urandom(4).hex()}"
    server.make_bucket(bucket)
    return Job(StoreSettings(f"s3://{bucket}/prefix", endpoint=server.endpoint), tmp_path / "job")


def test_preflight_finds_what_is_committed_and_cleanup_deletes_it(job: Job, tmp_path: Path) -> None:
    rows = tmp_path / "questions.jsonl"
    rows.write_text("".join(json.dumps({"instruction": f"Write number {n} in words."}) + "\n" for n in range(9)))
    run = resource(questions={"source": str(rows), "newPerRound": 3})
    first = job.result(PREFLIGHT, run)
    assert first["state"] == "done"
    assert first["finished"] == ""
    assert list(first["pinned"]) == ["source"]
    assert sorted(job.artifacts.list_documents("small")) == ["pinned.json", "run.yaml"]

    done = job.advance(run, first["pinned"])
    assert {"source", "r0-screen", "benchmark-tutor-heldout"} <= set(done)
    again = job.result(PREFLIGHT, run)
    found = decode(names(run), again["finished"])
    assert list(found) == done

    pinned = json.dumps(again["pinned"])
    other = resource("other", questions={"source": str(rows), "newPerRound": 3}, rounds=2)
    job.result(PREFLIGHT, other)
    rows.write_text("gone: only pinned.json knows what the other run reads")
    kept = job.result(CLEANUP, run, SODA_PINNED=pinned)
    assert kept == {"state": "done", "artifacts": 0, "blobs": 0}, "the other run uses all of it"
    assert job.artifacts.list_documents("small") == []
    assert job.result(CLEANUP, run, SODA_PINNED=pinned) == kept

    gone = job.result(CLEANUP, other, SODA_PINNED=pinned)
    assert gone["artifacts"] == len(done)
    assert gone["blobs"] >= 3
    assert open_store(job.store.url, endpoint=job.store.endpoint).list("") == []


def test_rows_of_a_stage_that_did_not_end_go_too(tmp_path: Path) -> None:
    job = Job(StoreSettings(str(tmp_path / "store")), tmp_path / "job")
    run = resource()
    job.result(PREFLIGHT, run)
    job.advance(run, {})
    model, _ = check(run)
    assert model is not None
    graph = draw(model)
    done = job.result(PREFLIGHT, run)
    keys = {}
    for name in decode(names(run), done["finished"]):
        command = next(item for item in plan(model, graph, keys) if item.stage == name)
        found = job.artifacts.find(command.key)
        assert found is not None
        keys[name] = Finished(found.key, found.digest)
    waiting = plan(model, graph, keys)[0]
    job.artifacts.shards(waiting.key).commit("000.jsonl", b'{"id": 1}\n')
    job.artifacts.shards("f" * 64).commit("000.jsonl", b"of nobody we know")
    job.result(CLEANUP, run, SODA_PINNED="{}")
    assert objects(tmp_path / "store") == {f"partial/{'f' * 64}/000.jsonl"}


def test_two_namespaces_do_not_share_a_name(tmp_path: Path) -> None:
    job = Job(StoreSettings(str(tmp_path / "store")), tmp_path / "job")
    job.result(PREFLIGHT, resource())
    before = objects(tmp_path / "store")
    failed = job.result(PREFLIGHT, resource(namespace="others"), code=ExitCode.INVALID_INPUT)
    assert failed["reason"] == "INVALID_INPUT"
    assert failed["message"].startswith(
        "metadata.name: 'small' is a run of the namespace team in this store already"
    )
    job.result(CLEANUP, resource(namespace="others"), SODA_PINNED="{}")
    assert objects(tmp_path / "store") == before


def test_a_run_that_cannot_be_read_stops_the_cleanup(tmp_path: Path) -> None:
    job = Job(StoreSettings(str(tmp_path / "store")), tmp_path / "job")
    job.result(PREFLIGHT, resource())
    job.artifacts.put_document("strange", "run.yaml", b"apiVersion: soda.dev/v9\n")
    failed = job.result(CLEANUP, resource(), SODA_PINNED="{}", code=ExitCode.GIVE_UP)
    assert "runs/strange/run.yaml in the store cannot be read" in failed["message"]
    assert "runs/small/run.yaml" in objects(tmp_path / "store")


def test_an_invalid_run_is_refused_with_every_mistake(tmp_path: Path) -> None:
    job = Job(StoreSettings(str(tmp_path / "store")), tmp_path / "job")
    run = resource(rounds=0, questions={"count": "many"})
    failed = job.result(PREFLIGHT, run, code=ExitCode.INVALID_INPUT)
    assert [line.split(":")[0] for line in failed["message"].splitlines()] == [
        "spec.rounds",
        "spec.questions.count",
    ]
    assert not (tmp_path / "store").exists()


def wrong_secret(server: S3Server, bucket: str) -> tuple[StoreSettings, dict[str, str]]:
    return StoreSettings(f"s3://{bucket}", server.endpoint), {"AWS_SECRET_ACCESS_KEY": "wrong"}


def no_bucket(server: S3Server, bucket: str) -> tuple[StoreSettings, dict[str, str]]:
    return StoreSettings("s3://no-such-bucket", server.endpoint), {}


def nobody_listens(server: S3Server, bucket: str) -> tuple[StoreSettings, dict[str, str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return StoreSettings(f"s3://{bucket}", f"http://127.0.0.1:{port}"), {"AWS_MAX_ATTEMPTS": "1"}


@pytest.mark.parametrize(
    ("broken", "code", "beginning"),
    [
        (wrong_secret, ExitCode.INVALID_INPUT, "spec.storage.secretRef: the secret access key is wrong"),
        (no_bucket, ExitCode.INVALID_INPUT, "spec.storage.url: the bucket does not exist"),
        (nobody_listens, ExitCode.RETRY, "spec.storage.endpoint: s3://"),
    ],
)
def test_a_store_that_cannot_be_used_is_named(
    broken: Callable[[S3Server, str], tuple[StoreSettings, dict[str, str]]],
    code: ExitCode,
    beginning: str,
    s3_server: S3Server,
    s3_credentials: None,
    tmp_path: Path,
) -> None:
    bucket = f"bucket-{os.urandom(4).hex()}"
    s3_server.make_bucket(bucket)
    store, env = broken(s3_server, bucket)
    failed = Job(store, tmp_path).result(PREFLIGHT, resource(), code=code, **env)
    assert failed["reason"] == code.name
    assert failed["message"].startswith(beginning)
    assert "\n" not in failed["message"]


@pytest.mark.parametrize(
    ("spec", "beginning"),
    [
        ({"questions": {"source": "s3://BUCKET/no.jsonl"}}, "spec.questions.source: s3://BUCKET/no.jsonl is not"),
        ({"questions": {"source": "s3://no-such-bucket/no.jsonl"}}, "spec.questions.source: s3://no-such-bucket"),
        ({"student": {"model": "s3://BUCKET/model"}}, "spec.student.model: s3://BUCKET/model is not there"),
        (
            {
                "evaluation": {
                    "benchmarks": [{"name": "humaneval", "source": "s3://BUCKET/he.jsonl"}],
                    "sampling": {"maxTokens": 48},
                }
            },
            "spec.evaluation.benchmarks: s3://BUCKET/he.jsonl is not there",
        ),
    ],
)
def test_a_source_that_is_not_there_is_named(
    spec: dict[str, Any], beginning: str, s3_server: S3Server, s3_credentials: None, tmp_path: Path
) -> None:
    bucket = f"bucket-{os.urandom(4).hex()}"
    s3_server.make_bucket(bucket)
    run = json.loads(json.dumps(resource(**spec)).replace("BUCKET", bucket))
    failed = Job(StoreSettings(f"s3://{bucket}/p", s3_server.endpoint), tmp_path).result(
        PREFLIGHT, run, code=ExitCode.INVALID_INPUT
    )
    assert failed["message"].startswith(beginning.replace("BUCKET", bucket))


def test_a_run_is_written_as_it_was_read() -> None:
    run = resource(retryToken="1e3", seed=7)
    run["metadata"]["annotations"] = {
        "a": "on",
        "b": "0x1",
        "c": "line\nline: two",
        "d": "2026-11-21",
        "e": "~",
        "f": "",
    }
    model, problems = check(run)
    assert model is not None, problems
    assert load(to_yaml(model)) == model


def test_a_server_listens_where_it_is_told(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        port = probe.getsockname()[1]
    service = {"name": "teacher", "engine": "tutor", "model": None, "artifact": None, "options": {}}
    argv = [sys.executable, "-m", "soda_jobs", "serve", "--port", str(port), "--host", "127.0.0.2"]
    env = {**os.environ, "SODA_SERVICE": json.dumps(service), "SODA_LOG": "json"}
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(argv, env=env, stdout=log, stderr=log) as server:
        try:
            deadline = time.monotonic() + 120
            while not answers("127.0.0.2", port):
                assert server.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert not answers("127.0.0.1", port)
        finally:
            server.kill()


def answers(host: str, port: int) -> bool:
    try:
        with urlopen(f"http://{host}:{port}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except URLError:
        return False


# -- a whole run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store that holds two finished runs, which differ in beta."""
    folder = tmp_path_factory.mktemp("whole")
    for name, beta in (("small", 0.1), ("other", 0.2)):
        run = resource(name, namespace=None)
        run["spec"]["training"]["preference"]["beta"] = beta
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(run))
        argv = [sys.executable, "-m", "soda_jobs", "run", f"{name}.yaml", "--store", str(folder / "store")]
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


def keys(store: Path, run: str) -> dict[str, str]:
    return {
        row["name"]: row["key"] for row in json.loads((store / f"runs/{run}/status.json").read_bytes())["stages"]
    }


@pytest.mark.slow
def test_publish_writes_the_report_that_soda_run_writes(whole: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(whole / "store", store)
    run = yaml.safe_load((whole / "small.yaml").read_text())
    job = Job(StoreSettings(str(store)), tmp_path / "job")
    before = {row["name"]: row for row in json.loads((store / "runs/small/status.json").read_bytes())["stages"]}
    shutil.rmtree(store / "runs/small")

    found = job.result(PREFLIGHT, run)
    assert list(decode(names(run), found["finished"])) == names(run)
    states = json.dumps({name: "reused" if name == "source" else "done" for name in before})
    done = job.result(PUBLISH, run, SODA_PINNED=json.dumps(found["pinned"]), SODA_STATES=states)
    assert done == {"state": "done", "report": f"{store}/runs/small/report.html"}
    page = Path(done["report"]).read_text()
    assert "<html" in page
    assert "small" in page
    after = {row["name"]: row for row in json.loads((store / "runs/small/status.json").read_bytes())["stages"]}
    assert {name: (row["key"], row["digest"], row["headline"]) for name, row in after.items()} == {
        name: (row["key"], row["digest"], row["headline"]) for name, row in before.items()
    }
    assert after["source"]["state"] == "reused"
    argv = [sys.executable, "-m", "soda_jobs", "report", "small", "--store", str(store), "--output", "json"]
    shown = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout) == json.loads((store / "runs/small/report.json").read_text())

    last = before["r1-preference"]["key"]
    (store / f"artifacts/{last}/manifest.json").unlink()
    failed = job.result(PUBLISH, run, SODA_PINNED="{}", code=ExitCode.GIVE_UP)
    assert "the first is r1-preference" in failed["message"]


@pytest.mark.slow
def test_cleanup_takes_what_only_one_run_uses_whenever_it_is_killed(whole: Path, tmp_path: Path) -> None:
    run = yaml.safe_load((whole / "small.yaml").read_text())
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    shutil.copytree(whole / "store", calm)
    shutil.copytree(whole / "store", killed)
    begun = time.monotonic()
    done = Job(StoreSettings(str(calm)), tmp_path / "job").result(CLEANUP, run, SODA_PINNED="{}")
    seconds = time.monotonic() - begun
    only = set(keys(whole / "store", "small").values()) - set(keys(whole / "store", "other").values())
    assert done["artifacts"] == len(only) > 0
    assert {name.split("/")[1] for name in objects(calm) if name.startswith("artifacts/")} == set(
        keys(whole / "store", "other").values()
    )
    assert not [name for name in objects(calm) if name.startswith("runs/small/")]
    left = Job(StoreSettings(str(calm)), tmp_path / "left").artifacts
    assert [line for key in keys(whole / "store", "other").values() for line in left.verify(key)] == []

    job, moments = Job(StoreSettings(str(killed)), tmp_path / "job2"), random.Random(3)
    deaths = 0
    for _ in range(12):
        process = job.start(CLEANUP, run, SODA_PINNED="{}")
        try:
            process.communicate(timeout=moments.uniform(seconds * 0.6, seconds))
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            deaths += 1
    job.result(CLEANUP, run, SODA_PINNED="{}")
    assert deaths > 0
    assert objects(killed) == objects(calm)
