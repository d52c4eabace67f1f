"""The store's promises, on a folder and on a real S3 server, and what it says when the server is wrong or away."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from soda_jobs.artifacts import Artifacts
from soda_jobs.errors import InvalidInput, Retry
from soda_jobs.store import NotFound, Store, open_store

if TYPE_CHECKING:
    from tests.s3server.plugin import S3Server

pytest_plugins = ["tests.s3server.plugin"]

MIB = 1 << 20
FACTS: dict[str, Any] = {
    "kind": "train",
    "counts": {},
    "headline": {},
    "inputs": {},
    "settings": {},
    "code_version": 1,
    "telemetry": {},
}


@pytest.fixture
def s3_url(s3_server: S3Server, s3_credentials: None) -> str:
    """A bucket of this test alone, with a prefix."""
    name = f"bucket-{os.urandom(4).hex()}"
    s3_server.make_bucket(name)
    return f"s3://{name}/some/prefix"


@pytest.fixture(params=["file", "s3"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Opens the same store, as another process would."""
    if request.param == "file":
        return lambda: open_store(f"file://{tmp_path}/store")
    url = request.getfixturevalue("s3_url")
    endpoint = request.getfixturevalue("s3_server").endpoint
    return lambda: open_store(url, endpoint=endpoint)


@pytest.fixture
def store(open_again: Callable[[], Store]) -> Store:
    return open_again()


# The contract: every store keeps it.


def test_object_is_what_was_put_last(store: Store, open_again: Callable[[], Store]) -> None:
    store.put("a/b", b"1")
    store.put("a/b", b"22")
    assert open_again().get("a/b") == b"22"
    assert store.size("a/b") == 2
    store.put("empty", b"")
    assert (store.get("empty"), store.size("empty"), store.exists("empty")) == (b"", 0, True)


def test_what_is_not_there_is_not_found(store: Store, tmp_path: Path) -> None:
    store.put("a/b", b"1")
    for key in ("a", "a/bc", "a/b/c"):
        assert not store.exists(key)
        for call in (store.get, store.size, lambda key: store.get_file(key, tmp_path / "copy")):
            with pytest.raises(NotFound):
                call(key)
    assert list(tmp_path.glob("copy*")) == []


def test_put_if_absent_keeps_the_first(store: Store, open_again: Callable[[], Store]) -> None:
    assert store.put_if_absent("a", b"first")
    assert not store.put_if_absent("a", b"second")
    assert not open_again().put_if_absent("a", b"third")
    assert store.get("a") == b"first"


def test_of_eight_writers_at_once_exactly_one_is_told_true(open_again: Callable[[], Store]) -> None:
    stores = [open_again() for _ in range(8)]
    for attempt in range(5):
        barrier = threading.Barrier(len(stores))

        def write(index: int, *, barrier: threading.Barrier = barrier, key: str = f"race/{attempt}") -> bool:
            barrier.wait()
            return stores[index].put_if_absent(key, str(index).encode())

        with ThreadPoolExecutor(len(stores)) as pool:
            told = list(pool.map(write, range(len(stores))))
        assert told.count(True) == 1
        assert stores[0].get(f"race/{attempt}") == str(told.index(True)).encode()


def test_list_is_sorted_and_by_prefix_of_the_string(store: Store) -> None:
    keys = ["a/b", "a/b/c2", "a/bb", "ab", "z/Z", "z/_"]
    keys.remove("a/b")  # a folder cannot hold an object and a folder of one name; soda never asks for it
    for key in reversed(keys):
        store.put(key, b"")
    store.put_if_absent("a/c", b"")
    assert store.list("") == sorted([*keys, "a/c"])
    assert store.list("a/") == ["a/b/c2", "a/bb", "a/c"]
    assert store.list("a/b") == ["a/b/c2", "a/bb"]
    assert store.list("a") == ["a/b/c2", "a/bb", "a/c", "ab"]
    assert store.list("none/") == []


def test_list_is_complete_beyond_one_page(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: store.put(f"many/{index:04}", b""), range(1100)))
    assert store.list("many/") == [f"many/{index:04}" for index in range(1100)]
    store.delete("many/")
    assert store.list("many/") == []


def test_delete_takes_the_prefix_and_nothing_else(store: Store) -> None:
    for key in ("partial/k1/0", "partial/k1/1", "partial/k10/0"):
        store.put(key, b"")
    store.delete("partial/k1/")
    store.delete("partial/k1/")
    assert store.list("") == ["partial/k10/0"]
    store.put("partial/k1/0", b"again")
    assert store.get("partial/k1/0") == b"again"


def test_file_of_20_mib_comes_back_byte_for_byte(store: Store, tmp_path: Path) -> None:
    """More than one part, the last one short."""
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(random.Random(1).randbytes(20 * MIB + 1))
    store.put_file("big", source)
    store.get_file("big", copy)
    assert store.size("big") == 20 * MIB + 1
    assert hash_of(copy) == hash_of(source)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["copy", "source"]
    source.write_bytes(b"")
    store.put_file("big", source)
    store.get_file("big", copy)
    assert copy.read_bytes() == b""


