"""A run on this machine: its spec, its graph, its store, and the folder for caches and logs.

<state>/lock-<run>        held while `soda run` works on the run
<state>/logs/<run>/*.log  the events of each stage and server
<state>/runs/<run>/       a copy of report.html and report.json to open
<store>/runs/<run>/       run.yaml, status.json, report.html, report.json
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from soda_jobs.artifacts import Artifacts
from soda_jobs.errors import InvalidInput
from soda_jobs.graph import Graph
from soda_jobs.load import load
from soda_jobs.local.executor import StageRow
from soda_jobs.local.pinned import pin_sources
from soda_jobs.methods import draw
from soda_jobs.sandbox.languages import LANGUAGES
from soda_jobs.sandbox.tools import find
from soda_jobs.settings import StoreSettings, open_artifacts, state_folder
from soda_jobs.spec import DistillationRun

DEFAULT_STORE: Final = ".soda/store"


@dataclass(frozen=True)
class Session:
    """One run, opened."""

    run: DistillationRun
    graph: Graph
    yaml: str
    store: StoreSettings
    artifacts: Artifacts
    state: Path

    @property
    def name(self) -> str:
        return self.run.metadata.name

    @property
    def logs(self) -> Path:
        return self.state / "logs" / self.name

    def env(self) -> dict[str, str]:
        """What every process of the run is given besides its own command's environment."""
        return {
            "SODA_STORE": self.store.to_env(),
            "SODA_STATE": str(self.state),
            **_api_keys(self.run),
        }


def open_file(path: Path, store: str | None) -> Session:
    """The session of a run's file; every mistake in it is an InvalidInput."""
    text = read_text(path)
    return _session(load(text), text, store)


def check_machine(session: Session) -> None:
    """Refuse what one machine cannot do, before anything is started."""
    devices = session.run.spec.training.devices
    if devices > 1:
        raise InvalidInput(
            f"{devices} training processes need a cluster; here use nodes 1, gpusPerNode 1 or 0",
            field="spec.training.gpusPerNode",
        )
    for language in session.run.spec.execution.languages:
        missing = [tool for tool in LANGUAGES[language].tools if find(tool) is None]
        if missing:
            raise InvalidInput(
                f"{language} needs {', '.join(missing)}, which is not installed here; install it, or leave "
                f"{language} out",
                field="spec.execution.languages",
            )


def open_target(target: str, store: str | None) -> Session:
    """The session of a file, or of a run by its name in the store."""
    if Path(target).is_file():
        return open_file(Path(target), store)
    artifacts = open_artifacts(_store(store or DEFAULT_STORE, None), state_folder())
    saved = artifacts.get_document(target, "run.yaml")
    if saved is None:
        known = ", ".join(sorted({name.split("/")[0] for name in artifacts.list_documents("")})) or "none"
        raise InvalidInput(
            f"{target!r} is neither a file nor a run in {store or DEFAULT_STORE}; runs there: {known}"
        )
    return _session(load(saved.decode()), saved.decode(), store or DEFAULT_STORE)


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"cannot be read ({error.strerror})", field=str(path)) from error
    except UnicodeDecodeError as error:
        raise InvalidInput("is not UTF-8 text", field=str(path)) from error


def _session(run: DistillationRun, text: str, store: str | None) -> Session:
    state = state_folder()
    settings = _store(store or run.spec.storage.url, None if store else run)
    return Session(
        run, pin_sources(draw(run)), text, settings, open_artifacts(settings, state, create=True), state
    )


def _store(url: str, run: DistillationRun | None) -> StoreSettings:
    absolute = url if "://" in url else str(Path(url).absolute())
    if run is None:
        return StoreSettings(absolute)
    storage = run.spec.storage
    return StoreSettings(absolute, storage.endpoint, storage.region, storage.path_style)


def _api_keys(run: DistillationRun) -> dict[str, str]:
    """A laptop has no secrets: the variable named like a secret's key holds the endpoint's API key."""
    keys = {}
    for role in ("teacher", "judge"):
        block = getattr(run.spec, role)
        if block.endpoint is None or block.secret_ref is None:
            continue
        value = os.environ.get(block.secret_ref.key)
        if value is None:
            raise InvalidInput(
                f"the environment variable {block.secret_ref.key} is not set; it is the key of {block.endpoint}",
                field=f"spec.{role}.secretRef.key",
            )
        keys[f"SODA_{role.upper()}_API_KEY"] = value
    return keys


@contextmanager
def locked(session: Session) -> Iterator[None]:
    """One `soda run` per run and state folder; a second one is told, not queued."""
    session.state.mkdir(parents=True, exist_ok=True)
    with (session.state / f"lock-{session.name}").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidInput(
                f"the run {session.name} is already being worked on here; `soda status` shows it"
            ) from error
        yield


def is_locked(session: Session) -> bool:
    """Whether a `soda run` works on the run now, with this state folder."""
    try:
        with locked(session):
            return False
    except InvalidInput:
        return True


def save_status(session: Session, rows: list[StageRow], *, state: str, message: str = "") -> None:
    """Write the run's status document, which `soda status` and the report read."""
    document = {
        "run": session.name,
        "method": session.run.spec.method,
        "state": state,
        "message": message,
        "updated": datetime.now(UTC).isoformat(timespec="seconds"),
        "stages": [asdict(row) for row in rows],
    }
    session.artifacts.put_document(session.name, "status.json", json.dumps(document, ensure_ascii=False).encode())


def read_status(session: Session) -> dict[str, Any]:
    saved = session.artifacts.get_document(session.name, "status.json")
    if saved is None:
        raise InvalidInput(f"the run {session.name} has not been started on {session.store.url}")
    status: dict[str, Any] = json.loads(saved)
    return status
