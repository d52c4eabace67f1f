"""Where a process keeps its files and which store it talks to: the environment, read in one place.

SODA_STORE  JSON {"url", "endpoint"?, "region"?, "path_style"?, "ca_file"?}
SODA_STATE  a folder for caches, work in progress and logs (default .soda)
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from soda_jobs.artifacts import Artifacts
from soda_jobs.errors import InvalidInput
from soda_jobs.store import open_store


@dataclass(frozen=True)
class StoreSettings:
    """What `open_store` needs. Credentials are not here: they come by the AWS environment or a mounted secret."""

    url: str
    endpoint: str | None = None
    region: str | None = None
    path_style: bool | None = None
    ca_file: str | None = None

    def to_env(self) -> str:
        return json.dumps({key: value for key, value in asdict(self).items() if value is not None})


def store_from_env() -> StoreSettings:
    text = os.environ.get("SODA_STORE")
    if text is None:
        raise InvalidInput("the environment variable SODA_STORE is not set; it names the artifact store")
    return StoreSettings(**json.loads(text))


def state_folder() -> Path:
    return Path(os.environ.get("SODA_STATE", ".soda")).absolute()


def open_artifacts(store: StoreSettings, state: Path, *, create: bool = False) -> Artifacts:
    """The artifacts of a store. Only a run may `create` one: a stage that finds none has lost its disk."""
    opened = open_store(
        store.url,
        endpoint=store.endpoint,
        region=store.region,
        path_style=store.path_style,
        ca_file=store.ca_file,
        create=create,
    )
    return Artifacts(opened, state / "cache")