def test_artifact_goes_through_every_store(store: Store, tmp_path: Path) -> None:
    out = make_folder(tmp_path / "out", {"a/x": b"1", "b": b"2" * 100})
    Artifacts(store, tmp_path / "one").shards("k1").commit("0", b"row")
    made = Artifacts(store, tmp_path / "one").commit("k1", out, **FACTS)
    other = Artifacts(store, tmp_path / "two")
    assert other.find("k1") == made
    assert (other.fetch(made) / "a" / "x").read_bytes() == b"1"
    assert other.verify("k1") == []
    assert store.list("partial/") == []


# Wrong settings: one sentence that names the field.


def test_missing_bucket_names_the_field(s3_server: S3Server, s3_credentials: None) -> None:
    with pytest.raises(
        InvalidInput, match=r"^spec\.storage\.url: the bucket does not exist: s3://no-such-bucket/"
    ):
        open_store("s3://no-such-bucket/x", endpoint=s3_server.endpoint)
    with pytest.raises(InvalidInput, match=r"^spec\.storage\.url: "):
        open_store("s3://Not_A_Bucket!", endpoint=s3_server.endpoint)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_name_the_field_and_not_the_secret(
    s3_server: S3Server, s3_url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "wrong-value")
    with pytest.raises(InvalidInput, match=r"^spec\.storage\.secretRef: ") as caught:
        open_store(s3_url, endpoint=s3_server.endpoint)
    assert "wrong-value" not in str(caught.value)


