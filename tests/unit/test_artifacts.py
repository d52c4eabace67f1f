"""Artifacts: whole or not there, equal work has one digest, damage is found, the cache can be trusted."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.artifacts import Artifacts, digest_of
from soda_jobs.errors import GiveUp, InvalidInput, Retry
from soda_jobs.store import open_store

FACTS: dict[str, Any] = {
    "kind": "generate",
    "counts": {"rows": 3},
    "headline": {"loss": 0.5},
    "inputs": {"questions": ("d1", "d2")},
    "settings": {"temperature": 0.8},
    "code_version": 1,
    "telemetry": {"seconds": 1.25},
}
FILES = {"rows.jsonl": b'{"id": 1}\n', "model/weights": b"\x00" * 5000, "model/copy": b"\x00" * 5000, "empty": b""}

# A process that commits or fetches, and dies by SIGKILL at the n-th thing it asks of the file system (0: never).
CHILD = """
import json, os, signal, sys, time
from pathlib import Path
from soda_jobs.artifacts import Artifacts
from soda_jobs.store import open_store
verb, die_at, store, cache, out, start = sys.argv[1:]
facts = json.loads(sys.stdin.read())
asked = 0
def count(name, arguments):
    global asked
    if name == "open" or name.startswith("os."):
        asked += 1
        if asked == int(die_at):
            os.kill(os.getpid(), signal.SIGKILL)
artifacts = Artifacts(open_store(store), Path(cache))
manifest = artifacts.find("k1")
while start and not Path(start).exists():
    time.sleep(0.001)
sys.addaudithook(count)
if verb == "commit":
    artifacts.shards("k1").commit("000.jsonl", b"row")
    print(artifacts.commit("k1", Path(out), **facts).digest)
else:
    print(artifacts.fetch(manifest))
