"""What makes a verdict besides the program: code of the sandbox, toolchain, walls, kind of machine."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

_SKIPPED: Final = ("__pycache__", ".pyc")


@cache
def code_digest() -> str:
    """SHA-256 of every file of this package."""
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not any(part in name for part in _SKIPPED):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()


def identities(versions: Mapping[str, str | None], walls: Mapping[str, Any], is_gvisor: bool) -> dict[str, str]:
    """For each language that is here, a word that changes when its verdicts might."""
    found = {}
    for language, version in versions.items():
        if version is not None:
            machine = [platform.machine(), bool(walls.get("namespaces")), bool(walls.get("launcher")), is_gvisor]
            parts = json.dumps([code_digest(), language, version, *machine])
            found[language] = hashlib.sha256(parts.encode()).hexdigest()[:32]
    return found