def test_no_credentials_says_what_to_set(
    s3_server: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(InvalidInput, match=r"^spec\.storage\.secretRef: .*set AWS_ACCESS_KEY_ID"):
        open_store(s3_url, endpoint=s3_server.endpoint)


def test_endpoint_that_is_no_url_names_the_field(s3_credentials: None) -> None:
    with pytest.raises(InvalidInput, match=r"^spec\.storage\.endpoint: is 'nonsense'"):
        open_store("s3://bucket", endpoint="nonsense")


def test_missing_certificate_file_names_the_field(s3_credentials: None) -> None:
    with pytest.raises(InvalidInput, match=r"^spec\.storage\.caSecretRef: there is no file /none"):
        open_store("s3://bucket", endpoint="https://127.0.0.1:1", ca_file="/none")


def test_private_certificate_is_trusted_by_its_authority_only(
    start_s3: Callable[..., S3Server], s3_credentials: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    certificate, key = tmp_path / "ca.crt", tmp_path / "key.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    argv = ["openssl", *words.split(), "-keyout", key, "-out", certificate]
    subprocess.run(argv, check=True, capture_output=True)
    server = start_s3((certificate, key))
    server.make_bucket("bucket")
    open_store("s3://bucket", endpoint=server.endpoint, ca_file=str(certificate)).put("a", b"1")
    with pytest.raises(
        InvalidInput, match=r"^spec\.storage\.caSecretRef: the server's certificate is not trusted"
    ):
        open_store("s3://bucket", endpoint=server.endpoint)


# The server is away, slow, wrong, or old.


def test_unreachable_server_is_retry(s3_credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    with pytest.raises(Retry, match=r"cannot be reached at http://127\.0\.0\.1:1"):
        open_store("s3://bucket", endpoint="http://127.0.0.1:1")


def test_server_killed_in_mid_upload_is_retry_and_the_commit_resumes(
    start_s3: Callable[..., S3Server],
    s3_credentials: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    server = start_s3()
    server.make_bucket("bucket")
    store = open_store("s3://bucket", endpoint=server.endpoint)
    artifacts = Artifacts(store, tmp_path / "cache")
    files = {f"part-{index:02}": random.Random(index).randbytes(4 * MIB) for index in range(20)}
    files["large"] = random.Random(99).randbytes(40 * MIB)
    out = make_folder(tmp_path / "out", files)
    artifacts.shards("k1").commit("0", b"row")

    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(artifacts.commit, "k1", out, **FACTS)
        while not store.list("blobs/") and not commit.done():
            time.sleep(0.01)
        server.kill()
        with pytest.raises(Retry, match=r"s3://bucket/blobs/.* cannot be reached"):
            commit.result()
    server.start()
    assert artifacts.find("k1") is None
    assert 0 < len(store.list("blobs/")) < len(files)
    assert artifacts.shards("k1").done() == ["0"]

    before = set(store.list("blobs/"))
    written = {path.name: path.stat().st_mtime_ns for path in server.folder.rglob("*") if path.is_file()}
    made = artifacts.commit("k1", out, **FACTS)
    after = {path.name: path.stat().st_mtime_ns for path in server.folder.rglob("*") if path.is_file()}
    assert all(after[key.rpartition("/")[2]] == written[key.rpartition("/")[2]] for key in before)
    assert made.files == {name: (hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()}
    assert artifacts.verify("k1") == []
    assert store.list("partial/") == []


def test_committing_process_killed_on_s3_leaves_nothing_torn(
    s3_server: S3Server, s3_url: str, tmp_path: Path
) -> None:
    script = """
import sys
from pathlib import Path
from soda_jobs.artifacts import Artifacts
from soda_jobs.store import open_store
artifacts = Artifacts(open_store(sys.argv[1], endpoint=sys.argv[2]), Path(sys.argv[3]) / "cache")
print("ready", flush=True)
facts = dict(kind="train", counts={}, headline={}, inputs={}, settings={}, code_version=1, telemetry={})
artifacts.commit("k1", Path(sys.argv[3]) / "out", **facts)
"""
    files = {f"part-{index}": random.Random(index).randbytes(MIB) for index in range(8)}
    files["large"] = random.Random(99).randbytes(20 * MIB)
    make_folder(tmp_path / "out", files)
    store = open_store(s3_url, endpoint=s3_server.endpoint)
    artifacts = Artifacts(store, tmp_path / "other")
    for delay in (0.0, 0.05, 0.15, 0.3):
        argv = [sys.executable, "-c", script, s3_url, s3_server.endpoint, tmp_path]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(delay)
            process.kill()
        found = artifacts.find("k1")
        assert artifacts.verify("k1") == ([] if found else ["there is no artifact k1"])
        for key in store.list("blobs/"):
            assert hashlib.sha256(store.get(key)).hexdigest() == key.rpartition("/")[2]
    made = artifacts.commit("k1", tmp_path / "out", **FACTS)
    assert made.files == {name: (hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()}
    assert artifacts.verify("k1") == []


@contextmanager
def fake_s3(change: Callable[[dict[str, Any]], int | None]) -> Iterator[str]:
    """moto's S3 server, its requests changed or (by a status) refused by `change`; gives its URL.

    A real server cannot be told to be overloaded, and a current one knows conditional writes.
    """
    moto = DomainDispatcherApplication(create_backend_app)
    codes = {
        500: ("500 Internal Server Error", "InternalError"),
        501: ("501 Not Implemented", "NotImplemented"),
        503: ("503 Slow Down", "SlowDown"),
    }

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        status = change(environ)
        if status is None:
            reply: Iterable[bytes] = moto(environ, start_response)
            return reply
        line, code = codes[status]
        start_response(line, [("Content-Type", "application/xml")])
        return [f"<Error><Code>{code}</Code><Message>fake</Message></Error>".encode()]

    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        urlopen(f"{url}/moto-api/reset", data=b"").close()  # all its servers of a process share one memory
        yield url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError")])
def test_overloaded_server_is_asked_again_and_then_is_retry(
    status: int, code: str, s3_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    refusals = 0

    def refuse(environ: dict[str, Any]) -> int | None:
        nonlocal refusals
        if refusals == 0:
            return None
        refusals -= 1
        return status

    with fake_s3(refuse) as url:
        make_bucket(url)
        store = open_store("s3://bucket", endpoint=url)
        refusals = 2
        store.put("a", b"1")
        assert refusals == 0
        refusals = 3
        with pytest.raises(Retry, match=rf"s3://bucket/a failed with {code} \(HTTP {status}\)"):
            store.get("a")
        assert refusals == 0
        assert store.get("a") == b"1"


@pytest.mark.parametrize("behaviour", ["ignores the header", "refuses the header"])
def test_server_without_conditional_writes_gets_a_look_first(
    behaviour: str, s3_credentials: None, capsys: pytest.CaptureFixture[str]
) -> None:
    def forget(environ: dict[str, Any]) -> int | None:
        condition = environ.pop("HTTP_IF_NONE_MATCH", None)
        return 501 if condition and behaviour == "refuses the header" else None

    with fake_s3(forget) as url:
        make_bucket(url)
        store = open_store("s3://bucket/x", endpoint=url)
        assert store.put_if_absent("a", b"first")
        assert not store.put_if_absent("a", b"second")
        assert store.get("a") == b"first"
        assert store.list("") == ["a"]
    assert capsys.readouterr().err.count("store_without_conditional_writes") == 1


def test_body_cut_short_is_never_taken_for_the_object(s3_credentials: None, tmp_path: Path) -> None:
    with fake_s3(lambda environ: None) as url:
        make_bucket(url)
        store = open_store("s3://bucket", endpoint=url)
        store.put("a", b"0123456789")
        store.size = lambda key: 11  # type: ignore[method-assign]  # what the server had said
        with pytest.raises(Retry, match="came with 10 bytes of 11"):
            store.get_file("a", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def make_bucket(url: str) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    client.close()


def make_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
