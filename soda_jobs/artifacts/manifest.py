"""The manifest: what an artifact holds and what made it. One JSON document, written once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Final, TypedDict

from soda_jobs.errors import GiveUp
from soda_jobs.records import canonical

_FORMAT: Final = 1
Entry = tuple[str, int]  # sha256 and length in bytes of one file


class Facts(TypedDict):
    """What whoever commits an artifact knows about it. Fields as in `Manifest`."""

    kind: str
    counts: Mapping[str, int]
    headline: Mapping[str, float]
    inputs: Mapping[str, Sequence[str]]
    settings: Mapping[str, Any]
    code_version: int
    telemetry: Mapping[str, float]


@dataclass(frozen=True)
class Manifest:
    """One artifact. `digest` is of the names and contents of its files only.

    `counts`, `headline`, `settings` and `inputs` (digests by input name) follow from the key. `telemetry`
    (seconds, tokens) and `created_at` do not; nothing that is compared or hashed may read them.
    """

    key: str
    digest: str
    kind: str
    files: Mapping[str, Entry]
    counts: Mapping[str, int]
    headline: Mapping[str, float]
    inputs: Mapping[str, Sequence[str]]
    settings: Mapping[str, Any]
    code_version: int
    telemetry: Mapping[str, float]
    created_at: str


def digest_of(files: Mapping[str, Entry]) -> str:
    """SHA-256 of the names, hashes and lengths of an artifact's files, in the one form that is hashed."""
    listed = {name: list(entry) for name, entry in files.items()}
    return hashlib.sha256(canonical({"files": listed})).hexdigest()


def manifest_key(key: str) -> str:
    return f"artifacts/{key}/manifest.json"


def blob_key(sha256: str) -> str:
    return f"blobs/sha256/{sha256[:2]}/{sha256}"


def write_manifest(manifest: Manifest) -> bytes:
    fields = {"format": _FORMAT, **asdict(manifest)}
    return (json.dumps(fields, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_manifest(key: str, data: bytes) -> Manifest:
    """The manifest in `data`, which was found under `key`; GiveUp if it cannot be what was written there."""
    try:
        fields = json.loads(data)
        found = fields.pop("format")
        if found != _FORMAT:
            raise GiveUp(f"the artifact {key} has format {found!r}; this version of soda reads {_FORMAT}")
        fields["files"] = {_inside(name): (sha256, size) for name, (sha256, size) in fields["files"].items()}
        manifest = Manifest(**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GiveUp(_damaged(key, repr(error))) from error
    if manifest.key != key:
        raise GiveUp(_damaged(key, f"it says it is of {manifest.key}"))
    if manifest.digest != digest_of(manifest.files):
        raise GiveUp(_damaged(key, "its digest is not that of its files"))
    return manifest


def _inside(name: str) -> str:
    """`name` if it stays below the folder it is joined to."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name or name == ".":
        raise ValueError(f"{name!r} is not the name of a file in a folder")
    return name


def _damaged(key: str, why: str) -> str:
    where = manifest_key(key)
    return f"{where} is damaged ({why}). Delete it from the store; the next run makes the artifact again"
