"""What the operator was installed with: the environment, read in one place.

SODA_IMAGES     JSON {"jobs": "...", "train": "...", "vllm": "...", "sandbox-python": "...", …}
SODA_STORAGE    JSON of a `spec.storage` block that takes the place of a folder (optional)
SODA_NAMESPACE  the only namespace to look after; empty for all
SODA_DEADLINES  JSON {"start": seconds, "progress": seconds} (optional)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from soda_jobs.errors import InvalidInput
from soda_jobs.spec import LANGUAGES, Storage

IMAGES = ("jobs", "train", "vllm", *(f"sandbox-{language}" for language in LANGUAGES))


@dataclass(frozen=True)
class Config:
    """Settings of one installation."""

    images: Mapping[str, str] = field(default_factory=dict)
    storage: Storage | None = None
    namespace: str = ""
    pull_policy: str = "IfNotPresent"
    start_seconds: float = 3600.0
    progress_seconds: float = 4 * 3600.0
    retry_seconds: float = 20.0  # before the second attempt; doubles from there

    def image(self, name: str) -> str:
        return self.images.get(name) or f"soda-{name}"


def read(env: Mapping[str, str]) -> Config:
    """Raises InvalidInput for what cannot be used, naming the variable."""
    images = _json(env, "SODA_IMAGES")
    unknown = [name for name in images if name not in IMAGES]
    if unknown:
        raise InvalidInput(f"{unknown[0]!r} is not one of {', '.join(IMAGES)}", field="SODA_IMAGES")
    storage = _json(env, "SODA_STORAGE")
    deadlines = _json(env, "SODA_DEADLINES")
    return Config(
        images=images,
        storage=Storage.model_validate(storage, by_alias=True, by_name=False) if storage else None,
        namespace=env.get("SODA_NAMESPACE", ""),
        pull_policy=env.get("SODA_PULL_POLICY") or "IfNotPresent",
        start_seconds=float(deadlines.get("start") or 3600.0),
        progress_seconds=float(deadlines.get("progress") or 4 * 3600.0),
    )


def _json(env: Mapping[str, str], name: str) -> dict[str, str]:
    try:
        found = json.loads(env.get(name) or "{}")
    except ValueError as error:
        raise InvalidInput(f"{env[name]!r} is not JSON", field=name) from error
    if not isinstance(found, dict):
        raise InvalidInput(f"{env[name]!r} is not a JSON object", field=name)
    return found
