"""`soda run FILE`: the whole loop on this machine; the same command again resumes it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from argparse import Namespace
from pathlib import Path

from soda_jobs.errors import ExitCode, Retry, is_retryable
from soda_jobs.local.display import Display
from soda_jobs.local.executor import Executor, StageFailed, StageRow
from soda_jobs.local.pinned import DOCUMENT as PINNED_DOCUMENT
from soda_jobs.local.pinned import pinned_in
from soda_jobs.local.publish import publish
from soda_jobs.local.session import Session, check_machine, locked, open_file, save_status
from soda_jobs.log import event

STATUS_SECONDS = 1.0


def run(arguments: Namespace) -> int:
    session = open_file(Path(arguments.file), arguments.store)
    check_machine(session)
    with locked(session):
        pinned = json.dumps(pinned_in(session.graph)).encode()
        session.artifacts.put_document(session.name, PINNED_DOCUMENT, pinned)
        session.artifacts.put_document(session.name, "run.yaml", session.yaml.encode())
        executor = Executor(
            session.run, session.graph, artifacts=session.artifacts, env=session.env(), logs=session.logs
        )
        rows = list(executor.rows.values())
        try:
            asyncio.run(_execute(session, executor, rows))
        except StageFailed as failure:
            _save_last(session, rows, state="Failed", message=str(failure))
            print(f"soda: {failure}", file=sys.stderr)
            return int(ExitCode.RETRY) if is_retryable(failure.code) else failure.code
        except (KeyboardInterrupt, asyncio.CancelledError):
            _save_last(session, rows, state="Stopped")
            raise KeyboardInterrupt from None
        save_status(session, rows, state="Succeeded")
        print(publish(session, rows))
    return 0


def _save_last(session: Session, rows: list[StageRow], *, state: str, message: str = "") -> None:
    """Where a run that ends early stands. A store that is away or full must not hide why it ended."""
    try:
        save_status(session, rows, state=state, message=message)
    except Retry as error:
        event("status_not_saved", message=str(error))


async def _execute(session: Session, executor: Executor, rows: list[StageRow]) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    saved = 0.0
    with Display(session.name, session.run.spec.rounds, rows) as display:

        def on_change(row: StageRow) -> None:
            nonlocal saved
            display.update(row)
            if row.state != "running" or time.monotonic() - saved > STATUS_SECONDS:
                saved = time.monotonic()
                save_status(session, rows, state="Running")

        await executor.execute(on_change)