print(asked)
"""


def make_folder(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def open_in(tmp_path: Path, cache: str = "cache") -> Artifacts:
    return Artifacts(open_store(str(tmp_path / "store")), tmp_path / cache)


def start_child(
    verb: str, base: Path, out: Path, *, die_at: int = 0, cache: str = "cache", start: Path | str = ""
) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", CHILD, verb, str(die_at), base / "store", base / cache, out, start]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(FACTS))
    process.stdin.close()
    process.stdin = None
    return process


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_committed_is_found_and_fetched(tmp_path: Path) -> None:
    artifacts = open_in(tmp_path)
    assert artifacts.find("k1") is None
    made = artifacts.commit("k1", make_folder(tmp_path / "out"), **FACTS)
    assert open_in(tmp_path, "other").find("k1") == made
    assert read_folder(open_in(tmp_path, "other").fetch(made)) == FILES
    assert {name: getattr(made, name) for name in FACTS} == {**FACTS, "inputs": {"questions": ["d1", "d2"]}}
    assert artifacts.verify("k1") == []


def test_digest_is_of_contents_only(tmp_path: Path) -> None:
    """The form that is hashed is written out: a change of it makes every artifact in every store a stranger."""
    first = open_in(tmp_path).commit("k1", make_folder(tmp_path / "a"), **FACTS)
    changed = {**FACTS, "kind": "judge", "telemetry": {"seconds": 9.0}, "settings": {}, "counts": {}}
    second = open_in(tmp_path).commit("k2", make_folder(tmp_path / "b"), **changed)
    other = open_in(tmp_path).commit("k3", make_folder(tmp_path / "c", {**FILES, "empty": b"!"}), **FACTS)
    renamed = {"renamed" if name == "empty" else name: entry for name, entry in first.files.items()}
    entries = ",".join(
        f'"{name}":["{hashlib.sha256(data).hexdigest()}",{len(data)}]' for name, data in sorted(FILES.items())
    )
    expected = hashlib.sha256(f'{{"files":{{{entries}}}}}'.encode()).hexdigest()
    assert first.digest == second.digest == expected
    assert len({first.digest, other.digest, digest_of(renamed)}) == 3


def test_equal_files_are_stored_once(tmp_path: Path) -> None:
    artifacts = open_in(tmp_path)
    artifacts.commit("k1", make_folder(tmp_path / "a"), **FACTS)
    artifacts.commit("k2", make_folder(tmp_path / "b"), **FACTS)
    store = open_store(str(tmp_path / "store"))
    assert len(store.list("blobs/")) == len(set(FILES.values()))
    assert store.list("artifacts/") == ["artifacts/k1/manifest.json", "artifacts/k2/manifest.json"]


def test_artifact_without_files_can_be_fetched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    made = open_in(tmp_path).commit("k1", tmp_path / "out", **FACTS)
    assert read_folder(open_in(tmp_path, "other").fetch(made)) == {}


def test_second_commit_of_a_key_changes_nothing_and_reports_the_conflict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifacts = open_in(tmp_path)
    first = artifacts.commit("k1", make_folder(tmp_path / "a"), **FACTS)
    assert artifacts.commit("k1", make_folder(tmp_path / "b"), **{**FACTS, "telemetry": {}}) == first
    assert "artifact_conflict" not in capsys.readouterr().err
    assert artifacts.commit("k1", make_folder(tmp_path / "c", {"rows.jsonl": b"other"}), **FACTS) == first
    assert "artifact_conflict" in capsys.readouterr().err
    assert read_folder(artifacts.fetch(first)) == FILES


def test_link_or_pipe_in_the_folder_is_refused(tmp_path: Path) -> None:
    for index, make in enumerate((lambda path: path.symlink_to("/etc/passwd"), os.mkfifo)):
        out = make_folder(tmp_path / str(index))
        make(out / "model" / "odd")
        with pytest.raises(GiveUp, match="model/odd is neither a file nor a folder"):
            open_in(tmp_path).commit("k1", out, **FACTS)


def test_shards_stay_until_the_commit_and_are_written_once(tmp_path: Path) -> None:
    artifacts = open_in(tmp_path)
    shards = artifacts.shards("k1")
    assert shards.done() == []
    assert shards.commit("000064.jsonl", b"second")
    assert shards.commit("000000.jsonl", b"first")
    assert not shards.commit("000000.jsonl", b"changed")
    again = open_in(tmp_path).shards("k1")
    assert again.done() == ["000000.jsonl", "000064.jsonl"]
    assert again.read("000000.jsonl") == b"first"
    open_in(tmp_path).shards("k10").commit("000000.jsonl", b"of another key")
    artifacts.commit("k1", make_folder(tmp_path / "out"), **FACTS)
    assert shards.done() == []
    assert artifacts.shards("k10").done() == ["000000.jsonl"]


def test_documents_change_and_are_listed(tmp_path: Path) -> None:
    artifacts = open_in(tmp_path)
    assert artifacts.get_document("quickstart", "status.json") is None
    artifacts.put_document("quickstart", "status.json", b"1")
    artifacts.put_document("quickstart", "status.json", b"2")
    artifacts.put_document("quickstart-2", "run.yaml", b"3")
    assert artifacts.get_document("quickstart", "status.json") == b"2"
    assert artifacts.list_documents("quickstart") == ["status.json"]
    assert artifacts.list_documents() == ["quickstart-2/run.yaml", "quickstart/status.json"]
    with pytest.raises(InvalidInput):
        artifacts.get_document("../artifacts/k1", "manifest.json")


@pytest.mark.parametrize("moment", range(30))
def test_commit_killed_at_any_moment_and_repeated_is_the_undisturbed_one(
    tmp_path: Path, moment: int, undisturbed: tuple[str, int]
) -> None:
    digest, steps = undisturbed
    out = make_folder(tmp_path / "out")
    killed = start_child("commit", tmp_path, out, die_at=1 + moment * steps // 30)
    killed.communicate()
    assert killed.returncode in (-signal.SIGKILL, 0)
    artifacts = open_in(tmp_path)
    found = artifacts.find("k1")
    if found is None:
        assert artifacts.shards("k1").done() in ([], ["000.jsonl"])
    else:
        assert artifacts.verify("k1") == []
    assert artifacts.commit("k1", make_folder(tmp_path / "again"), **FACTS).digest == digest
    assert artifacts.verify("k1") == []
    assert read_folder(artifacts.fetch(artifacts.find("k1"))) == FILES
    store = open_store(str(tmp_path / "store"))
    assert len(store.list("")) == len(set(FILES.values())) + 1
    assert list((tmp_path / "store" / ".tmp").iterdir()) == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    """The digest of a commit that nothing happens to, and the number of its steps."""
    base = tmp_path_factory.mktemp("undisturbed")
    output, _ = start_child("commit", base, make_folder(base / "out")).communicate()
    digest, steps = output.split()
    return digest, int(steps)


def test_fetch_killed_at_any_moment_never_gives_a_torn_folder(tmp_path: Path) -> None:
    made = open_in(tmp_path).commit("k1", make_folder(tmp_path / "out"), **FACTS)
    step, deaths = 1, 0
    while True:
        cache = f"cache-{step}"
        child = start_child("fetch", tmp_path, tmp_path, die_at=step, cache=cache)
        child.communicate()
        folder = tmp_path / cache / "artifacts" / made.digest
        if folder.exists():
            assert read_folder(folder) == FILES
        assert read_folder(open_in(tmp_path, cache).fetch(made)) == FILES
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
        deaths += 1
        step += 3
    assert deaths >= 8


def test_several_processes_fetch_one_artifact_at_once(tmp_path: Path) -> None:
    files = {f"part-{index}": os.urandom(200_000) for index in range(8)}
    made = open_in(tmp_path).commit("k1", make_folder(tmp_path / "out", files), **FACTS)
    start = tmp_path / "start"
    children = [start_child("fetch", tmp_path, tmp_path, cache="shared", start=start) for _ in range(4)]
    start.touch()
    assert [child.communicate()[1] for child in children] == [""] * 4
    assert read_folder(tmp_path / "shared" / "artifacts" / made.digest) == files
    assert list((tmp_path / "shared" / "tmp").iterdir()) == []


def test_two_processes_that_commit_different_files_at_once_agree_on_one(tmp_path: Path) -> None:
    start = tmp_path / "start"
    outs = [make_folder(tmp_path / f"out-{index}", {"rows.jsonl": str(index).encode()}) for index in range(3)]
    children = [start_child("commit", tmp_path, out, cache=out.name, start=start) for out in outs]
    start.touch()
    ends = [child.communicate() for child in children]
    assert len({output.split()[0] for output, _ in ends}) == 1
    assert sum("artifact_conflict" in errors for _, errors in ends) == 2
    assert open_in(tmp_path).verify("k1") == []


def damage(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def test_damaged_or_missing_blob_is_found_and_never_served(tmp_path: Path) -> None:
    made = open_in(tmp_path).commit("k1", make_folder(tmp_path / "out"), **FACTS)
    sha256, _ = made.files["rows.jsonl"]
    blob = tmp_path / "store" / "blobs" / "sha256" / sha256[:2] / sha256
    for data, what in ((b'{"id": 2}\n', "has 10 bytes"), (b"", "has 0 bytes"), (None, "is not in the store")):
        if data is None:
            blob.unlink()
        else:
            damage(blob, data)
        (sentence,) = open_in(tmp_path).verify("k1")
        assert sentence.startswith(f"the file rows.jsonl of the artifact k1 {what}")
        with pytest.raises(GiveUp, match=what):
            open_in(tmp_path, "fresh").fetch(made)


def test_following_the_sentence_on_damage_repairs_the_artifact(tmp_path: Path) -> None:
    made = open_in(tmp_path).commit("k1", make_folder(tmp_path / "out"), **FACTS)
    sha256, _ = made.files["rows.jsonl"]
    damage(tmp_path / "store" / "blobs" / "sha256" / sha256[:2] / sha256, b"0123456789")
    (sentence,) = open_in(tmp_path).verify("k1")
    told = sentence.split("Delete ")[1].split(" from the store")[0]
    for key in told.split(" and "):
        open_store(str(tmp_path / "store")).delete(key)
    assert open_in(tmp_path).commit("k1", make_folder(tmp_path / "again"), **FACTS).digest == made.digest
    assert open_in(tmp_path).verify("k1") == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"key": "k1"', '"key": "k2"'),
        ('"rows.jsonl"', '"../rows.jsonl"'),
        ('"rows.jsonl"', '"/rows.jsonl"'),
        ('"rows.jsonl"', '"other.jsonl"'),
        ('"format": 1', '"format": 2'),
        ('"kind"', '"sort"'),
        ("{", "["),
    ],
)
def test_changed_manifest_is_never_believed(tmp_path: Path, old: str, new: str) -> None:
    open_in(tmp_path).commit("k1", make_folder(tmp_path / "out"), **FACTS)
    path = tmp_path / "store" / "artifacts" / "k1" / "manifest.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(GiveUp, match="k1"):
        open_in(tmp_path).find("k1")
    assert len(open_in(tmp_path).verify("k1")) == 1


def test_verify_of_what_was_never_made_says_so(tmp_path: Path) -> None:
    assert open_in(tmp_path).verify("k1") == ["there is no artifact k1"]


def test_changed_file_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    artifacts = open_in(tmp_path)
    made = artifacts.commit("k1", make_folder(tmp_path / "out"), **FACTS)
    damage(artifacts.fetch(made) / "rows.jsonl", b'{"id": 2}\n')
    (artifacts.fetch(made) / "model" / "weights").chmod(0o644)
    (artifacts.fetch(made) / "model" / "weights").unlink()
    assert read_folder(artifacts.fetch(made)) == FILES


def test_later_write_into_the_committed_folder_reaches_neither_store_nor_reader(tmp_path: Path) -> None:
    artifacts = open_in(tmp_path)
    out = make_folder(tmp_path / "out")
    made = artifacts.commit("k1", out, **FACTS)
    damage(out / "rows.jsonl", b'{"id": 2}\n')
    assert artifacts.verify("k1") == []
    assert read_folder(artifacts.fetch(made)) == FILES


def test_fetched_files_lie_there_without_write_permission(tmp_path: Path) -> None:
    made = open_in(tmp_path).commit("k1", make_folder(tmp_path / "out"), **FACTS)
    for cache in ("cache", "other"):
        folder = open_in(tmp_path, cache).fetch(made)
        assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o444}


def test_own_commit_is_not_copied_back_from_the_store(tmp_path: Path) -> None:
    artifacts = open_in(tmp_path)
    out = make_folder(tmp_path / "out")
    made = artifacts.commit("k1", out, **FACTS)
    assert (artifacts.fetch(made) / "rows.jsonl").samefile(out / "rows.jsonl")


def test_vanished_store_in_the_middle_is_retry_and_the_commit_succeeds_later(tmp_path: Path) -> None:
    artifacts = open_in(tmp_path)
    out = make_folder(tmp_path / "out")
    artifacts.shards("k1").commit("000.jsonl", b"row")
    (tmp_path / "store").rename(tmp_path / "away")
    for call in (lambda: artifacts.find("k1"), lambda: artifacts.commit("k1", out, **FACTS)):
        with pytest.raises(Retry, match="has vanished"):
            call()
    (tmp_path / "away").rename(tmp_path / "store")
    assert artifacts.shards("k1").done() == ["000.jsonl"]
    artifacts.commit("k1", out, **FACTS)
    assert artifacts.verify("k1") == []


def test_full_cache_disk_is_retry_and_the_fetch_succeeds_later(tmp_path: Path) -> None:
    made = open_in(tmp_path).commit("k1", make_folder(tmp_path / "out"), **FACTS)
    script = """
