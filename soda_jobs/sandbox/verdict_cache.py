"""Verdicts that need not be found again: the same program, in the same sandbox, does the same.

The key is the SHA-256 of everything that makes a verdict: the program but for its id, and the identity of the
sandbox (its code, toolchain and walls). What may change from run to run is never kept: a fault of ours, a missing
toolchain, an expiry, two runs that disagree.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Final

from soda_jobs.errors import InvalidInput
from soda_jobs.log import event
from soda_jobs.sandbox.types import Program, Verdict, to_dict, verdict_from_dict

NEVER: Final = frozenset({"sandbox_error", "environment", "timeout", "flaky"})
MAX_BYTES: Final = 1 << 30
_MAX_ROW: Final = 1 << 20
_HALVE: Final = "DELETE FROM verdicts WHERE rowid <= (SELECT (min(rowid) + max(rowid)) / 2 FROM verdicts)"
_TABLE: Final = "CREATE TABLE IF NOT EXISTS verdicts (key BLOB PRIMARY KEY, row TEXT NOT NULL)"


def default_folder() -> Path:
    """`verdicts` in `SODA_SANDBOX_CACHE`, else in the user's cache folder."""
    named = os.environ.get("SODA_SANDBOX_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(named) if named else home / "soda" / "sandbox") / "verdicts"


def key(program: Program, identity: str) -> bytes:
    row = {**to_dict(program), "id": "", "identity": identity}
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()


class VerdictCache:
    """A folder of verdicts that any number of processes share; one that cannot be used is said once and left."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "verdicts.db"
        self._database: sqlite3.Connection | None = None
        self.hits = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = self._open()
        except sqlite3.DatabaseError as error:
            self._database = self._start_over(error)
        except OSError as error:
            self._give_up(error)

    def get(self, name: bytes, program: Program) -> Verdict | None:
        """The verdict on `program` that was kept under the key `name`."""
        found: tuple[str] | None = None
        if self._database is not None:
            try:
                found = self._database.execute("SELECT row FROM verdicts WHERE key = ?", (name,)).fetchone()
            except sqlite3.Error as error:
                self._give_up(error)
        if found is None:
            return None
        try:
            verdict = verdict_from_dict({**json.loads(found[0]), "id": program.id})
        except (ValueError, TypeError, InvalidInput):
            return None  # of another version of this package
        self.hits += 1
        return verdict

    def put(self, name: bytes, verdict: Verdict) -> None:
        if self._database is None or not is_kept(verdict):
            return
        row = json.dumps(to_dict(dataclasses.replace(verdict, id="")))
        if len(row) > _MAX_ROW:
            return
        try:
            self._database.execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?)", (name, row))
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.close()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=10, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(_TABLE)
            if self._path.stat().st_size > MAX_BYTES:  # the older half makes room
                database.execute(_HALVE)
                database.execute("VACUUM")
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _start_over(self, error: sqlite3.DatabaseError) -> sqlite3.Connection | None:
        """A file that is no database any more, as after a power cut, is worth nothing: begin a new one."""
        if isinstance(error, sqlite3.OperationalError):  # locked, read-only, no room: not ours to delete
            self._give_up(error)
            return None
        event("verdict_cache_lost", file=str(self._path), reason=str(error))
        try:
            for path in self._path.parent.glob(f"{self._path.name}*"):
                path.unlink()
            return self._open()
        except (OSError, sqlite3.Error) as again:
            self._give_up(again)
            return None

    def _give_up(self, error: Exception) -> None:
        event("verdict_cache_unused", file=str(self._path), reason=str(error))
        self.close()


def is_kept(verdict: Verdict) -> bool:
    return verdict.verdict not in NEVER
