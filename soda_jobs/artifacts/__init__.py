"""Artifacts: files named by what made them and proved by what is in them. docs/artifacts.md has the format.

A stage's folder goes in under the stage's key; a `Manifest`, and later a read-only folder with the same files,
come out. In the store:

    blobs/sha256/ab/<hex>          each file once, whoever made it
    artifacts/<key>/manifest.json  written last and once: no manifest, no artifact
    partial/<key>/<name>           rows of a stage that has not ended
    runs/<run>/<name>              what is about one run and may change: its spec, status and report
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar, Unpack

from soda_jobs.artifacts.cache import Cache, hash_file, seal
from soda_jobs.artifacts.manifest import (
    Entry,
    Facts,
    Manifest,
    blob_key,
    digest_of,
    manifest_key,
    read_manifest,
    write_manifest,
)
from soda_jobs.errors import GiveUp, Retry
from soda_jobs.log import event
from soda_jobs.store import NotFound, Store
from soda_jobs.store.base import MARKER, MARKER_DATA

__all__ = ["Artifacts", "Facts", "Manifest", "Shards", "digest_of"]

_THREADS: Final = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


class Shards:
    """Rows that attempts of one stage have committed; `soda_jobs.rows` cuts and names them."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def done(self) -> list[str]:
        """Names of the committed shards, sorted."""
        return [key.removeprefix(self._prefix) for key in self._store.list(self._prefix)]

    def read(self, name: str) -> bytes:
        return self._store.get(self._prefix + name)

    def commit(self, name: str, data: bytes) -> bool:
        """Keep `data` unless the shard exists already; True if it was kept."""
        return self._store.put_if_absent(self._prefix + name, data)

    def clear(self) -> None:
        self._store.delete(self._prefix)


