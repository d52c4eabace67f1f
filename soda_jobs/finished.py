"""The digests of a run's committed stages in one short text, for a termination message.

Stages in the graph's order, one item for each, joined by commas: the 32 bytes of the artifact's SHA-256 in
base64url without padding (43 characters), or nothing for a stage that has none. Empty items at the end are left
out, and so is what does not fit: a stage that is not named is looked for again by its own Job, which costs a pod
and no work.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Final

LIMIT: Final = 3500  # characters: 79 stages


def encode(stages: Sequence[str], digests: Mapping[str, str], limit: int = LIMIT) -> str:
    """The text for the digests (64 hex digits each) of some of these stages, at most `limit` characters long."""
    items: list[str] = []
    room = limit + 1
    for stage in stages:
        item = _short(digests[stage]) if stage in digests else ""
        room -= len(item) + 1
        if room < 0:
            break
        items.append(item)
    return ",".join(items).rstrip(",")


def decode(stages: Sequence[str], text: str) -> dict[str, str]:
    """The digests by stage. ValueError when the text is not one that `encode` makes for these stages."""
    items = text.split(",") if text else []
    if len(items) > len(stages):
        raise ValueError(f"{len(items)} digests for {len(stages)} stages")
    return {stage: _long(item) for stage, item in zip(stages, items, strict=False) if item}


def _short(digest: str) -> str:
    return urlsafe_b64encode(bytes.fromhex(digest)).decode().rstrip("=")


def _long(item: str) -> str:
    found = urlsafe_b64decode(item + "=" * (-len(item) % 4))
    if len(found) != 32 or _short(found.hex()) != item:
        raise ValueError(f"{item!r} is not a SHA-256 in base64url")
    return found.hex()
