"""Artifacts on this machine: read-only folders named by digest. May be deleted whenever nothing runs.

artifacts/<digest>/   a whole artifact, its files verified and without write permission
tmp/<digest>/         one being fetched; what is verified in it is not fetched again after a death
locks/<digest>        held meanwhile, so that processes wait for one another instead of fetching twice
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from soda_jobs.artifacts.manifest import Entry, Manifest
from soda_jobs.errors import Retry

# A verified file gets this time of modification, so that any later write shows without hashing it anew.
_VERIFIED: Final = 1_000_000_000 * 10**9  # nanoseconds: 2001-09-09T01:46:40Z


class Cache:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fetch(self, manifest: Manifest, fill: Callable[[Mapping[str, Path]], None]) -> Path:
        """The artifact's folder. `fill` is given the files that are missing, by name, and writes and verifies
        them; it must `seal` each."""
        folder = self._folder / "artifacts" / manifest.digest
        if _is_whole(folder, manifest):
            return folder
        with local_faults(self._folder), self._locked(manifest.digest):
            if _is_whole(folder, manifest):
                return folder
            work = self._folder / "tmp" / manifest.digest
            work.mkdir(parents=True, exist_ok=True)
            _remove_strangers(work, manifest)
            fill(
                {name: path for name, path in _paths(work, manifest) if not _is_sealed(path, manifest.files[name])}
            )
            self._move_in(work, folder)
        return folder

    def keep(self, manifest: Manifest, paths: Mapping[str, Path]) -> None:
        """Take in files that were just hashed, by hard links; does nothing where the cache is on another disk."""
        folder = self._folder / "artifacts" / manifest.digest
        with suppress(OSError), self._locked(manifest.digest):
            if _is_whole(folder, manifest):
                return
            work = self._folder / "tmp" / manifest.digest
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            for name, path in _paths(work, manifest):
                os.link(paths[name], path)
                seal(path)
            self._move_in(work, folder)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder of this caller alone, removed at the end."""
        with local_faults(self._folder):
            folder = self._folder / "tmp" / f"scratch-{secrets.token_hex(8)}"
            folder.mkdir(parents=True)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _move_in(self, work: Path, folder: Path) -> None:
        """Give a whole folder its name. What is there under the name is damaged and goes."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            aside = self._folder / "tmp" / f"damaged-{secrets.token_hex(8)}"
            folder.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        work.rename(folder)

    @contextmanager
    def _locked(self, digest: str) -> Iterator[None]:
        locks = self._folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / digest).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def hash_file(path: Path) -> Entry:
    """SHA-256 and length in bytes of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, file.tell()


def seal(path: Path) -> None:
    """Mark a file whose hash is known to be right."""
    path.chmod(0o444)
    os.utime(path, ns=(_VERIFIED, _VERIFIED))


@contextmanager
def local_faults(folder: Path) -> Iterator[None]:
    """A full or failing local disk is worth another try, perhaps elsewhere."""
    try:
        yield
    except OSError as error:
        raise Retry(f"the folder {folder} failed: {error.strerror or error}") from error


def _paths(work: Path, manifest: Manifest) -> Iterator[tuple[str, Path]]:
    """Each file's name and its path below `work`, in a folder that exists."""
    for name in sorted(manifest.files):
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        yield name, path


def _is_whole(folder: Path, manifest: Manifest) -> bool:
    return folder.is_dir() and all(_is_sealed(folder / name, entry) for name, entry in manifest.files.items())


def _is_sealed(path: Path, entry: Entry) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return found.st_size == entry[1] and found.st_mtime_ns == _VERIFIED


def _remove_strangers(work: Path, manifest: Manifest) -> None:
    """Remove halves of files that a killed process left."""
    for base, _, names in os.walk(work):
        for path in (Path(base, name) for name in names):
            if path.relative_to(work).as_posix() not in manifest.files:
                path.unlink()