class Artifacts:
    """The artifacts of one store, with a local cache. Usable from several threads and processes at once.

    Every method may raise what the store raises: `InvalidInput` for wrong settings, `Retry` when it is away.
    """

    def __init__(self, store: Store, cache: Path) -> None:
        self._store = store
        self._cache = Cache(cache)

    def find(self, key: str) -> Manifest | None:
        """The artifact committed under `key`, if any. GiveUp if its manifest was damaged afterwards."""
        try:
            data = self._store.get(manifest_key(key))
        except NotFound:
            return None
        return read_manifest(key, data)

    def commit(self, key: str, folder: Path, **facts: Unpack[Facts]) -> Manifest:
        """Commit the files of `folder` under `key`; returns the artifact that is then there.

        If another process was first, that is its artifact, and if it holds other files the event
        `artifact_conflict` tells. `folder` is shared with the cache afterwards: its files must not change, and
        lose their write permission.
        """
        paths = _files(folder)
        files = dict(zip(paths, _each(hash_file, paths.values()), strict=True))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        made = Manifest(key=key, digest=digest_of(files), files=files, created_at=now, **facts)
        committed = self.find(key) or self._publish(made, paths)
        if committed.digest == made.digest:
            self._cache.keep(committed, paths)
        else:
            event("artifact_conflict", key=key, kind=made.kind, kept=committed.digest, dropped=made.digest)
        self._store.delete(_partial(key))
        return committed

    def fetch(self, manifest: Manifest) -> Path:
        """A local folder with the artifact's files, each verified; nobody may write into it.

        GiveUp if the store's copy was damaged.
        """

        def fill(missing: Mapping[str, Path]) -> None:
            _each(lambda name: self._fetch_file(manifest, name, missing[name]), missing)

        return self._cache.fetch(manifest, fill)

    def shards(self, key: str) -> Shards:
        """The rows committed so far by attempts of the stage with this key."""
        return Shards(self._store, _partial(key))

    def verify(self, key: str) -> list[str]:
        """Hash everything of an artifact anew, in the store; returns a sentence for each thing that is wrong."""
        try:
            manifest = self.find(key)
        except GiveUp as error:
            return [str(error)]
        if manifest is None:
            return [f"there is no artifact {key}"]
        with self._cache.scratch() as scratch:
            sizes = {sha256: size for sha256, size in manifest.files.values()}
            damage = dict(
                zip(
                    sizes,
                    _each(lambda sha256: self._damage(sha256, sizes[sha256], scratch / sha256), sizes),
                    strict=True,
                )
            )
        wrong = {name: damage[sha256] for name, (sha256, _) in sorted(manifest.files.items())}
        return [_sentence(manifest, name, what) for name, what in wrong.items() if what]

    def delete(self, key: str) -> None:
        """Delete the artifact under `key`, and rows of attempts. Its blobs stay until they are swept."""
        self._store.delete(manifest_key(key))
        self._store.delete(_partial(key))

    def sweep(self, blobs: Collection[str]) -> int:
        """Delete those of the blobs (SHA-256 each) that no artifact of the store has; returns how many.

        A commit puts blobs before its manifest: whoever commits one of these very contents meanwhile may lose it,
        and learns it from `fetch`. GiveUp while a manifest in the store is damaged, for it may name any of them.
        """
        manifests = _each(self.find, [key.split("/")[1] for key in self._store.list("artifacts/")])
        used = {sha256 for found in manifests if found for sha256, _ in found.files.values()}
        unused = [key for sha256 in sorted(set(blobs) - used) for key in self._store.list(blob_key(sha256))]
        _each(self._store.delete, unused)
        return len(unused)

    def try_writing(self, run: str) -> None:
        """One write of each kind, so that what is not allowed shows at once; nothing of it stays."""
        self._store.put_if_absent(MARKER, MARKER_DATA)
        name = f"runs/{run}/try"
        self._store.put(name, b"")
        self._store.get(name)
        self._store.delete(name)

    def put_document(self, run: str, name: str, data: bytes) -> None:
        """Keep a small document about a run, in place of an earlier one."""
        self._store.put(f"runs/{run}/{name}", data)

    def get_document(self, run: str, name: str) -> bytes | None:
        try:
            return self._store.get(f"runs/{run}/{name}")
        except NotFound:
            return None

    def delete_documents(self, run: str) -> None:
        self._store.delete(f"runs/{run}/")

    def list_documents(self, run: str = "") -> list[str]:
        """Names of a run's documents; without a run, `<run>/<name>` of all runs."""
        prefix = f"runs/{run}/" if run else "runs/"
        return [key.removeprefix(prefix) for key in self._store.list(prefix)]

    def _publish(self, made: Manifest, paths: Mapping[str, Path]) -> Manifest:
        blobs = {made.files[name]: path for name, path in paths.items()}
        _each(lambda entry: self._put_blob(entry, blobs[entry]), sorted(blobs))
        data = write_manifest(made)
        if self._store.put_if_absent(manifest_key(made.key), data):
            return read_manifest(made.key, data)
        theirs = self.find(made.key)
        if theirs is None:
            raise Retry(f"{manifest_key(made.key)} was in the store and is gone; is somebody deleting artifacts?")
        return theirs

    def _put_blob(self, entry: Entry, path: Path) -> None:
        key = blob_key(entry[0])
        try:
            present = self._store.size(key) == entry[1]
        except NotFound:
            present = False
        if not present:
            self._store.put_file(key, path)

    def _fetch_file(self, manifest: Manifest, name: str, path: Path) -> None:
        sha256, size = manifest.files[name]
        what = None
        for _ in range(2):  # the second time in case it was damaged on its way
            what = self._damage(sha256, size, path)
            if what is None:
                seal(path)
                return
        path.unlink(missing_ok=True)
        raise GiveUp(_sentence(manifest, name, what or ""))

    def _damage(self, sha256: str, size: int, path: Path) -> str | None:
        """Copy a blob to `path`; what is wrong with it, if anything."""
        try:
            self._store.get_file(blob_key(sha256), path)
        except NotFound:
            return "is not in the store"
        found = hash_file(path)
        return None if found == (sha256, size) else f"has {found[1]} bytes with sha256 {found[0]}"


def _partial(key: str) -> str:
    return f"partial/{key}/"


def _sentence(manifest: Manifest, name: str, what: str) -> str:
    sha256, size = manifest.files[name]
    return (
        f"the file {name} of the artifact {manifest.key} {what}, instead of {size} bytes with sha256 {sha256}. "
        f"Delete {manifest_key(manifest.key)} and {blob_key(sha256)} from the store; the next run makes them again"
    )


def _files(folder: Path) -> dict[str, Path]:
    """The regular files below `folder` by relative name, sorted."""
    found: dict[str, Path] = {}
    for base, folders, names in os.walk(folder):
        for path in (Path(base, name) for name in [*folders, *names]):
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise GiveUp(f"{path} is neither a file nor a folder, so it cannot be part of an artifact")
        found |= {Path(base, name).relative_to(folder).as_posix(): Path(base, name) for name in names}
    return dict(sorted(found.items()))


def _each(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`work` on every item by a few threads, results in order; after the first error no other item is begun."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(work, items))
