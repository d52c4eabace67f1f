"""What a store promises, whatever is behind it, and the names it accepts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Protocol

from soda_jobs.errors import InvalidInput

MARKER: Final = "soda-store.json"
MARKER_DATA: Final = b'{"format": 1}\n'
URL_FIELD: Final = "spec.storage.url"

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=+:@-]{0,199}")
_MAX_KEY: Final = 800  # bytes; S3 allows 1024, the rest is for the prefix


class NotFound(KeyError):
    """There is no object under this key."""

    def __str__(self) -> str:
        return f"the store holds nothing under {self.args[0]}"


class Store(Protocol):
    """Bytes under keys such as `artifacts/<key>/manifest.json`.

    A write is seen whole or not at all, also when its process is killed or the disk is full, and it has reached
    the disk when the call returns. Every method raises `InvalidInput` when the settings of the store must change,
    and `Retry` when the store is away, full or overloaded. Objects are safe to use from several threads.
    """

    def get(self, key: str) -> bytes:
        """The object's bytes; `NotFound` if there is none."""

    def get_file(self, key: str, path: Path) -> None:
        """Write the object to the local file `path`, which appears whole and with the object's length."""

    def put(self, key: str, data: bytes) -> None:
        """Write the object, in place of an earlier one."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write the object unless there is one. Of several callers at once at most one is told True."""

    def put_file(self, key: str, path: Path) -> None:
        """Write the object from the local file `path`, of any size, in place of an earlier one."""

    def exists(self, key: str) -> bool: ...

    def size(self, key: str) -> int:
        """Length of the object in bytes; `NotFound` if there is none."""

    def list(self, prefix: str) -> list[str]:
        """All keys that start with the string `prefix`, sorted."""

    def delete(self, prefix: str) -> None:
        """Delete all objects whose keys start with the string `prefix`, which may not be empty."""


def check_key(key: str) -> str:
    """`key` itself if every store can hold it; else InvalidInput, for a part of it may come from a user."""
    if len(key) > _MAX_KEY or not all(_SEGMENT.fullmatch(segment) for segment in key.split("/")):
        raise InvalidInput(
            f"{key!r} cannot name an object of the store: accepted are up to {_MAX_KEY} letters, digits and "
            "._=+:@- in parts of up to 200, joined by /, none of which starts with a dot or a hyphen"
        )
    return key


def check_prefix(prefix: str, *, may_be_empty: bool) -> str:
    """`prefix` itself if it is the beginning of some key."""
    if not prefix and may_be_empty:
        return prefix
    check_key(prefix.removesuffix("/"))
    return prefix


def check_marker(data: bytes) -> None:
    if data != MARKER_DATA:
        raise InvalidInput(
            f"is a store of another version of soda: {MARKER} says {data[:80]!r}, accepted is {MARKER_DATA!r}",
            field=URL_FIELD,
        )
