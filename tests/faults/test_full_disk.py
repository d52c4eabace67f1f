"""A full disk ends `soda run` with exit code 75 and one sentence, wherever it is and whenever it fills up."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

QUICKSTART = Path(__file__).parents[2] / "crds/samples/quickstart.yaml"
pytestmark = [
    pytest.mark.slow,  # for a full disk, like everything that may pass, is tried again a few times
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KiB: room for the first documents of a run, not for its questions."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> None:
    """Leave not one byte."""
    with (disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def soda_run(folder: Path, *, store: Path, state: Path) -> tuple[int, list[str]]:
    """The exit code, and the lines that a person is told."""
    ended = subprocess.run(
        [sys.executable, "-m", "soda_jobs", "run", str(QUICKSTART), "--store", str(store)],
        cwd=folder,
        env={**os.environ, "SODA_STATE": str(state), "SODA_LOG": "json"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return ended.returncode, [line for line in ended.stderr.splitlines() if not line.startswith("{")]


def assert_try_again(code: int, told: list[str]) -> None:
    assert code == 75, told
    assert len(told) == 1, told
    assert told[0].startswith("soda: ")
    assert "No space left on device" in told[0]


def test_a_store_that_is_full_from_the_start(disk: Path, tmp_path: Path) -> None:
    first = soda_run(tmp_path, store=disk / "store", state=tmp_path / "state")
    assert_try_again(*first)  # it filled up in a stage
    fill(disk)
    assert_try_again(*soda_run(tmp_path, store=disk / "store", state=tmp_path / "state"))


def test_a_state_folder_that_fills_up(disk: Path, tmp_path: Path) -> None:
    assert_try_again(*soda_run(tmp_path, store=tmp_path / "store", state=disk / "state"))