import resource, sys
from pathlib import Path
from soda_jobs.artifacts import Artifacts
from soda_jobs.errors import Retry
from soda_jobs.store import open_store
artifacts = Artifacts(open_store(sys.argv[1]), Path(sys.argv[2]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    artifacts.fetch(artifacts.find("k1"))
except Retry as error:
    print(error)
"""
    argv = [sys.executable, "-c", script, tmp_path / "store", tmp_path / "small"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("File too large\n")
    assert read_folder(open_in(tmp_path, "small").fetch(made)) == FILES


def test_delete_leaves_what_others_have_and_sweep_takes_the_rest(tmp_path: Path) -> None:
    artifacts, out = open_in(tmp_path), tmp_path / "out"
    mine = artifacts.commit("k1", make_folder(out / "1", {"shared": b"both", "mine": b"only k1"}), **FACTS)
    theirs = artifacts.commit("k2", make_folder(out / "2", {"shared": b"both"}), **FACTS)
    artifacts.shards("k1").commit("000.jsonl", b"row")
    artifacts.delete("k1")
    artifacts.delete("k1")
    assert artifacts.find("k1") is None
    assert artifacts.shards("k1").done() == []
    blobs = {sha256 for sha256, _ in mine.files.values()}
    assert artifacts.sweep(blobs) == 1
    assert artifacts.sweep(blobs) == 0
    assert artifacts.verify("k2") == []
    assert (
        Artifacts(open_store(str(tmp_path / "store")), tmp_path / "fresh").fetch(theirs) / "shared"
    ).read_bytes()


def test_nothing_is_swept_while_a_manifest_cannot_be_read(tmp_path: Path) -> None:
    artifacts = open_in(tmp_path)
    mine = artifacts.commit("k1", make_folder(tmp_path / "1", {"mine": b"only k1"}), **FACTS)
    artifacts.commit("k2", make_folder(tmp_path / "2"), **FACTS)
    artifacts.delete("k1")
    manifest = tmp_path / "store/artifacts/k2/manifest.json"
    manifest.chmod(0o644)
    manifest.write_text("{")
    (blob, _), *_ = mine.files.values()
    with pytest.raises(GiveUp, match="damaged"):
        artifacts.sweep([blob])
    assert (tmp_path / "store/blobs/sha256" / blob[:2] / blob).exists()


def test_trying_to_write_leaves_nothing(tmp_path: Path) -> None:
    artifacts = open_in(tmp_path)
    artifacts.try_writing("r")
    assert artifacts.list_documents() == []
    artifacts.put_document("r", "run.yaml", b"x")
    artifacts.put_document("r2", "run.yaml", b"x")
    artifacts.delete_documents("r")
    assert artifacts.list_documents() == ["r2/run.yaml"]
