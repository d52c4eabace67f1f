"""A store in a folder: what it refuses, and what it does when the folder is full, away or its user killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from soda_jobs.errors import InvalidInput, Retry
from soda_jobs.store import NotFound, open_store

MIB = 1 << 20

# Dies by SIGKILL at the n-th thing it asks of the file system, and prints how many it asked for if it got so far.
DIE_AT = """
import os, signal, sys
asked = 0
def count(name, arguments):
    global asked
    if name == "open" or name.startswith("os."):
        asked += 1
        if asked == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
from pathlib import Path
from soda_jobs.store import open_store
store = open_store(sys.argv[2])
source = Path(sys.argv[3])
sys.addaudithook(count)
store.put("a/replaced", b"new" * 1000)
store.put_if_absent("b/c/once", b"once" * 1000)
store.put_file("d/file", source)
store.delete("e/")
print(asked)
"""


def test_two_processes_make_one_store_of_a_new_folder(tmp_path: Path) -> None:
    script = "import sys; from soda_jobs.store import open_store; open_store(sys.argv[1]).put('a', b'1')"
    argv = [sys.executable, "-c", script, str(tmp_path / "new" / "store")]
    processes = [subprocess.Popen(argv) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert open_store(argv[-1], create=False).list("") == ["a"]


@pytest.mark.parametrize(
    "url",
    ["", "s3://", "file://host/x", "file:relative", "http://x/y", "s3://key:secret@bucket", "s3://bucket?x=1"],
)
def test_wrong_url_is_one_sentence_that_names_the_field(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"^spec\.storage\.url: ") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "key", ["../out", "a/../b", "/a", "a//b", "", "a/", ".hidden", "-x", "a b", "é", "x" * 201]
)
def test_key_that_leaves_the_store_or_some_file_system_is_refused(tmp_path: Path, key: str) -> None:
    store = open_store(str(tmp_path / "store"))
    for call in (store.get, store.exists, store.size, lambda key: store.put(key, b"")):
        with pytest.raises(InvalidInput, match="cannot name an object"):
            call(key)


def test_everything_cannot_be_deleted_at_once(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.put("a", b"1")
    with pytest.raises(InvalidInput):
        store.delete("")
    assert store.get("a") == b"1"


def test_folder_with_other_things_is_not_taken_for_a_store(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InvalidInput, match=r"thesis\.tex"):
        open_store(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.tex"]


def test_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="file is not a folder"):
        open_store(str(tmp_path / "file"))


def test_store_of_a_later_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "soda-store.json").write_text('{"format": 2}')
    with pytest.raises(InvalidInput, match="another version"):
        open_store(str(tmp_path))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach; the test runs as a user who may not write everywhere."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        open_store(str(folder / "store"))
        (folder / "store").chmod(0o555)
        (folder / "store" / ".tmp").chmod(0o555)
        os.seteuid(user or 65534)
        yield folder
        os.seteuid(user)


def test_folder_without_permission_is_the_users_to_fix(open_folder: Path) -> None:
    store = open_store(str(open_folder / "store"))
    with pytest.raises(InvalidInput, match=r"^spec\.storage\.url: .* may not be used by user"):
        store.put("a/b", b"1")


def test_vanished_folder_is_retry_and_is_never_made_anew(tmp_path: Path) -> None:
    root = tmp_path / "mount"
    store = open_store(str(root))
    store.put("a/b", b"1")
    root.rename(tmp_path / "away")
    (tmp_path / "file").write_bytes(b"2")
    calls = {
        "get": lambda: store.get("a/b"),
        "get_file": lambda: store.get_file("a/b", tmp_path / "copy"),
        "put": lambda: store.put("a/c", b"1"),
        "put_if_absent": lambda: store.put_if_absent("a/c", b"1"),
        "put_file": lambda: store.put_file("a/c", tmp_path / "file"),
        "exists": lambda: store.exists("a/b"),
        "list": lambda: store.list(""),
        "delete": lambda: store.delete("a/"),
        "open": lambda: open_store(str(root), create=False),
    }
    for is_mount_point_left in (False, True):  # an unmounted disk leaves an empty folder behind
        if is_mount_point_left:
            root.mkdir()
        for call in calls.values():
            with pytest.raises(Retry, match="has vanished"):
                call()
        assert root.exists() == is_mount_point_left
    assert list(root.iterdir()) == []
    root.rmdir()
    (tmp_path / "away").rename(root)
    assert store.get("a/b") == b"1"


def test_full_disk_is_retry_and_leaves_the_old_object(tmp_path: Path) -> None:
    """A limit on the length of a file makes the kernel refuse the write, as a full disk does."""
    script = """
import resource, sys
from soda_jobs.errors import Retry
from soda_jobs.store import open_store
store = open_store(sys.argv[1])
store.put("a", b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for write in (store.put, store.put_if_absent):
    try:
        write("a" if write == store.put else "b", bytes(2000))
    except Retry as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert store.list("") == ["a"] and store.get("a") == b"old"
store.put("a", bytes(2000))
assert store.get("a") == bytes(2000)
"""
    root = tmp_path / "store"
    done = subprocess.run([sys.executable, "-c", script, root], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"the store {root} failed: File too large"] * 2
    assert list((root / ".tmp").iterdir()) == []


def test_no_space_left_is_retry_until_there_is_space_again(tmp_path: Path) -> None:
    root = tmp_path / "small"
    root.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", root], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        store = open_store(str(root))
        store.put("filler", bytes(MIB // 2))
        with pytest.raises(Retry, match="No space left on device"):
            store.put("a/b", bytes(MIB // 2 + 1))
        assert store.list("") == ["filler"]
        store.delete("filler")
        store.put("a/b", bytes(MIB // 2 + 1))
        assert store.size("a/b") == MIB // 2 + 1
        del store
    finally:
        subprocess.run(["umount", root], check=True)


def test_killed_at_every_step_an_object_is_old_or_new_and_no_rubbish_stays(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"file" * 1000)
    contents = {
        "a/replaced": (b"old", b"new" * 1000),
        "b/c/once": (None, b"once" * 1000),
        "d/file": (b"old", source.read_bytes()),
        "e/gone": (b"old", None),
    }
    step, deaths = 0, 0
    while True:
        step += 1
        root = tmp_path / f"store-{step}"
        store = open_store(str(root))
        for key, (before, _) in contents.items():
            if before is not None:
                store.put(key, before)
        argv = [sys.executable, "-c", DIE_AT, str(step), str(root), str(source)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        for key, accepted in contents.items():
            assert (store.get(key) if store.exists(key) else None) in accepted, (step, key)
        assert open_store(str(root)).list("") == [key for key in contents if store.exists(key)]
        assert list((root / ".tmp").iterdir()) == [], step
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        deaths += 1
    assert deaths == int(done.stdout) >= 15


def test_file_of_a_living_writer_is_not_swept(tmp_path: Path) -> None:
    """A process that stops in the middle of a write is not dead; opening the store must leave its file alone."""
    script = """
import io, sys
from soda_jobs.store import open_store
store = open_store(sys.argv[1])
class Slow(io.BytesIO):
    def read(self, *arguments):
        print("writing", flush=True)
        sys.stdin.readline()
        Slow.read = io.BytesIO.read
        return super().read(*arguments)
from soda_jobs.store import file
file.BytesIO = Slow
store.put("a", b"1")
"""
    root = tmp_path / "store"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script, root], text=True, **pipes) as process:
        assert process.stdout.readline() == "writing\n"
        store = open_store(str(root))
        assert len(list((root / ".tmp").iterdir())) == 1
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait() == 0
    assert store.get("a") == b"1"


def test_reading_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.put("a/b", b"1")
    for key in ("a", "a/b/c", "x"):
        with pytest.raises(NotFound):
            store.get(key)
        with pytest.raises(NotFound):
            store.get_file(key, tmp_path / "copy")
        assert not store.exists(key)
    assert not (tmp_path / "copy").exists()


def test_importing_the_store_does_not_import_boto3() -> None:
    script = "import sys, soda_jobs.artifacts; print([name in sys.modules for name in ('boto3', 'pydantic')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[False, False]\n"
